"""Optional supervised losses where depth maps exist: a warm-up before (or beside) learning from poses alone.

Not in the MicKey paper. True depth and pose tell which keypoints show the same point; the negative log of their match
probability (paper Eq. (2)) trains descriptors, scores and dustbin, and the relative error trains the depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Camera, Pose, sample_depth
from metriloc.methods.mickey.log_probability import similarities
from metriloc.methods.mickey.objective import PairFeatures

_SAME_SURFACE = 0.05  # relative depth difference up to which a projected point counts as seen


@dataclass(frozen=True)
class SupervisionConfig:
    """Weights of the supervised losses and when they act."""

    match: float = 0.1
    """Of the mean negative log probability of true matches."""
    unmatched: float = 0.1
    """Of keypoints whose true point the other photo does not see falling into the dustbin."""
    depth: float = 1.0
    """Of the mean relative depth error."""
    alone: int = 0
    """Optimiser steps in which only these losses act (the warm-up)."""
    until: int | None = None
    """Step from which they no longer act, None for never."""
    offset: float = 0.0
    """Of the mean distance (cells) between a keypoint and where its partner's true point falls."""
    log_depth: bool = False
    """The depth error is ``|log z / z_true|``, which pulls towards too near no more than towards
    too far."""

    def __post_init__(self) -> None:
        for name in ("match", "unmatched", "depth", "alone", "offset"):
            if getattr(self, name) < 0:
                raise ValueError(f"SupervisionConfig.{name} must not be negative, got {getattr(self, name)}")
        if self.until is not None and self.until < self.alone:
            raise ValueError(f"SupervisionConfig.until {self.until} is before the end of the warm-up {self.alone}")


@dataclass(frozen=True, eq=False)
class Visibility:
    """What one photo's keypoints look like from the other, by true depth and pose. depth: true, metres, 0 unknown;
    partner: the other photo's cell that shows the same point, where ``seen``; uv: where it falls there, pixels; hidden:
    known not to be visible there."""

    depth: Float[Tensor, "B N"]
    partner: Int[Tensor, "B N"]
    seen: Bool[Tensor, "B N"]
    hidden: Bool[Tensor, "B N"]
    uv: Float[Tensor, "B N 2"]


@torch.no_grad()
def visibility(
    uv: Float[Tensor, "B N 2"],
    depths: tuple[Float[Tensor, "B h w"], Float[Tensor, "B h w"]],
    cameras: tuple[Camera, Camera],
    other_from_own: Pose,
    grid: tuple[int, int],
    stride: int,
) -> Visibility:
    """Follow keypoints by true depth into the other photo. depths and cameras: own, other; grid, stride: the other's.

    A point is seen where the other depth map has it within 5 %, hidden where it falls outside the photo or behind what
    is there; where the other depth is unknown it is neither.
    """
    own = [sample_depth(depths[0][b], uv[b], _size(cameras[0], b)) for b in range(len(uv))]
    depth, known = (torch.stack(parts) for parts in zip(*own, strict=True))
    xyz = other_from_own.transform(cameras[0].lift(uv, depth))
    projected, inside = cameras[1].project(xyz)
    projected = projected.where(inside[..., None], 0.0)
    other = [sample_depth(depths[1][b], projected[b], _size(cameras[1], b)) for b in range(len(uv))]
    there, known_there = (torch.stack(parts) for parts in zip(*other, strict=True))
    ratio = xyz[..., 2] / there.clamp(min=1e-6)
    cell = (projected / stride).floor().long()
    in_grid = inside & (cell[..., 0] < grid[1]) & (cell[..., 1] < grid[0])
    seen = known & in_grid & known_there & ((ratio - 1).abs() < _SAME_SURFACE)
    hidden = known & (~inside | (known_there & (ratio > 1 + 2 * _SAME_SURFACE)))
    return Visibility(depth, (cell[..., 1] * grid[1] + cell[..., 0]).where(seen, 0), seen, hidden, projected)


def _size(camera: Camera, b: int) -> tuple[int, int]:
    width, height = camera.size[b].tolist()
    return int(width), int(height)


