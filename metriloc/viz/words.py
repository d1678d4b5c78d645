"""A relative pose in words: how far, which way, how much it turned, or why there is none.

Plain text, not HTML. Angles are in degrees because people read them; directions are those of the reference camera
(OpenCV axes: x right, y down, z forward).
"""

from __future__ import annotations

import math

from metriloc.geometry import Pose
from metriloc.types import Correspondences, PairDetails, PoseEstimate
from metriloc.wording import interval, metres

FAILURES = {
    "too_few_matches": "too few matches. The photos may not show the same place, or overlap too little.",
    "degenerate": "the matches do not fix a pose. They lie on one line or in one point, or the cameras are so close "
    "together that the direction between them cannot be seen.",
    "unsupported": "too little speaks for any pose. The photos may show different places, or overlap too little.",
    "non_finite": "a value was not a number (NaN or infinite). A depth map, the intrinsics or the photo may be broken.",
}
"""Why there is no pose, by ``FailureReason``."""

_SIDES = (("to the right of", "to the left of"), ("below", "above"), ("in front of", "behind"))
_MOVES = (("right", "left"), ("down", "up"), ("forward", "back"))
_NAMED_SHARE = 0.35  # of the distance: below it, about 20 degrees, an axis is not worth a word


def has_pose(estimate: PoseEstimate) -> bool:
    """Whether the estimate (batch shape ()) may be shown as a pose.

    It succeeded and all its numbers are finite.
    """
    return bool(estimate.success) and bool(estimate.pose.is_finite())


def details_of(estimate: PoseEstimate) -> PairDetails:
    """The details of a single estimate, or empty ones."""
    return estimate.details[0] if estimate.details else PairDetails(score=0.0, inliers=Correspondences.empty())


def verdict(estimate: PoseEstimate) -> str:
    """The answer in a few sentences.

    Distance, turn, confidence and what is doubtful, or why there is no pose.

    >>> verdict(PoseEstimate.failure("too_few_matches")).startswith("No pose")
    True
    """
    if not has_pose(estimate):
        reason = estimate.reasons[0] or ""
        return f"No pose found: {FAILURES.get(reason, 'the method gave no reason.')}"
    turned = f"{math.degrees(float(estimate.pose.angle())):.0f}°"
    confidence = f"confidence {float(estimate.confidence):.2f} ({estimate.verdict})"
    details = details_of(estimate)
    reasons = "; ".join(estimate.reasons_for_doubt)
    doubts = f" Doubtful: {reasons}." if reasons else ""
    if details.metric:
        distance = f"{metres(float(estimate.pose.distance()))} away{interval(estimate.distance_interval)}"
        return f"The second camera stood {distance}, turned {turned}, {confidence}.{doubts}"
    because = details.scale_source.strip().rstrip(".") or "nothing in the input gives a scale"
    return (
        f"The second camera stood {side(estimate.pose)} the first, turned {turned}, {confidence}. "
        f"Direction only: no metres because {because}.{doubts}"
    )


def side(query_from_reference: Pose) -> str:
    """On which side of the reference the query stood. It is that of the cameras, the main direction first: "above and
    behind"."""
    center = [float(v) for v in query_from_reference.center()]
    length = math.hypot(*center)
    if length == 0:
        return "at the place of"
    order = sorted(range(3), key=lambda axis: -abs(center[axis]))
    named = [axis for axis in order if abs(center[axis]) > _NAMED_SHARE * length]
    return " and ".join(_SIDES[axis][0 if center[axis] > 0 else 1] for axis in named[:2])


def offsets(query_from_reference: Pose, unit: str) -> str:
    """Where the query camera stood, along the reference camera's axes.

    "1.10 m right, 0.05 m up, 0.90 m forward".
    """
    center = [float(v) for v in query_from_reference.center()]
    return ", ".join(f"{abs(v):.2f}{unit} {pair[0 if v >= 0 else 1]}" for v, pair in zip(center, _MOVES, strict=True))


def view_direction(query_from_reference: Pose) -> str:
    """Where the query camera looks, seen from the reference camera's optical axis.

    "36.9° right, 2.1° up".
    """
    x, y, z = (float(v) for v in query_from_reference.R[2])  # the query's z axis in the reference frame
    yaw, pitch = math.degrees(math.atan2(x, z)), math.degrees(math.atan2(-y, math.hypot(x, z)))
    return f"{abs(yaw):.1f}° {'right' if yaw >= 0 else 'left'}, {abs(pitch):.1f}° {'up' if pitch >= 0 else 'down'}"
