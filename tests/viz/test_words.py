"""The verdict in words."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from metriloc.geometry import Pose, so3_exp
from metriloc.types import Correspondences, PairDetails, PoseEstimate
from metriloc.viz import verdict
from metriloc.viz.words import FAILURES, offsets, side, view_direction
from metriloc.wording import metres


def looking(yaw_deg: float, center: tuple[float, float, float]) -> Pose:
    """The query camera at ``center`` (reference frame), turned to the right by ``yaw_deg``."""
    reference_from_query = so3_exp(torch.tensor([0.0, math.radians(yaw_deg), 0.0], dtype=torch.float64))
    return Pose(reference_from_query, torch.tensor(center, dtype=torch.float64)).inverse()


def estimate(pose: Pose, metric: bool = True, source: str = "") -> PoseEstimate:
    details = PairDetails(score=3.0, inliers=Correspondences.empty(), metric=metric, scale_source=source)
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(0.71), (None,), (details,))


def test_metric_verdict() -> None:
    text = verdict(estimate(looking(38.0, (1.42, 0.0, 0.0))))
    assert text == "The second camera stood 1.42 m away, turned 38°, confidence 0.71 (uncalibrated)."


def test_a_calibrated_confidence_has_a_word_and_its_reasons() -> None:
    found = dataclasses.replace(estimate(looking(38.0, (1.42, 0.0, 0.0))), probability_of="rotation below 5 degrees")
    sure = dataclasses.replace(found, confidence=torch.tensor(0.95), distance_interval=(1.3, 1.6))
    assert verdict(sure) == (
        "The second camera stood 1.42 m away (nine times in ten 1.30 m to 1.60 m), turned 38°, "
        "confidence 0.95 (reliable)."
    )
    vague = dataclasses.replace(sure, distance_interval=(0.8, 2.5))
    assert verdict(vague).endswith(
        "confidence 0.95 (doubtful). Doubtful: its distance may be off by more than a quarter."
    )
    assert "Doubtful: a rival; not enough speaks" in verdict(
        dataclasses.replace(found, doubts=("a rival",), distance_interval=(1.3, 1.6))
    )


def test_direction_only_says_why() -> None:
    text = verdict(estimate(looking(-10.0, (-1.0, 0.0, 0.0)), metric=False, source="no depth map was given."))
    assert text == (
        "The second camera stood to the left of the first, turned 10°, confidence 0.71 (uncalibrated). "
        "Direction only: no metres because no depth map was given."
    )


@pytest.mark.parametrize("reason", ["too_few_matches", "degenerate", "non_finite", "unsupported"])
def test_failure_says_why(reason: str) -> None:
    text = verdict(PoseEstimate.failure(reason))  # type: ignore[arg-type]
    assert text == f"No pose found: {FAILURES[reason]}"


def test_a_success_without_numbers_is_no_pose() -> None:
    broken = estimate(Pose(torch.eye(3), torch.full((3,), torch.nan)))
    assert verdict(broken).startswith("No pose found: ")


@pytest.mark.parametrize(
    ("length", "text"), [(0.0321, "3.2 cm"), (0.1, "0.10 m"), (1.416, "1.42 m"), (27.34, "27.3 m"), (0.0, "0.0 cm")]
)
def test_metres(length: float, text: str) -> None:
    assert metres(length) == text


@pytest.mark.parametrize(
    ("center", "text"),
    [
        ((1.0, 0.0, 0.0), "to the right of"),
        ((0.0, 1.0, 0.0), "below"),
        ((0.0, -1.0, 0.1), "above"),
        ((0.0, 0.0, -2.0), "behind"),
        ((-1.0, 0.0, 2.0), "in front of and to the left of"),
        ((0.0, 0.0, 0.0), "at the place of"),
    ],
)
def test_sides(center: tuple[float, float, float], text: str) -> None:
    assert side(looking(57.0, center)) == text


def test_offsets_and_view_direction() -> None:
    pose = looking(36.9, (1.1, -0.05, 0.9))
    assert offsets(pose, " m") == "1.10 m right, 0.05 m up, 0.90 m forward"
    assert view_direction(pose).startswith("36.9° right, 0.0°")
    up = Pose(so3_exp(torch.tensor([math.radians(20.0), 0.0, 0.0])), torch.zeros(3)).inverse()
    assert view_direction(up).endswith("20.0° up")
