"""Training PixLoc: align a query to one reference through all levels, and score every level by reprojection.

Loss and metrics are pure functions of poses; ``TwoViewRefiner`` runs the network and the loop and is what the trainer
sees. Points live in the reference camera's frame, poses are ``query_from_reference``. (PixLoc paper, Eq. (8).)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metriloc.geometry import Camera, Pose, Validity, sample
from metriloc.methods.pixloc.align import align
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.cost import AlignmentProblem, CostConfig
from metriloc.methods.pixloc.lookup import FeatureTable
from metriloc.methods.pixloc.network import PixLocNetwork
from metriloc.methods.pixloc.pyramid import FeaturePyramid
from metriloc.types import StepOutput


@dataclass(frozen=True, eq=False)
class TwoViewBatch:
    """B training samples. xyz: points seen by the reference, in its camera frame, metres. cameras: of the images.

    query_from_reference: the truth; init: where the alignment starts.
    """

    reference: Float[Tensor, "B 3 H W"]
    query: Float[Tensor, "B 3 H W"]
    reference_camera: Camera
    query_camera: Camera
    xyz: Float[Tensor, "B N 3"]
    query_from_reference: Pose
    init: Pose

    def __post_init__(self) -> None:
        batch = self.xyz.shape[:1]
        parts = (self.reference_camera, self.query_camera, self.query_from_reference, self.init)
        if self.xyz.ndim != 3 or any(part.shape != batch for part in parts):
            shapes = ", ".join(str(list(part.shape)) for part in parts)
            raise ValueError(f"TwoViewBatch: points {list(self.xyz.shape)}, cameras and poses {shapes}")
        if self.reference.shape[:1] != batch or self.query.shape[:1] != batch:
            raise ValueError(f"TwoViewBatch: {batch[0]} samples, images {list(self.reference.shape)}")

    def to(self, device: torch.device | str) -> TwoViewBatch:
        """Everything on a device."""
        return TwoViewBatch(**{f.name: getattr(self, f.name).to(device) for f in dataclasses.fields(self)})


@dataclass(frozen=True)
class TwoViewConfig:
    """Settings of training on two views."""

    align: AlignConfig = field(default_factory=lambda: AlignConfig(num_iters=15))
    """The loop (published: 15 iterations, learned damping)."""
    success_threshold: float = 3.0
    """Pixels of a level's cell; a level counts only when the coarser one came nearer than that."""
    max_error: float = 50.0
    """Where the error of a sample saturates, pixels."""
    min_points: int = 10
    """Samples with fewer points in view of truth and start do not count."""
    normalize_features: bool = True
    """PixLoc's unit length."""
    relative_translation: bool = True
    """Report the translation error as a fraction of the true distance."""
    validity: Validity = "correct"
    """Of projected points, as in ``Camera``."""


@dataclass(frozen=True, eq=False)
class TwoViewPrediction:
    """poses: after each level, coarse to fine. starts: before each. failed: of each level."""

    poses: tuple[Pose, ...]
    starts: tuple[Pose, ...]
    failed: tuple[Bool[Tensor, " B"], ...]


@dataclass(frozen=True, eq=False)
class TwoViewLoss:
    """One entry a sample. total: to minimise. reprojection: of each level, coarse to fine, saturated, pixels. init: of
    the start, not saturated. counted: whether the sample had enough points."""

    total: Float[Tensor, " B"]
    reprojection: tuple[Float[Tensor, " B"], ...]
    init: Float[Tensor, " B"]
    counted: Bool[Tensor, " B"]


def masked_mean(x: Float[Tensor, "*b N"], mask: Bool[Tensor, "*b N"]) -> Float[Tensor, "*b"]:
    """Mean over the points of the mask, 0 where there is none."""
    return torch.where(mask, x, torch.zeros_like(x)).sum(-1) / mask.sum(-1).clamp(min=1)


def reprojection_error(
    batch: TwoViewBatch, pose: Pose, uv_true: Float[Tensor, "B N 2"], mask: Bool[Tensor, "B N"], validity: Validity
) -> Float[Tensor, " B"]:
    """Mean of Barron's robust distance (alpha 1, scale 2) between projections under ``pose`` and the truth, pixels."""
    uv, _ = batch.query_camera.project(pose.transform(batch.xyz), validity)
    squares = (uv - uv_true).square().sum(-1)
    return masked_mean(2 * ((squares / 4 + 1).sqrt() - 1), mask)


def two_view_loss(
    batch: TwoViewBatch, poses: Sequence[Pose], strides: Sequence[int], config: TwoViewConfig
) -> TwoViewLoss:
    """Reprojection error of every level against the true pose, averaged. PixLoc Eq. (8).

    poses, strides: coarse to fine. Points count that truth and start both see. A level adds to the loss only if the
    error of the coarser one is below ``success_threshold`` of that one's cells; errors saturate at ``max_error`` without
    gradient. Samples with fewer than ``min_points`` points give 0.
    """
    if not poses or len(poses) != len(strides):
        raise ValueError(f"{len(poses)} poses for {len(strides)} levels")
    uv_true, seen = batch.query_camera.project(batch.query_from_reference.transform(batch.xyz), config.validity)
    _, seen_first = batch.query_camera.project(batch.init.transform(batch.xyz), config.validity)
    mask = seen & seen_first
    total = uv_true.new_zeros(len(uv_true))
    errors: list[Tensor] = []
    for number, pose in enumerate(poses):
        error = reprojection_error(batch, pose, uv_true, mask, config.validity).clamp(max=config.max_error)
        share = error / len(poses)
        if number:
            share = share * (errors[-1] < config.success_threshold * strides[number - 1])
        total = total + share
        errors.append(error)
    counted = mask.sum(-1) >= config.min_points
    init = reprojection_error(batch, batch.init, uv_true, mask, config.validity)
    return TwoViewLoss(torch.where(counted, total, torch.zeros_like(total)), tuple(errors), init, counted)


