"""Guided matching after the Procrustes: better poses from noisy depths, and nothing where nothing agrees."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from metriloc.geometry import Camera, Pose, rotation_angle, so3_exp
from metriloc.methods.mickey import MicKey, MicKeyNetwork
from metriloc.methods.mickey.keypoint_maps import Keypoints
from metriloc.methods.mickey.matching import MatchProbabilities
from metriloc.methods.mickey.rematch import RematchConfig, between_cells, mutual_matches, rematch
from metriloc.recipes.mickey_small import NETWORK

CAMERA = Camera.from_fov((640, 480), 1.1).to(torch.float32)
TRUTH = Pose(so3_exp(torch.tensor([0.05, -0.2, 0.03])), torch.tensor([0.5, 0.05, -0.1]))


def keypoints(uv: Tensor, depth: Tensor) -> Keypoints:
    count = len(uv)  # each looks like itself alone, so that what stands beside it on the grid does not matter
    return Keypoints(uv[None], depth[None], torch.ones(1, count), torch.eye(count)[None], (1, count))


def scene(
    count: int = 300, wrong: int = 90, seed: int = 0, truth: Pose = TRUTH
) -> tuple[tuple[Keypoints, Keypoints], MatchProbabilities]:
    """Points at 1.5 to 6 m, 3 pixels and 15 % of depth off; the first ``wrong`` are matched to someone else."""
    generator = torch.Generator().manual_seed(seed)
    uv = torch.rand(count, 2, generator=generator) * torch.tensor([500.0, 400.0]) + torch.tensor([70.0, 40.0])
    depth = 1.5 + 4.5 * torch.rand(count, generator=generator)
    xyz = depth[:, None] * CAMERA.unproject(uv)[0]
    other = truth.transform(xyz)
    sides = []
    for points in (xyz, other):
        noise = 3 * torch.randn(count, 2, generator=generator)
        factor = (0.15 * torch.randn(count, generator=generator)).exp()
        sides.append(keypoints(CAMERA.project(points)[0] + noise, points[:, 2] * factor))
    partner = torch.arange(count)
    partner[:wrong] = partner[:wrong].roll(7)
    values = 1e-4 * torch.rand(count, count, generator=generator)
    values[torch.arange(count), partner] = 0.5 + 0.5 * torch.rand(count, generator=generator)
    return (sides[0], sides[1]), MatchProbabilities(values, torch.arange(count), torch.arange(count))


def test_a_rough_pose_becomes_good_and_wrong_matches_go() -> None:
    sides, matches = scene()
    start = Pose(so3_exp(torch.tensor([0.0, 0.07, 0.02])) @ TRUTH.R, TRUTH.t + torch.tensor([0.1, -0.1, 0.15]))
    found = rematch(start, sides, matches, (CAMERA, CAMERA), 1.0, RematchConfig())
    assert torch.rad2deg(rotation_angle(found.pose.R @ TRUTH.R.mT)) < 0.6 < torch.rad2deg(torch.tensor(0.07))
    assert (found.pose.t - TRUTH.t).norm() < 0.06
    assert found.statistics["inliers"] == len(found.index0) > 150 and not found.rival
    assert found.statistics["order"] > 0.6 and found.statistics["coverage"] > 0.5
    right = found.index0 == found.index1
    assert right.float().mean() > 0.93
    assert torch.equal(found.probability, found.probability.sort(descending=True).values)


def test_a_hopeless_start_is_left_alone() -> None:
    sides, matches = scene(count=6, wrong=0)
    found = rematch(TRUTH, sides, matches, (CAMERA, CAMERA), 1.0, RematchConfig())
    assert torch.equal(found.pose.R, TRUTH.R) and torch.equal(found.pose.t, TRUTH.t)
    assert len(found.index0) == 0 and found.statistics["inliers"] == 0
    behind = Pose(so3_exp(torch.tensor([0.0, 3.1, 0.0])), torch.zeros(3))
    sides, matches = scene()
    found = rematch(behind, sides, matches, (CAMERA, CAMERA), 1.0, RematchConfig(essential=False))
    assert torch.equal(found.pose.R, behind.R) and len(found.index0) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_essential_matrix_saves_a_hopeless_start(seed: int) -> None:
    behind = Pose(so3_exp(torch.tensor([0.0, 3.1, 0.0])), torch.zeros(3))
    sides, matches = scene(seed=seed)
    found = rematch(behind, sides, matches, (CAMERA, CAMERA), 1.0, RematchConfig())
    assert torch.rad2deg(rotation_angle(found.pose.R @ TRUTH.R.mT)) < 0.6
    assert (found.pose.t - TRUTH.t).norm() < 0.06
    assert (found.index0 == found.index1).float().mean() > 0.93


def test_photos_from_nearly_the_same_place_get_their_small_translation() -> None:
    near = Pose(so3_exp(torch.tensor([0.05, -0.2, 0.03])), torch.tensor([0.01, 0.0, 0.005]))
    sides, matches = scene(truth=near)
    behind = Pose(so3_exp(torch.tensor([0.0, 3.1, 0.0])), torch.zeros(3))
    found = rematch(behind, sides, matches, (CAMERA, CAMERA), 1.0, RematchConfig())
    assert torch.rad2deg(rotation_angle(found.pose.R @ near.R.mT)) < 0.6
    assert (found.pose.t - near.t).norm() < 0.06


def test_a_point_between_two_cells_is_put_between_them() -> None:
    """A grid of 3 x 4 cells of 8 pixels; the point looks like cells 5 and 6 alike, or like corner cell 0 alone."""
    uv = torch.tensor([[4.0 + 8 * x, 4.0 + 8 * y] for y in range(3) for x in range(4)])
    second = Keypoints(uv[None], torch.ones(1, 12), torch.ones(1, 12), torch.eye(12)[None], (3, 4))
    like = torch.zeros(2, 12)
    like[0, [5, 6]], like[1, 0] = 1.0, 1.0
    first = Keypoints(torch.zeros(1, 2, 2), torch.ones(1, 2), torch.ones(1, 2), like[None], (1, 2))
    found = between_cells(first, second, torch.tensor([0, 1]), torch.tensor([5, 0]), 0.02)
    assert torch.allclose(found, torch.tensor([[16.0, 12.0], [4.0, 4.0]]), atol=1e-4)


def test_mutual_matches_equal_the_plain_search(generator: torch.Generator) -> None:
    values = torch.rand(30, 20, generator=generator)
    matches = MatchProbabilities(values, torch.arange(30) + 5, torch.arange(20) + 7)
    index0, index1, probability = mutual_matches(matches)
    naive = {
        (i + 5, j + 7): float(values[i, j])
        for i in range(30)
        for j in range(20)
        if values[i, j] == values[i].max() and values[i, j] == values[:, j].max()
    }
    assert dict(zip(zip(index0.tolist(), index1.tolist(), strict=True), probability.tolist(), strict=True)) == naive
    assert probability.tolist() == sorted(naive.values(), reverse=True)
    empty = mutual_matches(MatchProbabilities(torch.zeros(0, 4), torch.arange(0), torch.arange(4)))
    assert all(len(part) == 0 for part in empty)


def test_settings_are_checked_and_stored(tmp_path: Path) -> None:
    for wrong in ({"rounds": 0}, {"pixel_sigma": 0.0}, {"max_shift": float("inf")}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            RematchConfig(**wrong)  # type: ignore[arg-type]
    config = RematchConfig(rounds=2)
    MicKey(MicKeyNetwork(NETWORK), rematch=config).save_pretrained(tmp_path)
    assert MicKey.from_pretrained(tmp_path, polish=True).rematch == config
    assert MicKey.from_pretrained(tmp_path, polish=False).rematch is None
