"""The settings of a training run, and what a recipe returns: a ``Run``.

Everything here is a frozen dataclass, so that the command line can override any field (``overrides``) and the run folder
can record all of them. Recipes are functions that return a ``Run``; the loop (``loop.train``) knows nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import nn

from metriloc.training.batches import BatchSource
from metriloc.training.validation import Validator

Best = Literal["largest", "smallest"]


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimiser."""

    name: Literal["adam", "adamw", "sgd"] = "adam"
    """``adam``, ``adamw`` or ``sgd``."""
    lr: float = 1e-4
    """Peak learning rate, per step."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Of Adam: how slowly the means of gradients and squares move."""
    eps: float = 1e-8
    """Of Adam: beside the root of the mean square."""
    momentum: float = 0.9
    """Of sgd only."""
    weight_decay: float = 0.0
    """Applied to matrices and kernels, not to vectors."""
    lr_scaling: tuple[tuple[str, float], ...] = ()
    """(part of a parameter's name, factor); the first that fits counts."""
    train_only: str = ""
    """A regular expression searched in parameter names; what it does not find is frozen ("" trains
    everything)."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"optimizer.lr must be positive, got {self.lr}")
        if self.weight_decay < 0:
            raise ValueError(f"optimizer.weight_decay must not be negative, got {self.weight_decay}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas must lie in [0, 1), got {self.betas}")
        try:
            re.compile(self.train_only)
        except re.error as error:
            raise ValueError(
                f"optimizer.train_only {self.train_only!r} is not a regular expression: {error}"
            ) from error


@dataclass(frozen=True)
class Schedule:
    """The learning rate over the steps, as a factor on ``lr``.

    It is a pure function of the step (``schedule.lr_factor``). warmup_steps: linear rise from 0,
    over before the decay begins. decay: ``cosine`` and ``linear`` fall to ``final`` at the last
    step; ``exponential`` divides by ten every ``tenfold_steps``; ``steps`` multiplies by
    ``step_factor`` every ``step_every``. decay_start: step at which the decay begins.
    """

    warmup_steps: int = 0
    decay: Literal["constant", "cosine", "linear", "exponential", "steps"] = "constant"
    decay_start: int = 0
    final: float = 0.0
    tenfold_steps: float = 100_000.0
    step_every: int = 10_000
    step_factor: float = 0.5

    def __post_init__(self) -> None:
        if self.warmup_steps < 0 or self.decay_start < 0:
            raise ValueError(
                f"schedule.warmup_steps and decay_start must not be negative, got {self.warmup_steps}, {self.decay_start}"
            )
        if not (0 <= self.final <= 1 and self.tenfold_steps > 0):
            raise ValueError(
                f"schedule.final must lie in 0..1 and tenfold_steps be positive, got {self.final}, {self.tenfold_steps}"
            )
        if self.step_every < 1 or not 0 < self.step_factor <= 1:
            raise ValueError(
                f"schedule.step_every must be at least 1 and step_factor lie in 0..1, "
                f"got {self.step_every}, {self.step_factor}"
            )


CONSTANT = Schedule()
"""No schedule, as MicKey was trained."""
WARM_UP = Schedule(warmup_steps=500)
"""A rise over 500 steps, then constant: for fine-tuning with fresh optimiser statistics."""
WARM_UP_COSINE = Schedule(warmup_steps=500, decay="cosine", final=0.01)
"""A rise over 500 steps, then half a cosine down to a hundredth: for training from scratch."""
WARM_UP_EXPONENTIAL = Schedule(warmup_steps=500, decay="exponential")
"""A rise over 500 steps, then a tenth every 100 000 steps."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train."""

    steps: int
    """Optimiser steps in all (a skipped step counts)."""
    epoch_steps: int = 1000
    """After so many comes a validation, a picture page and a checkpoint."""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """The optimiser."""
    schedule: Schedule = CONSTANT
    """Of the learning rate."""
    accumulation: int = 1
    """Parts each process cuts its share of a batch into."""
    clip_norm: float | None = 5.0
    """Largest global norm of the gradient, None for no clipping."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """``auto`` is bfloat16 autocast on a GPU that has it, float32 elsewhere."""
    seed: int = 0
    """Of everything."""
    workers: int = 0
    """Processes that load batches ahead, 0 for none."""
    prefetch: int = 2
    """Batches each loads ahead."""
    log_every: int = 50
    """Steps between two lines of the log."""
    checkpoint_minutes: float = 10.0
    """Minutes between two checkpoints."""
    max_minutes: float | None = None
    """Save and stop after so long."""
    best_metric: str = ""
    """The validation metric that the kept ``best`` checkpoint has the best value of; "" keeps
    none."""
    best_is: Best = "largest"
    """Whether the best value is the smallest or the largest."""
    also_best: tuple[tuple[str, Best], ...] = ()
    """(metric, largest or smallest) of further checkpoints ``best_METRIC`` and weights
    ``weights_METRIC``."""
    max_bad_steps: int = 20
    """Steps in a row without a finite gradient after which training stops."""
    sync_batch_norm: bool = False
    """Of several processes, batch norms see the batches of all, not the share of one."""
    tensorboard: Literal["auto", "on", "off"] = "auto"
    """Write the log for TensorBoard, too."""
    device: str = "auto"
    """``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""

    def __post_init__(self) -> None:
        for name in ("steps", "epoch_steps", "accumulation", "prefetch", "log_every", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise ValueError(f"training.{name} must be at least 1, got {getattr(self, name)}")
        for name, _ in self.also_best:
            if not re.fullmatch(r"\w+", name) or name == self.best_metric:
                raise ValueError(f"training.also_best: {name!r} must be a metric other than best_metric")
        if self.workers < 0 or self.seed < 0:
            raise ValueError(f"training.workers and seed must not be negative, got {self.workers}, {self.seed}")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"training.clip_norm must be positive or none, got {self.clip_norm}")
        if not self.checkpoint_minutes > 0 or (self.max_minutes is not None and not self.max_minutes > 0):
            raise ValueError(
                f"training.checkpoint_minutes and max_minutes must be positive, "
                f"got {self.checkpoint_minutes}, {self.max_minutes}"
            )


@dataclass(frozen=True, eq=False)
class Run:
    """A complete recipe. It is what to train, on what, how, and how to tell whether it got better.

    method: makes the module, a ``Trainable`` and ``nn.Module``. batches: opens the training data below the folder given
    by ``--data`` (None when none was given). validation: the same for the validation, None for no validation. Each may be
    a plain function or a frozen dataclass with ``__call__``, whose fields the command line can then override.
    """

    name: str
    method: Callable[[], nn.Module]
    batches: Callable[[Path | None], BatchSource]
    training: TrainingConfig
    validation: Callable[[Path | None], Validator] | None = None
