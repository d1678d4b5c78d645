"""What the trainer sees of NRE: a feature network and the loss of paper Eq. (10) on pairs of photos with shared points.

For each pair both photos go through one network; the descriptor of every point is read in one photo, compared with all
cells of the other, and charged with its neural reprojection error at the true position; then the other way round. Data
come as ``training_points.PointPair``; recipes make them of reconstructions, RGB-D folders and synthetic scenes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.backbones.local import descriptors_at
from metriloc.methods.nre.correlation import (
    CHUNK,
    MIN_WINDOW,
    CorrelationError,
    correlation_error,
    noisy_centers,
    window_correlation_error,
)
from metriloc.methods.nre.trained import TrainedConfig, load_trained, make_network, save_trained
from metriloc.methods.nre.training_points import PointPair
from metriloc.types import StepOutput

RECALL_CELLS = (1, 2, 4)


@dataclass(frozen=True)
class NRETrainingConfig:
    """How the loss is made. The paper says only Eq. (10), the rest are choices."""

    maps: Literal["full", "window", "both"] = "full"
    """``full`` correlates with every cell; ``window`` with a window of ``window`` cells around the
    true position plus noise of a quarter window, as the fine stage does; ``both`` adds the two, the
    windows by ``window_weight``."""
    window: int = 16
    """Cells of the window around a true position."""
    window_weight: float = 1.0
    """Of the windows beside all cells (``both``)."""
    both_directions: bool = True
    """Also from the second photo to the first."""
    points: int = 512
    """Used of a pair, at most, a direction."""
    statistics: Literal["running", "batch"] = "running"
    """Of batch norms: ``running`` (the stored ones) or ``batch``."""
    statistics_steps: int = 0
    """Steps that use the batch's first, so that a network without weights gets any."""
    learn_temperature: bool = False
    """For descriptors of unit length."""
    chunk: int = CHUNK
    """Numbers a temporary may hold."""

    def __post_init__(self) -> None:
        if self.maps not in ("full", "window", "both") or self.statistics not in ("running", "batch"):
            raise ValueError(
                f"maps must be full, window or both, and statistics running or batch, got {self.maps!r}, {self.statistics!r}"
            )
        if self.window < MIN_WINDOW or self.points < 1 or self.chunk < 1 or self.statistics_steps < 0:
            raise ValueError(
                f"window must be at least {MIN_WINDOW}, points and chunk at least 1, statistics_steps not negative, "
                f"got {self.window}, {self.points}, {self.chunk}, {self.statistics_steps}"
            )
        if not 0 < self.window_weight < math.inf:
            raise ValueError(f"window_weight must be positive, got {self.window_weight}")


@dataclass(frozen=True, eq=False)
class _Direction:
    """One photo's points looked for in the other. features: of the other photo; uv: the true cells in it."""

    descriptors: Float[Tensor, "N C"]
    features: Float[Tensor, "C h w"]
    uv: Float[Tensor, "N 2"]

    @property
    def baseline(self) -> float:
        """ln(h w): the error of a map that says nothing."""
        return math.log(self.features[0].numel())


