"""Calibrations: never falling with support, nothing believed beyond what was seen, verdicts as the worse of two."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metriloc.calibration import (
    Calibration,
    Metres,
    Target,
    calibrations_of,
    feature_row,
    judged,
    load_calibration,
    save_calibration,
    that_fit,
)
from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.io import InputError
from metriloc.io.packaged import own_data
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View
from metriloc.viz import verdict

STATISTICS = ("inliers", "order")
FITTED = Calibration(
    "logistic",
    Target(rotation_deg=5, direction_deg=10, near_m=0.05),
    STATISTICS,
    (-9.0, 2.0, 3.0),
    "toy",
    "toy-1",
    300,
    "made up",
    "solver a",
    ((10.0, 500.0), (0.3, 1.0)),
    Metres(0.95, 1.1),
)


def estimate(
    inliers: float = 400.0, metric: bool = True, setup: str = "solver a", scale_sigma: float = math.nan
) -> PoseEstimate:
    statistics = {"inliers": inliers, "order": 0.99, "parallax_deg": 5.0}
    details = PairDetails(
        9.0, Correspondences.empty(), metric, scale_sigma=scale_sigma, setup=setup, statistics=statistics
    )
    pose = Pose(so3_exp(torch.tensor([0.0, 0.2, 0.0])), torch.tensor([2.0, 0.0, 0.0]))
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(0.3), (None,), (details,))


def view(focal_sigma: float = 0.0) -> View:
    return View(torch.zeros(3, 8, 8), Camera.from_fov((8, 8), 1.0), name="a.jpg", focal_sigma=focal_sigma)


@settings(max_examples=200, deadline=None)
@given(st.floats(0, 1e9), st.floats(0, 1e9), st.floats(0, 1))
def test_more_support_never_lowers_the_probability(a: float, b: float, order: float) -> None:
    low, high = sorted((a, b))
    values = [FITTED.probability(0, {"inliers": n, "order": order}) for n in (low, high)]
    assert 0 <= values[0] <= values[1] <= 1


def test_nothing_is_believed_beyond_what_was_seen() -> None:
    at_most = FITTED.probability(0, {"inliers": 500.0, "order": 1.0})
    assert FITTED.probability(0, {"inliers": 1e12, "order": 1.0}) == at_most
    # no inliers at all are the least that was seen, not a logarithm of zero
    least = FITTED.probability(0, {"inliers": 10.0, "order": 1.0})
    assert FITTED.probability(0, {"inliers": 0.0, "order": 1.0}) == least
    assert FITTED.probability(0, {"inliers": math.nan, "order": 1.0}) == least


def test_an_answer_that_is_probably_wrong_is_no_answer() -> None:
    found = FITTED.apply(estimate(inliers=10.0))
    assert not bool(found.success) and found.reasons == ("unsupported",) and found.verdict == "failed"
    assert bool(found.pose.t.isnan().all()) and float(found.confidence) == 0
    assert found.details[0].statistics["inliers"] == 10


def test_the_verdict_is_the_worse_of_geometry_and_metres() -> None:
    sure = FITTED.apply(estimate())
    assert float(sure.confidence) > 0.9 and sure.verdict == "reliable"
    assert sure.distance_interval == pytest.approx((1.9, 2.2))
    vague = dataclasses.replace(FITTED, metres=Metres(0.6, 2.0)).apply(estimate())
    assert vague.verdict == "doubtful" and vague.metres_are_doubtful
    unknown = dataclasses.replace(FITTED, metres=None).apply(estimate())
    assert unknown.verdict == "doubtful" and unknown.distance_interval is None
    # without metres there is nothing to doubt but the direction
    assert dataclasses.replace(FITTED, metres=None).apply(estimate(metric=False)).verdict == "reliable"
    given_distance = dataclasses.replace(FITTED, metres=None).apply(estimate(scale_sigma=0.0))
    assert given_distance.verdict == "reliable" and given_distance.distance_interval == pytest.approx((2.0, 2.0))
    assert dataclasses.replace(sure, doubts=("a rival",)).verdict == "doubtful"
    assert estimate().verdict == "uncalibrated"


def test_a_guessed_focal_length_is_never_reliable() -> None:
    found = FITTED.apply(estimate(), [view(), view(0.25)])
    assert found.verdict == "doubtful" and found.doubts == ("the focal length of 'a.jpg' is a guess",)
    assert found.distance_interval is not None and found.distance_interval[1] > 2.5
    assert FITTED.apply(estimate(), [view(), view(0.02)]).verdict == "reliable"


def test_python_is_told_the_same_doubts_as_the_command_line() -> None:
    """Doubtful metres alone left ``doubts`` empty, and only the command line said why."""
    sure = dataclasses.replace(estimate(), confidence=torch.tensor(0.95), probability_of="rotation below 5 degrees")
    vague = dataclasses.replace(sure, distance_interval=(0.5, 3.0))
    assert vague.verdict == "doubtful"
    assert vague.reasons_for_doubt == ("its distance may be off by more than a quarter",)
    weak = dataclasses.replace(vague, confidence=torch.tensor(0.5), doubts=("a rival",))
    assert weak.reasons_for_doubt == (
        "a rival",
        "not enough speaks for this pose to rely on it",
        *vague.reasons_for_doubt,
    )
    assert all(reason in verdict(weak) for reason in weak.reasons_for_doubt)
    assert dataclasses.replace(sure, distance_interval=(1.9, 2.1)).reasons_for_doubt == ()
    # a pose that nothing was measured for may have doubts, too; they were told nowhere
    unknown = dataclasses.replace(estimate(), doubts=("a rival",))
    assert unknown.verdict == "uncalibrated" and unknown.reasons_for_doubt == ("a rival",)
    assert "Doubtful: a rival" in verdict(unknown)
    assert PoseEstimate.failure("degenerate").reasons_for_doubt == ()


def test_little_parallax_widens_the_interval() -> None:
    metres = Metres(0.95, 1.1, 0.5)
    far, near = metres.interval(2.0, 0.5), metres.interval(2.0, 5.0)
    assert far[0] < near[0] < 1.9 and far[1] > near[1] > 2.2
    assert all(math.isfinite(end) for end in metres.interval(2.0, 0.0))
    # a camera that hardly moved: the interval is centimetres of what is seen, not a factor of a million
    low, high = metres.interval(0.002, 0.05)
    assert low == 0 and high < 0.04


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "calibration.json"
    save_calibration(path, FITTED)
    assert load_calibration(path) == FITTED
    content = json.loads(path.read_text())
    changes = (
        {"parameters": [1.0]},
        {"parameters": [-9.0, -2.0, 3.0]},  # would fall with support
        {"parameters": ["1", 1, 1]},
        {"parameters": [1e999, 1, 1]},
        {"kind": "magic"},
        {"kind": "isotonic"},
        {"ranges": [[1, 2]]},
        {"ranges": [[2, 1], [1, 2]]},
        {"ranges": [1, 2]},
        {"metres": {"low": 2, "high": 1}},
        {"metres": {"low": True, "high": 1}},
        {"metres": 3},
        {"target": {"rotation_deg": True}},
        {"target": {"near_m": 1, "rotation_deg": None}},
        {"extra": 1},
        {"statistics": 3},
        {"statistics": [1, 2]},
        {"pairs": "many"},
    )
    for change in changes:
        path.write_text(json.dumps({**content, **change}))
        with pytest.raises(InputError, match="not a calibration"):
            load_calibration(path)
    path.write_text("[")
    with pytest.raises(InputError, match="is not JSON"):
        load_calibration(path)


def test_targets_in_words() -> None:
    assert str(FITTED.target) == "rotation below 5 degrees, direction below 10 degrees (any direction within 0.05 m)"
    with pytest.raises(ValueError, match="positive bound"):
        Target(rotation_deg=None)


class ToyMethod:
    name, weights_id = "toy", "toy-1"

    def __init__(self, *calibrations: Calibration) -> None:
        self.calibrations = that_fit(self.name, self.weights_id, calibrations)

    def extract(self, view: object) -> object:
        return view

    def relative_pose(self, reference: Features, query: Features, *, seed: int = 0) -> PoseEstimate:
        lost = PoseEstimate.failure("degenerate", estimate().details[0])
        found = lost if query.name == "lost" else estimate(setup=query.name)
        return judged(found, self.calibrations, (reference.view, query.view))


class Features:
    def __init__(self, name: str) -> None:
        self.name, self.view = name, view()


def test_a_calibrated_method_reports_the_probability() -> None:
    method = ToyMethod(FITTED)
    found = method.relative_pose(Features("solver a"), Features("solver a"))
    assert float(found.confidence) == pytest.approx(FITTED.probability(0, found.details[0].statistics), abs=1e-6)
    assert found.probability_of == str(FITTED.target) and found.verdict == "reliable"
    lost = method.relative_pose(Features("solver a"), Features("lost"))
    assert lost.verdict == "failed" and float(lost.confidence) == 0
    assert calibrations_of(method) == (FITTED,) and calibrations_of(ToyMethod()) == ()
    both = PoseEstimate.stack([found, found])
    assert both.probability_of == found.probability_of
    with pytest.raises(ValueError, match=r"batch shape \(2,\)"):
        _ = both.verdict


def test_a_calibration_fits_all_that_made_the_estimate() -> None:
    other = dataclasses.replace(FITTED, setup="solver b", parameters=(-99.0, 0.0, 0.0))
    method = ToyMethod(FITTED, other)
    assert method.relative_pose(Features("x"), Features("solver a")).verdict == "reliable"
    assert method.relative_pose(Features("x"), Features("solver b")).verdict == "failed"
    assert method.relative_pose(Features("x"), Features("solver c")).verdict == "uncalibrated"
    with pytest.raises(InputError, match="toy-2"):
        ToyMethod(dataclasses.replace(FITTED, weights_id="toy-2"))


@pytest.mark.parametrize("path", sorted(own_data("calibration").glob("*.json")), ids=lambda path: path.stem)
def test_what_comes_with_metriloc_says_little_of_nothing(path: Path) -> None:
    found = load_calibration(path)
    nothing, everything = dict.fromkeys(found.statistics, 0.0), dict.fromkeys(found.statistics, 1e9)
    assert found.probability(0.0, nothing) < 0.05 < 0.5 < found.probability(1.0, everything)
    assert found.pairs >= 150 and "unrelated" in found.source


@pytest.mark.parametrize("sigma", [1e3, 1e12, 1e300])
def test_a_scale_that_nothing_fixes_is_a_wide_interval(sigma: float) -> None:
    found = FITTED.apply(estimate(scale_sigma=sigma))
    assert found.distance_interval is not None and found.metres_are_doubtful
    low, high = found.distance_interval
    assert 0 <= low < 1e-4 and 1e5 < high < math.inf


def test_a_row_of_features_is_logarithms_with_a_floor() -> None:
    row = feature_row(
        0.5, {"inliers": 100.0, "broken": math.nan, "none": 0.0}, ["confidence", "inliers", "broken", "none"]
    )
    assert row[:2] == pytest.approx([math.log(0.5), math.log(100)])
    assert row[2:] == [math.log(1e-3)] * 2
    with pytest.raises(ValueError, match="no statistic 'gone'"):
        feature_row(0.5, {}, ["gone"])
