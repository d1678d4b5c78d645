"""The published training runs of PixLoc and of GN-Net, with the settings of their configurations (spec pixloc 13.5).

``--data DIR``: for MegaDepth, ``DIR/<scene>/`` with a COLMAP model and ``images/``; for Extended CMU Seasons,
``DIR/slice<n>/`` with ``database``, ``query``, the model and the queries' poses where ``batches`` says. The encoders start
from ImageNet: ``--set method.vgg_weights=FILE``, torchvision's VGG weights. Published steps depend on a look at the
validation (20,000 to 40,000); ours end at 40,000 and keep the best.

Differs from the published runs: gradients are clipped before the step (theirs after it, without effect), points are
drawn without repetition, and samples with too few of them are not filled up with points of the rest of the scene.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from metriloc.backbones.resnet import ResNet, ResNetConfig, load_imagenet
from metriloc.backbones.vgg import VGG, VGG16, VGG19, VGGConfig, vgg_from_torchvision
from metriloc.datasets import SceneBalancedSampler, scene_balanced_order
from metriloc.datasets.cmu import TRAIN_SLICES, VALIDATION_SLICES, cmu_slice
from metriloc.datasets.megadepth import TRAIN_SCENES, VALIDATION_SCENES, read_megadepth
from metriloc.datasets.pixloc_files import cmu_of_file, megadepth_of_file, training_file
from metriloc.datasets.pixloc_pairs import PointPair, SampleConfig
from metriloc.datasets.pixloc_starts import Start
from metriloc.datasets.sfm_pairs import RefinerScene, SfmSamples, SquareConfig
from metriloc.io.weights import read_checkpoint
from metriloc.methods.pixloc import (
    AlignConfig,
    CostConfig,
    GaussianConfig,
    GNNetConfig,
    NetworkConfig,
    PixLocNetwork,
    S2DNet,
    S2DNetConfig,
    TwoViewBatch,
    TwoViewConfig,
    UNet,
    UNetConfig,
)
from metriloc.methods.pixloc.training import PixLocTraining
from metriloc.recipes.pixloc import batch_of
from metriloc.recipes.pixloc_validation import AlignmentValidation
from metriloc.training import OptimizerConfig, Run, TrainingConfig, Validator


@dataclass(frozen=True)
class PublishedPixLoc:
    """Makes the network. vgg_weights: file of torchvision's ImageNet weights of the encoder, VGG or ResNet, or ``random``.

    features: the U-Net, or S2DNet (VGG-16, without confidences) or the photo itself in its place. resnet: layers of a
    ResNet (18, 34, 50, 101) in place of the VGG, 0 for none. pad: margin of the maps, cells. relative_translation: report
    translation errors as shares of the true distance. gnnet: GN-Net's losses in place of the two-view refiner.
    checkpointed: less memory, more time.
    """

    vgg_weights: str = ""
    encoder: VGGConfig = VGG19
    pad: int = 2
    num_iters: int = 15
    relative_translation: bool = True
    gnnet: bool = False
    checkpointed: bool = True
    features: Literal["unet", "s2dnet", "gaussian"] = "unet"
    resnet: int = 0

    def __call__(self) -> nn.Module:
        learned = not self.gnnet
        network = PixLocNetwork(NetworkConfig(self._shape(), learned_damping=learned))
        if self.features != "gaussian":
            if not self.vgg_weights:
                raise ValueError("give torchvision's ImageNet weights as method.vgg_weights=FILE, or 'random'")
            if self.vgg_weights != "random":
                _start_from_imagenet(network, read_checkpoint(Path(self.vgg_weights)))
        align = AlignConfig(
            CostConfig(pad=self.pad), num_iters=self.num_iters, damping="learned" if learned else "fixed"
        )
        two_view = TwoViewConfig(align, relative_translation=self.relative_translation)
        return PixLocTraining(network, GNNetConfig(two_view=two_view) if self.gnnet else two_view)

    def _shape(self) -> UNetConfig | S2DNetConfig | GaussianConfig:
        if self.features == "s2dnet":
            return S2DNetConfig()
        if self.features == "gaussian":
            return GaussianConfig()
        encoder = ResNetConfig(self.resnet) if self.resnet else self.encoder  # type: ignore[arg-type] # it is checked
        return UNetConfig(encoder, confidences=not self.gnnet, checkpointed=self.checkpointed)


def _start_from_imagenet(network: PixLocNetwork, tensors: Mapping[str, Any]) -> None:
    extractor = network.extractor
    if isinstance(extractor, S2DNet):
        extractor.load_imagenet(tensors)
    elif isinstance(extractor, UNet) and isinstance(extractor.encoder, ResNet):
        load_imagenet(extractor.encoder, tensors)
    elif isinstance(extractor, UNet) and isinstance(extractor.encoder, VGG):
        extractor.encoder.load_state_dict(vgg_from_torchvision(tensors, extractor.encoder.config))


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
    """batch_size: pairs of a step; per_scene: pairs of each scene an epoch; overlap: limits of pairs. store: folder for
    overlaps, below the data folder. files: folder of the published training files, such as ``training``, below the data
    folder; with it no COLMAP models are needed."""

    batch_size: int = 6
    per_scene: int = 150
    overlap: tuple[float, float] = (0.4, 1.0)
    points: int = 512
    square: SquareConfig = field(default_factory=lambda: SquareConfig(512, "min", 512))
    start: Start = field(default_factory=lambda: Start("share", share=(0.75, 1.0)))
    seed: int = 1
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
    """As ``MegaDepthBatches``. baseline: largest distance of a pair, metres. model, poses: where the COLMAP model and the
    true poses of the queries are below the data folder, with {n} for the slice; not looked for with files."""

    batch_size: int = 3
    per_scene: int = 1000
    overlap: tuple[float, float] = (0.3, 1.0)
    baseline: float = 7.0
    points: int = 512
    square: SquareConfig = field(default_factory=lambda: SquareConfig(720, "min", 720))
    start: Start = field(default_factory=lambda: Start("identity"))
    seed: int = 1
    model: str = "slice{n}/sfm_superpoint+superglue/model"
    poses: str = "slice{n}/camera-poses/slice-{n}-gt-query-images.txt"
    files: str = ""

    def __call__(self, data: Path | None) -> SfmBatches:
        return _training(self.scenes(data, TRAIN_SLICES), self)

    def scenes(self, data: Path | None, slices: tuple[int, ...]) -> tuple[RefinerScene, ...]:
        """The slices of a list that are there."""
        if data is None:
            raise ValueError("pixloc_cmu and gnnet need --data DIR, the folder of the slices of Extended CMU Seasons")
        baseline = (0.0, self.baseline)
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
    return SfmBatches(
        samples, SceneBalancedSampler(samples.lengths, how.per_scene, how.batch_size, how.seed, replacement=False)
    )


def _validator(
    scenes: tuple[RefinerScene, ...], how: MegaDepthBatches | CmuBatches, per_scene: int
) -> AlignmentValidation:
    samples = _samples(scenes, how)
    generator = torch.Generator().manual_seed(how.seed)
    order = scene_balanced_order(samples.lengths, per_scene, generator, replacement=False)
    return AlignmentValidation(FixedSamples(samples, tuple(order.unique().tolist())))


def _config(lr: float, workers: int) -> TrainingConfig:
    return TrainingConfig(
        steps=40_000,
        epoch_steps=500,
        optimizer=OptimizerConfig(name="adam", lr=lr, lr_scaling=(("dampingnet.const", 100.0),)),
        clip_norm=1.0,
        workers=workers,
        best_metric="error_px",
        best_is="smallest",
    )


def pixloc_megadepth() -> Run:
    """PixLoc as released for landmarks and indoors: VGG-19, MegaDepth, starts at 75 to 100 % of the way."""
    return Run("pixloc_megadepth", PublishedPixLoc(), MegaDepthBatches(), _config(5e-6, 8), MegaDepthValidation())


def pixloc_cmu() -> Run:
    """PixLoc as released for driving: VGG-16, Extended CMU Seasons, starts at the reference."""
    method = PublishedPixLoc(encoder=VGG16, pad=3, relative_translation=False)
    return Run("pixloc_cmu", method, CmuBatches(), _config(1e-5, 6), CmuValidation())


def gnnet() -> Run:
    """GN-Net, the training that PixLoc is compared with: VGG-16 without confidences, Extended CMU Seasons."""
    method = PublishedPixLoc(encoder=VGG16, pad=3, relative_translation=False, gnnet=True)
    batches = replace(CmuBatches(), batch_size=4, square=SquareConfig(512, "min", 512))
    return Run("gnnet", method, batches, _config(1e-6, 6), CmuValidation(batches=batches))
