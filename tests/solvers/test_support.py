"""Support of a relative pose: true matches against chance, mirrors and repeated structure."""

from __future__ import annotations

import math

import pytest
import torch

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.solvers.support import has_rival, kept_order, support_statistics

CAMERA = Camera.from_fov((640, 480), math.radians(60)).to(torch.float64)
TRUTH = Pose(so3_exp(torch.tensor([0.02, 0.15, -0.03], dtype=torch.float64)), torch.tensor([0.5, 0.05, 0.1]).double())


def seen(count: int, seed: int, pose: Pose = TRUTH) -> tuple[torch.Tensor, torch.Tensor]:
    """Points on a bumpy wall that both cameras see, half a pixel of noise."""
    g = torch.Generator().manual_seed(seed)
    uv = torch.rand(4 * count, 2, generator=g, dtype=torch.float64) * torch.tensor([640.0, 480.0])
    depth = 4 + 0.5 * torch.sin(uv[:, 0] / 60) + 0.3 * torch.rand(4 * count, generator=g, dtype=torch.float64)
    ray, _ = CAMERA.unproject(uv)
    projected, ok = CAMERA.project(pose.transform(ray * depth[:, None]))
    inside = ok & (projected > 0).all(-1) & (projected < torch.tensor([640.0, 480.0])).all(-1)
    noise = 0.5 * torch.randn(projected.shape, generator=g, dtype=torch.float64)
    return uv[inside][:count], (projected + noise)[inside][:count]


def chance(count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    uv = torch.rand(2, count, 2, generator=g, dtype=torch.float64) * torch.tensor([640.0, 480.0])
    return uv[0], uv[1]


def test_true_matches_keep_their_order_and_chance_half_of_it() -> None:
    assert kept_order(*seen(300, 0)) > 0.95
    assert 0.4 < kept_order(*chance(300, 0)) < 0.6
    uv0, uv1 = seen(300, 1)
    assert kept_order(uv0, torch.stack([639 - uv1[:, 0], uv1[:, 1]], -1)) < 0.05
    # turning the camera by a quarter changes nothing
    turned = torch.stack([479 - uv1[:, 1], uv1[:, 0]], -1)
    assert kept_order(uv0, turned) == pytest.approx(kept_order(uv0, uv1))
    assert kept_order(uv0[:2], uv1[:2]) == 0.5
    assert kept_order(uv0[:0], uv1[:0]) == 0.5


def test_statistics_grow_with_support() -> None:
    uv0, uv1 = seen(400, 2)
    every = torch.ones(len(uv0), dtype=torch.bool)
    whole = support_statistics(TRUTH, uv0, uv1, every, (CAMERA, CAMERA))
    corner = (uv0 < torch.tensor([200.0, 200.0])).all(-1)
    part = support_statistics(TRUTH, uv0, uv1, corner, (CAMERA, CAMERA))
    assert whole["inliers"] == 400 and whole["inlier_ratio"] == 1 and whole["coverage"] > 0.5
    assert part["coverage"] < 0.2 and part["inlier_ratio"] < 0.3 and part["inliers"] == float(corner.sum())
    assert whole["parallax_deg"] == 5  # 7 degrees in fact; more than 5 tells nothing more
    nothing = support_statistics(TRUTH, uv0, uv1, ~every, (CAMERA, CAMERA))
    assert nothing == {"inliers": 0, "inlier_ratio": 0, "coverage": 0, "parallax_deg": 0, "order": 0.5}


def test_a_pure_rotation_has_no_parallax() -> None:
    pose = Pose(TRUTH.R, torch.zeros(3, dtype=torch.float64))
    uv0, uv1 = seen(200, 3, pose)
    every = torch.ones(len(uv0), dtype=torch.bool)
    assert support_statistics(pose, uv0, uv1, every, (CAMERA, CAMERA))["parallax_deg"] < 0.2


def test_a_second_pose_with_much_support_is_a_rival() -> None:
    other = Pose(TRUTH.R, torch.tensor([-0.5, 0.05, 0.1], dtype=torch.float64))
    first, second = seen(300, 4), seen(200, 5, other)
    uv0, uv1 = (torch.cat(pair) for pair in zip(first, second, strict=True))
    inliers = torch.arange(len(uv0)) < 300
    assert has_rival(TRUTH, uv0, uv1, inliers, (CAMERA, CAMERA), 2.0)
    # wrong matches are no rival, nor is the same pose once more, nor a few others
    noisy = tuple(torch.cat(pair) for pair in zip(first, chance(300, 6), strict=True))
    assert not has_rival(TRUTH, *noisy, torch.arange(600) < 300, (CAMERA, CAMERA), 2.0)
    again = tuple(torch.cat(pair) for pair in zip(first, seen(300, 7), strict=True))
    assert not has_rival(TRUTH, *again, torch.arange(600) < 300, (CAMERA, CAMERA), 2.0)
    few = torch.arange(360) < 300
    assert not has_rival(TRUTH, uv0[:360], uv1[:360], few, (CAMERA, CAMERA), 2.0)
