"""Matrices from outside that are no rotation, or of no camera: wrong use, named by its numbers."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def require_tensors(owner: str, **values: object) -> None:
    """Raises ValueError for a field that is no tensor."""
    for name, value in values.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{owner}.{name} must be a tensor, got {type(value).__name__}: torch.as_tensor makes one")


def require_rotation(R: Float[Tensor, "*b 3 3"]) -> None:
    """Raises ValueError for matrices that scale, shear or mirror.

    NaN, which failures carry, is let through.
    """
    if R.shape[-2:] != (3, 3):
        return  # Pose says so
    exact = R.detach().double()
    off = (exact @ exact.mT - torch.eye(3, dtype=exact.dtype, device=exact.device)).abs().amax((-2, -1))
    if bool((off > 1e-2).any()) or bool((torch.linalg.det(exact) < 0).any()):
        raise ValueError(f"R must be a rotation (orthogonal, determinant 1), got {exact.reshape(-1, 3, 3)[0].tolist()}")


def require_calibration(K: Float[Tensor, "*b 3 3"]) -> None:
    """Raises ValueError for matrices that no camera has.

    Not finite, or focal lengths that are not positive.
    """
    exact = K.detach()
    if not bool(torch.isfinite(exact).all()) or not bool((exact[..., [0, 1], [0, 1]] > 0).all()):
        shown = exact.reshape(-1, 3, 3)[0].tolist() if exact.numel() else []
        raise ValueError(f"K must be finite, with focal lengths above 0, got {shown}")
