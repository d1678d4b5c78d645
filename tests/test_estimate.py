"""What an estimate says of itself: three lines, a dictionary for JSON, a matrix, short names for
one pair."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import pickle

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.io import pose_as_dict
from metriloc.types import (
    Correspondences,
    LocalizationDetails,
    PairDetails,
    PoseEstimate,
    Stage,
)


def pair(metric: bool = True, source: str = "the depth map of the reference", **changes: object) -> PoseEstimate:
    """A pair whose query camera stood 0.5 m to the right, turned by 30 degrees."""
    reference_from_query = Pose(so3_exp(torch.tensor([0.0, math.pi / 6, 0.0])), torch.tensor([0.5, 0.0, 0.0]))
    details = PairDetails(12.0, Correspondences.empty(), metric, source, timings={"match": 0.12345678})
    estimate = PoseEstimate(
        reference_from_query.inverse(), torch.tensor(True), torch.tensor(0.97), (None,), (details,), probability_of="it"
    )
    return dataclasses.replace(estimate, **changes)  # type: ignore[arg-type]


def in_map() -> PoseEstimate:
    pose = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([-1.0, 2.0, -3.0], dtype=torch.float64))
    details = LocalizationDetails(("a.jpg", "b.jpg"), 321, (Stage("fine", pose, 1.0),), {"fine": 0.1}, ("a note",))
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(0.5), (None,), localization=(details,))


BARE = PoseEstimate(Pose.identity(), torch.tensor(True), torch.tensor(1.0), (None,))


def test_three_lines() -> None:
    assert repr(pair(distance_interval=(0.45, 0.55))).splitlines() == [
        "PoseEstimate: 0.50 m away (nine times in ten 0.45 m to 0.55 m), turned 30°",
        "  confidence 0.97, reliable",
        "  metres from the depth map of the reference",
    ]
    assert repr(pair(doubts=("a rival",))).splitlines()[1] == (
        "  confidence 0.97, doubtful: a rival; its distance may be off by more than a quarter"
    )
    assert repr(pair(metric=False, source="no depth map was given")).splitlines() == [
        "PoseEstimate: towards x 0.50, y 0.00, z 0.00 (direction only), turned 30°",
        "  confidence 0.97, reliable",
        "  no metres: no depth map was given",
    ]
    assert repr(in_map()).splitlines() == [
        "PoseEstimate: camera at x 1.000, y -2.000, z 3.000 of the map",
        "  confidence 0.50, uncalibrated",
        "  from 321 points and 2 photos of the map, in its units",
    ]
    assert repr(PoseEstimate.failure("degenerate")).splitlines() == [
        "PoseEstimate: no pose (degenerate)",
        "  confidence 0.00, failed",
    ]
    assert str(BARE).splitlines() == ["PoseEstimate: 0.0 cm away, turned 0°", "  confidence 1.00, uncalibrated"]


def test_a_probably_wrong_pose_is_not_shown_as_if_it_were_right() -> None:
    assert "confidence 0.10, failed" in repr(pair(confidence=torch.tensor(0.1)))


def test_batches_in_three_lines() -> None:
    batch = PoseEstimate.stack([pair(), pair(confidence=torch.tensor(0.2)), PoseEstimate.failure("too_few_matches")])
    assert repr(batch).splitlines() == [
        "PoseEstimate: 3 in all, 2 with a pose (else too_few_matches)",
        "  distance 0.50, confidence 0.00 to 0.97",
        "  metres from the depth map of the reference",
    ]
    assert repr(PoseEstimate.stack([PoseEstimate.failure(r) for r in ("degenerate", "non_finite")])) == (
        "PoseEstimate: 2 in all, 0 with a pose (else degenerate, non_finite)"
    )
    grid = PoseEstimate(Pose.identity((2, 3)), torch.ones(2, 3, dtype=torch.bool), torch.rand(2, 3), (None,) * 6)
    nothing = PoseEstimate(Pose.identity((0,)), torch.zeros(0, dtype=torch.bool), torch.zeros(0), ())
    assert len(repr(grid).splitlines()) <= 3 and repr(nothing) == "PoseEstimate: 0 in all, 0 with a pose"


def test_gradients_do_not_hinder() -> None:
    t = torch.tensor([0.0, 0.0, 1.0], requires_grad=True)
    estimate = dataclasses.replace(pair(), pose=Pose(torch.eye(3), t))
    assert "1.00 m away" in repr(estimate) and estimate.matrix()[2, 3] == 1.0
    json.dumps(estimate.to_dict())


def test_short_names_of_one_pair() -> None:
    estimate, failed = pair(), PoseEstimate.failure("degenerate")
    assert estimate.detail is estimate.details[0]
    assert estimate.reason is None and failed.reason == "degenerate" and BARE.detail is None
    found = in_map()
    assert found.detail is found.localization[0]
    batch = PoseEstimate.stack([estimate, failed])
    assert batch.elements == (estimate, failed) and batch.elements[1].verdict == "failed"
    for what, read in (
        ("a reason", lambda: batch.reason),
        ("a detail", lambda: batch.detail),
        ("a dictionary", batch.to_dict),
        ("a verdict", lambda: batch.verdict),
    ):
        with pytest.raises(ValueError, match=rf"{what} is of a single estimate, got batch shape \(2,\)"):
            read()


def test_matrices_are_numpy() -> None:
    matrix = pair().matrix()
    assert isinstance(matrix, np.ndarray) and matrix.dtype == np.float64 and matrix.shape == (4, 4)
    assert np.allclose(matrix[:3] @ [0.5, 0, 0, 1], 0, atol=1e-7)  # where the query camera stood is its own origin
    batch = PoseEstimate.stack([pair(), PoseEstimate.failure("degenerate")]).matrix()
    assert batch.shape == (2, 4, 4) and np.isnan(batch[1, :3]).all() and np.isfinite(batch[0]).all()


def test_dictionaries_are_plain() -> None:
    estimate = pair(distance_interval=(0.45, 0.55))
    entry = json.loads(json.dumps(estimate.to_dict(), allow_nan=False))
    assert entry["query_from_reference"] == pose_as_dict(
        estimate.pose, to_frame="query camera", from_frame="reference camera", unit="metre"
    )
    assert entry["camera_center_in_reference"] == pytest.approx([0.5, 0, 0], abs=1e-7)
    assert entry["distance"] == pytest.approx(0.5) and entry["rotation_angle_deg"] == pytest.approx(30, abs=1e-4)
    assert entry["distance_interval_90"] == [0.45, 0.55] and entry["timings_s"] == {"match": 0.123457}
    assert (entry["verdict"], entry["doubts"], entry["reason"]) == ("reliable", [], None)
    place = json.loads(json.dumps(in_map().to_dict(), allow_nan=False))
    assert (
        place["camera_center"] == [1.0, -2.0, 3.0] and place["cam_from_world"]["translation_unit"] == "unit of the map"
    )
    assert place["references"] == ["a.jpg", "b.jpg"] and place["messages"] == ["a note"] and "distance" not in place
    direction = pair(metric=False).to_dict()
    assert direction["query_from_reference"]["translation_unit"] == "unknown scale"


@pytest.mark.parametrize("score", [0.0, math.nan, math.inf])
def test_dictionaries_of_failures_have_no_pose_and_no_nan(score: float) -> None:
    failed = PoseEstimate.failure("non_finite", PairDetails(score, Correspondences.empty()))
    entry = json.loads(json.dumps(failed.to_dict(), allow_nan=False))
    assert entry["success"] is False and entry["reason"] == "non_finite" and entry["verdict"] == "failed"
    assert not {"query_from_reference", "cam_from_world", "distance", "camera_center_in_reference"} & set(entry)


def test_dictionaries_are_what_the_command_line_writes() -> None:
    """As far as both know the same: the entry of ``metriloc relpose --json`` adds the photo and
    its camera."""
    from pathlib import Path

    from metriloc.runs.relpose_results import pair_result
    from metriloc.types import View

    class Features:
        view = View(torch.zeros(3, 4, 5), Camera.from_fov((5, 4), 1.0), name="q.jpg")

    for estimate in (
        pair(),
        pair(metric=False),
        pair(distance_interval=(0.4, 0.6)),
        PoseEstimate.failure("degenerate"),
    ):
        entry = pair_result(Path("q.jpg"), estimate, Features()).entry  # type: ignore[arg-type]
        own = estimate.to_dict()
        assert {key: entry[key] for key in own} == own
        assert set(entry) - set(own) == {"query", "photo", "camera", "intrinsics_source"}


def test_notebooks_get_nothing_where_the_photos_are_not_known() -> None:
    assert pair()._repr_html_() is None and PoseEstimate.stack([pair(), pair()])._repr_html_() is None
    drawn = pair(page=lambda estimate: f"<p>{float(estimate.confidence):.2f}</p>")
    assert drawn._repr_html_() == "<p>0.97</p>"
    # a page may hold photos and a map, which nobody wants in a file
    for again in (pickle.loads(pickle.dumps(drawn)), copy.copy(drawn)):
        assert again.page is None and repr(again) == repr(drawn) and again.distance_interval is None
