"""Photos that lie on their side without saying so: methods that compare features find them when they are turned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.io import turn_view
from metriloc.io.changed_views import quarter_turn
from metriloc.types import Correspondences, LocalizationDetails, PairDetails, PoseEstimate, View, WinningHypothesis

TURNED = 0.5
"""Least confidence of an answer for a turned photo: three more tries must not make three times as many wrong answers."""
_Answer = TypeVar("_Answer")


def by_quarter_turns(
    view: View, attempt: Callable[[View, Pose], _Answer], estimate_of: Callable[[_Answer], PoseEstimate]
) -> tuple[_Answer, int]:
    """The answer for a photo as it is or turned by quarters. Where the photo as it is fails, it is the surest answer of its
    turns.

    attempt: takes the turned photo and ``turned_from_view``. Returns the answer and the quarter turns against the clock
    that it is for, 0 where all fail or are not sure enough (``TURNED``).
    """
    first = attempt(view, quarter_turn(0))
    if bool(estimate_of(first).success):
        return first, 0
    best, turns = first, 0
    for quarters in (1, 3, 2):
        turned, turned_from_view = turn_view(view, quarters)
        answer = attempt(turned, turned_from_view)
        found = estimate_of(answer)
        if holds(found) and float(found.confidence) > float(estimate_of(best).confidence):
            best, turns = answer, quarters
    return best, turns


def holds(estimate: PoseEstimate) -> bool:
    """Whether an answer for a turned photo is sure enough. Only then is it told."""
    return bool(estimate.success) and float(estimate.confidence) >= TURNED


def turned_back(estimate: PoseEstimate, quarters: int, size: tuple[int, int]) -> PoseEstimate:
    """An estimate for a turned photo as one for the photo itself. The photo (of ``size``) was turned by quarters, and the
    estimate says so.

    Its trace is gone: maps and courses are of the turned photo alone.
    """
    if quarters == 0:
        return estimate
    back = _Back(quarters, size)
    spread = estimate.covariance
    if spread is not None:
        R = quarter_turn(-quarters).R.to(spread)
        axes = torch.block_diag(R, R)
        spread = axes @ spread @ axes.mT
    return replace(
        estimate,
        pose=back.pose(estimate.pose),
        details=tuple(map(back.pair, estimate.details)),
        localization=tuple(map(back.localization, estimate.localization)),
        covariance=spread,
        trace=None,
    )


@dataclass(frozen=True)
class _Back:
    """From a photo of ``size`` that was turned by quarters to the photo itself: what is in an estimate."""

    quarters: int
    size: tuple[int, int]

    @property
    def said(self) -> str:
        return f"nothing was found before the photo was turned by {90 * self.quarters} degrees against the clock"

    def pose(self, pose: Pose) -> Pose:
        return quarter_turn(-self.quarters).to(pose.dtype) @ pose

    def matched(self, found: Correspondences) -> Correspondences:
        return replace(found, uv1=pixels_turned_back(found.uv1, self.quarters, self.size))

    def tried(self, found: WinningHypothesis) -> WinningHypothesis:
        return replace(found, query_from_reference=self.pose(found.query_from_reference))

    def pair(self, found: PairDetails) -> PairDetails:
        return replace(
            found,
            inliers=self.matched(found.inliers),
            matches=None if found.matches is None else self.matched(found.matches),
            hypothesis=None if found.hypothesis is None else self.tried(found.hypothesis),
            messages=(*found.messages, self.said),
        )

    def localization(self, found: LocalizationDetails) -> LocalizationDetails:
        stages = tuple(replace(stage, cam_from_world=self.pose(stage.cam_from_world)) for stage in found.stages)
        return replace(found, stages=stages, messages=(*found.messages, self.said))


def pixels_turned_back(uv: Float[Tensor, "n 2"], quarters: int, size: tuple[int, int]) -> Float[Tensor, "n 2"]:
    """Pixels of a turned photo as pixels of the photo. It was turned by quarters against the clock, and its size is
    (width, height)."""
    width, height = size
    u, v = uv.unbind(-1)
    back = ((u, v), (width - 1 - v, u), (width - 1 - u, height - 1 - v), (v, height - 1 - u))[quarters % 4]
    return torch.stack(back, -1)
