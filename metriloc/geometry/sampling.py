"""Looking up feature maps and depth maps at pixel positions.

``sample`` follows PixLoc: bilinear with zeros outside and gradients by central differences of one pixel, or bicubic
(Keys, a = -0.5) with analytic gradients. Pixel (0, 0) is the centre of the first cell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

_JUMP = 0.05  # relative depth difference that counts as an edge


@dataclass(frozen=True, eq=False)
class Sampled:
    """Values of a map at points, and their derivatives.

    Beside them: whether each point lies inside the padded map, and d value / d(x, y).

    >>> ramp = torch.arange(4.0).expand(1, 4, 4)
    >>> found = sample(ramp, torch.tensor([[1.5, 2.0]]), gradients=True)
    >>> found.valid, found.gradients
    (tensor([True]), tensor([[[1., 0.]]]))
    """

    values: Float[Tensor, "*b N C"]
    valid: Bool[Tensor, "*b N"]
    gradients: Float[Tensor, "*b N C 2"]


def sample(
    fmap: Float[Tensor, "*b C H W"],
    uv: Float[Tensor, "*b N 2"],
    mode: Literal["linear", "cubic"] = "linear",
    pad: int = 1,
    gradients: bool = False,
) -> Sampled:
    """Interpolate a map at points.

    - fmap: the map.
    - uv: the points, in pixels of the map.
    - mode: ``linear`` or ``cubic``.
    - pad: valid are ``pad <= x <= W - 1 - pad`` and the same for y (cubic: one more).
    - gradients: whether to look them up; they are zeros unless asked for.

    Values and gradients are differentiable with respect to map and points.

    >>> ramp = torch.arange(4.0).expand(1, 4, 4)
    >>> sample(ramp, torch.tensor([[1.5, 2.0]])).values
    tensor([[1.5000]])
    """
    if fmap.ndim < 3 or uv.ndim < 2 or uv.shape[-1] != 2 or fmap.shape[:-3] != uv.shape[:-2]:
        raise ValueError(
            "fmap must have shape [*b, C, H, W] and uv [*b, N, 2] of one batch shape, "
            f"got {list(fmap.shape)} and {list(uv.shape)}"
        )
    if mode not in ("linear", "cubic"):
        raise ValueError(f"mode must be 'linear' or 'cubic', got {mode!r}")
    batch, (C, H, W) = fmap.shape[:-3], fmap.shape[-3:]
    margin = pad + 1 if mode == "cubic" else pad
    limit = uv.new_tensor([W - 1 - margin, H - 1 - margin])
    valid = ((uv >= margin) & (uv <= limit)).all(-1)
    count = math.prod(batch)  # -1 cannot be told from the shape where there are no points
    maps, points = fmap.reshape(count, C, H, W), uv.reshape(count, uv.shape[-2], 2)
    values, slopes = (_cubic if mode == "cubic" else _linear)(maps, points, gradients)
    shape = (*batch, uv.shape[-2], C)
    return Sampled(values.reshape(shape), valid, slopes.reshape(*shape, 2))


def _linear(maps: Tensor, uv: Tensor, gradients: bool) -> tuple[Tensor, Tensor]:
    H, W = maps.shape[-2:]
    size = uv.new_tensor([W - 1, H - 1])
    # far outside points are clamped so that no coordinate overflows; all of them read zeros
    grid = (2 * uv / size - 1).clamp(-2, 2)
    if not gradients:
        values = _grid_sample(maps, grid)
        return values, values.new_zeros(*values.shape, 2)
    step = torch.diag(2 / size)
    offsets = torch.stack([torch.zeros_like(step[0]), step[0], -step[0], step[1], -step[1]])
    looked_up = _grid_sample(maps, (grid[:, None] + offsets[:, None]).flatten(1, 2)).unflatten(1, (5, -1))
    center, right, left, down, up = looked_up.unbind(1)
    return center, torch.stack([(right - left) / 2, (down - up) / 2], -1)


def _grid_sample(maps: Tensor, grid: Tensor) -> Tensor:
    return F.grid_sample(maps, grid[:, None], mode="bilinear", align_corners=True)[:, :, 0].mT


def _cubic(maps: Tensor, uv: Tensor, gradients: bool) -> tuple[Tensor, Tensor]:
    H, W = maps.shape[-2:]
    base = uv.detach().floor()
    t = uv - base
    weights, slopes = _keys(t)  # [B, N, 2, 4]
    steps = torch.arange(-1, 3, device=uv.device)
    # NaN or far points must still give an index: clamp as floats before the conversion
    index = torch.nan_to_num(base).clamp(-4, max(H, W) + 4).long()[..., None] + steps
    x, y = index[..., 0, :].clamp(0, W - 1), index[..., 1, :].clamp(0, H - 1)
    flat = (y[..., :, None] * W + x[..., None, :]).flatten(1)
    patch = maps.flatten(2).gather(2, flat[:, None].expand(-1, maps.shape[1], -1))
    patch = patch.reshape(*maps.shape[:2], uv.shape[1], 4, 4)  # [B, C, N, y, x]
    values = torch.einsum("bcnyx,bny,bnx->bnc", patch, weights[..., 1, :], weights[..., 0, :])
    if not gradients:
        return values, values.new_zeros(*values.shape, 2)
    dx = torch.einsum("bcnyx,bny,bnx->bnc", patch, weights[..., 1, :], slopes[..., 0, :])
    dy = torch.einsum("bcnyx,bny,bnx->bnc", patch, slopes[..., 1, :], weights[..., 0, :])
    return values, torch.stack([dx, dy], -1)


def _keys(t: Tensor) -> tuple[Tensor, Tensor]:
    """Keys' kernel (a = -0.5) for the neighbours -1, 0, 1, 2 of a fraction t in [0, 1), and its derivative in t."""
    t2, t3 = t * t, t * t * t
    weights = [-t3 + 2 * t2 - t, 3 * t3 - 5 * t2 + 2, -3 * t3 + 4 * t2 + t, t3 - t2]
    slopes = [-3 * t2 + 4 * t - 1, 9 * t2 - 10 * t, -9 * t2 + 8 * t + 1, 3 * t2 - 2 * t]
    return 0.5 * torch.stack(weights, -1), 0.5 * torch.stack(slopes, -1)


