"""Fitting a calibration on a run with known poses, and judging how honest confidences are.

What a calibration is and how it is applied stands in :mod:`metriloc.calibration`. Fitted are ``logistic`` regressions on
the logarithms of several statistics, with weights that are never negative, so that more support never lowers the
probability, or ``isotonic`` ones (pool adjacent violators) on one statistic; and quantiles of the distances.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from metriloc.calibration import Calibration, Kind, Metres, Target, feature_row
from metriloc.evaluation.records import Record
from metriloc.io import InputError

MIN_PAIRS = 30
_RIDGE = 1e-2


@dataclass(frozen=True)
class FitSource:
    """What a calibration is fitted for and on."""

    method: str
    weights_id: str
    benchmark: str
    setup: str = ""


def fit_calibration(
    records: Sequence[Record],
    right: Bool[ndarray, " n"],
    source: FitSource,
    *,
    target: Target,
    kind: Kind = "logistic",
    statistics: Sequence[str] | None = None,
) -> Calibration:
    """Fit on the records with an estimate; ``right``: which of all records are within the target.

    statistics: by default all that the records share (logistic) or the method's own confidence (isotonic). Records of
    another setup than the source's are left out. Raises InputError with fewer than 30 estimates, or when all of them are
    right or all wrong.
    """
    index = [i for i, record in enumerate(records) if record.success and record.setup == source.setup]
    truth = np.asarray(right, bool)[index]
    if len(index) < MIN_PAIRS or truth.all() or not truth.any():
        raise InputError(
            f"{len(index)} estimates of which {int(truth.sum())} are right: a calibration needs at least {MIN_PAIRS}, "
            "right and wrong ones"
        )
    if statistics is None:
        shared = set.intersection(*(set(records[i].statistics) for i in index))
        statistics = sorted(shared) if kind == "logistic" and shared else ["confidence"]
    if kind == "isotonic" and len(statistics) != 1:
        raise InputError(f"isotonic calibration reads one statistic, got {', '.join(statistics)}")
    rows = np.array([feature_row(records[i].confidence, records[i].statistics, statistics) for i in index])
    parameters = _fit_logistic(rows, truth) if kind == "logistic" else _fit_isotonic(rows[:, 0], truth)
    return Calibration(
        kind,
        target,
        tuple(statistics),
        tuple(parameters),
        source.method,
        source.weights_id,
        len(index),
        source.benchmark,
        source.setup,
        tuple((math.exp(low), math.exp(high)) for low, high in zip(rows.min(0), rows.max(0), strict=True)),
    )


def _fit_logistic(rows: Float[ndarray, "n k"], truth: Bool[ndarray, " n"]) -> list[float]:
    """The most likely weights of which none is negative: the most negative one is dropped until all are left or none."""
    kept = list(range(rows.shape[1]))
    while True:
        intercept, weights = _unconstrained(rows[:, kept], truth)
        if not kept or weights.min() >= 0:
            break
        kept.pop(int(weights.argmin()))
    full = np.zeros(rows.shape[1])
    full[kept] = weights
    return [intercept, *(float(v) for v in full)]


def _unconstrained(rows: Float[ndarray, "n k"], truth: Bool[ndarray, " n"]) -> tuple[float, Float[ndarray, " k"]]:
    """Newton's method on standardized features with a small ridge, which keeps separable data finite."""
    mean, scale = rows.mean(0), rows.std(0) + 1e-9
    x = np.concatenate([np.ones((len(rows), 1)), (rows - mean) / scale], 1)
    ridge = _RIDGE * np.eye(x.shape[1]) * len(rows) / 100
    ridge[0, 0] = 1e-9
    w = np.zeros(x.shape[1])
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(x @ w, -30, 30)))
        gradient = x.T @ (p - truth) + ridge @ w
        step = np.linalg.solve(x.T @ (x * (p * (1 - p))[:, None]) + ridge, gradient)
        w = w - step
        if np.abs(step).max() < 1e-9:
            break
    weights = w[1:] / scale
    return float(w[0] - weights @ mean), weights


