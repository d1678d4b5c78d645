"""Matching and its rival: who is asked, whose answer wins, and that the answer says whose it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from metriloc.auto import ENOUGH, WithRival
from metriloc.geometry import Camera, Pose
from metriloc.methods.matching.pair import Fit, MatchedPair
from metriloc.relpose import relative_pose_by_turns
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View

CAMERA = Camera(torch.tensor([640.0, 480.0]), torch.tensor([520.0, 520.0]), torch.tensor([319.5, 239.5]))
VIEW = View(torch.zeros(3, 1, 1).expand(3, 480, 640), CAMERA)
TRUE = Pose.from_tangent(torch.tensor([0.8, 0.1, 0.1, 0.0, -0.6, 0.0]))
OTHER = Pose.from_tangent(torch.tensor([-0.2, 0.8, 0.1, 0.3, 0.2, 0.0]))


class Answering:
    """A method that always says the same, and counts how often it is asked."""

    def __init__(self, name: str, estimate: PoseEstimate) -> None:
        self.name, self.weights_id, self.estimate, self.asked = name, f"{name}-1", estimate, 0

    def extract(self, view: View) -> Any:
        return Features(view)

    def relative_pose(self, reference: Any, query: Any, *, seed: int = 0) -> PoseEstimate:
        self.asked += 1
        return self.estimate


class Features:
    cell = (8.0, 8.0)

    def __init__(self, view: View) -> None:
        self.view = view

    def score_map(self) -> torch.Tensor:
        return torch.zeros(1, 1)

    def depth_map(self) -> None:
        return None


def matched(pose: Pose, agreeing: int, *, of: int = 80, right: Pose = TRUE) -> PoseEstimate:
    """An estimate of matching: ``right`` of so many matches fit the pose of that name, the others are chance."""
    generator = torch.Generator().manual_seed(0)
    uv0 = torch.rand(of, 2, generator=generator) * torch.tensor([639.0, 479.0])
    depth = 3 + 3 * torch.rand(of, generator=generator)
    uv1 = CAMERA.project(right.transform(CAMERA.lift(uv0, depth)))[0]
    uv1[agreeing:] = torch.rand(of - agreeing, 2, generator=generator) * torch.tensor([639.0, 479.0])
    pair = MatchedPair(uv0, uv1, torch.ones(of), VIEW, VIEW)
    inliers = torch.arange(of) < agreeing
    details = pair.details(Fit(pose, inliers, None), {"match": 2.0}, "solver auto")
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(0.4), (None,), (details,), probability_of="something")


def learned(pose: Pose = TRUE, confidence: float = 0.7) -> PoseEstimate:
    details = PairDetails(9.0, Correspondences.empty(), True, "MicKey's depth", setup="procrustes")
    estimate = PoseEstimate(pose, torch.tensor(True), torch.tensor(confidence), (None,), (details,))
    return replace(estimate, probability_of="rotation below 5 degrees")


def both(first: PoseEstimate, second: PoseEstimate) -> tuple[WithRival, Answering]:
    rival = Answering("mickey", second)
    return WithRival(Answering("matching", first), rival, "MicKey (metriloc-small)"), rival


FAILED = PoseEstimate.failure("too_few_matches", PairDetails(0.0, Correspondences.empty(), setup="solver auto"))


def test_nobody_else_is_asked_where_enough_matches_agree() -> None:
    first = matched(TRUE, ENOUGH)
    method, rival = both(first, learned())
    assert method.relative_pose(VIEW, VIEW) is first and rival.asked == 0
    assert (method.name, method.weights_id) == ("matching", "matching-1")


@pytest.mark.parametrize("by_turns", [False, True])
def test_a_sure_rival_answers_where_matching_finds_nothing(by_turns: bool) -> None:
    second = learned()
    method, _ = both(FAILED, second)
    features = Features(VIEW)
    found = relative_pose_by_turns(method, features, features) if by_turns else method.relative_pose(VIEW, VIEW)
    assert found.pose is second.pose and found.probability_of == second.probability_of
    (details,) = found.details
    assert details.setup == "procrustes" and details.scale_source == "MicKey's depth"
    assert details.messages == ("matching found no pose: this pose is that of MicKey (metriloc-small)",)


def test_an_unsure_rival_makes_no_answer_of_a_failure() -> None:
    unknown = PoseEstimate.failure("unsupported", learned().details[0])
    for second in (learned(confidence=0.1), unknown):
        found = both(FAILED, second)[0].relative_pose(VIEW, VIEW)
        assert found is FAILED and found.reasons == ("too_few_matches",)


def test_the_matches_decide_between_two_poses() -> None:
    # the few that agree by chance with a wrong pose are no more than those that agree with a right one that never saw them
    wrong = matched(OTHER, 20)
    assert both(wrong, learned(TRUE))[0].relative_pose(VIEW, VIEW).pose is not wrong.pose
    right = matched(TRUE, 20)
    found = both(right, learned(OTHER, confidence=0.95))[0].relative_pose(VIEW, VIEW)
    assert found is right


def test_whose_pose_it_is_and_how_long_matching_took() -> None:
    (details,) = both(matched(OTHER, 20), learned())[0].relative_pose(VIEW, VIEW).details
    assert details.timings["matching"] == 2.0
    assert details.messages == ("only 20 matches agreed: this pose is that of MicKey (metriloc-small)",)
