"""Depth metrics by hand."""

from __future__ import annotations

import math

import pytest
import torch

from metriloc.evaluation.depth import (
    DepthPrediction,
    depth_score,
    keypoint_depth_scores,
    mean_depth_score,
    pooled_depth_score,
    prediction_scores,
    top_half,
)


def test_depth_score_by_hand() -> None:
    true = torch.tensor([2.0, 2.0, 2.0, 2.0, 0.0, float("nan")])
    predicted = torch.tensor([2.0, 2.4, 1.0, 5.0, 9.0, 9.0])
    score = depth_score(predicted, true)
    # ratios 1, 1.2, 2, 2.5; 1.25^2 = 1.5625, 1.25^3 = 1.953
    assert (score.delta1, score.delta2, score.delta3, score.count) == (0.5, 0.5, 0.5, 4)
    assert score.rel == pytest.approx((0 + 0.2 + 0.5 + 1.5) / 4)
    assert score.rmse == pytest.approx(math.sqrt((0.16 + 1 + 9) / 4), rel=1e-6)
    assert score.log10 == pytest.approx((math.log10(1.2) + math.log10(2) + math.log10(2.5)) / 4, rel=1e-6)


def test_predictions_that_are_no_depth_are_wrong() -> None:
    score = depth_score(torch.tensor([0.0, -1.0, float("nan"), 2.0]), torch.full((4,), 2.0))
    assert score.delta3 == 0.25 and score.rel == math.inf
    assert math.isnan(depth_score(torch.zeros(3), torch.zeros(3)).rel)
    with pytest.raises(ValueError, match="differ in shape"):
        depth_score(torch.zeros(3), torch.zeros(4))


def test_the_mean_over_images_is_not_the_mean_over_pixels() -> None:
    one = depth_score(torch.full((90,), 2.0), torch.full((90,), 2.0))
    other = depth_score(torch.full((10,), 4.0), torch.full((10,), 2.0))
    empty = depth_score(torch.zeros(5), torch.zeros(5))
    assert mean_depth_score([one, other, empty]).rel == pytest.approx(0.5)
    pooled = depth_score(torch.cat([torch.full((90,), 2.0), torch.full((10,), 4.0)]), torch.full((100,), 2.0))
    assert pooled.rel == pytest.approx(0.1)
    assert math.isnan(mean_depth_score([empty]).rel)


def test_keypoint_scores_read_the_map_at_keypoints_and_take_the_better_half() -> None:
    true = torch.full((30, 40), 3.0)
    true[:, 20:] = 6.0
    uv = torch.tensor([[5.0, 5.0], [10.0, 20.0], [30.0, 5.0], [35.0, 20.0], [39.0, 29.0]])
    predicted = torch.tensor([3.0, 3.0, 6.0, 12.0, 12.0])
    found = keypoint_depth_scores(uv, predicted, torch.tensor([0.9, 0.8, 0.7, 0.1, 0.2]), true, (40, 30))
    assert found["all"].count == 5 and found["all"].delta3 == pytest.approx(0.6)
    assert found["top half"].count == 3 and found["top half"].delta3 == 1
    assert top_half(torch.tensor([0.5, 0.5, 0.5])).tolist() == [0, 1]


def test_scores_of_images_pool_to_the_score_of_their_pixels() -> None:
    generator = torch.Generator().manual_seed(0)
    true = [1 + 3 * torch.rand(n, generator=generator) for n in (90, 10, 33)]
    predicted = [t * (0.6 + torch.rand(len(t), generator=generator)) for t in true]
    images = [depth_score(p, t) for p, t in zip(predicted, true, strict=True)]
    pooled = pooled_depth_score([*images, depth_score(torch.zeros(5), torch.zeros(5))])
    whole = depth_score(torch.cat(predicted), torch.cat(true))
    for name in ("delta1", "delta2", "delta3", "rel", "rmse", "log10", "count"):
        assert getattr(pooled, name) == pytest.approx(getattr(whole, name)), name
    assert math.isnan(pooled_depth_score([]).rel)


def test_maps_are_compared_at_every_true_pixel_and_keypoints_where_they_are() -> None:
    true = torch.full((12, 16), 2.0)
    small = torch.full((3, 4), 2.0)
    assert prediction_scores(DepthPrediction(small), true, (16, 12))[""].rel == 0
    holed = small.clone()
    holed[0, 0] = 0.0  # nearest cells: the hole costs its own 16 pixels and no mean with its neighbours
    assert prediction_scores(DepthPrediction(holed), true, (16, 12))[""].delta1 == pytest.approx(1 - 16 / 192)
    uv = torch.tensor([[1.0, 1.0], [5.0, 5.0]])
    found = prediction_scores(DepthPrediction(torch.tensor([2.0, 4.0]), uv, torch.tensor([0.9, 0.1])), true, (16, 12))
    assert (found[""].rel, found["-Sc"].rel) == (0.5, 0.0)
