"""Support of poses in a map: precision against simulated noise, statistics of right and chance matches, second poses."""

from __future__ import annotations

import math

import pytest
import torch

from metriloc.geometry import Camera, Pose, so3_log
from metriloc.solvers.absolute import absolute_pose
from metriloc.solvers.absolute_support import (
    MAX_PRECISION,
    PointMatches,
    ScoreMaps,
    absolute_support,
    has_other_pose,
    median_depth,
    pose_covariance,
    position_precision,
)

CAMERA = Camera.from_fov((640, 480), math.radians(60)).to(torch.float64)
POSE = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([0.1, -0.2, 0.3], dtype=torch.float64))

_CHI2_6, _CHI2_3 = 10.645, 6.251  # nine in ten of the sum of so many squared normal numbers are below


def points(count: int, generator: torch.Generator, depth: tuple[float, float] = (3.0, 9.0)) -> torch.Tensor:
    """World points that ``POSE`` sees."""
    uv = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([639.0, 479.0])
    z = depth[0] + (depth[1] - depth[0]) * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    return POSE.inverse().transform(CAMERA.unproject(uv)[0] * z)


def seen(xyz: torch.Tensor, generator: torch.Generator, noise: float = 1.0) -> PointMatches:
    """Where they are seen, with noise; the reference saw them from two metres to the right."""
    uv = CAMERA.project(POSE.transform(xyz))[0]
    aside = CAMERA.project(POSE.transform(xyz) - torch.tensor([0.5, 0.0, 0.0]))[0]
    uv = uv + noise * torch.randn(uv.shape, generator=generator, dtype=torch.float64)
    return PointMatches(xyz, uv, aside, torch.zeros(len(xyz), dtype=torch.long))


def test_precision_is_what_noise_does_to_the_position(generator: torch.Generator) -> None:
    xyz = points(60, generator)
    away = []
    for _ in range(60):
        matches = seen(xyz, generator)
        found = absolute_pose(matches.uv, xyz, CAMERA, 8.0)
        assert found.pose is not None
        away.append(found.pose.center() - POSE.center())
    deviation = float(torch.stack(away).square().sum(-1).mean().sqrt())
    told = position_precision(POSE, xyz, seen(xyz, generator).uv, CAMERA, cell=1.0)
    assert told == pytest.approx(median_depth(POSE, xyz, CAMERA) / deviation, rel=0.3)


def test_covariance_covers_the_errors_that_noise_makes(generator: torch.Generator) -> None:
    """Of 300 simulated queries nine in ten are within the ellipsoid of nine in ten, and so of its rotation alone."""
    inside, turned = [], []
    for _ in range(300):
        xyz = points(60, generator)
        matches = seen(xyz, generator, noise=1.5)
        found = absolute_pose(matches.uv, xyz, CAMERA, 12.0)
        assert found.pose is not None
        spread = pose_covariance(found.pose, xyz, matches.uv, CAMERA, cell=1.0)
        assert spread is not None
        off = POSE @ found.pose.inverse()
        delta = torch.cat([off.t, so3_log(off.R)])
        inside.append(float(delta @ torch.linalg.solve(spread, delta)) < _CHI2_6)
        turned.append(float(delta[3:] @ torch.linalg.solve(spread[3:, 3:], delta[3:])) < _CHI2_3)
    assert 0.82 < sum(inside) / 300 < 0.96
    assert 0.82 < sum(turned) / 300 < 0.96


def test_what_fixes_no_pose_has_no_covariance(generator: torch.Generator) -> None:
    xyz = points(3, generator)
    assert pose_covariance(POSE, xyz, seen(xyz, generator).uv, CAMERA, cell=1.0) is None
    line = torch.tensor([[0.0, 0.0, 5.0]]).double() + torch.linspace(-1, 1, 20)[:, None] * torch.tensor([[1.0, 0, 0]])
    assert pose_covariance(POSE, line, CAMERA.project(POSE.transform(line))[0], CAMERA, cell=1.0) is None


def test_precision_grows_with_points_and_falls_with_coarse_cells_and_narrow_views(generator: torch.Generator) -> None:
    xyz = points(400, generator)
    matches = seen(xyz, generator)
    whole = position_precision(POSE, xyz, matches.uv, CAMERA, cell=1.0)
    assert position_precision(POSE, xyz[:50], matches.uv[:50], CAMERA, cell=1.0) < 0.5 * whole
    assert position_precision(POSE, xyz, matches.uv, CAMERA, cell=16.0) < 0.5 * whole
    middle = (matches.uv - CAMERA.c).norm(dim=-1) < 80
    assert position_precision(POSE, xyz[middle], matches.uv[middle], CAMERA, cell=1.0) < 0.2 * whole
    exact = seen(xyz, generator, noise=0.0).uv
    assert position_precision(POSE, xyz, exact, CAMERA, cell=1e-9) == MAX_PRECISION


@pytest.mark.parametrize("kind", ["none", "three", "one place", "line", "not finite"])
def test_points_that_fix_no_position_have_no_precision(kind: str, generator: torch.Generator) -> None:
    xyz = points(30, generator)
    if kind in ("none", "three"):
        xyz = xyz[: 0 if kind == "none" else 3]
    elif kind == "one place":
        xyz = xyz[:1].repeat(30, 1)
    elif kind == "line":
        xyz = xyz[:1] + torch.linspace(0, 1, 30, dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.2, 0.1])
    uv = CAMERA.project(POSE.transform(xyz))[0]
    if kind == "not finite":
        uv[0] = torch.nan
    value = position_precision(POSE, xyz, uv, CAMERA, cell=1.0)
    assert value == 0 if kind != "not finite" else math.isfinite(value)


