"""Pairs for the compact MicKey: rendered scenes beside photos of rooms, mixed by shares, and fixed ones to validate on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch

from metriloc.datasets import Augment, Geometric, PairDataset, Photometric, read_training_pairs
from metriloc.datasets.synthetic import SyntheticConfig
from metriloc.datasets.synthetic.cache import CachedSyntheticPairs
from metriloc.lessons.pair_validation import PairValidation
from metriloc.methods.mickey import (
    PairBatch,
)
from metriloc.training import Validator, generator_of
from metriloc.types import Pair, View

ORIGINAL_SIZE = (720, 540)
"""The VCRE of the objective is measured in pixels of photos of this size, for which its constants were chosen."""
SIZE = (256, 192)
VALIDATION_SEED = 900_000
"""Synthetic scenes from this seed on are never trained on."""


@dataclass(frozen=True)
class SmallBatches:
    """Synthetic and real pairs, mixed at random.

    scenes, pairs_per_scene: synthetic ones (first seed 0). real_share: of the pairs, when there are real scenes.
    overlap: limits of real pairs.
    """

    scenes: int = 800
    pairs_per_scene: int = 6
    batch_size: int = 8
    real_share: float = 0.25
    overlap: tuple[float, float] = (0.3, 0.95)
    seed: int = 0
    geometric: Geometric = field(default_factory=lambda: Geometric(zoom=0.7, turn_deg=8.0))
    photometric: Photometric = field(default_factory=lambda: Photometric(noise=0.03, blur=1.0))

    def __call__(self, data: Path | None) -> MixedPairs:
        if data is None:
            raise ValueError("mickey_small needs --data DIR, a folder for its synthetic scenes (made when missing)")
        augment = Augment(self.photometric, self.geometric)
        synthetic = CachedSyntheticPairs(
            data / "synthetic", self.scenes, self.pairs_per_scene, SyntheticConfig(sizes=(SIZE,)), augment=augment
        )
        real = None
        if (data / "real").is_dir() and self.real_share > 0:
            overlaps = data / "overlaps"
            pairs = read_training_pairs(data / "real", *self.overlap, overlaps=overlaps if overlaps.is_dir() else None)
            real = PairDataset(pairs, SIZE, augment=augment)
        return MixedPairs(synthetic, real, self.real_share if real is not None else 0.0, self.batch_size, self.seed)


@dataclass(frozen=True, eq=False)
class MixedPairs:
    """Every pair of a batch is drawn by itself.

    Real with probability ``real_share``, else synthetic (``BatchSource``).
    """

    synthetic: CachedSyntheticPairs
    real: PairDataset | None
    real_share: float
    batch_size: int
    seed: int

    def batch(self, step: int, part: int = 0, parts: int = 1) -> PairBatch:
        """See ``BatchSource``; a pure function of its arguments."""
        if self.batch_size % parts or not 0 <= part < parts:
            raise ValueError(f"a batch of {self.batch_size} cannot be cut into {parts} equal parts (part {part})")
        size = self.batch_size // parts
        return _collate([self._pair(step, place) for place in range(part * size, (part + 1) * size)])

    def _pair(self, step: int, place: int) -> Pair:
        generator = generator_of(self.seed, step, place)
        is_real = float(torch.rand((), generator=generator)) < self.real_share
        data: CachedSyntheticPairs | PairDataset = self.synthetic
        if is_real and self.real is not None:
            data = self.real
        index, seed = (int(torch.randint(n, (), generator=generator)) for n in (len(data), 2**62))
        pair = data[index, seed]
        return Pair(_full_depth(pair.view0), _full_depth(pair.view1), pair.cam1_from_cam0)


def _full_depth(view: View) -> View:
    """The depth map with a cell a pixel (nearest), because a batch needs depth maps of one size."""
    w, h = view.size
    if view.depth is None or view.depth.shape == (h, w):
        return view
    depth = torch.nn.functional.interpolate(view.depth[None, None], size=(h, w), mode="nearest-exact")[0, 0]
    return replace(view, depth=depth)


_collate = partial(PairBatch.from_pairs, original_size=ORIGINAL_SIZE)


@dataclass(frozen=True)
class SmallValidation:
    """Depth, matches and poses in synthetic scenes that are not trained on. scenes, pairs_per_scene: how many."""

    scenes: int = 24
    pairs_per_scene: int = 2

    def __call__(self, data: Path | None) -> Validator:
        if data is None:
            raise ValueError("mickey_small needs --data DIR")
        pairs = CachedSyntheticPairs(
            data / "synthetic_val",
            self.scenes,
            self.pairs_per_scene,
            SyntheticConfig(sizes=(SIZE,)),
            first_seed=VALIDATION_SEED,
        )
        return PairValidation([pairs[index] for index in range(len(pairs))])
