"""Robust losses of squared residuals: value, weight and second derivative together.

Each takes ``x = |r|^2`` and returns ``(rho, rho', rho'')``; ``rho'`` is the weight of iteratively reweighted least
squares. Barron's family ("A General and Adaptive Robust Loss Function", CVPR 2019) holds the usual ones.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

Loss = tuple[Float[Tensor, "*b"], Float[Tensor, "*b"], Float[Tensor, "*b"]]
_LOG_LIMIT = 3.3e38  # keeps log1p finite in float32


def squared(x: Float[Tensor, "*b"]) -> Loss:
    """Plain least squares."""
    return x, torch.ones_like(x), torch.zeros_like(x)


def huber(x: Float[Tensor, "*b"]) -> Loss:
    """Quadratic up to 1, linear in the residual beyond."""
    outside = x > 1
    root = torch.where(outside, x, torch.ones_like(x)).sqrt()
    weight = torch.where(outside, (1 / root).clamp(min=torch.finfo(torch.float32).eps), torch.ones_like(x))
    second = torch.where(outside, -weight / (2 * root * root), torch.zeros_like(x))
    return torch.where(outside, 2 * root - 1, x), weight, second


def barron(x: Float[Tensor, "*b"], alpha: float) -> Loss:
    """Barron's general loss with unit scale: 2 is squared, 1 pseudo-Huber, 0 Cauchy, -2 Geman-McClure.

    The second derivative is not provided (zeros).
    """
    zero = torch.zeros_like(x)
    if alpha == 2:
        return x, torch.ones_like(x), zero
    if alpha == 0:
        return 2 * torch.log1p((0.5 * x).clamp(max=_LOG_LIMIT)), 2 / (x + 2), zero
    beta = max(abs(alpha - 2), 1e-7)
    safe_alpha = max(abs(alpha), 1e-7) * (1 if alpha >= 0 else -1)
    base = x / beta + 1
    return 2 * beta / safe_alpha * (base ** (0.5 * alpha) - 1), base ** (0.5 * alpha - 1), zero


def scaled(loss: Loss, scale: float) -> Loss:
    """A loss evaluated at ``x / scale^2`` -> the loss of ``x`` whose threshold is ``scale``."""
    value, weight, second = loss
    return scale**2 * value, weight, second / scale**2


def scaled_barron(x: Float[Tensor, "*b"], alpha: float, scale: float) -> Loss:
    """Barron's loss with threshold ``scale``; PixLoc aligns with ``alpha = 0, scale = 0.1``."""
    return scaled(barron(x / scale**2, alpha), scale)
