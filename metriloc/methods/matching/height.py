"""Metres from the height of the camera above the ground, where the ground is seen: robots, tripods, hands.

The matches are triangulated in the unit of the pose. The depths of a photo, brought to that unit, add the ground where
there is nothing to match: of them only the shape counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose, sample_depth
from metriloc.methods.matching.pair import CameraHeight, Fit, MatchedPair
from metriloc.solvers.ground import Ground, find_ground
from metriloc.solvers.scales import ScaleSource, fuse_scales
from metriloc.solvers.two_view import parallax_angles, triangulated_depth
from metriloc.types import View

NO_GROUND = "no ground is seen below the camera, so that its height says nothing of the metres"
HANDHELD = 1.3
"""Metres above the ground at which people hold cameras."""
HABIT = "habit"
"""What kind of source the usual height is: it makes no interval narrower."""
NO_OTHER = "the usual height of a camera tells no metres by itself: say the height, or give depths (a depth source)"
_HANDHELD_SIGMA = 0.22  # of the logarithm of that
_FAR_OFF = 2.0  # standard deviations from all else, beyond which what is seen is a table, or its camera in no hand
_DOWN = (0.0, 1.0, 0.0)
_GRID = (40, 20)  # places across and down the lower half of a photo at which its depths are asked
_LEAST_PARALLAX = math.radians(0.5)  # of matches whose depth is worth something
_LEAST = 10
_SIGMA = 0.05  # how well people know a height, and how even grounds are
_SHAPE = 0.1  # by how much a depth map bends the ground
_AGREE = math.log(1.25)  # heights above the ground of one camera at two places


def height_source(pair: MatchedPair, fit: Fit, height: CameraHeight, seed: int) -> ScaleSource | None:
    """What a camera height says of the length of ``fit.pose``, None where no ground is seen.

    height: of the reference and the query above the ground. Where both photos see a ground, at heights that differ by
    more than a quarter, one of them is none, and nobody knows which.
    """
    pose = fit.pose
    if pose is None or float(pose.distance()) == 0:
        return None
    generator, i = torch.Generator().manual_seed(seed), fit.inliers
    uv0, uv1, pose = pair.uv0[i].double(), pair.uv1[i].double(), pose.to(torch.float64)
    seen = (
        _ground(pose, (uv0, uv1), pair.view0, pair.view1, generator),
        _ground(pose.inverse(), (uv1, uv0), pair.view1, pair.view0, generator),
    )
    found = [ground for ground in seen if ground is not None]
    if not found:
        return None
    logs = [math.log(ground.height) for ground in found]
    if max(logs) - min(logs) > _AGREE:
        return None
    weights = [1 / (ground.sigma**2 + _SHAPE**2) for ground in found]
    seen_height = sum(w * log for w, log in zip(weights, logs, strict=True)) / sum(weights)
    metres, known = (HANDHELD, _HANDHELD_SIGMA) if height == "handheld" else (height, _SIGMA)
    sigma = math.hypot(known, 1 / math.sqrt(sum(weights)), max(logs) - min(logs))
    name, kin = (
        (f"usual height of {metres:g} m", HABIT) if height == "handheld" else (f"camera height of {metres:g} m", "")
    )
    return ScaleSource(name, math.log(float(pose.distance()) * metres) - seen_height, sigma, kin)


def words_on(height: ScaleSource | None, stated: CameraHeight, others: Sequence[ScaleSource]) -> tuple[str, ...]:
    """Why a camera height is not used; empty where it is.

    What looks like ground may be a table, and not all cameras are in a hand: where the usual height lies far off what
    the other sources say, it gives way, because it is a mere habit; and by itself it tells nothing.
    """
    if height is None:
        return (NO_GROUND,)
    if stated != "handheld":
        return ()
    if not others:
        return (NO_OTHER,)
    found = fuse_scales(others)
    off = height.log_length - found.log_length
    if abs(off) <= _FAR_OFF * math.hypot(height.sigma, found.sigma):
        return ()
    return (f"what looks like ground lies {HANDHELD * math.exp(-off):.2g} m below the cameras: it is not used",)


def _ground(
    other_from_own: Pose, uvs: tuple[Tensor, Tensor], view: View, other: View, generator: torch.Generator
) -> Ground | None:
    """The ground seen from the camera of ``view``, in units of the pose. uvs: of the matches, of ``view`` first."""
    xyz = _triangulated(other_from_own, uvs, view, other)
    dense = _dense(view, uvs[0], xyz[:, 2])
    points = xyz if dense is None else torch.cat([xyz, dense])
    return find_ground(points, torch.tensor(_DOWN), generator)


def _triangulated(pose: Pose, uvs: tuple[Tensor, Tensor], view: View, other: View) -> Float[Tensor, "N 3"]:
    """Points of the matches in the frame of ``view``; NaN where they are too far away to be placed."""
    cameras = view.camera.to(torch.float64), other.camera.to(torch.float64)
    rays = [camera.unproject(uv)[0] for camera, uv in zip(cameras, uvs, strict=True)]
    depth = triangulated_depth(pose, rays[0], rays[1])
    near = (parallax_angles(pose, *uvs, cameras) >= _LEAST_PARALLAX) & (depth > 0)
    return rays[0] * torch.where(near, depth, torch.nan)[:, None]


def _dense(view: View, uv: Float[Tensor, "N 2"], z: Float[Tensor, " N"]) -> Float[Tensor, "M 3"] | None:
    """The depths of the lower half of a photo, scaled to those of its matches there (else anywhere)."""
    if view.depth is None:
        return None
    width, height = view.size
    known = sample_depth(view.depth, uv.float(), view.size)[0].double()
    usable = torch.isfinite(z) & (known > 0)
    lower = usable & (uv[:, 1] > height / 2)
    usable = lower if int(lower.sum()) >= _LEAST else usable
    if int(usable.sum()) < _LEAST:
        return None
    scale = (z[usable] / known[usable]).median()
    u = torch.linspace(0, width - 1, _GRID[0])
    v = torch.linspace(height / 2, height - 1, _GRID[1])
    grid = torch.stack(torch.meshgrid(u, v, indexing="xy"), -1).reshape(-1, 2)
    depth = sample_depth(view.depth, grid, view.size)[0].double()
    seen = depth > 0
    return view.camera.to(torch.float64).lift(grid[seen].double(), scale * depth[seen])
