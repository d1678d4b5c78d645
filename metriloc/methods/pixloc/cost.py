"""PixLoc's alignment cost at one level: residuals of features at projected points, and their normal equations.

What the maps hold is looked up by ``lookup``. The Jacobian of a residual is
``[d_x, d_y] (C x 2) @ J (2 x 6)``, so all that the normal equations need of the C channels are six dot products a point:
no tensor of N x C x 6 exists. Training and inference both go through here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.bounds import require_flags, require_within
from metriloc.geometry import Camera, Pose, Validity
from metriloc.methods.pixloc.lookup import EPS, FeatureTable, look_up
from metriloc.solvers.robust import Loss, barron, huber, scaled, squared


@dataclass(frozen=True)
class RobustCost:
    """Loss of the squared residual.

    The default is what PixLoc was trained with: Cauchy, ``0.02 log(1 + 50 x)``.
    """

    kind: Literal["squared", "huber", "barron"] = "barron"
    """``squared``, ``huber`` or ``barron`` (with ``alpha``)."""
    alpha: float = 0.0
    """Of Barron's loss."""
    scale: float = 0.1
    """Threshold."""

    def __post_init__(self) -> None:
        if self.kind not in ("squared", "huber", "barron"):
            raise ValueError(f"RobustCost.kind must be 'squared', 'huber' or 'barron', got {self.kind!r}")
        require_within(self, alpha=(-1e6, 1e6), scale=(1e-9, 1e9))

    def __call__(self, x: Float[Tensor, "*b"]) -> Loss:
        """Value, weight and curvature at squared residuals."""
        if self.kind == "squared":
            return squared(x)
        return scaled(x, huber if self.kind == "huber" else lambda y: barron(y, self.alpha), self.scale)


class RobustLoss(Protocol):
    """A robust cost of one's own. It must be monotone, and its weight be 0 or more."""

    def __call__(self, x: Float[Tensor, "*b"], /) -> Loss:
        """Value, weight and curvature at squared residuals."""
        ...


@dataclass(frozen=True)
class CostConfig:
    """How a level is measured. Who wants to measure otherwise gives another ``loss`` or, of a subclass, ``linearize``."""

    loss: RobustLoss | RobustCost = RobustCost()
    """Robust cost."""
    mode: Literal["linear", "cubic"] = "linear"
    """Interpolation."""
    pad: int = 2
    """Margin of the map in cells beyond which nothing is valid."""
    normalize_features: bool = False
    """Bring interpolated and reference features to unit length (PixLoc does so with the pixels instead)."""
    validity: Validity = "correct"
    """``pixloc`` for the published test of the distortion (comparisons only)."""

    def __post_init__(self) -> None:
        if self.mode not in ("linear", "cubic"):
            raise ValueError(f"CostConfig.mode must be 'linear' or 'cubic', got {self.mode!r}")
        require_within(self, pad=(0, 1000))
        require_flags(self, "normalize_features")

    def linearize(self, problem: AlignmentProblem, pose: Pose) -> Linearization:
        """The cost of every observation at poses. And what its normal equations are made of."""
        return linearize(problem, pose, self)


@dataclass(frozen=True, eq=False)
class AlignmentProblem:
    """What one level aligns, B problems at once.

    xyz: points in the frame that the pose maps from (the world), in any precision. features: of the references at these
    points, unit length where the table normalises; a point may have up to K observations, which share everything but
    their features ([B, N, C] for one each). confidence: of the references, or None. mask: observations that take part,
    None for all. table: of the query images; camera: of the query images, scaled to the maps.
    """

    xyz: Float[Tensor, "B N 3"]
    features: Float[Tensor, "B N K C"]
    table: FeatureTable
    camera: Camera
    confidence: Float[Tensor, "B N K"] | None = None
    mask: Bool[Tensor, "B N K"] | None = None

    def __post_init__(self) -> None:
        if self.xyz.ndim != 3 or self.xyz.shape[-1] != 3:
            raise ValueError(f"xyz must have shape [B, N, 3], got {list(self.xyz.shape)}")
        if self.features.ndim == 3:
            for name in ("confidence", "mask"):
                value = getattr(self, name)
                object.__setattr__(self, name, None if value is None else value[..., None])
            object.__setattr__(self, "features", self.features[..., None, :])
        batch, count, channels = *self.xyz.shape[:2], self.table.rows.shape[-1]
        if self.features.ndim != 4 or self.features.shape[:2] != (batch, count) or self.features.shape[-1] != channels:
            raise ValueError(
                f"features must have shape [{batch}, {count}, K, {channels}], got {list(self.features.shape)}"
            )
        for name, value in (("confidence", self.confidence), ("mask", self.mask)):
            if value is not None and value.shape != self.features.shape[:3]:
                raise ValueError(f"{name} must have shape {list(self.features.shape[:3])}, got {list(value.shape)}")
        if self.table.batch != batch or self.camera.shape != (batch,):
            raise ValueError(f"{batch} problems, {self.table.batch} maps and cameras {list(self.camera.shape)}")

    @cached_property
    def squares(self) -> Float[Tensor, "B N K"]:
        """Squared length of the reference features."""
        return self.features.square().sum(-1)


