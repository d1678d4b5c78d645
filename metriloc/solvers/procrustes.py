"""Weighted rigid alignment of two point sets (Kabsch), batched and differentiable."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose

_RANK_TOLERANCE = {torch.float32: 1e-6, torch.float64: 1e-12}


@dataclass(frozen=True, eq=False)
class RigidFit:
    """pose: ``1_from_0``, rotation always proper. rank_ok: whether the points fix the rotation (neither coincident nor
    collinear up to rounding, and all finite); where False the pose is finite but arbitrary, or all NaN if an input was
    not finite or overflowed."""

    pose: Pose
    rank_ok: Bool[Tensor, "*b"]


def kabsch(
    xyz0: Float[Tensor, "*b N 3"], xyz1: Float[Tensor, "*b N 3"], weights: Float[Tensor, "*b N"] | None = None
) -> RigidFit:
    """The rigid motion with ``xyz1 ~ R xyz0 + t`` that minimises the weighted squared residuals, MicKey paper Eq. (4).

    Kabsch's algorithm: R from the SVD of the cross-covariance, with the sign that keeps det R = +1 (mirrored points
    give the best *rotation*). Never raises on data; differentiable through the SVD where its singular values differ.
    """
    if xyz0.shape != xyz1.shape or xyz0.ndim < 2 or xyz0.shape[-1] != 3:
        raise ValueError(
            f"xyz0 and xyz1 must both have shape [*b, N, 3], got {list(xyz0.shape)} and {list(xyz1.shape)}"
        )
    if weights is not None and weights.shape != xyz0.shape[:-1]:
        raise ValueError(f"weights must have shape {list(xyz0.shape[:-1])}, got {list(weights.shape)}")
    w = torch.ones_like(xyz0[..., :1]) if weights is None else weights[..., None]
    total = w.abs().sum(-2) + 1e-16
    mean0, mean1 = (w * xyz0).sum(-2) / total, (w * xyz1).sum(-2) / total
    centered0, centered1 = xyz0 - mean0[..., None, :], xyz1 - mean1[..., None, :]
    H = centered0.mT @ (w * centered1)
    finite = torch.isfinite(H).all(-1).all(-1)
    # the SVD refuses NaN for the whole batch: hand it zeros and put the NaN back afterwards
    U, S, Vt = torch.linalg.svd(torch.where(finite[..., None, None], H, torch.zeros_like(H)))
    sign = torch.det(U.detach() @ Vt.detach()).sign()
    flip = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    R = torch.where(finite[..., None, None], (Vt.mT * flip[..., None, :]) @ U.mT, torch.nan)
    t = mean1 - (R @ mean0[..., None]).squeeze(-1)
    noise = _rounding_noise(xyz0, xyz1, centered0, centered1, w)
    tolerance = _RANK_TOLERANCE.get(H.dtype, 1e-3)
    return RigidFit(Pose(R, t), finite & (S[..., 1] > tolerance * S[..., 0]) & (S[..., 1] > noise))


@torch.no_grad()
def _rounding_noise(xyz0: Tensor, xyz1: Tensor, centered0: Tensor, centered1: Tensor, w: Tensor) -> Float[Tensor, "*b"]:
    """How large a singular value of the cross-covariance rounding alone can make: ``2 eps (|A| |B_c| + |A_c| |B|)``.

    A ratio of singular values cannot tell coincident points from others: rounding spreads them in all directions.
    """

    def norm(xyz: Tensor) -> Tensor:
        return (w.abs() * xyz.square()).sum((-1, -2)).sqrt()

    return 2 * torch.finfo(xyz0.dtype).eps * (norm(xyz0) * norm(centered1) + norm(centered0) * norm(xyz1))
