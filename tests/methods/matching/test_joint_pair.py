"""Two photos with depths on made-up scenes: half of the matches wrong, depths noisy and biased; degenerate cases named."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import pytest
import torch

from metriloc.geometry import Camera, Pose, rotation_angle
from metriloc.methods.matching.joint import ONLY_TURNED
from metriloc.methods.matching.pair import Fit, MatchedPair, SolvingConfig
from metriloc.methods.matching.solver import fit_pair, setup_of
from metriloc.types import View

SIZE = (640, 480)
CAMERA = Camera(torch.tensor([640.0, 480.0]), torch.tensor([520.0, 520.0]), torch.tensor([319.5, 239.5]))
PREDICTED = SolvingConfig(depth_name="predicted depth")


def turned(way: tuple[float, float, float]) -> Pose:
    return Pose.from_tangent(torch.tensor([*way, 0.05, -0.15, 0.1]))


def seen(
    generator: torch.Generator,
    pose: Pose,
    *,
    wrong: float = 0.5,
    factors: tuple[float, float] = (1.0, 1.0),
    noise: float = 0.15,
    plane: bool = False,
    count: int = 300,
) -> MatchedPair:
    """Matches with half a pixel of noise, a share of them wrong, and depth maps that hold one depth at each match."""
    uv0 = (torch.rand(4 * count, 2, generator=generator) * torch.tensor([639.0, 479.0])).round()
    depth0 = 2 + 4 * torch.rand(len(uv0), generator=generator)
    ray = CAMERA.unproject(uv0)[0]
    if plane:
        depth0 = 3 / (ray @ torch.tensor([0.1, 0.3, 1.0]))
    xyz1 = pose.transform(ray * depth0[:, None])
    uv1, inside = CAMERA.project(xyz1)
    keep = inside.nonzero().squeeze(-1)[:count]
    uv0, uv1, depths = uv0[keep], uv1[keep], (depth0[keep], xyz1[keep, 2])
    off = int(wrong * count)
    uv1 = uv1 + 0.5 * torch.randn(uv1.shape, generator=generator)
    uv1[:off] = torch.rand(off, 2, generator=generator) * torch.tensor([639.0, 479.0])
    views = []
    for uv, depth, factor in zip((uv0, uv1), depths, factors, strict=True):
        column, row = uv.round().long().unbind(-1)
        full = torch.zeros(SIZE[1], SIZE[0])
        full[row.clamp(0, 479), column.clamp(0, 639)] = (
            factor * depth * (noise * torch.randn(len(depth), generator=generator)).exp()
        )
        views.append(View(torch.zeros(3, 1, 1).expand(3, 480, 640), CAMERA, depth=full))
    return MatchedPair(uv0, uv1, torch.ones(len(uv0)), *views)


def without(pair: MatchedPair, *photos: int) -> MatchedPair:
    views = [replace(v, depth=None) if k in photos else v for k, v in enumerate((pair.view0, pair.view1))]
    return replace(pair, view0=views[0], view1=views[1])


def errors(fit: Fit, truth: Pose) -> tuple[float, float, float]:
    """Degrees of rotation and direction, and the length over the true one."""
    assert fit.pose is not None and fit.reason is None
    cosine = float((fit.pose.t @ truth.t) / (fit.pose.distance() * truth.distance()))
    rotation = math.degrees(float(rotation_angle((fit.pose.R @ truth.R.mT).double())))
    return rotation, math.degrees(math.acos(min(1.0, cosine))), float(fit.pose.distance() / truth.distance())


@pytest.mark.parametrize("factors", [(1.0, 1.0), (1.5, 0.8)])
def test_half_of_the_matches_wrong_and_biased_depths(generator: torch.Generator, factors: tuple[float, float]) -> None:
    truth = turned((0.6, -0.1, 0.2))
    pair = seen(generator, truth, factors=factors)
    fit = fit_pair(pair, PREDICTED, 0)
    rotation, direction, length = errors(fit, truth)
    assert rotation < 0.3 and direction < 1.5
    assert length == pytest.approx(math.sqrt(factors[0] * factors[1]), rel=0.1)
    first, second = fit.sources
    assert first.metres / second.metres == pytest.approx(factors[0] / factors[1], rel=0.15)
    assert first.share + second.share == pytest.approx(1) and fit.scale_source == "the predicted depth of both photos"
    assert 100 < int(fit.inliers.sum()) < 200 and not fit.doubts
    geometry = errors(fit_pair(without(pair, 0, 1), PREDICTED, 0), truth)
    assert rotation < geometry[0] + 0.05 and direction < geometry[1] + 0.3


def test_the_query_alone_may_have_depths(generator: torch.Generator) -> None:
    truth = turned((0.6, -0.1, 0.2))
    fit = fit_pair(without(seen(generator, truth), 0), PREDICTED, 0)
    assert fit.metric and fit.scale_source == "the predicted depth of the query"
    assert errors(fit, truth)[2] == pytest.approx(1, rel=0.1)


def test_photos_that_contradict_each_other_are_doubted(generator: torch.Generator) -> None:
    truth = turned((0.6, -0.1, 0.2))
    fit = fit_pair(seen(generator, truth, factors=(4.0, 0.7), wrong=0.2), PREDICTED, 0)
    assert any("contradict" in doubt and "of the reference" in doubt for doubt in fit.doubts)


def test_a_pure_rotation_keeps_its_rotation_and_is_named(generator: torch.Generator) -> None:
    truth = turned((0.0, 0.0, 0.0))
    pair = seen(generator, truth, wrong=0.2)
    fit = fit_pair(pair, PREDICTED, 0)
    assert fit.pose is not None and fit.reason is None and ONLY_TURNED in fit.doubts
    assert math.degrees(float(rotation_angle((fit.pose.R @ truth.R.mT).double()))) < 0.5
    assert float(fit.pose.distance()) < 0.05
    alone = fit_pair(without(pair, 0, 1), PREDICTED, 0)
    (message,) = alone.messages
    assert alone.reason == "degenerate" and message.startswith(ONLY_TURNED)
    told = float(message.removesuffix(" degrees").rsplit(maxsplit=1)[1])
    assert told == pytest.approx(math.degrees(float(truth.angle())), abs=0.5)


def test_a_plane_gives_the_pose(generator: torch.Generator) -> None:
    truth = turned((0.6, -0.1, 0.2))
    rotation, direction, length = errors(fit_pair(seen(generator, truth, plane=True, wrong=0.3), PREDICTED, 0), truth)
    assert rotation < 1 and direction < 4 and length == pytest.approx(1, rel=0.1)


def test_too_few_matches_are_no_pose(generator: torch.Generator) -> None:
    pair = seen(generator, turned((0.6, -0.1, 0.2)), count=4, wrong=0.0)
    assert fit_pair(pair, PREDICTED, 0).reason == "degenerate"


def test_a_new_solver_has_a_name_of_its_own(generator: torch.Generator) -> None:
    pair = seen(generator, turned((0.6, -0.1, 0.2)), count=20)
    assert setup_of(pair, "auto", "depth of x") == "solver auto (joint fit), depth of x"
    assert setup_of(without(pair, 0, 1), "auto", "depth of x") == "solver auto, no depth"
    assert setup_of(pair, "pnp", "depth map") == "solver pnp, depth map"


def with_depth0(pair: MatchedPair, depth: torch.Tensor) -> MatchedPair:
    return replace(pair, view0=replace(pair.view0, depth=depth), view1=replace(pair.view1, depth=None))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noise", "constant", "shuffled"])
def test_a_foreign_depth_map_is_doubted_and_trusted_less(generator: torch.Generator, kind: str) -> None:
    pair = seen(generator, turned((0.6, -0.1, 0.2)), wrong=0.2, noise=0.03)
    assert pair.view0.depth is not None
    own = fit_pair(with_depth0(pair, pair.view0.depth), SolvingConfig(), 0)
    assert not own.doubts and math.isnan(own.scale_sigma)
    depth = torch.full_like(pair.view0.depth, 2.0)
    if kind == "noise":
        depth = 0.5 + 4.5 * torch.rand(depth.shape, generator=generator)
    if kind == "shuffled":
        known = pair.view0.depth > 0
        depth = pair.view0.depth.clone()
        depth[known] = depth[known].flip(0)[torch.randperm(int(known.sum()), generator=generator)]
    fit = fit_pair(with_depth0(pair, depth), SolvingConfig(), 0)
    assert any("depth map of the reference does not fit the photos: its depths scatter by" in d for d in fit.doubts)
    assert fit.scale_sigma > 0.2


@pytest.mark.parametrize("solver", ["pnp", "rigid"])
def test_solvers_of_depth_alone_doubt_a_foreign_depth_map_too(
    generator: torch.Generator, solver: Literal["pnp", "rigid"]
) -> None:
    """A map that is bent still gives a pose; only the photos alone can say that it is not theirs."""
    pair = seen(generator, turned((0.6, -0.1, 0.2)), wrong=0.1)
    depths = pair.view0.depth, pair.view1.depth
    assert depths[0] is not None and depths[1] is not None
    own = fit_pair(pair, SolvingConfig(solver), 0)
    assert own.pose is not None and not own.doubts and math.isnan(own.scale_sigma)
    bent = [depth * (0.5 + torch.rand(depth.shape, generator=generator)) for depth in depths]
    views = [replace(view, depth=depth) for view, depth in zip((pair.view0, pair.view1), bent, strict=True)]
    config = SolvingConfig(solver, rigid_error=1.0)
    fit = fit_pair(replace(pair, view0=views[0], view1=views[1]), config, 0)
    assert fit.pose is not None and fit.misfit and fit.scale_sigma >= 1.5
    assert any("depth map of the reference does not fit the photos" in doubt for doubt in fit.doubts)


def test_a_known_distance_needs_no_depth_map_that_fits(generator: torch.Generator) -> None:
    pair = seen(generator, turned((0.6, -0.1, 0.2)), wrong=0.2, noise=0.03)
    assert pair.view0.depth is not None
    foreign = with_depth0(pair, torch.full_like(pair.view0.depth, 2.0))
    fit = fit_pair(foreign, SolvingConfig(distance=0.64), 0)
    assert not any("does not fit" in doubt for doubt in fit.doubts)


def warped(generator: torch.Generator) -> MatchedPair:
    """A photo that was only turned, with the errors of real matches: a quarter of them err three times as far."""
    pair = without(seen(generator, turned((0.0, 0.0, 0.0)), wrong=0.0, count=600), 0, 1)
    noise = 0.5 * torch.randn(pair.uv1.shape, generator=generator)
    noise[::4] *= 4
    return replace(pair, uv1=pair.uv1 + noise)


@pytest.mark.parametrize("distance", [None, 0.5])
def test_matches_that_err_do_not_make_a_turn_a_way(generator: torch.Generator, distance: float | None) -> None:
    for _ in range(3):
        fit = fit_pair(warped(generator), SolvingConfig(distance=distance), 0)
        assert fit.reason == "degenerate" and fit.messages[0].startswith(ONLY_TURNED)
