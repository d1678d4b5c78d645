"""MicKey's published trainings, from relative poses alone: without and with overlap scores, and their warm-ups.

``--data DIR`` is the Map-free data set: ``DIR/train`` and ``DIR/val`` (the folders of the scenes; in ``train`` any posed
photos will do). The backbone starts from DINOv2, ``--set method.backbone_weights=FILE``, and is not trained.

Two versions of every value are published. ``mickey_curriculum`` and ``mickey_overlap`` have the numbers that the paper
prints (Sec. 4, Appendix B), ``curriculum_learning`` and ``overlap_score`` those of the released files of these names; the
formulas are the released code's in all of them (``metriloc.methods.mickey``). The warm-ups are of the released code alone.

Four GPUs: ``torchrun --nproc-per-node 4 -m metriloc train ...``. Batch norms and the selection of the easiest pairs see the
share of one GPU, as published; ``--set training.accumulation=4`` cuts the batch alike on a single one.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from torch import nn

from metriloc.backbones import DINOV2, DinoV2Config, dinov2_config_from_weights, dinov2_weights
from metriloc.io import InputError
from metriloc.io.weights import load_state_dict_strictly, read_checkpoint
from metriloc.lessons.mapfree import (
    EPOCHS,
    GPUS,
    PER_SCENE,
    SCENES,
    SOLVABLE_OVERLAP,
    WARM_UP_SIZE,
    MapfreeBatches,
    MapfreeValidation,
)
from metriloc.methods.mickey import (
    Curriculum,
    MicKeyConfig,
    MicKeyNetwork,
    MicKeyTraining,
    ObjectiveConfig,
    SolverConfig,
)
from metriloc.methods.mickey.finding import PoseFinding
from metriloc.methods.mickey.loss import PoseLossConfig, soft_clipped
from metriloc.training import OptimizerConfig, Run, TrainingConfig

ALL_PAIRS = Curriculum(100, 100, 0, 1)

Backbone = Literal[
    "dinov2_vits14",
    "dinov2_vitb14",
    "dinov2_vitl14",
    "dinov2_vits14_reg",
    "dinov2_vitb14_reg",
    "dinov2_vitl14_reg",
    "network",
]

PAPER_OBJECTIVE = ObjectiveConfig(
    solver=SolverConfig(num_hypotheses=20, set_size=512, minimal_size=5, soft_inlier_threshold=0.15),
    loss=PoseLossConfig(max_loss=soft_clipped(120.0)),
    null_score=0.3,
)
RELEASED_OBJECTIVE = ObjectiveConfig()
WARM_UP_OBJECTIVE = replace(
    RELEASED_OBJECTIVE, solver=replace(RELEASED_OBJECTIVE.solver, set_size=64), null_hypothesis=False
)


@dataclass(frozen=True)
class PublishedMicKey:
    """Makes the network and its objective. Only the heads and the dustbin are trained.

    backbone: of DINOv2, S, B or L, with registers (``_reg``) or without; ``network`` for the one of ``network.backbone``.
    backbone_weights: its file (DINOv2's own or transformers'), or ``random``. network: all else of its shape. solver: of
    the model that is written and validated.
    """

    backbone: Backbone = "dinov2_vitl14"
    backbone_weights: str = ""
    network: MicKeyConfig = field(default_factory=MicKeyConfig)
    objective: ObjectiveConfig = PAPER_OBJECTIVE
    curriculum: Curriculum = ALL_PAIRS
    solver: SolverConfig = SolverConfig()  # noqa: RUF009 - frozen

    def __call__(self) -> nn.Module:
        if not self.backbone_weights:
            raise InputError(
                "give the backbone's weights as --set method.backbone_weights=FILE (dinov2_vitl14_pretrain.pth, or "
                "transformers' copy), or random"
            )
        shape = self.network.backbone if self.backbone == "network" else DINOV2[self.backbone]
        network = MicKeyNetwork(replace(self.network, backbone=shape))
        if self.backbone_weights != "random":
            file = Path(self.backbone_weights)
            tensors = dinov2_weights(read_checkpoint(file))
            found = dinov2_config_from_weights(tensors, shape.num_heads if isinstance(shape, DinoV2Config) else None)
            if found != shape:
                raise InputError(f"'{file}' holds another backbone than method.backbone={self.backbone}: {found}")
            load_state_dict_strictly(network.backbone, tensors, f"'{file}'")
            network.backbone.requires_grad_(self.network.train_backbone)
        return MicKeyTraining(network, self.objective, self.curriculum, finding=PoseFinding(self.solver))


def half_epoch(batch_size: int) -> int:
    """Steps between two validations. There are two an epoch of 460 scenes with 100 pairs each."""
    return SCENES * PER_SCENE // batch_size // 2


def _run(
    name: str,
    batches: MapfreeBatches,
    objective: ObjectiveConfig,
    curriculum: Curriculum = ALL_PAIRS,
) -> Run:
    config = TrainingConfig(
        steps=EPOCHS * (SCENES * PER_SCENE // batches.batch_size),
        epoch_steps=half_epoch(batches.batch_size),
        optimizer=OptimizerConfig(name="adam", lr=1e-4, eps=1e-6),
        clip_norm=5.0,
        precision="float32",
        workers=8,
        log_every=50,
        best_metric="vcre_auc",
        also_best=(("pose_auc", "largest"), ("loss", "smallest")),
    )
    method = PublishedMicKey(objective=objective, curriculum=curriculum)
    return Run(name, method, batches, config, MapfreeValidation(size=batches.size))


_WARM_UP_BATCHES = MapfreeBatches(batch_size=24 * GPUS, size=WARM_UP_SIZE)
_RELEASED_BATCHES = MapfreeBatches(batch_size=8 * GPUS)


def mickey_curriculum() -> Run:
    """MicKey as in the paper: poses alone.

    The easiest 30 % of 48 pairs at first, 80 % after 20,000 steps.
    """
    return _run("mickey_curriculum", MapfreeBatches(), PAPER_OBJECTIVE, Curriculum(growth=10, every=4000))


def mickey_overlap() -> Run:
    """MicKey w/ Overlap as in the paper. It takes all 48 pairs, which share 40 to 80 %."""
    return _run("mickey_overlap", MapfreeBatches(overlap=SOLVABLE_OVERLAP, uniform=None), PAPER_OBJECTIVE)


def mickey_curriculum_warm_up() -> Run:
    """The released first run of curriculum_learning.

    It has small photos and sets; go on from it with --init.
    """
    every = Curriculum(every=SCENES * PER_SCENE // _WARM_UP_BATCHES.batch_size)
    return _run("mickey_curriculum_warm_up", _WARM_UP_BATCHES, WARM_UP_OBJECTIVE, every)


def mickey_overlap_warm_up() -> Run:
    """The released first run of overlap_score.

    It has small photos and sets; go on from it with --init.
    """
    batches = replace(_WARM_UP_BATCHES, overlap=SOLVABLE_OVERLAP, uniform=None)
    return _run("mickey_overlap_warm_up", batches, WARM_UP_OBJECTIVE)


def curriculum_learning() -> Run:
    """MicKey as released (curriculum_learning.yaml).

    It takes 32 pairs, 30 % to 80 % by 5 % an epoch.
    """
    return _run("curriculum_learning", _RELEASED_BATCHES, RELEASED_OBJECTIVE, Curriculum())


def overlap_score() -> Run:
    """MicKey as released with overlap scores (overlap_score.yaml).

    It takes all 32 pairs, which share 40 to 80 %.
    """
    return _run("overlap_score", replace(_RELEASED_BATCHES, overlap=SOLVABLE_OVERLAP, uniform=None), RELEASED_OBJECTIVE)