@dataclass(frozen=True, eq=False)
class Linearization:
    """The cost of every observation at one pose, and what its normal equations are made of.

    cost: rho. irls: rho', 0..1. valid: seen by the camera, inside the map, and in the mask. confidence: reference times
    query, or None. products: of d/dx and d/dy with the residual, slopes: with one another, over the channels. J_uv: of
    the pixel with respect to [t, w].
    """

    cost: Float[Tensor, "B N K"]
    irls: Float[Tensor, "B N K"]
    valid: Bool[Tensor, "B N K"]
    confidence: Float[Tensor, "B N K"] | None
    products: Float[Tensor, "B N 2 K"]
    slopes: Float[Tensor, "B N 2 2"]
    J_uv: Float[Tensor, "B N 2 6"]

    def count(self) -> Tensor:
        """Valid observations of each problem."""
        return self.valid.flatten(1).sum(-1)

    def mean_cost(self, valid: Bool[Tensor, "B N K"] | None = None, weighted: bool = True) -> Float[Tensor, " B"]:
        """Mean of ``cost`` (times confidence) over the valid observations, or those of ``valid``: Eq. (2) by number."""
        valid = self.valid if valid is None else valid
        cost = self.cost * self.confidence if weighted and self.confidence is not None else self.cost
        total = torch.where(valid, cost, torch.zeros_like(cost)).flatten(1).sum(-1)
        return total / valid.flatten(1).sum(-1).clamp(min=1)


def linearize(problem: AlignmentProblem, pose: Pose, config: CostConfig) -> Linearization:
    """Residuals ``r = F_query[project(pose xyz)] - F_reference`` and their robust cost, PixLoc Eq. (1) and Eq. (2).

    ``pose`` [B] maps ``problem.xyz`` into the cameras. The Jacobian is Eq. (3), kept as its factors. The weight of an
    observation is the product of its confidences in both images, Eq. (6).
    """
    xyz = pose.transform(problem.xyz)
    uv, visible = problem.camera.project(xyz, config.validity)
    found = look_up(problem.table, uv, config)
    valid = (visible & found.inside)[..., None].expand(problem.features.shape[:3])
    if problem.mask is not None:
        valid = valid & problem.mask
    squares, products, slopes = _dot_products(found.terms, problem, config.normalize_features)
    loss = config.loss(squares)
    confidence = problem.confidence
    if found.confidence is not None:
        own = found.confidence[..., None].expand(valid.shape)
        confidence = own if confidence is None else confidence * own
    J_point = problem.camera.J_project(xyz)[0]
    # a row a of J_point times [I, -skew(p)] is [a, p x a]
    J_uv = torch.cat([J_point, torch.linalg.cross(xyz[..., None, :].expand_as(J_point), J_point)], -1)
    return Linearization(loss.value, loss.weight, valid, confidence, products, slopes, J_uv)


def _dot_products(terms: Tensor, problem: AlignmentProblem, normalize: bool) -> tuple[Tensor, Tensor, Tensor]:
    """|r|^2 [B, N, K], slopes times r [B, N, 2, K] and slopes times slopes [B, N, 2, 2]."""
    reference = problem.features
    if normalize:
        terms, reference = _normalized(terms), F.normalize(reference, dim=-1, eps=EPS)
    if reference.shape[2] == 1:
        terms[..., 0, :].sub_(reference[..., 0, :])  # fresh memory
        moments = terms @ terms.mT
        return moments[..., :1, 0], moments[..., 1:, :1], moments[..., 1:, 1:]
    # with several observations, |f - F|^2 = f f - 2 f F + F F saves writing K residuals of C numbers a point
    moments, cross = terms @ terms.mT, terms @ reference.mT
    lengths = reference.square().sum(-1) if normalize else problem.squares
    squares = (moments[..., :1, 0] - 2 * cross[..., 0, :] + lengths).clamp(min=0)
    return squares, moments[..., 1:, :1] - cross[..., 1:, :], moments[..., 1:, 1:]


def _normalized(terms: Tensor) -> Tensor:
    """Value to unit length and its slopes with it: ``(I - n n^T) d / |f|``."""
    value, slopes = terms[..., :1, :], terms[..., 1:, :]
    length = torch.linalg.vector_norm(value, dim=-1, keepdim=True).clamp(min=EPS)  # 0 outside the map
    n = value / length
    return torch.cat([n, (slopes - (slopes * n).sum(-1, keepdim=True) * n) / length], -2)


def normal_equations(
    at: Linearization, scale: Float[Tensor, "B 6"] | None = None
) -> tuple[Float[Tensor, "B 6 6"], Float[Tensor, "B 6"]]:
    """``H = sum w J^T J`` and ``g = sum w J^T r`` with ``w = rho' valid confidence``: Eq. (3) and the terms of Eq. (4).

    scale: what the columns of J are multiplied with (Jacobi scaling).
    """
    weight = at.irls if at.confidence is None else at.irls * at.confidence
    weight = torch.where(at.valid, weight, torch.zeros_like(weight))
    # a point behind the camera may have numbers that no zero weight removes
    used = at.valid.any(-1)[..., None, None]
    J = torch.where(used, at.J_uv, torch.zeros_like(at.J_uv))
    J = J if scale is None else J * scale[:, None, None]
    slopes = torch.where(used, at.slopes * weight.sum(-1)[..., None, None], torch.zeros_like(at.slopes))
    pull = (torch.where(at.valid[..., None, :], at.products, torch.zeros_like(at.products)) * weight[..., None, :]).sum(
        -1
    )
    flat = J.flatten(1, 2).mT
    H = flat @ (slopes @ J).flatten(1, 2)
    return H, (flat @ pull.flatten(1)[..., None]).squeeze(-1)


def jacobi_scale(at: Linearization) -> Float[Tensor, "B 6"]:
    """``1 / (1 + mean |J_j|)`` over the valid observations, |J_j| over the channels; without gradient."""
    with torch.no_grad():
        lengths = ((at.slopes @ at.J_uv) * at.J_uv).sum(-2).clamp(min=0).sqrt()
        number = at.valid.sum(-1)[..., None]
        lengths = torch.where(number > 0, lengths * number, torch.zeros_like(lengths))
        return 1 / (1 + lengths.sum(-2) / at.count().clamp(min=1)[:, None])
