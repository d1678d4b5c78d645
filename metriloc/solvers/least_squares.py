"""One damped step of Gauss-Newton or Levenberg-Marquardt, batched, with failures marked and not raised."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_MIN_DAMPING = 1e-6


@dataclass(frozen=True, eq=False)
class Step:
    """delta: the update, 0 where there is none. ok: whether the damped system could be solved."""

    delta: Float[Tensor, "*b n"]
    ok: Bool[Tensor, "*b"]


def damped_step(
    H: Float[Tensor, "*b n n"],
    g: Float[Tensor, "*b n"],
    damping: float | Float[Tensor, "*#b #n"] = 0.0,
    mask: Bool[Tensor, "*b"] | None = None,
) -> Step:
    """``delta = -(H + diag(max(damping * diag H, 1e-6)))^-1 g`` by Cholesky (PixLoc, Levenberg-Marquardt).

    damping: a number, one an element ``[*b, 1]`` or one a parameter ``[n]``. mask: False elements do not move. An
    element whose matrix is not positive definite, or not finite, gets ``ok=False`` and no update; the others are not
    touched by it. Differentiable.
    """
    if H.shape[-1] != H.shape[-2] or g.shape != H.shape[:-1]:
        raise ValueError(f"H must have shape [*b, n, n] and g [*b, n], got {list(H.shape)} and {list(g.shape)}")
    diagonal = H.diagonal(dim1=-2, dim2=-1) * damping
    damped = H + torch.diag_embed(diagonal.clamp(min=_MIN_DAMPING))
    usable = torch.isfinite(damped).all(-1).all(-1) & torch.isfinite(g).all(-1)
    if mask is not None:
        usable = usable & mask
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    damped = torch.where(usable[..., None, None], damped, eye)
    g = torch.where(usable[..., None], g, torch.zeros_like(g))
    factor, info = torch.linalg.cholesky_ex(damped)
    solved = info == 0
    factor = torch.where(solved[..., None, None], factor, eye)
    delta = -torch.cholesky_solve(g[..., None], factor).squeeze(-1)
    ok = usable & solved
    return Step(torch.where(ok[..., None], delta, torch.zeros_like(delta)), ok if mask is None else ok | ~mask)