def depth_loss(
    predicted: Float[Tensor, "B N"], true: Float[Tensor, "B N"], logarithmic: bool = False
) -> Float[Tensor, ""]:
    """Mean relative error of depth.

    It is ``|z / z_true - 1|``, or ``|log z / z_true|``, where the true depth is known (positive). 0
    where it is nowhere. logarithmic: of depths that are positive.
    """
    if predicted.shape != true.shape:
        raise ValueError(f"predicted {list(predicted.shape)} and true depths {list(true.shape)} do not fit together")
    known = true > 0
    ratio = predicted / true.where(known, 1.0)
    error = ratio.clamp(min=1e-6).log() if logarithmic else ratio - 1
    return _mean(error.abs(), known)


def offset_loss(uv: Float[Tensor, "B N 2"], seen_from_other: Visibility, stride: int) -> Float[Tensor, ""]:
    """Mean distance, in cells, from where the other photo's keypoints fall to this photo's keypoint of that cell."""
    partner = uv.gather(1, seen_from_other.partner[..., None].expand(-1, -1, 2))
    error = (partner - seen_from_other.uv) / stride
    return _mean(error.abs().sum(-1), seen_from_other.seen)


def match_losses(
    features: PairFeatures, first: Visibility, second: Visibility
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Mean ``-log P`` of the true matches, P of Eq. (2), and mean ``-log P(dustbin)`` of hidden keypoints, Eq. (3).

    Matches found from either photo count; those of a keypoint without score (the border) do not. Without a dustbin the
    second is 0.
    """
    B, N0 = first.partner.shape
    own = [torch.arange(n, device=first.partner.device).expand(B, -1) for n in (N0, second.partner.shape[1])]
    index0, index1 = torch.cat([own[0], second.partner], 1), torch.cat([first.partner, own[1]], 1)
    bin_ = features.dustbin
    descriptors = features.first.descriptor, features.second.descriptor
    at, row, column = similarities(*descriptors, index0, index1, features.temperature, bin_)
    scores = features.first.score.gather(1, index0), features.second.score.gather(1, index1)
    valid = torch.cat([first.seen, second.seen], 1) & (scores[0] > 0) & (scores[1] > 0)
    log_p = 2 * at - row.gather(1, index0) - column.gather(1, index1)
    for score in scores:
        log_p = log_p + score.where(valid, 1.0).log()
    if bin_ is None:
        return _mean(-log_p, valid), log_p.new_zeros(())
    hidden = torch.cat([first.hidden, second.hidden], 1)
    return _mean(-log_p, valid), _mean(torch.cat([row, column], 1) - bin_, hidden)


def _mean(values: Tensor, where: Tensor) -> Tensor:
    return values.where(where, 0.0).sum() / where.sum().clamp(min=1)


def supervised_loss(
    features: PairFeatures,
    depths: tuple[Float[Tensor, "B h0 w0"], Float[Tensor, "B h1 w1"]],
    cameras: tuple[Camera, Camera],
    cam1_from_cam0: Pose,
    stride: int,
    config: SupervisionConfig,
) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
    """The weighted sum of the supervised losses, and each of them (for the log)."""
    uv0, uv1 = features.first.uv.detach(), features.second.uv.detach()
    first = visibility(uv0, depths, cameras, cam1_from_cam0, features.second.grid, stride)
    back = cam1_from_cam0.inverse()
    second = visibility(uv1, depths[::-1], cameras[::-1], back, features.first.grid, stride)
    match, unmatched = match_losses(features, first, second)
    log = config.log_depth
    depth = 0.5 * (
        depth_loss(features.first.depth, first.depth, log) + depth_loss(features.second.depth, second.depth, log)
    )
    total = config.match * match + config.unmatched * unmatched + config.depth * depth
    parts = {"loss_match": match, "loss_unmatched": unmatched, "loss_depth": depth}
    if config.offset:
        parts["loss_offset"] = 0.5 * (
            offset_loss(features.first.uv, second, stride) + offset_loss(features.second.uv, first, stride)
        )
        total = total + config.offset * parts["loss_offset"]
    return total, {name: value.detach() for name, value in parts.items()}
