"""What synthetic scenes, cameras and pairs are drawn from: frozen settings, checked when they are made."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch

from metriloc.geometry import Camera

Kind = Literal["room", "street", "square"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class PairLimits:
    """What a pair may look like. overlap: of the smaller direction, share of a view's pixels with depth that the other sees
    (0..1); baseline: metres between the centres; rotation: radians; attempts: reference views tried before giving up.
    baseline_share: if not 0, the largest baseline is at least this share of the reference's median depth, so that distant
    places get pairs as wide as near ones, and long baselines are more frequent."""

    overlap: tuple[float, float] = (0.3, 0.9)
    baseline: tuple[float, float] = (0.1, 2.0)
    rotation: tuple[float, float] = (0.0, 1.0)
    attempts: int = 60
    baseline_share: float = 0.0

    def __post_init__(self) -> None:
        for name, low, high in (("overlap", 0.0, 1.0), ("baseline", 0.0, math.inf), ("rotation", 0.0, math.pi)):
            _check_range(f"PairLimits.{name}", getattr(self, name), low, high)
        if not 0 <= self.baseline_share < math.inf:
            raise ValueError(f"PairLimits.baseline_share must not be negative, got {self.baseline_share}")
        if self.attempts < 1:
            raise ValueError(f"PairLimits.attempts must be at least 1, got {self.attempts}")


@dataclass(frozen=True)
class SyntheticConfig:
    """Which scenes and cameras are drawn."""

    weights: tuple[float, float, float] = (0.6, 0.25, 0.15)
    """Of rooms, streets, squares."""
    sizes: tuple[tuple[int, int], ...] = ((256, 192),)
    """Image sizes (width, height) a pair may have."""
    fov: tuple[float, float] = (0.8, 1.35)
    """Horizontal, radians."""
    principal_offset: float = 0.04
    """Largest offset of the principal point as a share of the image size."""
    pixel_aspect: tuple[float, float] = (0.98, 1.02)
    """fy over fx."""
    roll: float = 0.05
    """Standard deviation, radians."""
    texture_size: int = 256
    """Pixels a side, a power of two."""
    exposure_change: float = 0.2
    """Standard deviation of the log of a view's brightness and of its colour channels."""
    balance_change: float = 0.04
    """Standard deviation of the log of a view's brightness and of its colour channels."""
    noise: float = 0.01
    """Standard deviation of sensor noise, 0..1."""
    outdoor_scale: tuple[float, float] = (1.0, 1.0)
    """Limits of how much larger than everyday ones streets, squares and their houses are, drawn a
    scene (log-uniform)."""
    photos: Path | None = None
    """A folder of the user's own images, used as pictures and on some walls."""
    limits: PairLimits = field(default_factory=PairLimits)
    """Of pairs."""

    def __post_init__(self) -> None:
        if len(self.weights) != len(KINDS) or min(self.weights) < 0 or sum(self.weights) <= 0:
            raise ValueError(f"weights must be three numbers >= 0, not all 0 ({', '.join(KINDS)}), got {self.weights}")
        if not self.sizes or any(len(s) != 2 or min(s) < 16 for s in self.sizes):
            raise ValueError(f"sizes must be (width, height) of at least 16 pixels each, got {self.sizes}")
        _check_range("fov", self.fov, 0.1, 2.6)
        _check_range("pixel_aspect", self.pixel_aspect, 0.2, 5.0)
        _check_range("outdoor_scale", self.outdoor_scale, 1.0, 4.0)
        size = self.texture_size
        if not 16 <= size <= 2048 or size & (size - 1):
            raise ValueError(f"texture_size must be a power of two from 16 to 2048, got {size}")
        for name in ("principal_offset", "roll", "exposure_change", "balance_change", "noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")


@dataclass(frozen=True)
class Exposure:
    """How light becomes a picture. gain: factor on the light; balance: factors on red, green, blue; noise: standard deviation
    of the finished picture, 0..1. The default is the same for all views of a scene."""

    gain: float = 1.0
    balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    noise: float = 0.0

    def __post_init__(self) -> None:
        if not (self.gain > 0 and min(self.balance) > 0 and self.noise >= 0):
            raise ValueError(f"exposure needs gain > 0, balance > 0 and noise >= 0, got {self}")


def sample_camera(rng: np.random.Generator, config: SyntheticConfig, size: tuple[int, int]) -> Camera:
    """A random pinhole camera. Field of view, principal point and pixel aspect are drawn.

    - rng: of the draws.
    - config: their limits.
    - size: (width, height) of its photos.
    """
    fx = 0.5 * size[0] / math.tan(0.5 * rng.uniform(*config.fov))
    fy = fx * rng.uniform(*config.pixel_aspect)
    offset = rng.uniform(-config.principal_offset, config.principal_offset, 2) * np.array(size)
    c = (np.array(size) - 1) / 2 + offset
    wh, f, center = (torch.tensor([float(v) for v in values]) for values in (size, (fx, fy), c))
    return Camera(wh, f, center)


def _check_range(name: str, value: tuple[float, float], low: float, high: float) -> None:
    if len(value) != 2 or not low <= value[0] <= value[1] <= high:
        raise ValueError(f"{name} must be (smallest, largest) within {low:g} to {high:g}, got {value}")
