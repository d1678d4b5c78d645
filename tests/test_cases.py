"""Pairs that once looked right and were not (``../shared/cases``): what the default says of each."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.calibration import calibrations_of
from metriloc.choose import MethodChoice, choose_method
from metriloc.geometry import Pose
from metriloc.io import InputError, load_view
from metriloc.types import PoseEstimate, RelativePoseMethod

K = (646.75, 647.85, 356.03, 235.59)
METHODS = (
    MethodChoice("mickey"),
    MethodChoice("matching", depth="none"),
    pytest.param(MethodChoice("aliked+lightglue", depth="none"), marks=pytest.mark.wheels),
)


@pytest.fixture(scope="module", params=METHODS, ids=lambda choice: choice.name)
def method(request: pytest.FixtureRequest) -> RelativePoseMethod:
    try:
        found = choose_method(request.param)
    except InputError as error:
        if request.param.name != "aliked+lightglue":
            raise
        pytest.skip(str(error))
    assert calibrations_of(found)
    return found


Solve = Callable[..., PoseEstimate]


@pytest.fixture()
def solve(shared: Callable[[str], Path]) -> Solve:
    """The estimate of a query of the folder, against ref.jpg unless another reference is named."""
    folder = shared("cases/09_geometry")

    def run(method: RelativePoseMethod, query: str, reference: str = "ref.jpg") -> PoseEstimate:
        views = [load_view(folder / name, K=K) for name in (reference, query)]
        return method.relative_pose(*views)

    return run


@pytest.mark.slow
def test_photos_of_other_places_have_no_pose(method: RelativePoseMethod, solve: Solve) -> None:
    for query in ("blank.jpg", "other_place.jpg"):
        found = solve(method, query)
        assert not bool(found.success) and found.verdict == "failed" and bool(found.pose.t.isnan().all()), query
        assert found.reasons[0] in ("unsupported", "too_few_matches", "degenerate")


@pytest.mark.slow
def test_a_mirrored_facade_and_moved_tiles_are_never_reliable(method: RelativePoseMethod, solve: Solve) -> None:
    assert solve(method, "mirror.jpg").verdict in ("doubtful", "failed")
    assert solve(method, "tiles_shift.jpg", "tiles.jpg").verdict in ("doubtful", "failed")


@pytest.mark.slow
def test_a_turn_is_found_and_no_way_is_claimed(method: RelativePoseMethod, solve: Solve) -> None:
    found = solve(method, "rot8.jpg")
    if bool(found.success):
        assert math.degrees(float(found.pose.angle())) == pytest.approx(8, abs=0.5)
        assert not found.details[0].metric or float(found.pose.distance()) < 0.05
    else:  # without depth, a turn alone fixes no direction
        assert found.reasons[0] == "degenerate"


def test_the_same_photo_twice_stands_at_one_place(solve: Solve) -> None:
    found = solve(choose_method(MethodChoice("mickey")), "same.jpg")
    assert float(found.pose.distance()) < 0.02 and math.degrees(float(found.pose.angle())) < 0.2
    assert found.distance_interval is not None and found.distance_interval[1] < 0.3


@pytest.mark.slow
def test_a_plane(method: RelativePoseMethod, solve: Solve, shared: Callable[[str], Path]) -> None:
    found = solve(method, "plane.jpg")
    rows = np.loadtxt(shared("cases/09_geometry/plane_truth.txt"))
    truth = Pose(torch.from_numpy(rows[:, :3]), torch.from_numpy(rows[:, 3]))
    if found.verdict == "reliable":
        assert math.degrees(float((found.pose.to(truth.t) @ truth.inverse()).angle())) < 5
    assert bool(found.success)
