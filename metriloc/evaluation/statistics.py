"""How sure are the numbers: bootstrap intervals, and paired comparison of two runs on the same pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from metriloc.evaluation.scoring import STATISTICS, PairScores
from metriloc.io import InputError

_STRATUM = 5
Statistic = Callable[[PairScores], float]


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % bootstrap percentile interval; NaN throughout where the value is not defined."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """One number of two runs on the same pairs. difference: b - a with its paired interval; clear: whether the interval
    leaves out zero."""

    a: float
    b: float
    difference: Interval

    @property
    def clear(self) -> bool:
        """The sign of the difference is not a matter of which pairs were drawn."""
        return self.difference.low > 0 or self.difference.high < 0


def resamples(scenes: tuple[str, ...], count: int, seed: int) -> Int[ndarray, "count n"]:
    """Bootstrap draws of pairs within each scene, so that every draw has all scenes at their weight.

    Scenes of fewer than five pairs are drawn from together: alone they would hardly vary, and the interval would lie.
    """
    generator = np.random.default_rng(seed)
    counts = Counter(scenes)
    labels = np.array([scene if counts[scene] >= _STRATUM else "" for scene in scenes])
    draws = np.zeros((count, len(labels)), np.int64)
    for scene in dict.fromkeys(labels.tolist()):
        members = np.flatnonzero(labels == scene)
        draws[:, members] = members[generator.integers(len(members), size=(count, len(members)))]
    return draws


def intervals(
    scores: PairScores,
    statistics: Mapping[str, Statistic] = STATISTICS,
    *,
    count: int = 1000,
    seed: int = 0,
) -> dict[str, Interval]:
    """The 95 % interval of each statistic over ``count`` stratified bootstrap draws; the same seed, the same interval."""
    parts = [scores.subset(draw) for draw in resamples(scores.scenes, count, seed)]
    return {
        name: _interval(statistic(scores), np.array([statistic(part) for part in parts]))
        for name, statistic in statistics.items()
    }


def compare(
    a: PairScores,
    b: PairScores,
    statistics: Mapping[str, Statistic] = STATISTICS,
    *,
    count: int = 1000,
    seed: int = 0,
) -> dict[str, Comparison]:
    """Each statistic of both runs and of their difference, over the same draws of pairs.

    Raises InputError when the runs are not of the same pairs.
    """
    if a.keys != b.keys:
        raise InputError(f"the runs are of different pairs ({len(a)} and {len(b)}): only the same ones can be compared")
    draws = resamples(a.scenes, count, seed)
    parts = [(a.subset(draw), b.subset(draw)) for draw in draws]
    found = {}
    for name, statistic in statistics.items():
        values = statistic(a), statistic(b)
        differences = np.array([statistic(y) - statistic(x) for x, y in parts])
        found[name] = Comparison(*values, _interval(values[1] - values[0], differences))
    return found


def wins(a: ndarray, b: ndarray) -> tuple[int, int, int]:
    """On how many pairs (a is better, b is better, neither): a smaller error wins, no estimate loses."""
    x, y = np.where(np.isnan(a), np.inf, a), np.where(np.isnan(b), np.inf, b)
    return int((x < y).sum()), int((y < x).sum()), int((x == y).sum())


def _interval(value: float, draws: ndarray) -> Interval:
    known = draws[np.isfinite(draws)]
    if not np.isfinite(value) or len(known) == 0:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(known, [0.025, 0.975])
    return Interval(value, float(low), float(high))
