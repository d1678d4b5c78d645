"""The training term of NRE, paper Eq. (10), without the correspondence maps it is made of.

A dense correspondence map a point would need N x h x w numbers, and autograd would keep several of them. Here the maps
are made for a chunk of points at a time, forward for the loss and once more backward for its gradient, so memory is
O(chunk x cells). Tests compare it with the same number, dense.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from metriloc.methods.nre.maps import reprojection_pmf

CHUNK = 1 << 20
"""Numbers a temporary of one chunk may hold."""
MIN_WINDOW = 8
"""The smallest window in which a position that is a quarter window off the centre has its four cells."""


@dataclass(frozen=True, eq=False)
class CorrelationError:
    """error: the NRE of each point, nats, infinite outside the map. peak: the most probable cell (x, y), no gradient."""

    error: Float[Tensor, " N"]
    peak: Int[Tensor, "N 2"]


def correlation_error(
    descriptors: Float[Tensor, "N C"],
    features: Float[Tensor, "C h w"],
    uv: Float[Tensor, "N 2"],
    chunk: int = CHUNK,
) -> CorrelationError:
    """The neural reprojection error of positions ``uv`` (cells of the map) over the whole map, paper Eq. (10) a point.

    Eq. (4) for an inlier: a cross-entropy between the four bilinear weights and the softmax over all cells of
    descriptor times feature (divide descriptors by a temperature first). Differentiable once, in descriptors and
    features; in float32 or wider, also under autocast. Raises ValueError for shapes that do not fit.
    """
    size = _checked(descriptors, features, uv, chunk)
    cells, weights, inside = reprojection_pmf(uv.detach(), size)
    index = cells[..., 1] * size[0] + cells[..., 0]
    with torch.autocast(descriptors.device.type, enabled=False):
        h, f = _wide(descriptors), _wide(features)
        error, best = _MapError.apply(h, f, index, weights.to(h), max(1, chunk // (size[0] * size[1])))
    error = torch.where(inside, error, torch.full_like(error, torch.inf))
    return CorrelationError(error, torch.stack([best % size[0], best // size[0]], -1))


def window_correlation_error(
    descriptors: Float[Tensor, "N C"],
    features: Float[Tensor, "C h w"],
    uv: Float[Tensor, "N 2"],
    centers: Float[Tensor, "N 2"],
    window: int = 16,
    chunk: int = CHUNK,
) -> CorrelationError:
    """The same with the softmax over (window + 1)^2 cells around ``centers``.

    What the fine stage evaluates. Windows lie as ``maps.window_gain_maps`` puts them: around the
    rounded centre, moved inside the map at its border. The error is infinite where a position is
    not in its window. Raises ValueError for a window below 8.
    """
    size = _checked(descriptors, features, uv, chunk)
    if centers.shape != uv.shape or window < MIN_WINDOW:
        raise ValueError(
            f"centers must have shape {list(uv.shape)} and window be at least {MIN_WINDOW}, "
            f"got {list(centers.shape)} and {window}"
        )
    shape = min(window + 1, size[0]), min(window + 1, size[1])
    origin = window_origin(centers, size, shape)
    cells, weights, inside = reprojection_pmf(uv.detach() - origin, shape)
    index = cells[..., 1] * shape[0] + cells[..., 0]
    x, y = torch.arange(shape[0], device=uv.device), torch.arange(shape[1], device=uv.device)
    rows, columns = origin[:, 1:] + y, origin[:, :1] + x
    places = (rows[:, :, None] * size[0] + columns[:, None, :]).flatten(1)
    with torch.autocast(descriptors.device.type, enabled=False):
        h, f = _wide(descriptors), _wide(features)
        step = max(1, chunk // (shape[0] * shape[1] * len(features)))
        error, best = _WindowError.apply(h, f, places, index, weights.to(h), step)
    error = torch.where(inside, error, torch.full_like(error, torch.inf))
    return CorrelationError(error, torch.stack([best % shape[0], best // shape[0]], -1) + origin)


def window_origin(centers: Float[Tensor, "N 2"], size: tuple[int, int], shape: tuple[int, int]) -> Int[Tensor, "N 2"]:
    """(x, y) of the first cell of windows of ``shape`` (columns, rows) around centers, inside a map of ``size``."""
    last = centers.new_tensor([size[0] - shape[0], size[1] - shape[1]])
    half = centers.new_tensor([shape[0] // 2, shape[1] // 2])
    return (centers.detach().round() - half).clamp(min=0).minimum(last).long()


def noisy_centers(uv: Float[Tensor, "N 2"], window: int, generator: torch.Generator) -> Float[Tensor, "N 2"]:
    """Positions moved by uniform noise of up to a quarter window each way: predictions as the fine stage gets them."""
    noise = 2 * torch.rand(uv.shape, generator=generator) - 1
    return uv + window / 4 * noise.to(uv)


# -- autograd ---------------------------------------------------------------------------------------------------------
class _MapError(torch.autograd.Function):
    """``logsumexp - sum_k w_k logit_k`` over a whole map, and the best cell."""

    @staticmethod
    def forward(
        ctx: Any, descriptors: Tensor, features: Tensor, index: Tensor, weights: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        flat = features.flatten(1)
        total, matched = descriptors.new_empty(len(descriptors)), descriptors.new_empty(len(descriptors))
        best = index.new_zeros(len(descriptors))
        for part in _parts(len(descriptors), step):
            logits = descriptors[part] @ flat
            matched[part] = (logits.gather(1, index[part]) * weights[part]).sum(-1)
            best[part] = logits.argmax(-1)
            total[part] = logits.logsumexp(-1)
        ctx.save_for_backward(descriptors, features, index, weights, total)
        ctx.step = step
        ctx.mark_non_differentiable(best)
        return total - matched, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        descriptors, features, index, weights, total = ctx.saved_tensors
        flat = features.flatten(1)
        grad_h = torch.empty_like(descriptors) if ctx.needs_input_grad[0] else None
        grad_f = torch.zeros_like(flat) if ctx.needs_input_grad[1] else None
        for part in _parts(len(descriptors), ctx.step):
            h, g = descriptors[part], grad[part, None]
            # d error / d logit: the softmax minus the target
            d = (h @ flat).sub_(total[part, None]).exp_().mul_(g)
            d.scatter_add_(1, index[part], -g * weights[part])
            if grad_h is not None:
                grad_h[part] = d @ flat.mT
            if grad_f is not None:
                grad_f.addmm_(h.mT, d)
        return grad_h, None if grad_f is None else grad_f.view_as(features), None, None, None


class _WindowError(torch.autograd.Function):
    """The same over the cells ``places`` of each point; ``index`` counts within them."""

    @staticmethod
    def forward(
        ctx: Any, descriptors: Tensor, features: Tensor, places: Tensor, index: Tensor, weights: Tensor, step: int
    ) -> tuple[Tensor, Tensor]:
        rows = features.flatten(1).mT.contiguous()
        total, matched = descriptors.new_empty(len(descriptors)), descriptors.new_empty(len(descriptors))
        best = index.new_zeros(len(descriptors))
        for part in _parts(len(descriptors), step):
            logits = _products(descriptors[part], rows, places[part])
            matched[part] = (logits.gather(1, index[part]) * weights[part]).sum(-1)
            best[part] = logits.argmax(-1)
            total[part] = logits.logsumexp(-1)
        ctx.save_for_backward(descriptors, features, places, index, weights, total)
        ctx.step = step
        ctx.mark_non_differentiable(best)
        return total - matched, best

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad = grads[0]
        descriptors, features, places, index, weights, total = ctx.saved_tensors
        rows = features.flatten(1).mT.contiguous()
        grad_h = torch.empty_like(descriptors) if ctx.needs_input_grad[0] else None
        grad_rows = torch.zeros_like(rows) if ctx.needs_input_grad[1] else None
        for part in _parts(len(descriptors), ctx.step):
            h, g = descriptors[part], grad[part, None]
            cells = rows[places[part]]
            d = torch.einsum("nkc,nc->nk", cells, h).sub_(total[part, None]).exp_().mul_(g)
            d.scatter_add_(1, index[part], -g * weights[part])
            if grad_h is not None:
                grad_h[part] = torch.einsum("nk,nkc->nc", d, cells)
            if grad_rows is not None:
                change = d[:, :, None] * h[:, None, :]
                grad_rows.index_add_(0, places[part].flatten(), change.flatten(0, 1))
        grad_f = None if grad_rows is None else grad_rows.mT.reshape(features.shape)
        return grad_h, grad_f, None, None, None, None


def _products(descriptors: Tensor, rows: Tensor, places: Tensor) -> Float[Tensor, "n cells"]:
    return torch.einsum("nkc,nc->nk", rows[places], descriptors)


def _parts(count: int, step: int) -> Iterator[slice]:
    return (slice(start, start + step) for start in range(0, count, step))


def _wide(tensor: Tensor) -> Tensor:
    """At least float32: a logsumexp over ten thousand cells in half precision means nothing."""
    return tensor if tensor.dtype == torch.float64 else tensor.float()


def _checked(descriptors: Tensor, features: Tensor, uv: Tensor, chunk: int) -> tuple[int, int]:
    if features.ndim != 3 or descriptors.shape != (len(uv), len(features)) or uv.shape[1:] != (2,):
        raise ValueError(
            f"descriptors [N, C], features [C, h, w] and uv [N, 2] do not fit: "
            f"{list(descriptors.shape)}, {list(features.shape)}, {list(uv.shape)}"
        )
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    return features.shape[2], features.shape[1]
