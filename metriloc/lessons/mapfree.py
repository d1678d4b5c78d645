"""Pairs of Map-free as MicKey was trained and validated on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from metriloc.datasets import SceneBalancedSampler, read_training_pairs, scene_balanced_order
from metriloc.datasets.augment import AS_THEY_ARE, Augment, Photometric
from metriloc.datasets.mapfree import read_mapfree
from metriloc.datasets.sampler import PairBatches
from metriloc.datasets.sources import FramePair, PairDataset
from metriloc.io import InputError
from metriloc.lessons.pair_validation import PairValidation
from metriloc.methods.mickey import (
    PairBatch,
)
from metriloc.training import Validator
from metriloc.types import Pair

SIZE, WARM_UP_SIZE = (540, 720), (360, 480)
"""Width and height of the photos; the loss is measured in pixels of the first in both."""


SCENES, PER_SCENE, EPOCHS, GPUS = 460, 100, 100, 4


ANY_OVERLAP, SOLVABLE_OVERLAP = (0.0, 1.0), (0.4, 0.8)


@dataclass(frozen=True)
class MapfreeBatches:
    """The same number of pairs from every scene an epoch. batch_size: of a step, over all processes; per_scene: pairs.

    overlap: limits of the pairs that ``overlaps.npz`` lists, both strict. listed: look at that file; without it, or in
    scenes that have none, ``uniform`` pairs a scene are drawn from the poses (None: such a scene is refused). size: width
    and height of the photos. photometric: changes of their colors, none as published.
    """

    batch_size: int = 48
    per_scene: int = PER_SCENE
    overlap: tuple[float, float] = ANY_OVERLAP
    listed: bool = True
    uniform: int | None = 2000
    size: tuple[int, int] = SIZE
    original_size: tuple[int, int] = SIZE
    seed: int = 0
    photometric: Photometric = AS_THEY_ARE

    def __call__(self, data: Path | None) -> PairBatches:
        pairs = read_training_pairs(
            _split(data, "train"), *self.overlap, uniform=self.uniform, listed=self.listed, seed=self.seed
        )
        augment = Augment(self.photometric, None) if self.photometric != AS_THEY_ARE else None
        dataset = PairDataset(pairs, self.size, depth=False, augment=augment)
        sampler = SceneBalancedSampler(dataset.lengths, self.per_scene, self.batch_size, self.seed)
        return PairBatches(dataset, sampler, partial(PairBatch.from_pairs, original_size=self.original_size))


@dataclass(frozen=True, eq=False)
class LoadedPairs(Sequence[Pair]):
    """Pairs on disk, read again whenever they are walked through. size: width and height they are resized to."""

    frames: Sequence[FramePair]
    size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: int) -> Pair:  # type: ignore[override] # no slices
        return self.frames[index].load(self.size, depth=False)

    def __iter__(self) -> Iterator[Pair]:
        return (self[index] for index in range(len(self)))


@dataclass(frozen=True)
class MapfreeValidation:
    """The same pairs of the validation scenes every time, drawn as in training. pairs: how many (100 batches of 8 as
    published); seed: of the draw, as published; pictures: pairs that are drawn."""

    pairs: int = 800
    per_scene: int = PER_SCENE
    size: tuple[int, int] = SIZE
    original_size: tuple[int, int] = SIZE
    seed: int = 66
    pictures: int = 4

    def __call__(self, data: Path | None) -> Validator:
        folder = _split(data, "val")
        scenes = [
            [pair for pair in scene.evaluation_pairs() if pair.cam1_from_cam0 is not None]
            for scene in read_mapfree(folder, depth=None)
        ]
        known = [pair for scene in scenes for pair in scene]
        if not known:
            raise InputError(f"'{folder}' has no pair with a known pose to validate on")
        generator = torch.Generator().manual_seed(self.seed)
        order = scene_balanced_order([len(scene) for scene in scenes], self.per_scene, generator)[: self.pairs]
        frames = [known[index] for index in order.tolist()]
        return PairValidation(LoadedPairs(frames, self.size), self.pictures, self.original_size)


def _split(data: Path | None, name: str) -> Path:
    """A split of Map-free. Raises InputError saying what the data folder must hold."""
    if data is None or not (data / name).is_dir():
        given = "none was given" if data is None else f"'{data}' has no {name}/"
        raise InputError(f"MicKey's recipes need --data DIR with the scenes in DIR/train and DIR/val; {given}")
    return data / name
