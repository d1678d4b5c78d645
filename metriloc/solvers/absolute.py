"""Absolute pose from given 2D-3D matches, on poselib: P3P in LO-RANSAC, deterministic by seed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.solvers.pinhole import collinear, pinhole_points

_NEEDED = 4  # three leave up to four poses


@dataclass(frozen=True, eq=False)
class AbsoluteFit:
    """pose: ``cam_from_world``, float64, None on failure. inliers: over the matches given. reason: None on success."""

    pose: Pose | None
    inliers: Bool[Tensor, " N"]
    reason: Literal["too_few_matches", "degenerate", "non_finite"] | None = None


def absolute_pose(
    uv: Float[Tensor, "N 2"],
    xyz: Float[Tensor, "N 3"],
    camera: Camera,
    max_error_px: float = 3.0,
    seed: int = 0,
    max_iterations: int | None = None,
) -> AbsoluteFit:
    """``cam_from_world`` from pixels and points of the world.

    Matches that are not finite are left out. Fails with ``too_few_matches`` below four usable
    matches (``non_finite`` when pixels are the reason), and with ``degenerate`` when no pose
    explains four of them or the ones it explains lie on a line. Raises ValueError for shapes that
    differ.
    """
    import poselib

    if uv.ndim != 2 or uv.shape[1] != 2 or xyz.shape != (len(uv), 3):
        raise ValueError(f"need pixels [N, 2] and points [N, 3], got {list(uv.shape)} and {list(xyz.shape)}")
    nothing = torch.zeros(len(uv), dtype=torch.bool, device=uv.device)
    points, usable, pinhole = pinhole_points(uv, camera)
    world = xyz.detach().double().cpu().numpy()
    usable = usable & np.isfinite(world).all(-1)
    if usable.sum() < _NEEDED:
        finite = int(torch.isfinite(uv).all(-1).sum())
        return AbsoluteFit(None, nothing, "non_finite" if finite < _NEEDED <= len(uv) else "too_few_matches")
    options: dict[str, float] = {"max_reproj_error": max_error_px, "seed": seed}
    if max_iterations is not None:
        options["max_iterations"] = max_iterations
    found, info = poselib.estimate_absolute_pose(points[usable], world[usable], pinhole, options)
    inliers = torch.zeros(len(uv), dtype=torch.bool)
    inliers[torch.from_numpy(usable)] = torch.tensor(info["inliers"], dtype=torch.bool)
    pose = Pose(torch.from_numpy(np.array(found.R)), torch.from_numpy(np.array(found.t)).reshape(3))
    if int(inliers.sum()) < _NEEDED or not bool(pose.is_finite()) or collinear(world[inliers.numpy()]):
        return AbsoluteFit(None, nothing, "degenerate")
    return AbsoluteFit(pose, inliers.to(uv.device))
