"""Pairs of reconstructions for PixLoc's published trainings: MegaDepth, and the slices of Extended CMU Seasons."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from metriloc.datasets import SceneBalancedSampler, scene_balanced_order
from metriloc.datasets.cmu import TRAIN_SLICES, VALIDATION_SLICES, cmu_slice
from metriloc.datasets.megadepth import TRAIN_SCENES, VALIDATION_SCENES, read_megadepth
from metriloc.datasets.pixloc_files import cmu_of_file, megadepth_of_file, training_file
from metriloc.datasets.pixloc_pairs import PointPair, SampleConfig
from metriloc.datasets.pixloc_starts import Start
from metriloc.datasets.sfm_pairs import RefinerScene, SfmSamples, SquareConfig
from metriloc.lessons.pixloc_mixed import batch_of
from metriloc.lessons.pixloc_validation import AlignmentValidation
from metriloc.methods.pixloc import TwoViewBatch
from metriloc.training import Validator


@dataclass(frozen=True, eq=False)
class SfmBatches:
    """The same number of pairs from every scene an epoch (``BatchSource``)."""

    samples: SfmSamples
    sampler: SceneBalancedSampler

    def batch(self, step: int, part: int = 0, parts: int = 1) -> TwoViewBatch:
        """See ``BatchSource``; a pure function of its arguments."""
        return batch_of([self.samples[entry] for entry in self.sampler.batch(step, part, parts)])


@dataclass(frozen=True, eq=False)
class FixedSamples:
    """Some samples, loaded again whenever they are walked through."""

    samples: SfmSamples
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[PointPair]:
        return (self.samples[number, None] for number in self.numbers)


@dataclass(frozen=True)
class MegaDepthBatches:
    """batch_size: pairs of a step.

    per_scene: pairs of each scene an epoch; overlap: limits of pairs. sort_by_overlap: an epoch
    begins with the pairs that share most. store: folder for overlaps, below the data folder. files:
    folder of the published training files, such as ``training``, below the data folder; with it no
    COLMAP models are needed.
    """

    batch_size: int = 6
    per_scene: int = 150
    overlap: tuple[float, float] = (0.4, 1.0)
    points: int = 512
    square: SquareConfig = field(default_factory=lambda: SquareConfig(512, "min", 512))
    start: Start = field(default_factory=lambda: Start("share", share=(0.75, 1.0)))
    seed: int = 1
    sort_by_overlap: bool = False
    store: str = "pixloc_pairs"
    files: str = ""

    def __call__(self, data: Path | None) -> SfmBatches:
        return _training(self.scenes(data, TRAIN_SCENES), self)

    def scenes(self, data: Path | None, names: tuple[str, ...]) -> tuple[RefinerScene, ...]:
        """The scenes of a list that are there."""
        if data is None:
            raise ValueError("pixloc_megadepth needs --data DIR, the folder of MegaDepth's scenes")
        if not self.files:
            return read_megadepth(data, names, *self.overlap, store=data / self.store)
        found = _training_files(data / self.files, names)
        return tuple(megadepth_of_file(file, data, *self.overlap) for file in found)


@dataclass(frozen=True)
class CmuBatches:
    """As ``MegaDepthBatches``. min_baseline, baseline: least and largest distance of a pair, metres. model, poses: where the
    COLMAP model and the true poses of the queries are below the data folder, with {n} for the slice; not looked for with
    files."""

    batch_size: int = 3
    per_scene: int = 1000
    overlap: tuple[float, float] = (0.3, 1.0)
    min_baseline: float = 0.0
    baseline: float = 7.0
    points: int = 512
    square: SquareConfig = field(default_factory=lambda: SquareConfig(720, "min", 720))
    start: Start = field(default_factory=lambda: Start("identity"))
    seed: int = 1
    sort_by_overlap: bool = False
    model: str = "slice{n}/sfm_superpoint+superglue/model"
    poses: str = "slice{n}/camera-poses/slice-{n}-gt-query-images.txt"
    files: str = ""

    def __call__(self, data: Path | None) -> SfmBatches:
        return _training(self.scenes(data, TRAIN_SLICES), self)

    def scenes(self, data: Path | None, slices: tuple[int, ...]) -> tuple[RefinerScene, ...]:
        """The slices of a list that are there."""
        if data is None:
            raise ValueError("pixloc_cmu and gnnet need --data DIR, the folder of the slices of Extended CMU Seasons")
        baseline = (self.min_baseline, self.baseline)
        if self.files:
            found = _training_files(data / self.files, tuple(f"slice{n}" for n in slices))
            return tuple(cmu_of_file(file, data, *self.overlap, baseline=baseline) for file in found)
        present = [n for n in slices if (data / f"slice{n}").is_dir()]
        if not present:
            raise ValueError(f"'{data}' holds none of the slices {', '.join(map(str, slices))}")
        return tuple(
            cmu_slice(
                n,
                data,
                data / self.model.format(n=n),
                data / self.poses.format(n=n),
                *self.overlap,
                baseline=baseline,
            )
            for n in present
        )


def _training_files(folder: Path, names: tuple[str, ...]) -> list[Path]:
    """Those that are there. Raises ValueError when none is."""
    found = [file for name in names if (file := training_file(folder, name)) is not None]
    if not found:
        raise ValueError(
            f"'{folder}' holds none of the training files {names[0]}.pkl, ... (metriloc data get --training)"
        )
    return found


@dataclass(frozen=True)
class MegaDepthValidation:
    """per_scene: pairs of each validation scene, always the same."""

    per_scene: int = 8
    batches: MegaDepthBatches = field(default_factory=MegaDepthBatches)

    def __call__(self, data: Path | None) -> Validator:
        return _validator(self.batches.scenes(data, VALIDATION_SCENES), self.batches, self.per_scene)


@dataclass(frozen=True)
class CmuValidation:
    """per_scene: pairs of each validation slice, always the same."""

    per_scene: int = 80
    batches: CmuBatches = field(default_factory=CmuBatches)

    def __call__(self, data: Path | None) -> Validator:
        return _validator(self.batches.scenes(data, VALIDATION_SLICES), self.batches, self.per_scene)


def _samples(scenes: tuple[RefinerScene, ...], how: MegaDepthBatches | CmuBatches) -> SfmSamples:
    return SfmSamples(scenes, how.square, SampleConfig(how.points, start=how.start))


def _training(scenes: tuple[RefinerScene, ...], how: MegaDepthBatches | CmuBatches) -> SfmBatches:
    samples = _samples(scenes, how)
    key = torch.cat([scene.overlap for scene in scenes]) if how.sort_by_overlap else None
    sampler = SceneBalancedSampler(samples.lengths, how.per_scene, how.batch_size, how.seed, replacement=False, key=key)
    return SfmBatches(samples, sampler)


def _validator(
    scenes: tuple[RefinerScene, ...], how: MegaDepthBatches | CmuBatches, per_scene: int
) -> AlignmentValidation:
    samples = _samples(scenes, how)
    generator = torch.Generator().manual_seed(how.seed)
    order = scene_balanced_order(samples.lengths, per_scene, generator, replacement=False)
    return AlignmentValidation(FixedSamples(samples, tuple(order.unique().tolist())))
