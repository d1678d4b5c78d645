"""What a known pose costs on the maps of a query, beside what the pose that was found costs."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.methods.nre.evidence import score_poses
from metriloc.methods.nre.initialize import usable_points
from metriloc.methods.nre.maps import GainMaps
from metriloc.methods.nre.refine import evaluate


def sampled_cost(maps: GainMaps, xyz: Float[Tensor, "N 3"], camera: Camera, pose: Pose) -> float:
    """Eq. (6) at a pose, over the points that ``initialize`` scores its poses with; lower is better."""
    camera, pose = camera.to(torch.float64), pose.to("cpu", torch.float64)
    use, _ = usable_points(maps, xyz, camera)
    return float(score_poses(maps[use], xyz[use].to(torch.float64), camera, pose))


def smoothed_cost(maps: GainMaps, xyz: Float[Tensor, "N 3"], camera: Camera, pose: Pose, sigma: float) -> float:
    """Eq. (9) at a pose and a deviation in cells, over the points that ``refine`` uses; negative, lower is better."""
    use = torch.isfinite(xyz).all(-1) & maps.informative()
    pose, camera = pose.to("cpu", torch.float64), camera.to(torch.float64)
    return float(evaluate(maps[use], xyz[use].to(torch.float64), camera, pose[None], sigma)[0])
