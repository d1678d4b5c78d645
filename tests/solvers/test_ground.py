"""The plane below a camera, among walls, tables and chance."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metriloc.solvers.ground import find_ground

DOWN = torch.tensor([0.0, 1.0, 0.0])
HEIGHT = 1.4


def plane(generator: torch.Generator, count: int, y: float, x: tuple[float, float], z: tuple[float, float]) -> Tensor:
    """Level points ``y`` below the camera, with a centimetre of noise."""
    low, high = torch.tensor([x[0], z[0]]), torch.tensor([x[1], z[1]])
    flat = low + torch.rand(count, 2, generator=generator) * (high - low)
    level = y + 0.01 * torch.randn(count, generator=generator)
    return torch.stack([flat[:, 0], level, flat[:, 1]], -1)


def facade(generator: torch.Generator, count: int, z: float = 6.0) -> Tensor:
    """A wall straight ahead, from the ground up."""
    spread = torch.tensor([8.0, 5.0])
    flat = torch.rand(count, 2, generator=generator) * spread - torch.tensor([4.0, 5.0 - HEIGHT])
    return torch.cat([flat, z + 0.01 * torch.randn(count, 1, generator=generator)], -1)


def turned(points: Tensor, degrees: float) -> Tensor:
    """As a camera sees them that looks down by so much."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return points @ torch.tensor([[1.0, 0, 0], [0, c, s], [0, -s, c]])


@pytest.mark.parametrize("degrees", [0, 10, -10])
@pytest.mark.parametrize("unit", [1.0, 0.01, 300.0])
def test_a_floor_among_walls_and_chance(generator: torch.Generator, degrees: float, unit: float) -> None:
    floor = plane(generator, 60, HEIGHT, (-2, 2), (2, 6))
    chance = torch.rand(30, 3, generator=generator) * torch.tensor([4.0, 1.2, 5.0])
    points = turned(torch.cat([floor, facade(generator, 300), chance]), degrees) * unit
    found = find_ground(points, DOWN, generator)
    assert found is not None and found.height == pytest.approx(HEIGHT * unit, rel=0.02)
    assert float(found.normal @ turned(DOWN[None], degrees)[0].to(found.normal)) > math.cos(math.radians(2))
    assert 0 < found.sigma < 0.03 and found.count >= 50


def test_facades_alone_are_no_ground(generator: torch.Generator) -> None:
    assert find_ground(facade(generator, 400), DOWN, generator) is None


def test_a_table_above_the_floor_is_no_ground(generator: torch.Generator) -> None:
    table = plane(generator, 300, 0.6, (-1, 1), (1, 2.5))
    floor = plane(generator, 60, HEIGHT, (-2, 2), (2, 6))
    found = find_ground(torch.cat([table, floor]), DOWN, generator)
    assert found is not None and found.height == pytest.approx(HEIGHT, rel=0.02)
    # steps down beside it: whatever plane there is, things lie below it
    rubble = torch.stack([torch.linspace(-2, 2, 80), torch.linspace(0.9, 3, 80), 3 + torch.rand(80)], -1)
    assert find_ground(torch.cat([table, rubble]), DOWN, generator) is None


def test_a_camera_that_looks_far_down_knows_no_down(generator: torch.Generator) -> None:
    floor = turned(plane(generator, 200, HEIGHT, (-2, 2), (2, 6)), 30)
    assert find_ground(floor, DOWN, generator) is None
    tilted_down = turned(DOWN[None], 30)[0]
    assert find_ground(floor, tilted_down, generator) is not None


def test_a_line_of_points_and_next_to_none_are_no_plane(generator: torch.Generator) -> None:
    line = plane(generator, 100, HEIGHT, (0, 0.05), (2, 6))
    assert find_ground(line, DOWN, generator) is None
    assert find_ground(plane(generator, 20, HEIGHT, (-2, 2), (2, 6)), DOWN, generator) is None
    assert find_ground(torch.full((100, 3), torch.nan), DOWN, generator) is None


def test_a_strip_of_ground_far_away_tells_no_height(generator: torch.Generator) -> None:
    strip = plane(generator, 200, HEIGHT, (-3, 3), (8, 9))
    assert find_ground(torch.cat([strip, facade(generator, 100, z=9.0)]), DOWN, generator) is None
