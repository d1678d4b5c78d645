"""The ground below a camera: the plane of points that nothing lies below.

Of a camera that stands upright, the ground is nearly square to its down axis. Walls are not; a table is, but then the
floor beside it lies below.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

_ROUNDS = 5
_CUT = 4.0  # times the median distance of the points on a plane: those farther away belong to something else
_INDEPENDENT = 10  # points whose errors may be taken for independent: neighbors err alike


@dataclass(frozen=True)
class GroundConfig:
    """Settings of finding the ground."""

    max_tilt_deg: float = 15.0
    """Between the plane's normal and the down axis."""
    thickness: float = 0.05
    """Share of the height within which a point lies on the plane."""
    min_points: int = 25
    """On the plane, of all."""
    min_share: float = 0.05
    """On the plane, of all."""
    max_below: float = 0.1
    """Points below the plane, as a share of those on it."""
    min_spread: float = 0.1
    """Standard deviation of the points on it in their narrow direction, as a share of the
    height."""
    max_lever: float = 6.0
    """How far from the camera the points on it lie, in standard deviations: a far strip of ground
    tells no height."""
    hypotheses: int = 1000
    """Planes that are tried."""


@dataclass(frozen=True, eq=False)
class Ground:
    """normal: unit, pointing down, in the camera's frame. height: of the camera above the plane, in the units of the
    points. sigma: standard deviation of its logarithm, from the scatter of the points and how they lie. count: of points on
    the plane."""

    normal: Float[Tensor, " 3"]
    height: float
    sigma: float
    count: int


def find_ground(
    xyz: Float[Tensor, "N 3"],
    down: Float[Tensor, " 3"],
    generator: torch.Generator,
    config: GroundConfig | None = None,
) -> Ground | None:
    """The ground under a camera that stands at the origin, None where none is seen.

    xyz: points in any unit, wrong ones among them. down: unit vector. Planes through three points that are square enough
    to ``down`` and have next to nothing below them are candidates; the one with the most points on it is refined.
    """
    config = config or GroundConfig()
    points = xyz[torch.isfinite(xyz).all(-1)].double()
    needed = max(config.min_points, config.min_share * len(points))
    if len(points) < needed:
        return None
    axis = down.double()
    normals, heights = _candidates(points, axis, generator, config)
    if len(heights) == 0:
        return None
    beyond = points @ normals.mT / heights - 1  # in heights: 0 on the plane, larger below it
    on, below = (beyond.abs() <= config.thickness).sum(0), (beyond > 2 * config.thickness).sum(0)
    score = (1 - (beyond / config.thickness).square()).clamp(min=0).sum(0)
    score = torch.where((below <= config.max_below * on) & (on >= needed), score, 0.0)
    best = int(score.argmax())
    if float(score[best]) == 0:
        return None
    return _refined(points, normals[best], heights[best], axis, config)


def _candidates(
    points: Tensor, down: Tensor, generator: torch.Generator, config: GroundConfig
) -> tuple[Tensor, Tensor]:
    """Normals and heights of planes through three points of those that lie below the horizon."""
    under = points[points @ down > 0.05 * points.norm(dim=-1)]
    if len(under) < 3:
        return points.new_zeros(0, 3), points.new_zeros(0)
    index = torch.randint(len(under), (config.hypotheses, 3), generator=generator)
    a, b, c = under[index].unbind(1)
    normal = torch.linalg.cross(b - a, c - a)
    normal = normal / normal.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    normal = normal * torch.sign(normal @ down)[:, None]
    height = (normal * a).sum(-1)
    upright = (normal @ down >= math.cos(math.radians(config.max_tilt_deg))) & (height > 0)
    return normal[upright], height[upright]


def _refined(points: Tensor, normal: Tensor, height: Tensor, down: Tensor, config: GroundConfig) -> Ground | None:
    """Least squares on the points of the plane; None where they lie along a line, or the plane no longer is a ground."""
    thickness = config.thickness
    for _ in range(_ROUNDS):
        off = (points @ normal / height - 1).abs()
        thickness = min(config.thickness, _CUT * float(off[off <= thickness].median()))
        on = points[off <= thickness]
        center = on.mean(0)
        variance, axes = torch.linalg.eigh((on - center).mT @ (on - center) / len(on))
        normal = axes[:, 0] * torch.sign(axes[:, 0] @ down)
        height = normal @ center
        if float(height) <= 0 or float(normal @ down) < math.cos(math.radians(config.max_tilt_deg)):
            return None
    spread = variance.clamp(min=0).sqrt() / height
    if len(on) < config.min_points or float(spread[1]) < config.min_spread:
        return None
    # below the camera the plane is extrapolated from where its points lie
    lever = float((axes[:, 1:].mT @ center / height / spread[1:]).norm())
    if lever > config.max_lever:
        return None
    sigma = float(spread[0]) * math.sqrt((1 + lever**2) / min(len(on), _INDEPENDENT))
    return Ground(normal.to(points), float(height), sigma, len(on))
