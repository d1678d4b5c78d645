"""Photos that lie on their side without saying so: methods that compare features find them when they are turned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.io import turn_view
from metriloc.io.view import quarter_turn
from metriloc.types import Correspondences, PoseEstimate, View, WinningHypothesis

TURNED = 0.5
"""Least confidence of an answer for a turned photo: three more tries must not make three times as many wrong answers."""
_Answer = TypeVar("_Answer")


def by_quarter_turns(
    view: View, attempt: Callable[[View, Pose], _Answer], estimate_of: Callable[[_Answer], PoseEstimate]
) -> tuple[_Answer, int]:
    """The answer for a photo as it is or, where that is a failure, the surest one for the photo turned by quarters.

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
    """Whether an answer for a turned photo is sure enough to be told."""
    return bool(estimate.success) and float(estimate.confidence) >= TURNED


def turned_back(estimate: PoseEstimate, quarters: int, size: tuple[int, int]) -> PoseEstimate:
    """An estimate for a photo turned by quarters, as one for the photo itself (of ``size``), which says so.

    Its trace is gone: maps and courses are of the turned photo alone.
    """
    if quarters == 0:
        return estimate
    back = quarter_turn(-quarters)
    said = f"nothing was found before the photo was turned by {90 * quarters} degrees against the clock"

    def of_view(pose: Pose) -> Pose:
        return back.to(pose.dtype) @ pose

    def matched(found: Correspondences) -> Correspondences:
        return replace(found, uv1=pixels_turned_back(found.uv1, quarters, size))

    def tried(found: WinningHypothesis) -> WinningHypothesis:
        return replace(found, query_from_reference=of_view(found.query_from_reference))

    details = tuple(
        replace(
            d,
            inliers=matched(d.inliers),
            matches=None if d.matches is None else matched(d.matches),
            hypothesis=None if d.hypothesis is None else tried(d.hypothesis),
            messages=(*d.messages, said),
        )
        for d in estimate.details
    )
    localization = tuple(
        replace(
            d,
            stages=tuple(replace(s, cam_from_world=of_view(s.cam_from_world)) for s in d.stages),
            messages=(*d.messages, said),
        )
        for d in estimate.localization
    )
    spread = estimate.covariance
    if spread is not None:
        axes = torch.block_diag(back.R.to(spread), back.R.to(spread))
        spread = axes @ spread @ axes.mT
    return replace(
        estimate,
        pose=of_view(estimate.pose),
        details=details,
        localization=localization,
        covariance=spread,
        trace=None,
    )


def pixels_turned_back(uv: Float[Tensor, "n 2"], quarters: int, size: tuple[int, int]) -> Float[Tensor, "n 2"]:
    """Pixels of a photo turned by quarters against the clock -> pixels of the photo, whose size is (width, height)."""
    width, height = size
    u, v = uv.unbind(-1)
    back = ((u, v), (width - 1 - v, u), (width - 1 - u, height - 1 - v), (v, height - 1 - u))[quarters % 4]
    return torch.stack(back, -1)
