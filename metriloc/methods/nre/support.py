"""What speaks for NRE's pose: numbers of whole maps and of windows that only grow with true support.

The whole (coarse) maps know nothing of the pose, so it counts how many of them have their best cell where the pose puts
the point. Windows were laid around the pose; the share of them with the best cell in their middle is far above chance
only for a right one, and how well these cells fix the position tells how exact it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.methods.nre.maps import GainMaps
from metriloc.solvers.absolute_support import (
    PointMatches,
    ScoreMaps,
    absolute_support,
    has_other_pose,
    pose_covariance,
    position_precision,
    some_in_view,
)

NEAR = 1.5
"""Cells within which a best cell agrees with a projection."""
_TIMES = 1.2  # standard deviations are larger than independent residuals let expect; measured
_NEARLY = math.log(12)  # by how much less probable another cell may be and still explain a point nearly as well


@dataclass(frozen=True, eq=False)
class Look:
    """The maps of one stage and the points they are of.

    Of the world, and pixels of the photos (reference, by number) that describe them. camera: whose
    pixels are the cells.
    """

    maps: GainMaps
    xyz: Float[Tensor, "N 3"]
    camera: Camera
    reference_uv: Float[Tensor, "N 2"]
    reference: Int[Tensor, " N"]

    def best_cells(self) -> PointMatches:
        """Each point with the most probable cell of its map."""
        return PointMatches(self.xyz, self.maps.peak_uv.double().cpu(), self.reference_uv, self.reference)

    def agrees(self, pose: Pose) -> Bool[Tensor, " N"]:
        """Where the best cell is near the projection."""
        uv, seen = self.camera.to(torch.float64).project(pose.transform(self.xyz.double()))
        return seen & ((uv - self.maps.peak_uv.double().cpu()).norm(dim=-1) <= NEAR)

    def mutual(self) -> Bool[Tensor, " N"]:
        """Which points are the most probable of all points in their best cell."""
        w = self.maps.size[0]
        cell = self.maps.peak_uv[:, 1] * w + self.maps.peak_uv[:, 0]
        owner = self.maps.log_ratio.flatten(1).argmax(0)
        return (owner[cell] == torch.arange(len(self.maps), device=cell.device)).cpu()


def nre_support(pose: Pose, coarse: Look, fine: Look | None) -> dict[str, float]:
    """Support of ``pose`` by the coarse maps' mutual best cells, and by the fine windows (coarse maps without)."""
    informative = coarse.maps.informative().cpu()
    chosen = (coarse.mutual() & informative).nonzero().squeeze(-1)
    agrees = coarse.agrees(pose)
    found = absolute_support(pose, coarse.best_cells()[chosen], agrees[chosen], coarse.camera, cell=1.0)
    best, near = _closest(pose, coarse, fine)
    close = coarse if fine is None else fine
    found["precision"] = position_precision(pose, best.xyz, best.uv, close.camera, cell=1.0)
    found["fine_inliers"], found["fine_ratio"] = float(near.sum()), float(near.double().mean())
    return found


def nre_covariance(pose: Pose, coarse: Look, fine: Look | None) -> Float[Tensor, "6 6"] | None:
    """``pose_covariance`` by the best cells of the windows (coarse maps without) that agree with the pose."""
    best, _ = _closest(pose, coarse, fine)
    return pose_covariance(pose, best.xyz, best.uv, (coarse if fine is None else fine).camera, 1.0, _TIMES)


def _closest(pose: Pose, coarse: Look, fine: Look | None) -> tuple[PointMatches, Bool[Tensor, " N"]]:
    """Best cells near their projections at the closest look, and which these are."""
    close = coarse if fine is None else fine
    near = close.agrees(pose)
    return close.best_cells()[near], near


def nre_has_rival(pose: Pose, coarse: Look, seed: int) -> bool:
    """Whether another pose explains what the coarse maps show nearly as well."""
    index = some_in_view(pose, coarse.xyz, coarse.camera)
    index = index[coarse.maps.informative().cpu()[index]]
    maps = ScoreMaps(coarse.maps.log_ratio[index.to(coarse.maps.log_ratio.device)], coarse.xyz[index], coarse.camera)
    return has_other_pose(pose, maps, _NEARLY, seed)