def _fit_isotonic(values: Float[ndarray, " n"], truth: Bool[ndarray, " n"]) -> list[float]:
    """Pool adjacent violators; two knots a block (its first and last value), made strictly rising in the statistic.

    Each block is drawn towards one half by one right and one wrong made-up pair, so that no finite sample says certainty.
    """
    order = np.argsort(values, kind="stable")
    blocks: list[list[float]] = []  # right, count, first value, last value
    for value, right in zip(values[order], truth[order], strict=True):
        if blocks and blocks[-1][3] == value:
            blocks[-1][0] += float(right)
            blocks[-1][1] += 1
        else:
            blocks.append([float(right), 1, value, value])
        while len(blocks) > 1 and blocks[-2][0] * blocks[-1][1] >= blocks[-1][0] * blocks[-2][1]:
            right_, count, _, last = blocks.pop()
            blocks[-1] = [blocks[-1][0] + right_, blocks[-1][1] + count, blocks[-1][2], last]
    knots: list[float] = []
    floor = 0.0
    for right_, count, first, last in blocks:
        floor = max(floor, (right_ + 1) / (count + 2))  # smoothing may not break the order
        for value in dict.fromkeys((first, last)):
            knots += [float(value), floor]
    return knots


def fit_metres(
    log_ratio: Float[ndarray, " n"], parallax_deg: Float[ndarray, " n"], places: Sequence[str] | None = None
) -> Metres:
    """The interval that holds nine of ten true distances.

    log_ratio: logarithm of true over estimated distance of right poses; parallax_deg: their median parallax. places: where
    each pair is of: nine of ten shall hold in every place by itself, because nobody knows what kind of place comes next.
    The noise is read off the pairs of little parallax, the quantiles off the others. Raises InputError with fewer than 30
    pairs.
    """
    if len(log_ratio) < MIN_PAIRS:
        raise InputError(f"{len(log_ratio)} distances: an interval of metres needs at least {MIN_PAIRS}")
    names = np.array(["" for _ in log_ratio] if places is None else list(places))
    parts = [np.flatnonzero(names == name) for name in np.unique(names)]
    low, high = 0.0, 0.0
    for part in parts:
        wide = part[parallax_deg[part] >= np.median(parallax_deg[part])]
        low = min(low, float(np.quantile(log_ratio[wide], 0.05)))
        high = max(high, float(np.quantile(log_ratio[wide], 0.95)))
    ratio, best = np.exp(log_ratio), Metres(math.exp(low), math.exp(high))
    for noise in (0.0, *np.geomspace(0.005, 5.0, 61)):  # the smallest noise with which nine of ten are inside
        best = Metres(best.low, best.high, float(noise))
        ends = np.array([best.interval(1.0, parallax) for parallax in parallax_deg])
        inside = (ratio >= ends[:, 0]) & (ratio <= ends[:, 1])
        if min(inside[part].mean() for part in parts) >= 0.9:
            break
    return best


# -- how good is it ---------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class Reliability:
    """A reliability diagram. edges: of the bins; confidence, accuracy, count: of each bin that is not empty."""

    confidence: Float[ndarray, " n"]
    accuracy: Float[ndarray, " n"]
    count: Float[ndarray, " n"]

    @property
    def expected_error(self) -> float:
        """Expected calibration error: mean gap between confidence and accuracy, weighted by the pairs in a bin."""
        total = self.count.sum()
        return float((np.abs(self.confidence - self.accuracy) * self.count).sum() / total) if total else float("nan")


def reliability(confidence: Float[ndarray, " n"], right: Bool[ndarray, " n"], bins: int = 10) -> Reliability:
    """Ten bins of equal width, or as told; over the estimates given."""
    place = np.clip((np.asarray(confidence) * bins).astype(int), 0, bins - 1)
    used = [b for b in range(bins) if (place == b).any()]
    return Reliability(
        np.array([np.mean(np.asarray(confidence)[place == b]) for b in used]),
        np.array([np.mean(np.asarray(right, bool)[place == b]) for b in used]),
        np.array([float((place == b).sum()) for b in used]),
    )


def expected_calibration_error(confidence: Float[ndarray, " n"], right: Bool[ndarray, " n"], bins: int = 10) -> float:
    """``reliability(...).expected_error``."""
    return reliability(confidence, right, bins).expected_error