def J_normalize(x: Float[Tensor, "*b C"]) -> Float[Tensor, "*b C C"]:
    """Derivative of ``x / |x|``. It is ``(I - n n^T) / |x|`` (no epsilon: NaN at zero).

    >>> J_normalize(torch.tensor([2.0, 0.0]))
    tensor([[0.0000, 0.0000],
            [0.0000, 0.5000]])
    """
    length = x.norm(dim=-1, keepdim=True)
    n = x / length
    eye = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    return (eye - n[..., :, None] * n[..., None, :]) / length[..., None]


def _known(depth: Float[Tensor, "*b"]) -> Float[Tensor, "*b"]:
    return torch.where(torch.isfinite(depth) & (depth > 0), depth, torch.zeros_like(depth))


def sample_depth(
    depth: Float[Tensor, "h w"], uv: Float[Tensor, "N 2"], image_size: tuple[int, int]
) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
    """Depth in metres at pixels, and whether it is known there.

    - depth: the map, metres. It may have any resolution: it covers the same field of view, so positions scale by the
      half-pixel rule.
    - uv: pixels of the image.
    - image_size: (width, height) of the image.

    Bilinear where the four cells agree; next to a hole (0, negative or not finite) or an edge (relative jump above 5 %) the
    nearest cell, because a mean of two surfaces lies on neither. Unknown depths are returned as 0.

    >>> depth = torch.tensor([[2.0, 2.0], [2.0, 0.0]])
    >>> sample_depth(depth, torch.tensor([[0.0, 0.0], [1.0, 1.0]]), (2, 2))
    (tensor([2., 0.]), tensor([ True, False]))
    """
    if depth.ndim != 2 or uv.ndim != 2 or uv.shape[-1] != 2:
        raise ValueError(f"depth must have shape [h, w] and uv [N, 2], got {list(depth.shape)} and {list(uv.shape)}")
    h, w = depth.shape
    scale = uv.new_tensor([w / image_size[0], h / image_size[1]])
    position = (uv + 0.5) * scale - 0.5
    inside = ((uv >= -0.5) & (uv <= uv.new_tensor(image_size) - 0.5)).all(-1)
    position = torch.nan_to_num(position).clamp(min=0).minimum(uv.new_tensor([w - 1, h - 1]))
    corner = position.floor()
    fraction = position - corner
    x0, y0 = corner.long().unbind(-1)
    x1, y1 = (x0 + 1).clamp(max=w - 1), (y0 + 1).clamp(max=h - 1)
    cells = _known(torch.stack([depth[y0, x0], depth[y0, x1], depth[y1, x0], depth[y1, x1]], -1).to(uv.dtype))
    fx, fy = fraction.unbind(-1)
    weights = torch.stack([(1 - fx) * (1 - fy), fx * (1 - fy), (1 - fx) * fy, fx * fy], -1)
    smooth = (cells.amin(-1) > 0) & (cells.amax(-1) <= (1 + _JUMP) * cells.amin(-1))
    nearest = _known(depth[position[:, 1].round().long(), position[:, 0].round().long()].to(uv.dtype))
    value = torch.where(smooth, (cells * weights).sum(-1), nearest)
    valid = inside & (value > 0)
    return torch.where(valid, value, torch.zeros_like(value)), valid