def test_right_matches_have_more_of_everything_than_chance(generator: torch.Generator) -> None:
    matches = seen(points(300, generator, depth=(5.0, 6.0)), generator)
    lost = PointMatches(
        matches.xyz,
        torch.rand(300, 2, generator=generator, dtype=torch.float64) * torch.tensor([639.0, 479.0]),
        matches.reference_uv,
        matches.reference,
    )
    told = []
    for shown in (matches, lost):
        found = absolute_pose(shown.uv, shown.xyz, CAMERA, 8.0)
        assert found.pose is not None
        told.append(absolute_support(found.pose, shown, found.inliers, CAMERA, cell=1.0))
    right, chance = told
    assert set(right) == {"inliers", "inlier_ratio", "coverage", "order", "precision"}
    assert all(right[name] > chance[name] for name in right)
    assert right["order"] > 0.95 and chance["order"] < 0.8
    nothing = absolute_support(POSE, lost, torch.zeros(300, dtype=torch.bool), CAMERA, cell=1.0)
    assert nothing == {"inliers": 0.0, "inlier_ratio": 0.0, "coverage": 0.0, "order": 0.5, "precision": 0.0}


def test_order_is_asked_within_each_reference(generator: torch.Generator) -> None:
    matches = seen(points(200, generator, depth=(5.0, 6.0)), generator, noise=0.0)
    # two references that saw the same points from elsewhere: neighbors across them say nothing
    second = torch.arange(200) % 2
    mixed = PointMatches(matches.xyz, matches.uv, matches.reference_uv + 150.0 * second[:, None], second)
    everything = torch.ones(200, dtype=torch.bool)
    assert absolute_support(POSE, mixed, everything, CAMERA, cell=1.0)["order"] > 0.95
    joined = PointMatches(mixed.xyz, mixed.uv, mixed.reference_uv, torch.zeros_like(second))
    assert absolute_support(POSE, joined, everything, CAMERA, cell=1.0)["order"] < 0.9


def score_maps(xyz: torch.Tensor, *placed: tuple[Pose, torch.Tensor, float]) -> ScoreMaps:
    """Scores of 1 (less what is said) where poses put chosen points, in cells of eight pixels; else noise."""
    camera = CAMERA.scale(1 / 8)
    scores = 0.3 * torch.rand(len(xyz), 60, 80, generator=torch.Generator().manual_seed(5))
    for pose, chosen, less in placed:
        uv, _ = camera.project(pose.transform(xyz))
        for n in chosen.nonzero().squeeze(-1).tolist():
            x, y = uv[n].round().long().tolist()
            if 0 <= x < 80 and 0 <= y < 60:
                scores[n, y, x] = 1 - less
    return ScoreMaps(scores, xyz, camera)


def test_a_second_pose_that_explains_half_is_a_rival(generator: torch.Generator) -> None:
    xyz = points(120, generator)
    all_, most, few = torch.ones(120) > 0, torch.arange(120) % 4 > 0, torch.arange(120) % 4 == 0
    aside = Pose(POSE.R, POSE.t + torch.tensor([0.8, 0.0, 0.0], dtype=torch.float64))
    assert has_other_pose(POSE, score_maps(xyz, (POSE, all_, 0.0), (aside, most, 0.0)), 0.05)
    assert has_other_pose(POSE, score_maps(xyz, (POSE, all_, 0.0), (aside, most, 0.04)), 0.05)
    # less alike than that, of a quarter of the points only, or at the same place
    assert not has_other_pose(POSE, score_maps(xyz, (POSE, all_, 0.0), (aside, most, 0.06)), 0.05)
    assert not has_other_pose(POSE, score_maps(xyz, (POSE, all_, 0.0), (aside, few, 0.0)), 0.05)
    assert not has_other_pose(POSE, score_maps(xyz, (POSE, all_, 0.0)), 0.05)
    close = Pose(POSE.R, POSE.t + torch.tensor([0.3, 0.0, 0.0], dtype=torch.float64))
    assert not has_other_pose(POSE, score_maps(xyz, (POSE, all_, 0.0), (close, most, 0.0)), 0.05)
    # one of three neighbors each: the tiles to the left, to the right and above
    others = [
        Pose(POSE.R, POSE.t + torch.tensor(step, dtype=torch.float64))
        for step in ([0.8, 0.0, 0.0], [-0.8, 0.0, 0.0], [0.0, 0.8, 0.0])
    ]
    tiles = score_maps(xyz, (POSE, all_, 0.0), *((other, all_, 0.01 * k) for k, other in enumerate(others)))
    assert has_other_pose(POSE, tiles, 0.05)
    assert not has_other_pose(POSE, score_maps(xyz[:15], (POSE, all_[:15], 0.0), (aside, all_[:15], 0.0)), 0.05)


def test_median_depth_is_of_points_in_view(generator: torch.Generator) -> None:
    xyz = points(101, generator)
    depth = float(POSE.transform(xyz)[:, 2].median())
    behind = POSE.inverse().transform(torch.tensor([[0.0, 0.0, -50.0]]).double().repeat(300, 1))
    assert median_depth(POSE, torch.cat([xyz, behind]), CAMERA) == pytest.approx(depth)
    assert math.isnan(median_depth(POSE, behind, CAMERA))
