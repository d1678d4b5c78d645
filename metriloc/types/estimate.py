"""``PoseEstimate``: what every method of the library returns, also when it fails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.types.details import Correspondences, FailureReason, LocalizationDetails, PairDetails
from metriloc.types.trace import Trace
from metriloc.types.track import TrackDetails
from metriloc.wording import words_of_batch, words_of_motion, words_of_place

Verdict = Literal["reliable", "doubtful", "failed", "uncalibrated"]
RELIABLE, FAILED = 0.9, 0.2
"""Calibrated confidences from which, and below which, an estimate is called so."""
RELIABLE_METRES = 0.25
"""Half the width of a distance interval over its middle, above which metres are doubtful."""


@dataclass(frozen=True, eq=False)
class PoseEstimate:
    """What every method returns, also on failure.

    - pose: ``query_from_reference`` for relative methods, ``cam_from_world`` for absolute ones.
    - success: whether ``pose`` may be used.
    - confidence: 0..1, 0 on failure.
    - reasons: one entry an element (batch axes flattened), None on success. details (relative
      methods) and localization (absolute ones): one entry an element, or empty.
    - probability_of: what the confidence is the probability of, "" when no calibration makes it
      one. distance_interval (relative methods, batch shape ()): metres between which the distance
      of the two cameras lies with a probability of 90 %, None when nothing says so.
    - doubts: one sentence each on what makes a single estimate doubtful at best, whatever its
      confidence (a guessed focal length, a second pose that explains the photos nearly as well);
      ``reasons_for_doubt`` has these and the rest. covariance (absolute methods and several
      references, batch shape ()): of ``delta = [t, w]`` in ``Pose.from_tangent(delta) @ pose``,
      units of the pose and radians, in the axes of the camera; None where nothing tells it.
    - page: draws a single estimate as HTML, for notebooks; ``relative_pose`` and ``localize`` put
      one here.
    - elements: of a batch, the single estimates with their intervals, doubts and verdicts, where it
      was made of such.
    - track: its place in a stream, of estimates of a ``Tracker``.

    NaN where it failed.

    >>> estimate = metriloc.relative_pose("reference.jpg", "query.jpg")
    >>> bool(estimate.success), estimate.reason
    (True, None)
    """

    pose: Pose
    success: Bool[Tensor, "*b"]
    confidence: Float[Tensor, "*b"]
    reasons: tuple[FailureReason | None, ...]
    details: tuple[PairDetails, ...] = ()
    localization: tuple[LocalizationDetails, ...] = ()
    probability_of: str = ""
    distance_interval: tuple[float, float] | None = None
    doubts: tuple[str, ...] = ()
    covariance: Float[Tensor, "6 6"] | None = None
    page: Callable[[PoseEstimate], str] | None = None
    trace: Trace | None = None
    elements: tuple[PoseEstimate, ...] = ()
    track: TrackDetails | None = None

    def __post_init__(self) -> None:
        if not (self.pose.shape == self.success.shape == self.confidence.shape):
            raise ValueError(
                f"PoseEstimate: batch shapes differ: pose {tuple(self.pose.shape)}, "
                f"success {tuple(self.success.shape)}, confidence {tuple(self.confidence.shape)}"
            )
        if len(self.reasons) != self.success.numel():
            raise ValueError(f"PoseEstimate: {len(self.reasons)} reasons for {self.success.numel()} poses")

    @property
    def verdict(self) -> Verdict:
        """How far to trust a single estimate (batch shape ()).

        The worse of its geometry and its metres. No pose, or one that is probably wrong, has
        failed; a confidence that is no probability says nothing. Metres are doubtful unless an
        interval within ``RELIABLE_METRES`` stands behind them, and so is what has ``doubts``.
        Raises ValueError for a batch.
        """
        self._require_single("a verdict")
        if not bool(self.success):
            return "failed"
        if not self.probability_of:
            return "uncalibrated"
        confidence = float(self.confidence)
        if confidence < FAILED:
            return "failed"
        sure = confidence >= RELIABLE and not self.doubts and not self.metres_are_doubtful
        return "reliable" if sure else "doubtful"

    @property
    def reasons_for_doubt(self) -> tuple[str, ...]:
        """Why a single estimate is doubtful, a phrase each.

        As the command line says it; none for a sure one or a failure. Of a pose that nothing was
        measured for (``uncalibrated``), only ``doubts``.
        """
        if self.verdict != "doubtful":
            return self.doubts if self.verdict == "uncalibrated" else ()
        few = () if float(self.confidence) >= RELIABLE else ("not enough speaks for this pose to rely on it",)
        metres = ("its distance may be off by more than a quarter",) if self.metres_are_doubtful else ()
        return (*self.doubts, *few, *metres)

    @property
    def metres_are_doubtful(self) -> bool:
        """Whether a single estimate tells metres that may be wrong.

        No interval of at most ``RELIABLE_METRES`` stands behind them.
        """
        if not self.details or not self.details[0].metric:
            return False
        if self.distance_interval is None:
            return True
        low, high = self.distance_interval
        return high - low > RELIABLE_METRES * (high + low)

    @property
    def reason(self) -> FailureReason | None:
        """Why a single estimate failed, None on success."""
        self._require_single("a reason")
        return self.reasons[0]

    @property
    def detail(self) -> PairDetails | LocalizationDetails | None:
        """How a single estimate came about.

        Of a pair or of a localization, None where a method tells nothing.
        """
        self._require_single("a detail")
        if self.details:
            return self.details[0]
        return self.localization[0] if self.localization else None

    def matrix(self) -> Float[np.ndarray, "*b 4 4"]:
        """The pose as homogeneous matrices, float64 numpy; NaN where it failed."""
        return self.pose.detach().to("cpu", torch.float64).matrix().numpy()

    def to_dict(self) -> dict[str, Any]:
        """A single estimate as numbers and words for JSON.

        Its entry of ``metriloc relpose --json``, without photos. A failed one has no pose in it.
        Raises ValueError for a batch.
        """
        self._require_single("a dictionary")
        entry: dict[str, Any] = {
            "success": bool(self.success),
            "reason": self.reason,
            "confidence": float(self.confidence),
            "verdict": self.verdict,
            "doubts": list(self.reasons_for_doubt),
            "confidence_is_probability_of": self.probability_of or None,
        }
        entry.update({} if self.detail is None else self.detail.to_dict())
        entry.update({} if self.track is None else {"track": self.track.to_dict()})
        if not (entry["success"] and bool(self.pose.is_finite())):
            return entry
        found = self.pose.detach()
        center = found.center().tolist()
        if self.localization:
            pose = found.to_dict(to_frame="query camera", from_frame="map", unit=self.localization[0].unit)
            spread = None if self.covariance is None else self.covariance.tolist()
            return {**entry, "cam_from_world": pose, "camera_center": center, "covariance": spread}
        unit = "metre" if entry.get("metric", True) else "unknown scale"
        low_high = self.distance_interval
        return {
            **entry,
            "query_from_reference": found.to_dict(to_frame="query camera", from_frame="reference camera", unit=unit),
            "camera_center_in_reference": center,
            "distance": float(found.distance()),
            "distance_interval_90": None if low_high is None else list(low_high),
            "rotation_angle_deg": math.degrees(float(found.angle())),
            **({} if self.covariance is None else {"covariance": self.covariance.tolist()}),
        }

    def __repr__(self) -> str:
        """At most three lines: the answer, how sure it is, and where the metres come from."""
        lines = self._batch_lines() if self.success.ndim else self._lines()
        return "PoseEstimate: " + "\n  ".join(lines)

    def _lines(self) -> list[str]:
        sure = f"confidence {float(self.confidence):.2f}, {self.verdict}"
        if not (bool(self.success) and bool(self.pose.is_finite())):
            return [f"no pose ({self.reason or 'no reason given'})", sure]
        sure = f"{sure}: {'; '.join(self.reasons_for_doubt)}" if self.reasons_for_doubt else sure
        pose, detail = self.pose.detach(), self.detail
        if isinstance(detail, LocalizationDetails):
            answer = words_of_place(
                pose.center().tolist(), detail.num_points, len(detail.references), detail.unit == "metre"
            )
        else:
            metric, source = (True, "") if detail is None else (detail.metric, detail.scale_source)
            center, turned = pose.center().tolist(), math.degrees(float(pose.angle()))
            answer = words_of_motion(center, turned, metric, source, self.distance_interval)
        return [answer[0], sure, *answer[1:]]

    def _batch_lines(self) -> list[str]:
        found = self.success.flatten().tolist()
        distances = self.pose.detach().distance().flatten().tolist()
        sources = [d.scale_source for d in self.details if d.metric]
        return words_of_batch(found, self.reasons, distances, self.confidence.flatten().tolist(), sources)

    def _repr_html_(self) -> str | None:
        """What a notebook shows, where the photos are known."""
        return None if self.page is None or self.success.ndim else self.page(self)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled without its page, which holds the photos and perhaps a map."""
        return {**self.__dict__, "page": None}

    def _require_single(self, what: str) -> None:
        if self.success.ndim:
            raise ValueError(f"{what} is of a single estimate, got batch shape {tuple(self.success.shape)}")

    @classmethod
    def failure(cls, reason: FailureReason, details: PairDetails | LocalizationDetails | None = None) -> PoseEstimate:
        """One failed estimate, batch shape (): NaN pose, confidence 0."""
        nan = Pose(torch.full((3, 3), torch.nan), torch.full((3,), torch.nan))
        no, zero = torch.tensor(False), torch.tensor(0.0)
        if isinstance(details, LocalizationDetails):
            return cls(nan, no, zero, (reason,), localization=(details,))
        details = details or PairDetails(score=0.0, inliers=Correspondences.empty())
        return cls(nan, no, zero, (reason,), (details,))

    @classmethod
    def stack(cls, estimates: Sequence[PoseEstimate]) -> PoseEstimate:
        """Single estimates (batch shape ()) -> one of batch shape (n,).

        It keeps them in ``elements``.
        """
        return cls(
            Pose.stack([e.pose for e in estimates]),
            torch.stack([e.success for e in estimates]),
            torch.stack([e.confidence for e in estimates]),
            tuple(r for e in estimates for r in e.reasons),
            tuple(d for e in estimates for d in e.details),
            tuple(d for e in estimates for d in e.localization),
            estimates[0].probability_of if len({e.probability_of for e in estimates}) == 1 else "",
            elements=tuple(estimates),
        )
