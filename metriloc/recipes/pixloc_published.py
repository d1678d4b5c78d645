"""The published training runs of PixLoc and of GN-Net, with the settings of their released configurations.

``--data DIR``: for MegaDepth, ``DIR/<scene>/`` with a COLMAP model and ``images/``; for Extended CMU Seasons,
``DIR/slice<n>/`` with ``database``, ``query``, the model and the queries' poses where ``batches`` says. The encoders start
from ImageNet: ``--set method.vgg_weights=FILE``, torchvision's VGG weights. Published steps depend on a look at the
validation (20,000 to 40,000); ours end at 40,000 and keep the best.

Differs from the published runs: gradients are clipped before the step (theirs after it, without effect), points are
drawn without repetition, and samples with too few of them are not filled up with points of the rest of the scene.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import nn

from metriloc.backbones.resnet import ResNet, ResNetConfig, load_imagenet
from metriloc.backbones.vgg import VGG, VGG16, VGG19, VGGConfig, vgg_from_torchvision
from metriloc.datasets.sfm_pairs import SquareConfig
from metriloc.io.weights import read_checkpoint
from metriloc.lessons.sfm_batches import CmuBatches, CmuValidation, MegaDepthBatches, MegaDepthValidation
from metriloc.methods.pixloc import (
    AlignConfig,
    CostConfig,
    GaussianConfig,
    GNNetConfig,
    NetworkConfig,
    PixLocNetwork,
    RobustCost,
    S2DNet,
    S2DNetConfig,
    TwoViewConfig,
    UNet,
    UNetConfig,
)
from metriloc.methods.pixloc.training import PixLocTraining
from metriloc.training import OptimizerConfig, Run, TrainingConfig


@dataclass(frozen=True)
class PublishedPixLoc:
    """Makes the network and what it learns from.

    vgg_weights: file of torchvision's ImageNet weights of the encoder, VGG or ResNet, or ``random``. resnet: layers of a
    ResNet (18, 34, 50, 101) in place of the VGG, 0 for none. features: the U-Net, or S2DNet (VGG-16, without confidences)
    or the photo itself in its place. decoder, levels, channels, batch_norm, freeze_batch_norm, confidences: as in
    ``UNetConfig``. checkpointed: less memory, more time. num_iters, pad, loss, initial_damping: of the alignment; the last
    only where no damping is learned. shared_damping: one learned damping for all levels. success_threshold, max_error,
    normalize_features, relative_translation: as in ``TwoViewConfig``. gnnet: GN-Net's losses in place of the two-view
    refiner; losses: their settings (their ``two_view`` is made of the fields above).
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
    decoder: tuple[int, ...] | None = (64, 64, 64, 32)
    levels: tuple[int, ...] = (0, 2, 4)
    channels: tuple[int, ...] = (32, 128, 128)
    batch_norm: bool = True
    freeze_batch_norm: bool = False
    confidences: bool = True
    loss: RobustCost = RobustCost()  # noqa: RUF009 - frozen
    initial_damping: float = AlignConfig.initial_damping
    shared_damping: bool = False
    success_threshold: float = 3.0
    max_error: float = 50.0
    normalize_features: bool = True
    losses: GNNetConfig = field(default_factory=GNNetConfig)

    def __call__(self) -> nn.Module:
        learned = not self.gnnet
        network = PixLocNetwork(NetworkConfig(self._shape(), learned, self.shared_damping))
        if self.features != "gaussian":
            if not self.vgg_weights:
                raise ValueError("give torchvision's ImageNet weights as method.vgg_weights=FILE, or 'random'")
            if self.vgg_weights != "random":
                _start_from_imagenet(network, read_checkpoint(Path(self.vgg_weights)))
        two_view = self._two_view("learned" if learned else "fixed")
        return PixLocTraining(network, replace(self.losses, two_view=two_view) if self.gnnet else two_view)

    def _two_view(self, damping: Literal["learned", "fixed"]) -> TwoViewConfig:
        align = AlignConfig(
            CostConfig(self.loss, pad=self.pad),
            num_iters=self.num_iters,
            damping=damping,
            initial_damping=self.initial_damping,
        )
        return TwoViewConfig(
            align,
            success_threshold=self.success_threshold,
            max_error=self.max_error,
            normalize_features=self.normalize_features,
            relative_translation=self.relative_translation,
        )

    def _shape(self) -> UNetConfig | S2DNetConfig | GaussianConfig:
        if self.features == "s2dnet":
            return S2DNetConfig()
        if self.features == "gaussian":
            return GaussianConfig()
        return UNetConfig(
            ResNetConfig(self.resnet) if self.resnet else self.encoder,  # type: ignore[arg-type] # it is checked
            self.decoder,
            self.levels,
            self.channels,
            self.batch_norm,
            self.confidences and not self.gnnet,
            self.checkpointed,
            self.freeze_batch_norm,
        )


def _start_from_imagenet(network: PixLocNetwork, tensors: Mapping[str, Any]) -> None:
    extractor = network.extractor
    if isinstance(extractor, S2DNet):
        extractor.load_imagenet(tensors)
    elif isinstance(extractor, UNet) and isinstance(extractor.encoder, ResNet):
        load_imagenet(extractor.encoder, tensors)
    elif isinstance(extractor, UNet) and isinstance(extractor.encoder, VGG):
        extractor.encoder.load_state_dict(vgg_from_torchvision(tensors, extractor.encoder.config))


def _config(lr: float, workers: int) -> TrainingConfig:
    return TrainingConfig(
        steps=40_000,
        epoch_steps=500,
        optimizer=OptimizerConfig(name="adam", lr=lr, lr_scaling=(("dampingnet.const", 100.0),)),
        clip_norm=1.0,
        workers=workers,
        best_metric="error_px",
        best_is="smallest",
        sync_batch_norm=True,
    )


def pixloc_megadepth() -> Run:
    """PixLoc as released for landmarks and indoors.

    VGG-19, MegaDepth, starts at 75 to 100 % of the way.
    """
    return Run("pixloc_megadepth", PublishedPixLoc(), MegaDepthBatches(), _config(5e-6, 8), MegaDepthValidation())


def pixloc_cmu() -> Run:
    """PixLoc as released for driving. VGG-16, Extended CMU Seasons, starts at the reference."""
    method = PublishedPixLoc(encoder=VGG16, pad=3, relative_translation=False)
    return Run("pixloc_cmu", method, CmuBatches(), _config(1e-5, 6), CmuValidation())


def gnnet() -> Run:
    """GN-Net, the training that PixLoc is compared with.

    VGG-16 without confidences, Extended CMU Seasons.
    """
    method = PublishedPixLoc(encoder=VGG16, pad=3, relative_translation=False, gnnet=True)
    batches = replace(CmuBatches(), batch_size=4, square=SquareConfig(512, "min", 512))
    return Run("gnnet", method, batches, _config(1e-6, 6), CmuValidation(batches=batches))
