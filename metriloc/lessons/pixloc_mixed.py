"""Pairs for the compact PixLoc: rendered scenes beside photos of rooms, mixed by shares, and fixed ones to validate on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from metriloc.datasets import Augment, Geometric, PairDataset, Photometric, read_training_pairs
from metriloc.datasets.pixloc_pairs import DepthSamples, PointPair, SampleConfig
from metriloc.datasets.pixloc_starts import Start
from metriloc.datasets.synthetic import SyntheticConfig
from metriloc.datasets.synthetic.cache import CachedSyntheticPairs
from metriloc.lessons.pixloc_validation import AlignmentValidation
from metriloc.methods.pixloc import (
    TwoViewBatch,
)
from metriloc.methods.pixloc.training import collate
from metriloc.training import Validator, generator_of

SIZE = (256, 192)
VALIDATION_SEED = 900_000
"""Synthetic scenes from this seed on are never trained on."""
SMALL_START = Start("error", error=(1.0, 48.0), disturbed=0.6, rotation_deg=20.0, translation=0.4)


@dataclass(frozen=True)
class SmallBatches:
    """Synthetic and real pairs, mixed at random.

    scenes, pairs_per_scene: synthetic ones (first seed 0). real_share: of the pairs, when there are real scenes.
    overlap: limits of real pairs. points: of a sample.
    """

    scenes: int = 390
    pairs_per_scene: int = 6
    batch_size: int = 4
    points: int = 256
    real_share: float = 0.2
    overlap: tuple[float, float] = (0.3, 0.95)
    seed: int = 0
    start: Start = SMALL_START
    geometric: Geometric = field(default_factory=lambda: Geometric(zoom=0.8, turn_deg=8.0))
    photometric: Photometric = field(default_factory=lambda: Photometric(noise=0.03, blur=1.0))

    def __call__(self, data: Path | None) -> MixedSamples:
        if data is None:
            raise ValueError("pixloc_small needs --data DIR, a folder for its synthetic scenes (made when missing)")
        augment = Augment(self.photometric, self.geometric)
        config = SampleConfig(self.points, start=self.start)
        scenes = SyntheticConfig(sizes=(SIZE,))
        synthetic = CachedSyntheticPairs(data / "synthetic", self.scenes, self.pairs_per_scene, scenes, augment=augment)
        parts, shares = [DepthSamples(synthetic, config)], [1.0]
        if (data / "real").is_dir() and self.real_share > 0:
            overlaps = data / "overlaps"
            pairs = read_training_pairs(data / "real", *self.overlap, overlaps=overlaps if overlaps.is_dir() else None)
            parts.append(DepthSamples(PairDataset(pairs, SIZE, augment=augment), config))
            shares = [1 - self.real_share, self.real_share]
        return MixedSamples(tuple(parts), tuple(shares), self.batch_size, self.seed)


@dataclass(frozen=True, eq=False)
class MixedSamples:
    """Every sample of a batch is drawn by itself, from part k with probability ``shares[k]`` (``BatchSource``)."""

    parts: tuple[DepthSamples, ...]
    shares: tuple[float, ...]
    batch_size: int
    seed: int = 0

    def batch(self, step: int, part: int = 0, parts: int = 1) -> TwoViewBatch:
        """See ``BatchSource``; a pure function of its arguments."""
        if self.batch_size % parts or not 0 <= part < parts:
            raise ValueError(f"a batch of {self.batch_size} cannot be cut into {parts} equal parts (part {part})")
        size = self.batch_size // parts
        return batch_of([self._sample(step, place) for place in range(part * size, (part + 1) * size)])

    def _sample(self, step: int, place: int) -> PointPair:
        generator = generator_of(self.seed, step, place)
        chosen = int(torch.multinomial(torch.tensor(self.shares), 1, generator=generator))
        samples = self.parts[chosen]
        index, seed = (int(torch.randint(n, (), generator=generator)) for n in (len(samples), 2**62))
        return samples[index, seed]


def batch_of(samples: Sequence[PointPair]) -> TwoViewBatch:
    """Samples as the network takes them."""
    return collate([s.pair for s in samples], [s.xyz for s in samples], [s.init for s in samples])


@dataclass(frozen=True)
class SmallValidation:
    """Alignment in synthetic scenes that are not trained on. scenes: how many of them; one pair each is used."""

    scenes: int = 24
    pairs_per_scene: int = 2
    points: int = 256
    start: Start = SMALL_START

    def __call__(self, data: Path | None) -> Validator:
        if data is None:
            raise ValueError("pixloc_small needs --data DIR")
        scenes = SyntheticConfig(sizes=(SIZE,))
        pairs = CachedSyntheticPairs(
            data / "synthetic_val", self.scenes, self.pairs_per_scene, scenes, first_seed=VALIDATION_SEED
        )
        samples = DepthSamples(pairs, SampleConfig(self.points, start=self.start))
        return AlignmentValidation([samples[n * self.pairs_per_scene, n] for n in range(self.scenes)])
