"""How many matches a camera of free numbers explains."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from metriloc.solvers.resection import projective_inliers


def matches(generator: torch.Generator, count: int = 300) -> tuple[Tensor, Tensor]:
    """Points 2 to 3 units before a camera of odd numbers, and their pixels with 0.3 px of noise."""
    xyz = torch.rand(count, 3, generator=generator) + torch.tensor([-0.5, -0.5, 2.0])
    uv = torch.tensor([700.0, 650.0]) * xyz[:, :2] / xyz[:, 2:] + torch.tensor([90.0, 400.0])
    return uv + 0.3 * torch.randn(uv.shape, generator=generator), xyz


@pytest.mark.parametrize("wrong", [0, 150])
def test_all_right_matches_are_explained_and_no_others(generator: torch.Generator, wrong: int) -> None:
    uv, xyz = matches(generator)
    uv[:wrong] += 60 + 200 * torch.rand(wrong, 2, generator=generator)
    found = projective_inliers(uv, xyz, 2.0)
    assert not bool(found[:wrong].any()) and float(found[wrong:].float().mean()) > 0.98


def test_points_of_a_wall_and_unknown_ones(generator: torch.Generator) -> None:
    uv, xyz = matches(generator)
    flat = xyz * 2.5 / xyz[:, 2:]
    flat[::3] = torch.nan
    found = projective_inliers(uv, flat, 2.0)
    assert not bool(found[::3].any()) and float(found.float().mean()) > 0.65
    assert not bool(projective_inliers(uv[:5], xyz[:5], 2.0).any())
    assert not bool(projective_inliers(uv, torch.full_like(xyz, torch.nan), 2.0).any())
