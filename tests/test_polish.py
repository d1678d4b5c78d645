"""Polish by a localizer: better poses with a depth map, the length of the two photos, and no more trust than before."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

import metriloc
from metriloc.choose import MethodChoice, choose_method, polished
from metriloc.geometry import Pose
from metriloc.io import InputError, read_mapfree_poses, turn_view
from metriloc.io.packaged import own_data
from metriloc.methods.pixloc import PixLoc
from metriloc.polish import Polished
from metriloc.relpose import relative_pose_by_turns
from metriloc.types import Correspondences, MetresSource, PairDetails, PoseEstimate, SfmMap, View

EXAMPLE = own_data("example")


@pytest.fixture(scope="module")
def photos() -> tuple[View, View]:
    reference = metriloc.load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    return reference, metriloc.load_view(EXAMPLE / "query.jpg")


@pytest.fixture(scope="module")
def truth() -> Pose:
    found = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert found is not None
    return found


class Finding:
    """A method that knows a pose, and true matches for it."""

    name, weights_id, calibrations = "finding", "finding-1", ()

    def __init__(self, photos: tuple[View, View], truth: Pose, pose: Pose, **changes: Any) -> None:
        view0, view1 = photos
        assert view0.depth is not None
        v, u = torch.meshgrid(torch.arange(20, view0.size[1], 40), torch.arange(20, view0.size[0], 40), indexing="ij")
        uv0 = torch.stack([u, v], -1).reshape(-1, 2).double()
        depth = view0.depth[uv0[:, 1].long(), uv0[:, 0].long()].double()
        known = depth > 0
        xyz = view0.camera.to(torch.float64).lift(uv0[known], depth[known])
        uv1, seen = view1.camera.to(torch.float64).project(truth.transform(xyz))
        one = torch.ones(int(seen.sum()))
        matches = Correspondences(uv0[known][seen], uv1[seen], one, one, one)
        details = PairDetails(float(len(one)), matches, True, "somewhere", setup="found", matches=matches)
        estimate = PoseEstimate(pose, torch.tensor(True), torch.tensor(0.7), (None,), (details,))
        interval = (0.5 * float(pose.distance()), 2 * float(pose.distance()))
        self.estimate = replace(
            estimate, probability_of="rightness", distance_interval=interval, **{"doubts": ("a doubt",), **changes}
        )

    def extract(self, view: View) -> Any:
        return Features(view)

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        return self.estimate


class Features:
    cell, depth_origin = (8.0, 8.0), "given"

    def __init__(self, view: View) -> None:
        self.view = view

    def score_map(self) -> torch.Tensor:
        return torch.zeros(1, 1)

    def depth_map(self) -> None:
        return None


class Predicting(Features):
    """Of a method that predicts depth; here nonsense, beside the map that came with the photo."""

    depth_origin = "predicted by somebody"

    def depth_map(self) -> torch.Tensor:  # type: ignore[override]
        return torch.full((4, 4), 7.0)


@pytest.fixture(scope="module")
def coarse(truth: Pose) -> Pose:
    """The true pose, a degree and centimeters off."""
    return Pose.from_tangent(torch.tensor([0.03, -0.02, 0.02, 0.008, -0.012, 0.006]).double()) @ truth


def errors(estimate: PoseEstimate, truth: Pose) -> tuple[float, float]:
    pose = estimate.pose.double()
    return math.degrees(float(pose.angle_to(truth))), float(pose.center_distance(truth))


def test_a_polish_is_more_exact_and_no_surer(photos: tuple[View, View], truth: Pose, coarse: Pose) -> None:
    method = Finding(photos, truth, coarse)
    before, after = method.estimate, polished(method, "pixloc").relative_pose(*photos)
    assert errors(after, truth)[0] < 0.3 * errors(before, truth)[0]
    assert errors(after, truth)[1] < 0.5 * errors(before, truth)[1]
    assert (after.confidence, after.verdict, after.doubts) == (before.confidence, before.verdict, before.doubts)
    assert before.distance_interval and after.distance_interval
    assert after.distance_interval[1] / after.distance_interval[0] == pytest.approx(4)
    (details,) = after.details
    assert details.setup == "found; polished by pixloc" and "polish by pixloc" in details.timings
    assert "its points put the cameras" in details.messages[-1] and details.messages[-1].startswith(
        "polished by pixloc"
    )


def test_a_distance_that_is_known_stays(photos: tuple[View, View], truth: Pose, coarse: Pose) -> None:
    method = Finding(photos, truth, coarse)
    (details,) = method.estimate.details
    known = replace(details, metres_sources=(MetresSource("distance", float(coarse.distance()), 0.0, 1.0),))
    method.estimate = replace(method.estimate, details=(known,))
    after = polished(method, "pixloc").relative_pose(*photos)
    assert float(after.pose.distance()) == pytest.approx(float(coarse.distance()), rel=1e-9)
    assert errors(after, truth)[0] < 0.3 * errors(method.estimate, truth)[0]


def test_a_wrong_scale_of_depths_changes_no_length(photos: tuple[View, View], truth: Pose, coarse: Pose) -> None:
    assert photos[0].depth is not None
    far = replace(photos[0], depth=2 * photos[0].depth)
    after = polished(Finding(photos, truth, coarse), "pixloc").relative_pose(far, photos[1])
    assert after.details[0].messages[-1].startswith("polished")
    assert float(after.pose.distance()) == pytest.approx(float(coarse.distance()), rel=1e-9)


def test_a_depth_map_knows_better_than_predicted_metres(photos: tuple[View, View], truth: Pose, coarse: Pose) -> None:
    longer = Pose(coarse.R, 1.6 * coarse.t)
    method = Finding(photos, truth, longer)
    method.extract = lambda view: Predicting(view)  # type: ignore[method-assign]
    after = polished(method, "pixloc").relative_pose(*photos)
    assert errors(after, truth)[0] < 0.3 * errors(method.estimate, truth)[0]
    assert float(after.pose.distance()) == pytest.approx(float(truth.distance()), rel=0.03)
    assert after.details[0].scale_source == "the depth map of the reference, by pixloc"
    assert after.metres_are_doubtful and after.verdict == "doubtful"


class Saying:
    """A localizer that answers what it is told to."""

    name, weights_id = "saying", "saying-1"

    def __init__(self, answer: PoseEstimate) -> None:
        self.answer, self.query = answer, None

    def localize(self, query: View, scene: SfmMap, references: Any, init: Any = None, **rest: Any) -> PoseEstimate:
        self.query = query
        return self.answer


def absolute(pose: Pose) -> PoseEstimate:
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(0.9), (None,))


def test_what_the_matches_speak_against_is_not_taken(photos: tuple[View, View], truth: Pose) -> None:
    wrong = Pose.from_tangent(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.2, 0.0]).double()) @ truth
    method = Finding(photos, truth, truth)
    found = Polished(method, Saying(absolute(wrong)), "saying").relative_pose(*photos)
    assert found.pose is method.estimate.pose and found.details[0].setup == "found"
    assert "not polished by saying: it moved the pose by 11 degrees" in found.details[0].messages[-1]


def test_a_localizer_that_finds_nothing_changes_nothing(photos: tuple[View, View], truth: Pose) -> None:
    method = Finding(photos, truth, truth)
    for answer, reference, why in (
        (PoseEstimate.failure("diverged"), photos[0], "it found no pose (diverged)"),
        (absolute(truth), replace(photos[0], depth=None), "nothing gives the reference a depth"),
        (absolute(truth), replace(photos[0], depth=torch.zeros(4, 4)), "known nearly nowhere"),
    ):
        found = Polished(method, Saying(answer), "saying").relative_pose(reference, photos[1])
        assert found.pose is method.estimate.pose and why in found.details[0].messages[-1]
    failed = PoseEstimate.failure("too_few_matches")
    method.estimate = failed
    assert Polished(method, Saying(absolute(truth)), "saying").relative_pose(*photos) is failed


def test_a_query_on_its_side_is_turned_for_the_localizer(photos: tuple[View, View], truth: Pose) -> None:
    lying, lying_from_query = turn_view(photos[1], 1)
    pose = lying_from_query @ truth
    method = Finding((photos[0], lying), pose, pose)
    localizer = Saying(absolute(truth))
    found = Polished(method, localizer, "saying").relative_pose(photos[0], lying)
    assert localizer.query is not None and localizer.query.size == photos[1].size
    assert torch.equal(localizer.query.image, photos[1].image)
    assert float(found.pose.angle_to(pose)) < 1e-6 and "polished by saying" in found.details[0].messages[-1]


def test_it_goes_by_its_name(photos: tuple[View, View], truth: Pose, coarse: Pose) -> None:
    with pytest.raises(InputError, match="one of nre, pixloc, got 'matches'"):
        polished(Finding(photos, truth, coarse), "matches")
    method = choose_method(MethodChoice("sift", polish="pixloc"))
    assert isinstance(method, Polished) and isinstance(method.localizer, PixLoc)
    assert method.weights_id.startswith("sift") and "pixloc" in method.weights_id and method.name == "matching"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nre", "pixloc"])
def test_photos_with_a_depth_map(name: Any, photos: tuple[View, View], truth: Pose) -> None:
    found = metriloc.relative_pose(*photos, method="sift", polish=name)
    assert f"polished by {name}" in found.details[0].messages[-1]
    assert errors(found, truth)[0] < 0.3 and errors(found, truth)[1] < 0.02


def test_turns_are_tried_before(photos: tuple[View, View], truth: Pose, coarse: Pose) -> None:
    method = polished(Finding(photos, truth, coarse), "pixloc")
    found = relative_pose_by_turns(method, method.extract(photos[0]), method.extract(photos[1]))
    assert "polished by pixloc" in found.details[0].messages[-1]
