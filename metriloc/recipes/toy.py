"""A run of seconds that needs no data: to see the training loop work on a machine, and as the pattern of a recipe."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.training import (
    OptimizerConfig,
    Picture,
    Run,
    Schedule,
    ShuffledBatches,
    TrainingConfig,
    Validation,
    Validator,
)
from metriloc.types import StepOutput


class ToyNetwork(nn.Module):
    """A small perceptron that learns sin(x); a ``Trainable``. noise: standard deviation of noise added to the input."""

    def __init__(self, width: int, dropout: float, noise: float) -> None:
        super().__init__()
        self.noise = noise
        self.layers = nn.Sequential(
            nn.Linear(1, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(dropout), nn.Linear(width, 1)
        )

    def forward(self, x: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
        return self.layers(x)

    def training_step(
        self, batch: tuple[Float[Tensor, "B 1"], Float[Tensor, "B 1"]], step: int, generator: torch.Generator
    ) -> StepOutput:
        """Mean squared error of one batch (x, y)."""
        x, y = batch
        noise = self.noise * torch.randn(x.shape, generator=generator).to(x)
        error = self(x + noise) - y
        return StepOutput(error.square().mean(), {"absolute_error": float(error.detach().abs().mean())})


@dataclass(frozen=True)
class ToyMethod:
    """Makes the network."""

    width: int = 32
    dropout: float = 0.0
    noise: float = 0.01

    def __call__(self) -> nn.Module:
        return ToyNetwork(self.width, self.dropout, self.noise)


@dataclass(frozen=True)
class ToyBatches:
    """Samples of the sine; looks at no data folder."""

    samples: int = 256
    batch_size: int = 32

    def __call__(self, data: Path | None) -> ShuffledBatches:
        return ShuffledBatches(self._load, self.samples, self.batch_size, _collate)

    def _load(self, index: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x = 6 * torch.tensor([(index + 0.5) / self.samples]) - 3
        return x, x.sin()


@dataclass(frozen=True)
class ToyValidation:
    """Root mean squared error on a grid, and the learnt curve as a picture."""

    points: int = 64

    def __call__(self, data: Path | None) -> Validator:
        return self._validate

    def _validate(self, method: nn.Module) -> Validation:
        x = torch.linspace(-3, 3, self.points, device=next(method.parameters()).device)[:, None]
        y = method(x)
        picture = Picture("the learnt curve", _plot(y[:, 0].cpu(), x[:, 0].cpu().sin()), "white: learnt, grey: true")
        return Validation({"rmse": float((y - x.sin()).square().mean().sqrt())}, (picture,))


def toy() -> Run:
    """Learn the sine from 256 samples.

    A run of seconds that needs no data, to see the loop work.
    """
    config = TrainingConfig(
        steps=300,
        epoch_steps=100,
        optimizer=OptimizerConfig(lr=1e-2),
        schedule=Schedule(warmup_steps=20, decay="cosine", final=0.01),
        best_metric="rmse",
        best_is="smallest",
    )
    return Run("toy", ToyMethod(), ToyBatches(), config, ToyValidation())


def _collate(samples: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    return torch.stack([x for x, _ in samples]), torch.stack([y for _, y in samples])


def _plot(learnt: Float[Tensor, " n"], true: Float[Tensor, " n"]) -> np.ndarray:
    picture = np.zeros((64, len(true), 3), np.uint8)
    for values, gray in ((true, 110), (learnt, 255)):
        rows = (32 - 24 * values).round().clamp(0, 63).long().numpy()
        picture[rows, np.arange(len(true))] = gray
    return picture
