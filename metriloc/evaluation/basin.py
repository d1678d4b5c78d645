"""From how far a localizer finds home: starts around a true pose, by how far they move the points in the photo."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.datasets.pixloc_starts import Start, draw_start
from metriloc.geometry import Camera, Pose
from metriloc.types import AbsolutePoseMethod, SfmMap, View

HOME_PX = 3.0
"""Median error of the points in the photo, pixels, below which a result is the true pose."""


@dataclass(frozen=True)
class BasinTry:
    """One start. wanted: median error in the photo that it was to have, pixels; start, end: that it had, and has after;
    infinite where there is no pose."""

    wanted: float
    start: float
    end: float

    def home(self, within: float = HOME_PX) -> bool:
        """Whether it ended at the truth."""
        return self.end < within


def basin(
    method: AbsolutePoseMethod,
    query: View,
    scene: SfmMap,
    references: Sequence[str],
    truth: Pose,
    wanted: Sequence[float],
    tries: int,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[BasinTry]:
    """Start ``method`` from random poses around ``truth`` (``cam_from_world``), ``tries`` at each error of ``wanted``.

    - references: images of the map to align with; errors are those of the points that they observe.
    - progress: hears how many starts are through, and how many there are.

    Raises ValueError for references that see no point in front of the true camera.
    """
    truth = truth.to(torch.float64)
    seen = torch.cat([scene.point_index[scene.observations_of(scene.index(name))] for name in references]).unique()
    xyz = truth.transform(scene.xyz[seen])  # in the true camera, where the truth is the identity
    camera, here = query.camera.to(torch.float64), Pose.identity((), torch.float64)
    if not bool(camera.project(xyz)[1].any()):
        raise ValueError("the references see no point of the map that the true camera sees")
    generator, found = torch.Generator().manual_seed(seed), []
    for error in wanted:
        how = Start("error", error=(error, error), disturbed=1.0, rotation_deg=_reach_deg(error, camera), steps=400)
        for _ in range(tries):
            start = draw_start(how, here, xyz, camera, generator)
            estimate = method.localize(query, scene, references, start @ truth, seed=seed)
            end = math.inf
            if bool(estimate.success):
                end = _error(estimate.pose.to(torch.float64) @ truth.inverse(), xyz, camera)
            found.append(BasinTry(error, _error(start, xyz, camera), end))
            if progress is not None:
                progress(len(found), len(wanted) * tries)
    return found


def _reach_deg(error: float, camera: Camera) -> float:
    """A turn that moves points by four times as much: most paths from there come through the error that is wanted."""
    return min(120.0, math.degrees(4 * error / float(camera.f.mean())))


def _error(pose: Pose, xyz: Float[Tensor, "N 3"], camera: Camera) -> float:
    """Median distance in the photo from the true places of the points that both see; infinite where there are none."""
    uv_true, seen = camera.project(xyz)
    uv, visible = camera.project(pose.transform(xyz))
    both = seen & visible
    return float((uv - uv_true)[both].norm(dim=-1).median()) if bool(both.any()) else math.inf
