"""Robust losses of squared residuals: value, weight and curvature together.

Each takes ``x = |r|^2`` and returns ``(rho, rho', rho'')`` with respect to ``x``; ``rho'`` is the weight of iteratively
reweighted least squares. Barron's family ("A General and Adaptive Robust Loss Function", CVPR 2019) holds the usual
ones. PixLoc aligns with ``scaled_barron(x, 0, 0.1)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

_LIMIT = 1e-7  # nearer than this to 0 or 2, Barron's formula has lost its digits and the limit is exact
_LOG_LIMIT = 3.3e38  # keeps log1p finite in float32


class Loss(NamedTuple):
    """value: rho. weight: rho', 0 or more. curvature: rho''."""

    value: Float[Tensor, "*b"]
    weight: Float[Tensor, "*b"]
    curvature: Float[Tensor, "*b"]


def squared(x: Float[Tensor, "*b"]) -> Loss:
    """Plain least squares."""
    return Loss(x, torch.ones_like(x), torch.zeros_like(x))


def huber(x: Float[Tensor, "*b"]) -> Loss:
    """Quadratic up to 1, linear in the residual beyond."""
    outside = x > 1
    root = torch.where(outside, x, torch.ones_like(x)).sqrt()  # a finite gradient on both sides of the branch
    weight = torch.where(outside, (1 / root).clamp(min=torch.finfo(torch.float32).eps), torch.ones_like(x))
    curvature = torch.where(outside, -weight / (2 * root * root), torch.zeros_like(x))
    return Loss(torch.where(outside, 2 * root - 1, x), weight, curvature)


def cauchy(x: Float[Tensor, "*b"]) -> Loss:
    """``log(1 + x)``. Barron's ``alpha = 0`` is the same up to units: ``2 log(1 + x / 2)``."""
    weight = 1 / (1 + x)
    return Loss(torch.log1p(x.clamp(max=_LOG_LIMIT)), weight, -weight.square())


def barron(x: Float[Tensor, "*b"], alpha: float) -> Loss:
    """Barron's general loss with unit scale.

    2 is squared, 1 pseudo-Huber, 0 Cauchy, -2 Geman-McClure.
    """
    if abs(alpha - 2) < _LIMIT:
        return squared(x)
    if abs(alpha) < _LIMIT:
        weight = 2 / (x + 2)
        return Loss(2 * torch.log1p((0.5 * x).clamp(max=_LOG_LIMIT)), weight, -0.5 * weight.square())
    beta = abs(alpha - 2)
    base = x / beta + 1
    weight = base ** (0.5 * alpha - 1)
    return Loss(2 * beta / alpha * (base ** (0.5 * alpha) - 1), weight, (0.5 * alpha - 1) / beta * weight / base)


def scaled(x: Float[Tensor, "*b"], loss: Callable[[Tensor], Loss], scale: float) -> Loss:
    """``scale^2 loss(x / scale^2)``.

    The loss with its threshold moved from 1 to ``scale`` (a residual, not squared). Raises
    ValueError for a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"the scale of a robust loss must be positive, got {scale}")
    value, weight, curvature = loss(x / scale**2)
    return Loss(scale**2 * value, weight, curvature / scale**2)


def scaled_barron(x: Float[Tensor, "*b"], alpha: float, scale: float) -> Loss:
    """Barron's loss with threshold ``scale``."""
    return scaled(x, lambda y: barron(y, alpha), scale)
