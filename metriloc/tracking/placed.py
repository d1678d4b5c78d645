"""The frames of a stream that have a place in a map, and the device's motions between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.solvers.motion import DeviceDrift, MotionEdges

_FREE = 1e3  # metres: says nothing of a way


@dataclass(frozen=True, eq=False)
class Placed:
    """A frame of the window, with what was measured and what the graph makes of it; ``cam_from_world``."""

    index: int
    measured: Pose
    covariance: Tensor
    device_pose: Pose | None
    world: int
    pose: Pose


def motion_edges(
    placed: Sequence[Placed], pairs: Sequence[tuple[int, int]], drift: DeviceDrift, scale: float, scale_sigma: float
) -> MotionEdges:
    """Motions of the device between pairs of frames, in units of the map; turns alone while its unit is not known.

    scale, scale_sigma: units a metre, and how far that may be off, relatively.
    """
    if not pairs:
        none = torch.zeros(0, dtype=torch.long)
        return MotionEdges(none, none, Pose.identity((0,), torch.float64), torch.zeros(0, 6, dtype=torch.float64))
    i, j = torch.tensor(pairs).unbind(-1)
    motions = [_motion(placed[a], placed[b]) for a, b in pairs]
    motion = Pose.stack(motions)
    sigma = drift.sigmas(motion.distance())
    unsure = scale_sigma * motion.distance() if math.isfinite(scale_sigma) else torch.full_like(motion.t[:, 0], _FREE)
    sigma = torch.cat([scale * torch.hypot(sigma[:, :3], unsure[:, None]), sigma[:, 3:]], -1)
    return MotionEdges(i, j, Pose(motion.R, scale * motion.t), sigma)


def _motion(a: Placed, b: Placed) -> Pose:
    if a.device_pose is None or b.device_pose is None:
        raise ValueError("a motion needs two device poses")
    return b.device_pose @ a.device_pose.inverse()
