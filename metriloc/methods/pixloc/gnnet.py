"""GN-Net, the training that PixLoc is compared with: a contrastive term and a Gauss-Newton term at every level.

Both terms compare features of the same points in two images, in both directions. The Gauss-Newton term takes one step
from a disturbed position and asks for the true one, with the curvature as its uncertainty (von Stumberg et al., GN-Net,
2020); the contrastive term has the squared distance inside the hinge, as in LM-Reloc. Randomness is drawn outside.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from metriloc.geometry import Pose, sample
from metriloc.methods.pixloc.align import align
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.network import PixLocNetwork
from metriloc.methods.pixloc.pyramid import FeaturePyramid
from metriloc.methods.pixloc.two_view import (
    TwoViewBatch,
    TwoViewConfig,
    TwoViewPrediction,
    level_problem,
    masked_mean,
    two_view_loss,
    two_view_metrics,
)
from metriloc.types import StepOutput

_PAD = 4  # cells of margin, in all lookups of the loss
_RIDGE = 1e-6


@dataclass(frozen=True)
class GNNetConfig:
    """Settings of the losses of GN-Net."""

    margin_positive: float = 0.2
    """Margin of the hinge of true pairs."""
    margin_negative: float = 1.0
    """Margin of the hinge of others."""
    window: float | None = 0.1
    """Of the true point, as a fraction of the longer side, where no negative is taken (None: taken
    everywhere)."""
    top_negatives: int = 200
    """How many of the nearest pixels to choose among; 0: any pixel, the window included, as
    published."""
    disturbance: float = 1.0
    """Of the start of the Gauss-Newton step, cells."""
    curvature_weight: float = 1.0
    """Of ``log 2 pi - log det H / 2``."""
    gauss_newton_weight: float = 0.1
    """Of the term of the Gauss-Newton step."""
    contrastive_weight: float = 1.0
    """Of the two hinges."""
    two_view: TwoViewConfig = field(
        default_factory=lambda: TwoViewConfig(align=AlignConfig(num_iters=15, damping="fixed"))
    )
    """The alignment that the metrics report."""

    def __post_init__(self) -> None:
        if self.top_negatives < 0 or self.disturbance < 0:
            raise ValueError(
                f"GNNetConfig: top_negatives {self.top_negatives} and disturbance {self.disturbance} must not be negative"
            )


class Draws(NamedTuple):
    """Random numbers of one direction. noise: in [0, 1). rank: which of the nearest pixels is the negative, or which
    pixel when ``top_negatives`` is 0."""

    noise: Float[Tensor, "B N 2"]
    rank: Int[Tensor, "B N"]


@dataclass(frozen=True, eq=False)
class GNNetLoss:
    """One entry a sample. total: to minimise, the weighted sum of the other two."""

    total: Float[Tensor, " B"]
    gauss_newton: Float[Tensor, " B"]
    contrastive: Float[Tensor, " B"]


def contrastive_term(
    features: Float[Tensor, "B N C"],
    same: Float[Tensor, "B N C"],
    fmap: Float[Tensor, "B C H W"],
    uv: Float[Tensor, "B N 2"],
    rank: Int[Tensor, "B N"],
    config: GNNetConfig,
) -> Float[Tensor, "B N"]:
    """``max(|a - b| - m+, 0)^2 + max(m- - |a - n|^2, 0)``: b is the same point in the other image, n a hard negative of
    its map, one of the nearest features away from the true place ``uv``."""
    # the subgradient of |0| is 0, not NaN
    squares = (features - same).square().sum(-1)
    positive = torch.where(squares > 0, squares, torch.ones_like(squares)).sqrt() * (squares > 0)
    positive = (positive - config.margin_positive).clamp(min=0).square()
    index = hard_negatives(features.detach(), fmap.detach(), uv, rank, config)
    negative = fmap.flatten(2).mT.gather(1, index[..., None].expand(-1, -1, fmap.shape[1]))
    distance = (features - negative).square().sum(-1)
    return positive + (config.margin_negative - distance).clamp(min=0)


def hard_negatives(
    features: Float[Tensor, "B N C"],
    fmap: Float[Tensor, "B C H W"],
    uv: Float[Tensor, "B N 2"],
    rank: Int[Tensor, "B N"],
    config: GNNetConfig,
) -> Int[Tensor, "B N"]:
    """Flat index of the pixel whose feature is the ``rank``-th nearest, outside the window around ``uv``."""
    if config.top_negatives == 0:
        return rank
    height, width = fmap.shape[-2:]
    pixels = fmap.flatten(2)
    distance = features.square().sum(-1)[..., None] - 2 * features @ pixels + pixels.square().sum(1)[:, None]
    if config.window is not None:
        radius = config.window * max(height, width)
        x = torch.arange(width, device=uv.device, dtype=uv.dtype)
        y = torch.arange(height, device=uv.device, dtype=uv.dtype)
        near_x, near_y = (x - uv[..., :1]).abs() < radius, (y - uv[..., 1:]).abs() < radius
        near = (near_y[..., :, None] & near_x[..., None, :]).flatten(2)
        distance = distance.masked_fill(near, torch.inf)
    nearest = distance.topk(min(config.top_negatives, height * width), largest=False).indices
    return nearest.gather(2, rank.clamp(max=nearest.shape[-1] - 1)[..., None]).squeeze(-1)


def gauss_newton_term(
    target: Float[Tensor, "B N C"],
    fmap: Float[Tensor, "B C H W"],
    uv: Float[Tensor, "B N 2"],
    valid: Bool[Tensor, "B N"],
    noise: Float[Tensor, "B N 2"],
    config: GNNetConfig,
) -> tuple[Float[Tensor, "B N"], Bool[Tensor, "B N"]]:
    """Negative log likelihood of the true place ``uv`` under one Gauss-Newton step from near it, and where it holds.

    ``r = f(start) - target``, ``end = start - H^-1 J^T r``, ``0.5 e^T H e + w (log 2 pi - 0.5 log det H)`` with
    ``e = uv - end``. Where ``valid`` is False, H is the identity.
    """
    start = uv + (2 * noise - 1) * config.disturbance
    found = sample(fmap, start, pad=_PAD, gradients=True)
    J = found.gradients
    eye = torch.eye(2, dtype=J.dtype, device=J.device)
    inside = valid & found.valid
    H = torch.where(valid[..., None, None], J.mT @ J + _RIDGE * eye, eye)
    g = (J.mT @ (found.values - target)[..., None]).squeeze(-1)
    (a, b), (_, d) = (row.unbind(-1) for row in H.unbind(-2))
    determinant = a * d - b * b
    # written out: batched factorisations of 2x2 matrices cost more than all the rest
    step = torch.stack([d * g[..., 0] - b * g[..., 1], a * g[..., 1] - b * g[..., 0]], -1) / determinant[..., None]
    error = uv - (start - step)
    quadratic = 0.5 * (error[..., None, :] @ H @ error[..., None]).squeeze(-1).squeeze(-1)
    return quadratic + config.curvature_weight * (math.log(2 * math.pi) - 0.5 * determinant.log()), inside


def gnnet_loss(
    batch: TwoViewBatch,
    reference: FeaturePyramid,
    query: FeaturePyramid,
    strides: Sequence[int],
    draws: Sequence[tuple[Draws, Draws]],
    config: GNNetConfig,
) -> GNNetLoss:
    """Both terms, averaged over directions and levels. strides, draws: of each level, in the order of the pyramid;
    draws: (reference to query, query to reference)."""
    gauss_newton, contrastive = [], []
    for level, (stride, drawn) in enumerate(zip(strides, draws, strict=True)):
        sides = []
        for pyramid, camera, pose in (
            (reference, batch.reference_camera, Pose.identity(batch.init.shape).to(batch.xyz)),
            (query, batch.query_camera, batch.query_from_reference),
        ):
            fmap = pyramid.features[level]
            if config.two_view.normalize_features:
                fmap = F.normalize(fmap, dim=1)
            uv, visible = camera.scale(1 / stride).project(pose.transform(batch.xyz), config.two_view.validity)
            found = sample(fmap, uv, pad=_PAD)
            sides.append((fmap, uv, found.values, found.valid & visible))
        valid = sides[0][3] & sides[1][3]
        for (fmap, uv, features, _), (other, other_uv, same, _), random in zip(
            sides, reversed(sides), drawn, strict=True
        ):
            nll, inside = gauss_newton_term(same, fmap, uv, valid, random.noise, config)
            gauss_newton.append(masked_mean(nll, inside))
            pairs = contrastive_term(features, same, other, other_uv, random.rank, config)
            contrastive.append(masked_mean(pairs, valid))
    first, second = torch.stack(gauss_newton).mean(0), torch.stack(contrastive).mean(0)
    return GNNetLoss(config.gauss_newton_weight * first + config.contrastive_weight * second, first, second)


def draw(
    shape: tuple[int, int], size: tuple[int, int], config: GNNetConfig, generator: torch.Generator
) -> tuple[Draws, Draws]:
    """Random numbers of a level for both directions. shape: samples and points; size: (width, height) of the maps."""
    pixels = size[0] * size[1]
    limit = min(config.top_negatives, pixels) or pixels
    first, second = (
        Draws(torch.rand(*shape, 2, generator=generator), torch.randint(limit, shape, generator=generator))
        for _ in range(2)
    )
    return first, second


class GNNet(nn.Module):
    """An extractor trained by ``gnnet_loss``; the alignment only measures it. The network needs no confidences."""

    def __init__(self, network: PixLocNetwork, config: GNNetConfig | None = None) -> None:
        super().__init__()
        self.network = network
        self.config = config or GNNetConfig()

    def forward(self, batch: TwoViewBatch) -> tuple[FeaturePyramid, FeaturePyramid]:
        """Features of both images."""
        return self.network(batch.reference), self.network(batch.query)

    def training_step(self, batch: TwoViewBatch, step: int, generator: torch.Generator) -> StepOutput:
        """Loss of one batch. The metrics of the alignment are computed in evaluation mode only.

        - batch: of two views.
        - step, generator: as every ``Trainable`` takes them.
        """
        reference, query = self(batch)
        strides, draws = self.network.extractor.strides, []
        for fmap in query.features:
            drawn = draw((len(batch.xyz), batch.xyz.shape[1]), (fmap.shape[-1], fmap.shape[-2]), self.config, generator)
            moved = tuple(Draws(d.noise.to(batch.xyz), d.rank.to(batch.xyz.device)) for d in drawn)
            draws.append((moved[0], moved[1]))
        loss = gnnet_loss(batch, reference, query, strides, draws, self.config)
        metrics = {
            "gauss_newton": loss.gauss_newton.detach().mean().item(),
            "contrastive": loss.contrastive.detach().mean().item(),
        }
        if not self.training:
            metrics |= self.metrics(batch, reference, query)
        return StepOutput(loss.total.mean(), metrics)

    @torch.no_grad()
    def metrics(self, batch: TwoViewBatch, reference: FeaturePyramid, query: FeaturePyramid) -> Mapping[str, float]:
        """Errors of the alignment with these features, coarse to fine, without confidences.

        - batch: of two views.
        - reference, query: their feature maps.
        """
        config = self.config.two_view
        prediction = self.align(batch, reference, query)
        strides = self.network.extractor.strides
        loss = two_view_loss(batch, prediction.poses, tuple(reversed(strides)), config)
        return two_view_metrics(batch, prediction, loss, config)

    @torch.no_grad()
    def align(self, batch: TwoViewBatch, reference: FeaturePyramid, query: FeaturePyramid) -> TwoViewPrediction:
        """The alignment through all levels.

        - batch: of two views.
        - reference, query: their feature maps.
        """
        config, strides = self.config.two_view, self.network.extractor.strides
        plain = [FeaturePyramid(pyramid.features, None) for pyramid in (reference, query)]
        pose, poses, starts, failed = batch.init, [], [], []
        for level in reversed(range(len(strides))):
            problem = level_problem(batch, plain[0], plain[1], level, strides[level], config)
            damping = self.network.damping(level) if config.align.damping == "learned" else None
            found = align(problem, pose, config.align, damping, early_stop=not self.training)
            starts.append(pose)
            poses.append(found.pose)
            failed.append(found.failed)
            pose = found.pose
        return TwoViewPrediction(tuple(poses), tuple(starts), tuple(failed))
