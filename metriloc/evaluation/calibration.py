"""Confidence as a probability: that the pose is within a stated error, learnt from a validation run of the method.

A calibration is a small JSON file beside the weights it was fitted for. It reads the statistics a solver reports
(inliers, their share, ...) or the method's own confidence, and replaces the confidence by a probability:
``logistic`` regression on the logarithms of several statistics, or ``isotonic`` regression (pool adjacent violators) on
one. Verdicts for people: reliable at 0.8 and above, failed below 0.2, doubtful between; an estimate whose confidence
no calibration stands behind is called uncalibrated, because its numbers say nothing of how often it is right.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy import ndarray

from metriloc.evaluation.records import Record
from metriloc.evaluation.scoring import PairScores
from metriloc.io import InputError, read_text, write_atomically
from metriloc.types import FAILED, RELIABLE, PoseEstimate, RelativePoseMethod

CALIBRATION_FILE = "calibration.json"
MIN_PAIRS = 30
_RIDGE = 1e-2
_FLOOR = 1e-3  # statistics enter by their logarithm

Kind = Literal["logistic", "isotonic"]
Verdict = Literal["reliable", "doubtful", "failed"]
Judgement = Verdict | Literal["uncalibrated"]


@dataclass(frozen=True)
class Target:
    """When a pose counts as right: every bound that is given holds. vcre_fraction: of the diagonal of the query."""

    rotation_deg: float | None = 5.0
    direction_deg: float | None = None
    center_m: float | None = None
    vcre_fraction: float | None = None

    def __post_init__(self) -> None:
        bounds = [value for value in asdict(self).values() if value is not None]
        if not bounds or any(not value > 0 for value in bounds):
            raise ValueError(f"a target needs a positive bound, got {self}")

    def right(self, scores: PairScores) -> Bool[ndarray, " n"]:
        """Which pairs have an estimate within the bounds."""
        right = scores.estimated.copy()
        for name, bound in asdict(self).items():
            if bound is not None:
                right &= getattr(scores, name) < bound  # NaN is never below
        return right

    def __str__(self) -> str:
        words = {
            "rotation_deg": "rotation below {:g} degrees",
            "direction_deg": "direction below {:g} degrees",
            "center_m": "position below {:g} m",
            "vcre_fraction": "VCRE below {:.0%} of the diagonal",
        }
        return ", ".join(words[name].format(bound) for name, bound in asdict(self).items() if bound is not None)


@dataclass(frozen=True)
class Calibration:
    """A fitted map from statistics to probability.

    statistics: which numbers are read (``confidence`` is the method's own). parameters: of a logistic one, the intercept
    and a weight each; of an isotonic one, pairs (statistic, probability) by rising statistic. method and weights_id: what
    it was fitted for; pairs and source: on what.
    """

    kind: Kind
    target: Target
    statistics: tuple[str, ...]
    parameters: tuple[float, ...]
    method: str
    weights_id: str
    pairs: int
    source: str

    def probability(self, confidence: float, statistics: Mapping[str, float]) -> float:
        """0..1. Raises ValueError when a statistic it was fitted on is not there."""
        row = feature_row(confidence, statistics, self.statistics)
        if self.kind == "logistic":
            return _sigmoid(self.parameters[0] + sum(w * x for w, x in zip(self.parameters[1:], row, strict=True)))
        knots, values = self.parameters[::2], self.parameters[1::2]
        return float(np.interp(row[0], knots, values))

    def apply(self, estimate: PoseEstimate) -> PoseEstimate:
        """The estimate (batch shape ()) with the probability as its confidence; failures stay at 0."""
        if not bool(estimate.success):
            return estimate
        details = estimate.details[0] if estimate.details else estimate.localization[0]
        value = self.probability(float(estimate.confidence), details.statistics)
        confidence = torch.tensor(value, dtype=estimate.confidence.dtype)
        return dataclasses.replace(estimate, confidence=confidence, probability_of=str(self.target))


def feature_row(confidence: float, statistics: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Logarithms of the named statistics."""
    values = {"confidence": confidence, **statistics}
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(f"the estimate has no statistic {missing[0]!r} (it has {', '.join(values)})")
    return [math.log(max(values[name], _FLOOR)) for name in names]


# -- fitting ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class FitSource:
    """What a calibration is fitted for and on."""

    method: str
    weights_id: str
    benchmark: str


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

    statistics: by default all that the records share (logistic) or the method's own confidence (isotonic). Raises
    InputError with fewer than 30 estimates, or when all of them are right or all wrong.
    """
    index = [i for i, record in enumerate(records) if record.success]
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
    )


def _fit_logistic(rows: Float[ndarray, "n k"], truth: Bool[ndarray, " n"]) -> list[float]:
    """Newton's method on standardised features with a small ridge, which keeps separable data finite."""
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
    return [float(w[0] - weights @ mean), *(float(v) for v in weights)]


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


def verdict(confidence: float) -> Verdict:
    """What a calibrated confidence means in one word."""
    return "reliable" if confidence >= RELIABLE else "failed" if confidence < FAILED else "doubtful"


def judge(estimate: PoseEstimate, calibration: Calibration | None) -> Judgement:
    """The verdict on an estimate (batch shape ()) of a method with this calibration; no pose has failed whatever it is."""
    if not bool(estimate.success):
        return "failed"
    return "uncalibrated" if calibration is None else verdict(float(estimate.confidence))


# -- files and methods ------------------------------------------------------------------------------------------------
def save_calibration(path: str | os.PathLike[str], calibration: Calibration) -> None:
    """As JSON."""
    write_atomically(path, json.dumps(asdict(calibration), indent=2) + "\n")


def load_calibration(path: str | os.PathLike[str]) -> Calibration:
    """Raises InputError for a file that is no calibration."""
    try:
        content: dict[str, Any] = json.loads(read_text(path))
        content["target"] = Target(**content["target"])
        for name in ("statistics", "parameters"):
            content[name] = tuple(content[name])
        calibration = Calibration(**content)
        finite = all(math.isfinite(float(value)) for value in calibration.parameters)
        expected = 1 + len(calibration.statistics)
        whole = (
            len(calibration.parameters) == expected
            if calibration.kind == "logistic"
            else (
                len(calibration.parameters) >= 2
                and len(calibration.parameters) % 2 == 0
                and len(calibration.statistics) == 1
            )
        )
        if not finite or not whole or calibration.kind not in ("logistic", "isotonic"):
            raise ValueError("its parameters do not fit its kind")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{path}' is not a calibration: {error}") from error
    return calibration


class CalibratedMethod:
    """A relative-pose method whose confidence is the calibration's probability.

    Raises InputError when the calibration was fitted for other weights.
    """

    def __init__(self, method: RelativePoseMethod, calibration: Calibration) -> None:
        if (calibration.method, calibration.weights_id) != (method.name, method.weights_id):
            raise InputError(
                f"the calibration is for {calibration.method} {calibration.weights_id}, "
                f"not for {method.name} {method.weights_id}"
            )
        self.method, self.calibration = method, calibration
        self.name, self.weights_id = method.name, method.weights_id

    def extract(self, view: Any) -> Any:
        """The method's own."""
        return self.method.extract(view)

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        """The method's estimate with a calibrated confidence."""
        return self.calibration.apply(self.method.relative_pose(reference, query, seed=seed))


def calibration_of(method: RelativePoseMethod) -> Calibration | None:
    """What makes the confidence of a method a probability; None when nothing does."""
    return method.calibration if isinstance(method, CalibratedMethod) else None


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, x))))