class NRETraining(nn.Module):
    """A feature network with the loss of paper Eq. (10) (a ``Trainable``; batches are sequences of ``PointPair``).

    network: as ``make_network(trained)`` makes it. The weights to keep are those of ``network``, and the temperature.
    """

    def __init__(
        self, trained: TrainedConfig, network: nn.Module | None = None, config: NRETrainingConfig | None = None
    ) -> None:
        super().__init__()
        self.trained, self.config = trained, config or NRETrainingConfig()
        self.network = make_network(trained) if network is None else network
        learned = self.config.learn_temperature and trained.unit
        self.log_temperature = nn.Parameter(torch.tensor(math.log(trained.temperature)), requires_grad=learned)
        # which statistics the batch norms use is decided in each step, not by train() and eval()
        self._norms = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]

    @property
    def temperature(self) -> float:
        """Products of descriptors are divided by it."""
        return float(self.log_temperature.detach().exp())

    def train(self, mode: bool = True) -> NRETraining:
        """Training mode, in which batch norms use the statistics that ``training_step`` chooses (at first the stored)."""
        super().train(mode)
        for norm in self._norms:
            norm.eval()
        return self

    # -- the loss -----------------------------------------------------------------------------------------------------
    def training_step(self, batch: Sequence[PointPair], step: int, generator: torch.Generator) -> StepOutput:
        """Mean NRE over points, then over directions and pairs, paper Eq. (10). Pairs without points count nothing.

        Metrics: ``nre`` (of full maps, or of windows where there are only those), ``ln_cells`` (what a uniform map
        costs), ``recall_1``, ``_2``, ``_4`` (the most probable cell is so near), ``points``, ``temperature``.
        """
        config = self.config
        for norm in self._norms:
            norm.train(self.training and (config.statistics == "batch" or step < config.statistics_steps))
        losses: list[Tensor] = []
        rows: list[tuple[float, ...]] = []
        for pair in batch:
            for direction in self._directions(pair, generator):
                loss, row = self._direction_loss(direction, generator)
                losses.append(loss)
                rows.append(row)
        if not losses:
            nothing = 0.0 * sum(p.sum() for p in self.parameters() if p.requires_grad)
            return StepOutput(torch.as_tensor(nothing), {"points": 0.0, "temperature": self.temperature})
        means = torch.tensor(rows, dtype=torch.float64).mean(0).tolist()
        names = ("nre", "ln_cells", *(f"recall_{r}" for r in RECALL_CELLS), "points")
        metrics = {**dict(zip(names, means, strict=True)), "temperature": self.temperature}
        return StepOutput(torch.stack(losses).mean(), metrics)

    def _direction_loss(self, direction: _Direction, generator: torch.Generator) -> tuple[Tensor, tuple[float, ...]]:
        config = self.config
        arguments = direction.descriptors, direction.features, direction.uv
        found: list[tuple[CorrelationError, float, float]] = []
        if config.maps != "window":
            found.append((correlation_error(*arguments, config.chunk), 1.0, direction.baseline))
        if config.maps != "full":
            centers = noisy_centers(direction.uv, config.window, generator)
            windows = window_correlation_error(*arguments, centers, config.window, config.chunk)
            h, w = (min(config.window + 1, side) for side in direction.features.shape[1:])
            found.append((windows, config.window_weight if found else 1.0, math.log(h * w)))
        loss = torch.stack([weight * error.error.mean() for error, weight, _ in found]).sum()
        shown, _, baseline = found[0]
        distance = (shown.peak - direction.uv).norm(dim=-1)
        recalls = tuple(float((distance <= r).float().mean()) for r in RECALL_CELLS)
        return loss, (float(shown.error.detach().mean()), baseline, *recalls, float(len(direction.uv)))

    def _directions(self, pair: PointPair, generator: torch.Generator) -> list[_Direction]:
        if not len(pair):
            return []
        first, second = self._features(pair)
        cells0, inside0 = self._cells(pair.uv0, first)
        cells1, inside1 = self._cells(pair.uv1, second)
        kept = (inside0 & inside1).nonzero()[:, 0]
        if not len(kept):
            return []
        if len(kept) > self.config.points:
            order = torch.randperm(len(kept), generator=generator)[: self.config.points]
            kept = kept[order.to(kept.device)]
        cells0, cells1 = cells0[kept], cells1[kept]
        ways = [(first, cells0, second, cells1), (second, cells1, first, cells0)]
        return [
            _Direction(self._descriptors(source, cells), target, uv)
            for source, cells, target, uv in ways[: 2 if self.config.both_directions else 1]
        ]

    def _features(self, pair: PointPair) -> tuple[Tensor, Tensor]:
        if pair.image0.shape == pair.image1.shape:
            both = self.network(torch.stack([pair.image0, pair.image1]))
            return both[0], both[1]
        return self.network(pair.image0[None])[0], self.network(pair.image1[None])[0]

    def _cells(self, uv: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """Pixels as cells of a map, and which have four cells around them."""
        cells = (uv.to(features.device) - self.trained.origin) / self.trained.stride
        limit = cells.new_tensor([features.shape[2] - 1, features.shape[1] - 1])
        return cells, ((cells >= 0) & (cells <= limit)).all(-1)

    def _descriptors(self, features: Tensor, cells: Tensor) -> Tensor:
        found = descriptors_at(features.float(), cells, normalize=self.trained.unit)
        return found / self.log_temperature.exp() if self.trained.unit else found / self.trained.temperature

    # -- weights ------------------------------------------------------------------------------------------------------
    def save_pretrained(self, folder: str | Path) -> str:
        """Write ``config.json`` and ``model.safetensors`` for ``NRE.from_features("nre", weights=...)``; returns their id."""
        return save_trained(folder, replace(self.trained, temperature=self.temperature), self.network)

    @classmethod
    def from_pretrained(cls, folder: str | Path, config: NRETrainingConfig | None = None) -> NRETraining:
        """Go on from a folder of ``save_pretrained``. Raises InputError when it is none."""
        trained, network, _ = load_trained(folder)
        return cls(trained, network, config)
