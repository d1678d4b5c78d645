"""PixLoc's support: features alike only where they belong, beside hand-made maps whose right place is known."""

from __future__ import annotations

import math

import pytest
import torch

from metriloc.geometry import Camera, Pose
from metriloc.methods.pixloc.align import evaluate
from metriloc.methods.pixloc.cost import AlignmentProblem, CostConfig
from metriloc.methods.pixloc.lookup import FeatureTable
from metriloc.methods.pixloc.support import FAR_PX, NEAR_PX, _shifted, pixloc_support

CAMERA = Camera.from_fov((160, 120), math.radians(60)).to(torch.float64)
RIGHT = Pose.identity((), dtype=torch.float64)
COST = CostConfig()


def problem(generator: torch.Generator, count: int = 200) -> AlignmentProblem:
    """A smooth random map, and points whose reference features are the map's where ``RIGHT`` puts them."""
    fmap = torch.randn(1, 16, 30, 40, generator=generator)
    fmap = torch.nn.functional.interpolate(fmap, (120, 160), mode="bicubic", align_corners=False)[0]
    uv = 6 + torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([147.0, 107.0])
    z = 3 + 3 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    grid = (2 * uv + 1) / torch.tensor([160.0, 120.0]) - 1
    features = torch.nn.functional.grid_sample(fmap[None], grid[None, None].float(), align_corners=False)[0, :, 0].mT
    features = torch.nn.functional.normalize(features, dim=-1)
    return AlignmentProblem(
        (CAMERA.unproject(uv)[0] * z)[None], features[None], FeatureTable.from_maps(fmap), CAMERA[None]
    )


def moved(pixels: float) -> Pose:
    """``RIGHT`` turned so that points move by so many pixels."""
    turn = torch.tensor([0.0, math.atan(pixels / float(CAMERA.f[0])), 0.0], dtype=torch.float64)
    from metriloc.geometry import so3_exp

    return Pose(so3_exp(turn), torch.zeros(3, dtype=torch.float64))


def support(pose: Pose, given: AlignmentProblem, seed: int = 0) -> dict[str, float]:
    return pixloc_support([given], pose, evaluate(given, pose[None], COST), COST, seed)


def test_the_right_pose_is_distinct_and_another_is_not(generator: torch.Generator) -> None:
    given = problem(generator)
    right, near, far = (support(pose, given) for pose in (RIGHT, moved(3.0), moved(40.0)))
    assert right["distinct_0"] > 0.99 and right["beside_0"] > 0.95 and right["coverage"] > 0.7
    assert abs(far["distinct_0"] - 0.5) < 0.1 and abs(far["beside_0"] - 0.5) < 0.15
    assert near["distinct_0"] > 0.6  # features change slowly: three pixels away is still alike
    for name in ("distinct_0", "beside_0", "coverage", "precision"):
        assert right[name] > near[name] > 0 and right[name] > far[name], name


def test_every_level_has_its_own_numbers_and_chance_is_the_seed(generator: torch.Generator) -> None:
    given, other = problem(generator), problem(generator)
    end = evaluate(other, RIGHT[None], COST)
    told = pixloc_support([given, other], RIGHT, end, COST, 3)
    assert {"distinct_0", "distinct_1", "beside_0", "beside_1", "coverage", "precision", "seen"} == set(told)
    assert told == pixloc_support([given, other], RIGHT, end, COST, 3)
    assert told["seen"] == 200


def test_nothing_in_view_supports_nothing(generator: torch.Generator) -> None:
    given = problem(generator)
    back = Pose(torch.diag(torch.tensor([-1.0, 1.0, -1.0], dtype=torch.float64)), torch.zeros(3, dtype=torch.float64))
    assert set(support(back, given).values()) == {0.0}


@pytest.mark.parametrize("most", [math.inf, 2 * NEAR_PX])
def test_shifted_places_are_in_the_map_and_elsewhere(most: float, generator: torch.Generator) -> None:
    uv = 1 + torch.rand(500, 2, generator=generator) * torch.tensor([157.0, 117.0])
    least = FAR_PX if math.isinf(most) else NEAR_PX
    places = _shifted(uv, (160, 120), least, most, 1, 0)
    assert bool((places >= 1).all()) and bool((places <= torch.tensor([158.0, 118.0])).all())
    distance = (places - uv).norm(dim=-1)
    assert float((distance >= least - 1e-3).float().mean()) > 0.97  # a corner leaves no other way
    assert float(distance.max()) <= most * (1 + 1e-5)
