"""The depth network of the bundled default: metric depth of single photos, from real rooms, facades, streets and ours.

``--data DIR`` is a folder like ``../shared/data/train``: ``nyuv2``, ``facades``, ``kitti``, ``kitchen``, ``fr1_rpy``, as
far as they are there. ``batches.synthetic`` names a folder for rendered scenes (made when they are missing).
``metric_depth`` uses all; ``metric_depth_clean`` only what allows any use: facades (CC0), fr1_rpy (CC BY) and renderings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from metriloc.backbones.efficientnet_lite import encoder_weights
from metriloc.io.packaged import packaged_file
from metriloc.io.weights import read_checkpoint
from metriloc.lessons.depth_photos import DepthBatches, HeldOutPhotos
from metriloc.methods.matching import DepthConfig, DepthNetwork, DepthTraining
from metriloc.recipes.mickey_small import IMAGENET
from metriloc.training import OptimizerConfig, Run, Schedule, TrainingConfig


@dataclass(frozen=True)
class DepthMethod:
    """Makes the network: the encoder from ImageNet (if ``imagenet``), the rest random."""

    imagenet: bool = True
    config: DepthConfig = DepthConfig()  # noqa: RUF009 - frozen

    def __call__(self) -> nn.Module:
        network = DepthNetwork(self.config)
        if self.imagenet:
            published = read_checkpoint(packaged_file(*IMAGENET))
            network.encoder.load_state_dict(encoder_weights(published, network.encoder.state_dict()))
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return DepthTraining(network)


def metric_depth() -> Run:
    """Metric depth of single photos, for the bundled default.

    It learns from everything in --data and from renderings.
    """
    config = TrainingConfig(
        steps=6000,
        epoch_steps=250,
        optimizer=OptimizerConfig(name="adamw", lr=1e-3, weight_decay=1e-2, lr_scaling=(("encoder", 0.3),)),
        schedule=Schedule(warmup_steps=200, decay="cosine", final=0.01),
        workers=1,
        log_every=50,
        checkpoint_minutes=4.0,
        best_metric="score",
        best_is="smallest",
    )
    return Run("metric_depth", DepthMethod(), DepthBatches(), config, HeldOutPhotos())


def metric_depth_clean() -> Run:
    """As metric_depth, from data that allows any use alone."""
    run = metric_depth()
    return Run("metric_depth_clean", run.method, DepthBatches(clean=True), run.training, run.validation)
