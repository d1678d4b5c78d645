"""What the trainer sees of the depth network: photos with what is known of their depth, and one loss.

Where depth was measured, the loss is the negative log-likelihood of a Laplace distribution of log-depth, whose spread
the network predicts too, beside the plain absolute error. Where only a thing of known height tells one depth for a
whole facade, the mean over its pixels is compared, because it is right on the whole and not in each place.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from metriloc.methods.matching.depth_network import DepthMaps, DepthNetwork
from metriloc.types import StepOutput


@dataclass(frozen=True, eq=False)
class DepthBatch:
    """B photos of one size. target: logarithm of the depth for the canonical camera, on the network's cells, NaN where
    unknown. weak: whether only the mean of a photo's targets is to be trusted."""

    image: Float[Tensor, "B 3 H W"]
    target: Float[Tensor, "B h w"]
    weak: Bool[Tensor, " B"]


@dataclass(frozen=True)
class DepthLossConfig:
    """Weights of the parts of the depth loss."""

    likelihood: float = 0.5
    """Weights of the two losses of measured depth."""
    absolute: float = 0.5
    """Weights of the two losses of measured depth."""
    scale: float = 0.5
    """Of the mean error of each photo."""
    weak: float = 0.7
    """Of photos whose depth is only weakly known."""


class DepthTraining(nn.Module):
    """A ``Trainable`` around the network."""

    def __init__(self, network: DepthNetwork, loss: DepthLossConfig | None = None) -> None:
        super().__init__()
        self.network, self.loss = network, loss or DepthLossConfig()

    def save_pretrained(self, folder: str | Path) -> str:
        """``DepthNetwork.save_pretrained``."""
        return self.network.save_pretrained(folder)

    def training_step(self, batch: DepthBatch, step: int, generator: torch.Generator) -> StepOutput:
        """Mean loss of the photos of a batch.

        - batch: photos with what is known of their depth.
        - step, generator: as every ``Trainable`` takes them.
        """
        maps = self.network(batch.image)
        losses = depth_loss(maps, batch, self.loss)
        error = (maps.log_depth.detach() - batch.target).nanmean((-2, -1)).abs()
        return StepOutput(losses.mean(), {"scale_error": float(error.nanmean())})


def depth_loss(maps: DepthMaps, batch: DepthBatch, config: DepthLossConfig) -> Float[Tensor, " B"]:
    """The loss of each photo. 0 for one of which nothing is known.

    - maps: what the network predicts.
    - batch: what is known.
    - config: weights of the terms.
    """
    target = batch.target
    if target.shape[-2:] != maps.log_depth.shape[-2:]:
        raise ValueError(f"targets {list(target.shape)} are not on the cells {list(maps.log_depth.shape)}")
    known = torch.isfinite(target)
    count = known.sum((-2, -1)).clamp(min=1)
    error = torch.where(known, maps.log_depth - target, 0.0)
    spread = torch.where(known, maps.log_spread, 0.0)

    def mean(values: Tensor) -> Tensor:
        return values.sum((-2, -1)) / count

    likelihood = mean(error.abs() * torch.exp(-spread) * known + spread)
    shift = F.smooth_l1_loss(mean(error), torch.zeros_like(mean(error)), beta=0.1, reduction="none")
    dense = config.likelihood * likelihood + config.absolute * mean(error.abs()) + config.scale * shift
    # the spread of a facade must not learn from a depth that is only right on the whole
    return torch.where(batch.weak, config.weak * (config.absolute + config.scale) * shift, dense)
