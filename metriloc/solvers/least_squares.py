"""Damped steps of Gauss-Newton or Levenberg-Marquardt, batched, with failures marked and not raised; and a loop of them.

The step every iterative solver of the library takes: the polish of relative poses, and PixLoc's alignment in training
and inference (hence differentiable).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

_MIN_DAMPING = 1e-6
_START_LOOP_DAMPING, _MIN_LOOP_DAMPING, _MAX_LOOP_DAMPING = 1e-4, 1e-9, 1e6
CONVERGED = 1e-7
"""Relative decrease of the cost."""
_SINGULAR = 1e-10  # smallest eigenvalue of a system scaled to unit diagonal

State = TypeVar("State")


@dataclass(frozen=True, eq=False)
class Step:
    """delta: the update, 0 where there is none. ok: False where the damped system could not be solved."""

    delta: Float[Tensor, "*b n"]
    ok: Bool[Tensor, "*b"]


def damped_step(
    H: Float[Tensor, "*b n n"],
    g: Float[Tensor, "*b n"],
    damping: float | Float[Tensor, "*#b #n"] = 0.0,
    mask: Bool[Tensor, "*b"] | None = None,
) -> Step:
    """``delta = -(H + diag(max(damping * diag H, 1e-6)))^-1 g`` by Cholesky (PixLoc, Levenberg-Marquardt).

    damping: a number, one an element ``[*b, 1]`` or one a parameter ``[n]``. mask: False elements do not move, and are
    ok. An element whose matrix is not positive definite, or not finite, gets ``ok=False`` and no update; the others are
    not touched by it. Differentiable, also when elements fail. Raises ValueError on shapes that do not fit.
    """
    if H.ndim < 2 or H.shape[-1] != H.shape[-2] or g.shape != H.shape[:-1]:
        raise ValueError(f"H must have shape [*b, n, n] and g [*b, n], got {list(H.shape)} and {list(g.shape)}")
    if mask is not None and mask.shape != g.shape[:-1]:
        raise ValueError(f"mask must have shape {list(g.shape[:-1])}, got {list(mask.shape)}")
    diagonal = H.diagonal(dim1=-2, dim2=-1) * damping
    if diagonal.shape != g.shape:
        shape = list(damping.shape) if isinstance(damping, Tensor) else damping
        raise ValueError(f"damping must be a number or broadcast to {list(g.shape)}, got {shape}")
    damped = H + torch.diag_embed(diagonal.clamp(min=_MIN_DAMPING))
    usable = torch.isfinite(damped).all(-1).all(-1) & torch.isfinite(g).all(-1)
    if mask is not None:
        usable = usable & mask
    factor, solved = _factorise(damped, usable)
    g = torch.where(solved[..., None], g, torch.zeros_like(g))
    delta = -torch.cholesky_solve(g[..., None], factor).squeeze(-1)
    return Step(delta, solved if mask is None else solved | ~mask)


def minimize(
    state: State,
    cost_of: Callable[[State], float],
    step: Callable[[State, float], State | None],
    iterations: int,
    converged: float = CONVERGED,
) -> tuple[State, float, float]:
    """Levenberg-Marquardt: the best state, the cost at the start and at the end, which is never larger.

    - step: (state, damping) -> where to go from there, None where the damped system has no solution.
    - iterations: at most. converged: relative decrease of the cost below which it ends.
    """
    before = cost = cost_of(state)
    damping = _START_LOOP_DAMPING
    for _ in range(iterations):
        candidate = step(state, damping)
        new_cost = cost_of(candidate) if candidate is not None else float("inf")
        if candidate is not None and new_cost < cost:
            done = cost - new_cost < converged * cost
            state, cost, damping = candidate, new_cost, max(damping / 10, _MIN_LOOP_DAMPING)
            if done:
                break
        else:
            damping *= 10
            if damping > _MAX_LOOP_DAMPING:
                break
    return state, before, cost


def _factorise(H: Tensor, usable: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors, the identity's for elements that are not usable or not positive definite."""
    eye = torch.eye(H.shape[-1], dtype=H.dtype, device=H.device)
    factor, info = torch.linalg.cholesky_ex(torch.where(usable[..., None, None], H, eye))
    solved = info == 0
    if not bool(solved.all()):
        # masking the factor alone would leave 0 * NaN in the gradient of the failed ones: factorise again without them
        usable = usable & solved
        factor, _ = torch.linalg.cholesky_ex(torch.where(usable[..., None, None], H, eye))
    return factor, usable


def is_regular(H: Float[Tensor, "n n"]) -> bool:
    """Whether normal equations fix all parameters.

    Scaled to unit diagonal, they are safely away from singular. Collinear points, for one, leave a
    rotation free: their smallest eigenvalue is 1e-16.
    """
    diagonal = H.diagonal()
    if not bool(torch.isfinite(H).all()) or not bool((diagonal > 0).all()):
        return False
    scale = diagonal.rsqrt()
    return bool(torch.linalg.eigvalsh(scale[:, None] * H * scale)[0] > _SINGULAR)
