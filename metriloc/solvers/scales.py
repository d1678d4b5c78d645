"""Several sources say how long a way is: one answer, its uncertainty, whose it is, and who contradicts whom."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONTRADICTION = 3.0
"""Standard deviations apart from which two sources contradict each other."""


@dataclass(frozen=True)
class ScaleSource:
    """What one source says of a length.

    Its logarithm and the standard deviation of that; 0 is exact. kin: sources of one kin err alike,
    with ``correlation`` between any two of them; "" errs by itself. said: what it rests on, one
    phrase.
    """

    name: str
    log_length: float
    sigma: float
    kin: str = ""
    correlation: float = 0.0
    said: str = ""

    def __post_init__(self) -> None:
        if not math.isfinite(self.log_length) or not 0 <= self.sigma < math.inf:
            raise ValueError(
                f"the source {self.name!r} needs a finite length and a sigma from 0 on, got the logarithm "
                f"{self.log_length} and {self.sigma}"
            )
        if not -1 < self.correlation < 1:
            raise ValueError(f"the correlation of {self.name!r} must be between -1 and 1, got {self.correlation}")


@dataclass(frozen=True)
class FusedScale:
    """log_length, sigma: of all sources together.

    Where some contradict each other, sigma covers them. shares: of each source in it, 0..1, summing
    to 1. contradictions: pairs of names more than ``CONTRADICTION`` standard deviations apart.
    """

    log_length: float
    sigma: float
    shares: tuple[float, ...]
    contradictions: tuple[tuple[str, str], ...]


def fuse_scales(sources: Sequence[ScaleSource]) -> FusedScale:
    """Sources by inverse (co)variance. ``w = C^-1 1 / (1^T C^-1 1)``, ``sigma^2 = w^T C w``.

    Kin do not halve the variance: with correlation 1 two of them are worth one. A source that would count negatively
    (kin of a much surer one) counts nothing. Exact sources leave the others nothing but their contradiction. One of two
    sources that contradict each other is wrong, and their sigmas do not say which: half the way between them is added to
    sigma (in squares), so that both are within two. Raises ValueError without any source.
    """
    if not sources:
        raise ValueError("no source says anything of the length: give at least one")
    values = np.array([s.log_length for s in sources])
    C = np.array([[_covariance(a, b, same=i == j) for j, b in enumerate(sources)] for i, a in enumerate(sources)])
    exact = [i for i, s in enumerate(sources) if s.sigma == 0]
    weights = np.zeros(len(sources))
    if exact:
        weights[exact] = 1 / len(exact)
    else:
        weights = _weights(C)
    apart = [
        (i, j)
        for i in range(len(sources))
        for j in range(i)
        if abs(values[i] - values[j]) > CONTRADICTION * _sigma_between(C, i, j)
    ]
    # what contradicts an exact source is wrong
    ways = [abs(values[i] - values[j]) for i, j in apart if not exact or {i, j} <= set(exact)]
    sigma = math.hypot(math.sqrt(max(0.0, float(weights @ C @ weights))), 0.5 * float(max(ways, default=0.0)))
    names = tuple((sources[i].name, sources[j].name) for i, j in apart)
    return FusedScale(float(weights @ values), sigma, tuple(float(w) for w in weights), names)


def _covariance(a: ScaleSource, b: ScaleSource, same: bool) -> float:
    if same:
        return a.sigma**2
    kin = a.kin != "" and a.kin == b.kin
    return min(a.correlation, b.correlation) * a.sigma * b.sigma if kin else 0.0


def _weights(C: np.ndarray) -> np.ndarray:
    """Of generalized least squares, none negative: the most negative source leaves until none is."""
    used = list(range(len(C)))
    while True:
        inverse = np.linalg.solve(C[np.ix_(used, used)], np.ones(len(used)))
        weights = inverse / inverse.sum()
        if weights.min() >= 0 or len(used) == 1:
            break
        used.pop(int(weights.argmin()))
    full = np.zeros(len(C))
    full[used] = weights
    return full


def _sigma_between(C: np.ndarray, i: int, j: int) -> float:
    """Of the difference of two sources; rounding alone contradicts nothing."""
    return math.sqrt(max(C[i, i] + C[j, j] - 2 * C[i, j], 1e-12))
