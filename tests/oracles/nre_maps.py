"""Maps and errors of NRE, dense, a point after the other."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.methods.nre import evidence
from metriloc.methods.nre.maps import GainMaps, blocks, log_cardinality, reprojection_pmf


def log_matching_probability(log_c: Float[Tensor, "*b"], inlier: Bool[Tensor, "*#b"], size: tuple[int, int]) -> Tensor:
    """``ln q_m``: the correspondence map for inliers, uniform over all cells and *out* for outliers, paper Eq. (2)."""
    return torch.where(inlier, log_c, torch.full_like(log_c, -log_cardinality(size)))


def window_mass(maps: GainMaps, uv: Float[Tensor, "N 2"], before: int = 1, after: int = 1) -> Float[Tensor, " N"]:
    """Probability that a correspondence map puts in the cells from ``before`` to ``after`` around positions, 0..1.

    The coarse part of ``P(cell) = P(window) P(cell | window)``; cells outside the map count nothing.
    """
    center = torch.nan_to_num(uv).clamp(-1e6, 1e6).round().long()
    log_ratio, first = blocks(maps, center, max(before, after))
    rows, columns = log_ratio.shape[-2:]
    x = first[:, :1] - center[:, :1] + torch.arange(columns, device=uv.device)
    y = first[:, 1:] - center[:, 1:] + torch.arange(rows, device=uv.device)
    wanted = ((y >= -before) & (y <= after))[:, :, None] & ((x >= -before) & (x <= after))[:, None, :]
    mass = torch.where(wanted, (log_ratio - maps.max_gain).exp(), 0.0).sum((-1, -2))
    return torch.where(torch.isfinite(uv).all(-1), mass, torch.zeros_like(mass))


def neural_reprojection_error(log_c: Float[Tensor, "N h w"], uv: Float[Tensor, "N 2"]) -> Float[Tensor, " N"]:
    """Cross-entropy of ``q_r`` and the correspondence map: ``-ln C`` read bilinearly, paper Eq. (4) for an inlier.

    The term that training sums, Eq. (10), and without truncation. Infinite outside the map, where C is 0.
    """
    n, h, w = log_c.shape
    if uv.shape != (n, 2):
        raise ValueError(f"uv must have shape [{n}, 2], got {list(uv.shape)}")
    cells, weights, inside = reprojection_pmf(uv, (w, h))
    point = torch.arange(n, device=log_c.device)[:, None]
    values = log_c[point, cells[..., 1], cells[..., 0]]
    # a cell that is impossible but has no weight must not turn the sum into NaN
    values = torch.where(weights > 0, values, torch.zeros_like(values))
    error = -(values * weights.to(values)).sum(-1)
    return torch.where(inside, error, torch.full_like(error, torch.inf))


def gain_at(maps: GainMaps, uv: Float[Tensor, "*b N 2"]) -> Float[Tensor, "*b N"]:
    """``evidence.gain_at`` of any batch of positions, with what is outside of the feature map left out: the point is *out*."""
    if uv.shape[-2:] != (len(maps), 2):
        raise ValueError(f"uv must have shape [*b, {len(maps)}, 2], got {list(uv.shape)}")
    by_point = uv.reshape(-1, len(maps), 2).transpose(0, 1)
    limit = uv.new_tensor([maps.size[0] - 1, maps.size[1] - 1])
    inside = ((by_point >= 0) & (by_point <= limit)).all(-1)
    return evidence.gain_at(maps, by_point, inside).mT.reshape(uv.shape[:-1])
