"""Photos that lie on their side: the pose is that of the photo as it is stored, and the answer says what was done."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import metriloc
from metriloc.choose import LocalizerChoice, MethodChoice, choose_localizer, choose_method
from metriloc.geometry import Camera, Pose, so3_log
from metriloc.io import load_view, turn_view
from metriloc.io.changed_views import mirror_view
from metriloc.io.maps import load_map_view, read_map
from metriloc.localization import localize
from metriloc.relpose import relative_pose
from metriloc.turns import by_quarter_turns, pixels_turned_back, turned_back
from metriloc.types import Correspondences, LocalizationDetails, PairDetails, PoseEstimate, Stage, View

K = (646.7531, 647.85, 356.0289, 235.5883)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_pixels_go_back_to_where_they_were(quarters: int) -> None:
    """An image of its own pixel numbers, turned, holds at each pixel where that one was."""
    v, u = torch.meshgrid(torch.arange(4.0), torch.arange(6.0), indexing="ij")
    turned = torch.rot90(torch.stack([u, v]), quarters, (1, 2))
    rows, columns = torch.meshgrid(*(torch.arange(float(n)) for n in turned.shape[1:]), indexing="ij")
    back = pixels_turned_back(torch.stack([columns, rows], -1).reshape(-1, 2), quarters, (6, 4))
    assert torch.equal(back, turned.flatten(1).T)


def _estimate(pose: Pose, success: bool, confidence: float) -> PoseEstimate:
    details = PairDetails(1.0, Correspondences.empty())
    stages = LocalizationDetails(stages=(Stage("pnp", pose, 0.0),))
    return PoseEstimate(pose, torch.tensor(success), torch.tensor(confidence), (None,), (details,), (stages,))


def test_the_surest_turn_wins_and_its_pose_is_turned_back() -> None:
    image = torch.rand(3, 4, 6)
    view = View(image, Camera.from_fov((6, 4), 1.0))
    truth = Pose.from_tangent(torch.tensor([0.1, -0.2, 0.3, 0.4, 0.5, 0.6], dtype=torch.float64))
    seen = []

    def attempt(turned: View, turned_from_view: Pose) -> PoseEstimate:
        seen.append(turned.size)
        confidence = {0: 0.0, 1: 0.55, 2: 0.0, 3: 0.6}[len(seen) - 1]
        return _estimate(turned_from_view @ truth, confidence > 0, confidence)

    found, quarters = by_quarter_turns(view, attempt, lambda e: e)
    assert seen == [(6, 4), (4, 6), (4, 6), (6, 4)] and quarters == 2
    estimate = turned_back(found, quarters, view.size)
    for pose in (estimate.pose, estimate.localization[0].stages[0].cam_from_world):
        torch.testing.assert_close(pose.matrix(), truth.matrix())
    assert "turned by 180 degrees" in estimate.details[0].messages[0]
    assert "turned by 180 degrees" in estimate.localization[0].messages[0]


def test_an_unsure_answer_for_a_turned_photo_is_none() -> None:
    view = View(torch.rand(3, 4, 6), Camera.from_fov((6, 4), 1.0))
    nothing = PoseEstimate.failure("too_few_matches")
    unsure = _estimate(Pose.identity((), dtype=torch.float64), True, 0.3)
    found, quarters = by_quarter_turns(view, lambda turned, _: nothing if turned is view else unsure, lambda e: e)
    assert found is nothing and quarters == 0


def test_a_photo_that_is_found_at_once_is_not_turned() -> None:
    view = View(torch.rand(3, 4, 6), Camera.from_fov((6, 4), 1.0))
    sure = _estimate(Pose.identity((), dtype=torch.float64), True, 0.1)
    found, quarters = by_quarter_turns(
        view, lambda turned, _: sure if turned is view else pytest.fail("turned"), lambda e: e
    )
    assert found is sure and quarters == 0 and turned_back(found, 0, view.size) is sure


@pytest.mark.slow
@pytest.mark.wheels
def test_a_pair_with_one_photo_on_its_side(shared: Callable[[str], Path]) -> None:
    folder = shared("cases/09_geometry")
    reference = load_view(folder / "ref.jpg", K=K, max_side=400)
    turned = load_view(folder / "turned90.jpg", fov=2 * math.degrees(math.atan(240 / 647)), max_side=400)
    # the camera did not move: only a depth lets that be an answer
    method = choose_method(MethodChoice("xfeat", depth="metriloc-depth"))
    estimate = relative_pose(reference, turned, method=method)
    assert bool(estimate.success)
    assert math.degrees(float(estimate.pose.angle())) == pytest.approx(90, abs=1.5)
    assert any("turned" in message for message in estimate.details[0].messages)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_covariance_is_turned_back(quarters: int, generator: torch.Generator) -> None:
    """The same small step of the turned camera, as one of the camera, is as far in sigmas."""
    root = torch.rand(6, 6, generator=generator, dtype=torch.float64)
    pose = Pose.from_tangent(torch.tensor([0.1, -0.2, 0.3, 0.4, 0.5, 0.6], dtype=torch.float64))
    found = replace(_estimate(pose, True, 0.9), covariance=root @ root.mT + torch.eye(6))
    back = turned_back(found, quarters, (6, 4))
    assert back.covariance is not None and found.covariance is not None
    step = 1e-6 * torch.rand(6, generator=generator, dtype=torch.float64)
    moved = turned_back(replace(found, pose=Pose.from_tangent(step) @ pose), quarters, (6, 4)).pose
    off = moved @ back.pose.inverse()
    delta = torch.cat([off.t, so3_log(off.R)])
    told = float(delta @ torch.linalg.solve(back.covariance, delta))
    assert told == pytest.approx(float(step @ torch.linalg.solve(found.covariance, step)), rel=1e-4)


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize("method", ["xfeat-pnp", "nre-xfeat", "nre"])
def test_a_mirrored_photo_is_never_reliable_in_a_map(shared: Callable[[str], Path], method: str) -> None:
    """0.91 to 0.97 and reliable before the mirror image of what is only just reliable was looked at."""
    place = shared("data/eval/places/fountain_p11")
    scene = read_map(place / "sparse", place)
    query = load_view(shared("cases/09_geometry") / "mirror.jpg", K=K)
    assert localize(query, scene, method=method).verdict != "reliable"


@pytest.mark.slow
@pytest.mark.parametrize("method", ["xfeat-pnp", "nre-xfeat"])
def test_a_mirrored_photo_of_the_map_is_never_reliable(shared: Callable[[str], Path], method: str) -> None:
    """It seems to show the other half of the facade; the photos that it is compared with there know nothing of its own."""
    place = shared("data/eval/places/fountain_p11")
    scene = read_map(place / "sparse", place)
    localizer = metriloc.Localizer(scene, method=method)
    right = load_map_view(scene, 2)
    assert localizer.localize(right).verdict == "reliable"
    found = localizer.localize(mirror_view(right))
    assert found.verdict == "doubtful" and "mirrored" in found.doubts[0]


@pytest.mark.slow
@pytest.mark.wheels
@pytest.mark.parametrize("quarters", [1, 3])
def test_a_query_on_its_side_is_found_in_a_map(shared: Callable[[str], Path], quarters: int) -> None:
    place = shared("data/eval/places/fountain_p11")
    scene = read_map(place / "sparse", place)
    index = scene.index("seq0/frame_00004.jpg")
    upright = load_view(place / "seq0/frame_00004.jpg", camera=scene.cameras[index])
    turned, turned_from_upright = turn_view(upright, quarters)
    method = choose_localizer(LocalizerChoice("xfeat-pnp"))
    estimate = localize(turned, scene.without([index]), method=method)
    truth = turned_from_upright @ scene.cam_from_world[index]
    assert bool(estimate.success)
    assert float((estimate.pose.to(torch.float64).center() - truth.center()).norm()) < 0.1
    assert math.degrees(float((estimate.pose.to(torch.float64) @ truth.inverse()).angle())) < 1
    assert any("turned" in message for message in estimate.localization[0].messages)
