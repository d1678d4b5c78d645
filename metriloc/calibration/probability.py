"""From the support of an estimate to a probability, and from its metres to an interval."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal

import numpy as np
import torch

from metriloc.types import FAILED, LocalizationDetails, PairDetails, PoseEstimate, View

FLOOR = 1e-3
"""Statistics enter by their logarithm; smaller ones count as this."""
_ENOUGH = 300_000
"""Depths that a median is taken of."""
_NEAREST, _FARTHEST = 0.05, 300.0  # metres: medians of depth maps beyond them are doubted
_OTHER_SIZE, _SAME_SHAPE = 0.25, 0.03
_WIDEST = 13.0  # logarithm of a factor between lengths, below that of a million
_SQUARE = 0.05  # logarithm of the ratio of the two focal lengths; cameras have less than a hundredth
QUANTILE_90 = 1.645
"""Standard deviations on each side of a normal interval of 90 %."""

Kind = Literal["logistic", "isotonic"]


@dataclass(frozen=True)
class Target:
    """When a pose counts as right: every bound that is given holds.

    vcre_fraction: of the diagonal of the query. center_share: of the median depth of the map's points in view. near_m: a
    position within so many metres has the right direction, whatever ``direction_deg`` says, because the direction between
    two cameras at one place means nothing.

    >>> str(Target(rotation_deg=5.0, center_m=0.25))
    'rotation below 5 degrees, position below 0.25 m'
    """

    rotation_deg: float | None = 5.0
    direction_deg: float | None = None
    center_m: float | None = None
    vcre_fraction: float | None = None
    center_share: float | None = None
    near_m: float | None = None

    def __post_init__(self) -> None:
        bounds = {name: value for name, value in asdict(self).items() if value is not None}
        for name, value in bounds.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < math.inf:
                raise ValueError(f"{name} of a target must be a positive number, got {value!r}")
        if not bounds.keys() - {"near_m"}:
            raise ValueError(f"a target needs a positive bound, got {self}")

    def __str__(self) -> str:
        words = {
            "rotation_deg": "rotation below {:g} degrees",
            "direction_deg": "direction below {:g} degrees",
            "center_m": "position below {:g} m",
            "vcre_fraction": "VCRE below {:.0%} of the diagonal",
            "center_share": "position below {:.0%} of the depth in view",
            "near_m": "(any direction within {:g} m)",
        }
        given = {name: bound for name, bound in asdict(self).items() if bound is not None}
        near = given.pop("near_m", None)
        text = ", ".join(words[name].format(bound) for name, bound in given.items())
        return text if near is None else f"{text} {words['near_m'].format(near)}"


@dataclass(frozen=True)
class Metres:
    """How far metres of one source may be off.

    True over estimated distance lies in low..high nine times in ten. noise_deg: standard deviation
    of the angle under which the way is seen from the things: over the median parallax of the
    matches, it is a share of the distance. So the interval of a way that is hardly seen at all is
    wide.

    >>> low, high = Metres(low=0.9, high=1.2).interval(distance=2.0, parallax_deg=5.0)
    >>> round(low, 2), round(high, 2)
    (1.8, 2.4)
    """

    low: float
    high: float
    noise_deg: float = 0.0

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < 1e6:
                raise ValueError(f"{name} of the metres must be a number from 0 on, got {value!r}")
        if not 0 < self.low <= self.high:
            raise ValueError(f"the metres need 0 < low <= high, got {self.low} and {self.high}")

    def interval(self, distance: float, parallax_deg: float, focal_sigma: float = 0.0) -> tuple[float, float]:
        """Metres between which the distance lies nine times in ten.

        - distance: the estimated one, metres.
        - parallax_deg: median parallax of the matches, degrees.
        - focal_sigma: relative standard deviation of the focal length.
        """
        noise = QUANTILE_90 * math.hypot(self.noise_deg / max(parallax_deg, FLOOR), focal_sigma)
        below, above = self.low - 1, self.high - 1
        if below <= 0:
            below = -math.hypot(below, noise)
        if above >= 0:
            above = math.hypot(above, noise)
        return max(0.0, distance * (1 + below)), distance * (1 + above)


@dataclass(frozen=True)
class Calibration:
    """A fitted map from support to probability.

    statistics: which numbers are read (``confidence`` is the method's own); ranges: the smallest and largest of each when
    it was fitted, beyond which nothing is believed. parameters: of a logistic one, the intercept and a weight each, none
    negative; of an isotonic one, pairs (statistic, probability), both rising. method, weights_id, setup: what it was
    fitted for; pairs and source: on what. metres: of the distances, None where nothing is known of them.

    >>> fitted = Calibration("logistic", Target(), ("confidence",), (2.0, 1.5), "mine", "abc", 100, "rooms")
    >>> round(fitted.probability(0.8, {}), 2)
    0.84
    """

    kind: Kind
    target: Target
    statistics: tuple[str, ...]
    parameters: tuple[float, ...]
    method: str
    weights_id: str
    pairs: int
    source: str
    setup: str = ""
    ranges: tuple[tuple[float, float], ...] = ()
    metres: Metres | None = None

    def probability(self, confidence: float, statistics: Mapping[str, float]) -> float:
        """0..1. Raises ValueError when a statistic it was fitted on is not there."""
        row = feature_row(confidence, statistics, self.statistics)
        if self.ranges:
            logs = [(math.log(max(low, FLOOR)), math.log(max(high, FLOOR))) for low, high in self.ranges]
            row = [min(max(value, low), high) for value, (low, high) in zip(row, logs, strict=True)]
        if self.kind == "logistic":
            return sigmoid(self.parameters[0] + sum(w * x for w, x in zip(self.parameters[1:], row, strict=True)))
        knots, values = self.parameters[::2], self.parameters[1::2]
        return float(np.interp(row[0], knots, values))

    def fits(self, method: str, weights_id: str, setup: str) -> bool:
        """Whether it was fitted for just this.

        - method, weights_id: name and weights of the method.
        - setup: solver and source of metres, as an estimate's details say it.
        """
        return (self.method, self.weights_id, self.setup) == (method, weights_id, setup)

    def apply(self, estimate: PoseEstimate, views: Sequence[View] = ()) -> PoseEstimate:
        """The estimate (batch shape ()) with the probability as its confidence.

        And with its interval of metres. Failures stay as they are; an estimate that is probably
        wrong becomes the failure ``unsupported``. views: the photos; a guessed focal length among
        them is a doubt, and makes the interval wider.
        """
        if not bool(estimate.success):
            return dataclasses.replace(estimate, probability_of=str(self.target))
        details = estimate.details[0] if estimate.details else estimate.localization[0]
        value = self.probability(float(estimate.confidence), details.statistics)
        if value < FAILED:
            failed = PoseEstimate.failure("unsupported", details)
            return dataclasses.replace(failed, probability_of=str(self.target))
        sigma = max((view.focal_sigma for view in views), default=0.0)
        return dataclasses.replace(
            estimate,
            confidence=torch.tensor(value, dtype=estimate.confidence.dtype),
            probability_of=str(self.target),
            distance_interval=self._interval(estimate, details, sigma),
            doubts=(*estimate.doubts, *camera_doubts(views), *depth_doubts(views)),
        )

    def _interval(
        self, estimate: PoseEstimate, details: PairDetails | LocalizationDetails, focal_sigma: float
    ) -> tuple[float, float] | None:
        if not isinstance(details, PairDetails) or not details.metric:
            return None
        metres, parallax = self.metres, details.statistics.get("parallax_deg", 0.0)
        if math.isfinite(details.scale_sigma):  # a distance that was given is known as well as it was measured
            # two photos of one place measure nothing: their sigma may be any number
            factor = math.exp(min(QUANTILE_90 * details.scale_sigma, _WIDEST))
            metres, focal_sigma = Metres(1 / factor, factor), 0.0
        return None if metres is None else metres.interval(float(estimate.pose.distance()), parallax, focal_sigma)


def camera_doubts(views: Sequence[View]) -> tuple[str, ...]:
    """A phrase for each photo whose camera is doubtful. Its focal length is only a guess, or its numbers look like
    those of another size or of pixels that are not square."""
    guessed = [f"the focal length of '{view.name}' is a guess" for view in views if view.focal_is_guessed]
    sizes = [(view.name, _size_of_the_numbers(view)) for view in views]
    return (
        *guessed,
        *(f"the camera numbers of '{name}' look like those of a photo of {w}x{h}" for name, (w, h) in sizes if w),
        *(
            f"the focal lengths of '{view.name}' say that its pixels are not square ({fx:.0f} and {fy:.0f} px)"
            for view, (fx, fy) in ((view, view.camera.f.tolist()) for view in views)
            if abs(math.log(fx / fy)) > _SQUARE
        ),
    )


def depth_doubts(views: Sequence[View]) -> tuple[str, ...]:
    """A phrase for each photo whose depth map is doubtful. It has a median that hardly any scene has: its unit is
    likely another."""
    found = []
    for view in views:
        depth = torch.zeros(0, 0) if view.depth is None else view.depth
        step = max(1, round(math.sqrt(depth.numel() / _ENOUGH)))  # of tens of megapixels some are enough
        depth = depth[::step, ::step]
        known = depth[torch.isfinite(depth) & (depth > 0)]
        median = float(known.median()) if len(known) else math.nan
        if median < _NEAREST or median > _FARTHEST:
            found.append(f"the depth map of '{view.name}' has a median of {median:.3g} m: its unit may be another")
    return tuple(found)


def _size_of_the_numbers(view: View) -> tuple[int, int]:
    """The size in whose middle the principal point lies, where that is a photo of the same shape but clearly another
    size; (0, 0) otherwise. A crop hardly ever moves it by the same share of width and height."""
    size = view.camera.size
    share = ((2 * view.camera.c + 1) / size).tolist()
    if min(abs(s - 1) for s in share) < _OTHER_SIZE or abs(share[0] - share[1]) > _SAME_SHAPE * max(share):
        return 0, 0
    width, height = (round(s * n) for s, n in zip(share, size.tolist(), strict=True))
    return width, height


def feature_row(confidence: float, statistics: Mapping[str, float], names: Sequence[str]) -> list[float]:
    """Logarithms of the named statistics.

    - confidence: the method's own, the statistic ``confidence``.
    - statistics: the others by name.
    - names: which to take, in this order.

    What is not finite counts as nothing at all.

    >>> [round(value, 2) for value in feature_row(0.5, {"inliers": 100}, ("inliers", "confidence"))]
    [4.61, -0.69]
    """
    values = {"confidence": confidence, **statistics}
    missing = [name for name in names if name not in values]
    if missing:
        raise ValueError(f"the estimate has no statistic {missing[0]!r} (it has {', '.join(values)})")
    return [math.log(max(values[name], FLOOR)) if math.isfinite(values[name]) else math.log(FLOOR) for name in names]


def sigmoid(x: float) -> float:
    """Logistic function without overflow."""
    return 1 / (1 + math.exp(-max(-700.0, min(700.0, x))))
