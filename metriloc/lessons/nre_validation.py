"""Validation of NRE in training: how sharply maps of fixed points speak for the right place."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from torch import nn

from metriloc.datasets.synthetic import SyntheticConfig
from metriloc.datasets.synthetic.cache import CachedSyntheticPairs
from metriloc.lessons.nre_batches import (
    SYNTHETIC_SIZE,
    Look,
    PointBatches,
    PointSource,
    RenderedPairs,
    real_sources,
)
from metriloc.methods.nre.training import NRETraining
from metriloc.methods.nre.training_points import PointPair
from metriloc.training import Validation, Validator, generator_of

VALIDATION_SEED = 900_000
"""Synthetic scenes from this seed on are never trained on."""


@dataclass(frozen=True)
class NREValidation:
    """Mean NRE and recall on fixed pairs. look: without augmentation; pairs: how many; real: of them from ``val/`` (all
    of them where there is no ``synthetic_val/`` and the other way round)."""

    look: Look = field(default_factory=Look)
    pairs: int = 48
    scenes: int = 24
    pairs_per_scene: int = 2
    synthetic: bool = False

    def __call__(self, data: Path | None) -> Validator:
        if data is None:
            raise ValueError("training NRE needs --data DIR")
        sources: list[PointSource] = real_sources(data / "val") if (data / "val").is_dir() else []
        if self.synthetic or not sources:
            config = SyntheticConfig(sizes=(SYNTHETIC_SIZE,))
            folder = data / "synthetic_val"
            rendered = CachedSyntheticPairs(
                folder, self.scenes, self.pairs_per_scene, config, first_seed=VALIDATION_SEED
            )
            sources.append(RenderedPairs(rendered))
        batches = PointBatches(sources, [1.0] * len(sources), self.look, None, self.pairs, VALIDATION_SEED)
        return PointValidation(batches.batch(0))


@dataclass(frozen=True, eq=False)
class PointValidation:
    """A ``Validator``: the loss of fixed pairs, over full maps. Metrics: those of ``NRETraining.training_step``, and
    ``relative``, the error as a share of what a uniform map costs."""

    pairs: tuple[PointPair, ...]

    def __call__(self, method: nn.Module) -> Validation:
        if not isinstance(method, NRETraining):
            raise ValueError(f"PointValidation validates NRETraining, got {type(method).__name__}")
        device = method.log_temperature.device
        rows = []
        config = method.config
        for number, pair in enumerate(self.pairs):
            moved = PointPair(
                pair.image0.to(device), pair.image1.to(device), pair.uv0.to(device), pair.uv1.to(device), pair.name
            )
            found = method.training_step([moved], config.statistics_steps, generator_of(VALIDATION_SEED, number))
            if "nre" in found.metrics:
                rows.append(found.metrics)
        if not rows:
            return Validation({"nre": float("nan")})
        means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
        return Validation({**means, "relative": means["nre"] / means["ln_cells"]})