def pose_errors(pose: Pose, truth: Pose, relative: bool = False) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Angle (degrees) and length (metres, or fraction of the true distance) of ``pose truth^-1``."""
    distance = pose.center_distance(truth)
    if relative:
        distance = distance / truth.distance()
    return torch.rad2deg(pose.angle_to(truth)), distance


class TwoViewRefiner(nn.Module):
    """The network with the loop around it, for training.

    Gradients reach features, confidences and damping factors. Reference and query go through the
    extractor one after the other, as published: batch norms see them apart.
    """

    def __init__(self, network: PixLocNetwork, config: TwoViewConfig | None = None) -> None:
        super().__init__()
        self.network = network
        self.config = config or TwoViewConfig()
        if self.config.align.damping == "learned" and network.damping(0) is None:
            raise ValueError("the network holds no learned damping: choose 'fixed' or 'adaptive'")

    @property
    def strides(self) -> tuple[int, ...]:
        """Of the levels, coarse to fine."""
        return tuple(reversed(self.network.extractor.strides))

    def forward(self, batch: TwoViewBatch) -> TwoViewPrediction:
        """Align every sample, coarse to fine.

        Each level starts where the last ended, without its gradient.
        """
        reference, query = self.network(batch.reference), self.network(batch.query)
        starts, poses, failed, pose = [], [], [], batch.init
        for level in reversed(range(self.network.num_levels)):
            problem = level_problem(batch, reference, query, level, self.network.extractor.strides[level], self.config)
            starts.append(pose)
            found = align(problem, pose, self.config.align, self.network.damping(level), early_stop=not self.training)
            poses.append(found.pose)
            failed.append(found.failed)
            pose = found.pose.detach()
        return TwoViewPrediction(tuple(poses), tuple(starts), tuple(failed))

    def training_step(self, batch: TwoViewBatch, step: int, generator: torch.Generator) -> StepOutput:
        """Loss and metrics of one batch.

        They are averaged over the samples that count (NaN when none does).

        - batch: of two views.
        - step, generator: as every ``Trainable`` takes them.
        """
        prediction = self(batch)
        loss = two_view_loss(batch, prediction.poses, self.strides, self.config)
        return StepOutput(loss.total.mean(), two_view_metrics(batch, prediction, loss, self.config))


def level_problem(
    batch: TwoViewBatch,
    reference: FeaturePyramid,
    query: FeaturePyramid,
    level: int,
    stride: int,
    config: TwoViewConfig,
) -> AlignmentProblem:
    """What level ``level`` aligns.

    Reference features at the projected points, interpolated first and normalised after.
    """
    cost: CostConfig = config.align.cost
    uv, visible = batch.reference_camera.scale(1 / stride).project(batch.xyz, cost.validity)
    found = sample(reference.features[level], uv, cost.mode, cost.pad)
    features = F.normalize(found.values, dim=-1) if config.normalize_features else found.values
    confidence = query_confidence = None
    if reference.confidences is not None and query.confidences is not None:
        confidence = sample(reference.confidences[level], uv, cost.mode, cost.pad).values[..., 0]
        query_confidence = query.confidences[level]
    return AlignmentProblem(
        xyz=batch.xyz,
        features=features,
        table=FeatureTable.from_maps(query.features[level], query_confidence, config.normalize_features),
        camera=batch.query_camera.scale(1 / stride),
        confidence=confidence,
        mask=found.valid & visible,
    )


def two_view_metrics(
    batch: TwoViewBatch, prediction: TwoViewPrediction, loss: TwoViewLoss, config: TwoViewConfig
) -> Mapping[str, float]:
    """Means over the samples that count.

    Errors of each level (0 is the coarsest), of the result and of the start.
    """
    counted, metrics = loss.counted, {}
    if bool(counted.any()):
        for name, pose in (*enumerate(prediction.poses), ("final", prediction.poses[-1]), ("init", batch.init)):
            angle, distance = pose_errors(pose.detach(), batch.query_from_reference, config.relative_translation)
            metrics[f"rotation_error_deg/{name}"] = angle[counted].mean().item()
            metrics[f"translation_error/{name}"] = distance[counted].mean().item()
        errors = (*enumerate(loss.reprojection), ("final", loss.reprojection[-1]), ("init", loss.init))
        for name, error in errors:
            metrics[f"reprojection_error/{name}"] = error.detach()[counted].mean().item()
    metrics["counted"] = counted.float().mean().item()
    metrics["failed"] = torch.stack(prediction.failed).any(0).float().mean().item()
    return metrics
