"""Accuracy against confidence or threshold. The field calls three different things AUC; here each has its own name.

| name | what it is | who reports it |
|---|---|---|
| ``mapfree_auc`` | mean precision over the share of *frames kept*, by falling confidence | Map-free, MicKey |
| ``pose_error_auc`` | area under the cumulative error curve up to a threshold | SuperGlue, ScanNet, LoFTR |
| ``ranking_average_precision`` | mean precision over the share of *right answers found* | retrieval, scikit-learn |
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray


@dataclass(frozen=True, eq=False)
class PrecisionCurve:
    """Operating points of a confidence threshold, the laxest first, ending at (precision 1, recall 0).

    recall: share of all frames, failures included, whose estimate is kept. Equal confidences form one point.
    """

    precision: Float[ndarray, " n"]
    recall: Float[ndarray, " n"]
    confidence: Float[ndarray, " m"]

    @property
    def area(self) -> float:
        """``mapfree_auc``."""
        return float(-np.sum(np.diff(self.recall) * self.precision[:-1])) + 0.0  # no minus zero


def precision_curve(
    confidence: Float[ndarray, " n"], accepted: Bool[ndarray, " n"], failures: int = 0
) -> PrecisionCurve:
    """The curve over estimates with a confidence, plus frames without an estimate; no estimate gives a bare end point.

    Raises ValueError for lengths that differ and a confidence that is NaN.
    """
    confidence = np.asarray(confidence, np.float64)
    accepted = np.asarray(accepted, bool)
    if confidence.shape != accepted.shape or confidence.ndim != 1:
        raise ValueError(f"{confidence.shape} confidences for {accepted.shape} verdicts")
    if np.isnan(confidence).any():
        raise ValueError("a confidence is NaN")
    order = np.argsort(-confidence, kind="stable")
    sorted_confidence = confidence[order]
    last = np.flatnonzero(np.append(np.diff(sorted_confidence) != 0, True)) if len(order) else np.zeros(0, int)
    kept = last + 1
    precision = np.cumsum(accepted[order])[last] / kept
    recall = kept / (len(order) + failures)
    return PrecisionCurve(
        np.append(precision[::-1], 1.0), np.append(recall[::-1], 0.0), sorted_confidence[last][::-1].copy()
    )


def mapfree_auc(confidence: Float[ndarray, " n"], accepted: Bool[ndarray, " n"], failures: int = 0) -> float:
    """Average precision where recall counts the frames kept, not the right ones.

    One constant confidence gives the precision itself; a perfect ranking of P right in N frames gives up to
    ``P/N (1 + ln(N/P))``.
    """
    return precision_curve(confidence, accepted, failures).area


def pose_error_auc(errors: Float[ndarray, " n"], thresholds: tuple[float, ...]) -> tuple[float, ...]:
    """Area under the share of errors below a threshold, up to each threshold and divided by it. NaN is a failure."""
    errors = np.sort(np.where(np.isnan(errors), np.inf, np.asarray(errors, np.float64)))
    if errors.size == 0:
        return tuple(float("nan") for _ in thresholds)
    errors = np.concatenate([[0.0], errors])
    recall = np.linspace(0, 1, len(errors))
    areas = []
    for threshold in thresholds:
        count = int(np.searchsorted(errors, threshold))
        x = np.append(errors[:count], threshold)
        y = np.append(recall[:count], recall[count - 1])
        areas.append(float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2) / threshold))
    return tuple(areas)


def ranking_average_precision(confidence: Float[ndarray, " n"], right: Bool[ndarray, " n"]) -> float:
    """Average precision as retrieval has it: recall counts the right answers. NaN when nothing is right."""
    right = np.asarray(right, bool)
    if not right.any():
        return float("nan")
    curve = precision_curve(confidence, right)
    found = curve.precision * curve.recall * len(right) / right.sum()
    return float(-np.sum(np.diff(found) * curve.precision[:-1]))


def abstention_curve(
    confidence: Float[ndarray, " n"], errors: Float[ndarray, " n"]
) -> tuple[Float[ndarray, " n"], Float[ndarray, " n"]]:
    """(coverage, median error of what is kept), from the surest estimate alone to all of them. NaN errors are infinite."""
    order = np.argsort(-np.asarray(confidence, np.float64), kind="stable")
    sorted_errors = np.where(np.isnan(errors), np.inf, np.asarray(errors, np.float64))[order]
    n = len(order)
    medians = np.array([np.median(sorted_errors[: k + 1]) for k in range(n)])
    return (np.arange(n) + 1) / max(n, 1), medians
