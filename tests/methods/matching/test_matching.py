"""Feature matching on the bundled pair: metres from depth or distance, honesty without, failures with a reason."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch

import metriloc
from metriloc.geometry import Pose, rotation_angle
from metriloc.io import load_view, read_mapfree_poses
from metriloc.methods.matching.model import FeatureMatching, ImageFeatures, MatchingConfig, confidence_of
from metriloc.types import PoseEstimate, View

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


@pytest.fixture(scope="module")
def method() -> FeatureMatching:
    return FeatureMatching.from_pretrained()


@pytest.fixture(scope="module")
def features(method: FeatureMatching) -> tuple[ImageFeatures, ImageFeatures]:
    reference = load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    return method.extract(reference), method.extract(load_view(EXAMPLE / "query.jpg"))


@pytest.fixture(scope="module")
def truth() -> Pose:
    pose = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert pose is not None
    return pose.to(torch.float64)


def errors(estimate: PoseEstimate, truth: Pose) -> tuple[float, float]:
    """Rotation in degrees, camera centres in metres."""
    pose = estimate.pose.to(torch.float64)
    rotation = math.degrees(float(rotation_angle(pose.R @ truth.R.mT)))
    return rotation, float((pose.center() - truth.center()).norm())


def with_view(features: ImageFeatures, **changes: object) -> ImageFeatures:
    return dataclasses.replace(features, view=dataclasses.replace(features.view, **changes))  # type: ignore[arg-type]


@pytest.mark.slow
def test_depth_gives_metres(
    method: FeatureMatching, features: tuple[ImageFeatures, ImageFeatures], truth: Pose
) -> None:
    for seed in range(3):
        estimate = method.relative_pose(*features, seed=seed)
        rotation, distance = errors(estimate, truth)
        assert rotation < 0.5 and distance < 0.03
        assert estimate.details[0].metric and float(estimate.confidence) > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0])
def test_depth_map_of_any_resolution(
    method: FeatureMatching, features: tuple[ImageFeatures, ImageFeatures], truth: Pose, factor: float
) -> None:
    depth = features[0].view.depth
    assert depth is not None
    resized = torch.nn.functional.interpolate(depth[None, None], scale_factor=factor, mode="nearest-exact")[0, 0]
    estimate = method.relative_pose(with_view(features[0], depth=resized), features[1])
    rotation, distance = errors(estimate, truth)
    assert rotation < 1 and distance < 0.06


@pytest.mark.slow
def test_bad_depth_does_not_bend_the_rotation(
    method: FeatureMatching, features: tuple[ImageFeatures, ImageFeatures], truth: Pose
) -> None:
    depth = features[0].view.depth
    assert depth is not None
    noise = torch.exp(0.3 * torch.randn(depth.shape, generator=torch.Generator().manual_seed(0)))
    estimate = method.relative_pose(with_view(features[0], depth=depth * noise), features[1])
    rotation, distance = errors(estimate, truth)
    assert rotation < 1 and distance < 0.15


def test_without_scale_only_the_direction_counts(
    method: FeatureMatching, features: tuple[ImageFeatures, ImageFeatures], truth: Pose
) -> None:
    estimate = method.relative_pose(with_view(features[0], depth=None), features[1])
    detail = estimate.details[0]
    assert not detail.metric and detail.scale_source
    assert float(estimate.pose.distance()) == pytest.approx(1, abs=1e-5)
    direction = estimate.pose.t.double() @ truth.t / truth.distance()
    assert errors(estimate, truth)[0] < 1 and math.degrees(math.acos(float(direction.clamp(-1, 1)))) < 5


def test_known_distance(features: tuple[ImageFeatures, ImageFeatures], truth: Pose, method: FeatureMatching) -> None:
    known = FeatureMatching(method.matcher, MatchingConfig(distance=float(truth.distance())))
    estimate = known.relative_pose(with_view(features[0], depth=None), features[1])
    assert estimate.details[0].metric
    assert errors(estimate, truth)[1] < 0.06


def test_a_photo_with_itself_without_depth_is_degenerate(
    method: FeatureMatching, features: tuple[ImageFeatures, ImageFeatures]
) -> None:
    alone = with_view(features[0], depth=None)
    estimate = method.relative_pose(alone, alone)
    assert not bool(estimate.success) and estimate.reasons == ("degenerate",)
    assert torch.isnan(estimate.pose.R).all()


@pytest.mark.slow
def test_a_photo_with_itself_with_depth_has_not_moved(
    method: FeatureMatching, features: tuple[ImageFeatures, ImageFeatures]
) -> None:
    estimate = method.relative_pose(features[0], features[0])
    assert bool(estimate.success)
    assert float(estimate.pose.distance()) < 0.01 and math.degrees(float(estimate.pose.angle())) < 0.1


def test_blank_photo(method: FeatureMatching, features: tuple[ImageFeatures, ImageFeatures]) -> None:
    view = features[1].view
    blank = View(torch.full_like(view.image, 0.5), view.camera)
    estimate = method.relative_pose(features[0], blank)
    assert estimate.reasons == ("too_few_matches",) and float(estimate.confidence) == 0


@pytest.mark.slow
def test_same_seed_same_answer(method: FeatureMatching, features: tuple[ImageFeatures, ImageFeatures]) -> None:
    first = method.relative_pose(*features, seed=4)
    again = method.relative_pose(features[0].view, features[1].view, seed=4)
    assert torch.equal(first.pose.R, again.pose.R) and torch.equal(first.pose.t, again.pose.t)


def test_confidence_grows_with_inliers_and_stays_in_range() -> None:
    values = [confidence_of(n) for n in (0, 10, 95, 300, 5000)]
    assert values == sorted(values) and values[0] < 0.01 and values[-1] <= 1
    assert values[2] == pytest.approx(0.5)


def test_wrong_distance_raises() -> None:
    with pytest.raises(ValueError, match="-2"):
        MatchingConfig(distance=-2.0)


@pytest.mark.slow
def test_depth_map_that_knows_nothing_is_said(
    method: FeatureMatching, features: tuple[ImageFeatures, ImageFeatures], truth: Pose
) -> None:
    blind = with_view(features[0], depth=torch.zeros(48, 64))
    estimate = method.relative_pose(blind, features[1])
    assert bool(estimate.success) and not estimate.details[0].metric
    assert "depth map" in estimate.details[0].scale_source and errors(estimate, truth)[0] < 1


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_a_distance_wins_over_depths_and_may_contradict_them(
    features: tuple[ImageFeatures, ImageFeatures], method: FeatureMatching, truth: Pose, factor: float
) -> None:
    metres = factor * float(truth.distance())
    both = FeatureMatching(method.matcher, MatchingConfig(distance=metres))
    estimate = both.relative_pose(*features)
    detail = estimate.details[0]
    assert float(estimate.pose.distance()) == pytest.approx(metres, rel=1e-5)
    assert detail.scale_sigma == 0 and "distance" in detail.scale_source
    depth, distance = detail.metres_sources
    assert (depth.share, distance.share) == (0, 1)
    assert depth.metres == pytest.approx(float(truth.distance()), rel=0.06)
    assert any("contradict" in doubt for doubt in estimate.doubts) == (factor == 2)
