"""Absolute-pose metrics of 7-Scenes and Cambridge: medians and recalls, with missing queries counted as lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from metriloc.evaluation.errors import center_error, rotation_error_deg
from metriloc.geometry import Pose

THRESHOLDS = ((0.01, 1), (0.02, 2), (0.03, 3), (0.05, 5), (0.25, 2), (0.5, 5), (5, 10))
"""(metres, degrees) of the usual table; both strict."""


@dataclass(frozen=True, eq=False)
class AbsoluteScore:
    """Errors of all queries, infinite metres and 180 degrees where there is no estimate, and what tables show of them.

    recalls: percent of the queries under each pair of ``thresholds``.
    """

    names: tuple[str, ...]
    center_m: Float[ndarray, " n"]
    rotation_deg: Float[ndarray, " n"]
    thresholds: tuple[tuple[float, float], ...]

    @property
    def median_center_m(self) -> float:
        """Infinite when half of the queries or more are lost."""
        return float(np.median(self.center_m)) if len(self.center_m) else float("nan")

    @property
    def median_rotation_deg(self) -> float:
        """Degrees."""
        return float(np.median(self.rotation_deg)) if len(self.rotation_deg) else float("nan")

    @property
    def recalls(self) -> tuple[float, ...]:
        """Percent, one for each threshold pair."""
        return tuple(
            100 * float(np.mean((self.center_m < metres) & (self.rotation_deg < degrees)))
            for metres, degrees in self.thresholds
        )

    def as_text(self) -> str:
        """The report of the hloc and PixLoc scripts, character for character."""
        lines = [f"\nMedian errors: {self.median_center_m:.3f}m, {self.median_rotation_deg:.3f}deg"]
        lines.append("Percentage of test images localized within:")
        for (metres, degrees), recall in zip(self.thresholds, self.recalls, strict=True):
            lines.append(f"\t{metres * 100:.0f}cm, {degrees:.0f}deg : {recall:.2f}%")
        return "\n".join(lines)


def score_absolute(
    estimates: Mapping[str, Pose],
    truth: Mapping[str, Pose],
    names: Sequence[str] | None = None,
    *,
    only_localized: bool = False,
    thresholds: tuple[tuple[float, float], ...] = THRESHOLDS,
) -> AbsoluteScore:
    """Errors of ``cam_from_world`` for the queries ``names`` (all of the truth by default).

    only_localized leaves queries without an estimate out instead of counting them as lost, which flatters a method that
    abstains. Raises ValueError when a name has no truth.
    """
    names = list(truth) if names is None else list(names)
    unknown = [name for name in names if name not in truth]
    if unknown:
        raise ValueError(f"{len(unknown)} queries have no true pose, the first is {unknown[0]!r}")
    if only_localized:
        names = [name for name in names if name in estimates]
    metres, degrees = np.full(len(names), np.inf), np.full(len(names), 180.0)
    found = [i for i, name in enumerate(names) if name in estimates]
    if found:
        estimated = Pose.stack([estimates[names[i]] for i in found])
        true = Pose.stack([truth[names[i]] for i in found])
        metres[found] = center_error(estimated, true).numpy()
        degrees[found] = rotation_error_deg(estimated, true).numpy()
    return AbsoluteScore(tuple(names), metres, degrees, thresholds)
