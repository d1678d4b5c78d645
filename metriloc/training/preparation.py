"""From a recipe to a run that can start, or go on: method, optimiser, batches, and the checkpoint to resume.

A run is resumed only with the recipe it was started with, up to the fields that change no number of the steps to come.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from metriloc.io import InputError
from metriloc.io.weights import RUN_CHECKPOINTS
from metriloc.overrides import flat, plain
from metriloc.training.batches import Share, prefetched
from metriloc.training.checkpoint import (
    Checkpoint,
    Progress,
    find_checkpoint,
    load_checkpoint,
    load_initial_weights,
    load_state,
)
from metriloc.training.config import Run, TrainingConfig
from metriloc.training.gradients import StepSetting
from metriloc.training.processes import Processes
from metriloc.training.randomness import seed_globally
from metriloc.training.record import read_config, software
from metriloc.training.schedule import freeze_all_but, make_optimizer
from metriloc.training.shared_norms import share_batch_norms
from metriloc.training.validation import Validator

CHECKPOINTS = RUN_CHECKPOINTS
LAST = "last"

# fields that a resumed run may have otherwise: they change no number of the steps to come, or are how a run is prolonged
_FREE = {
    f"training.{name}"
    for name in (
        *("steps", "workers", "prefetch", "log_every", "checkpoint_minutes", "max_minutes", "max_bad_steps"),
        *("epoch_steps", "best_metric", "best_is", "also_best", "tensorboard", "device"),
    )
}


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run ready to go. method: on its device, in training mode; validate: on the first process only."""

    config: TrainingConfig
    method: nn.Module
    optimizer: torch.optim.Optimizer
    batches: Generator[Any, None, None]
    validate: Validator | None
    setting: StepSetting
    progress: Progress

    @property
    def processes(self) -> Processes:
        """This process among all."""
        return self.setting.processes


def prepare(
    run: Run, data: Path | None, processes: Processes, checkpoint: Checkpoint | None, init: Path | None
) -> Prepared:
    """Build method, optimiser and batches, and put a checkpoint (or first weights) into them; the same on all processes.

    Raises ValueError for a method that is none, InputError for weights that do not fit.
    """
    config = run.training
    seed_globally(config.seed)
    method = run.method()
    if not isinstance(method, nn.Module) or not hasattr(method, "training_step"):
        raise ValueError(f"the method of recipe {run.name!r} must be an nn.Module with training_step")
    freeze_all_but(method, config.optimizer)
    if config.sync_batch_norm and processes.world_size > 1:
        share_batch_norms(method)
    if checkpoint is not None:
        load_state(method, checkpoint.tensors, checkpoint.extra, f"'{checkpoint.path}'")
    elif init is not None:
        load_initial_weights(method, init)
    method.to(processes.device).train()
    processes.spread([*method.parameters(), *method.buffers()])
    optimizer = make_optimizer(method, config.optimizer)
    if checkpoint is not None:
        _load_optimizer(optimizer, checkpoint)
    progress = checkpoint.progress if checkpoint is not None else Progress()
    best_of = f"{config.best_is} {config.best_metric}"
    if progress.best_of != best_of:
        progress.best, progress.best_step, progress.best_of = None, 0, best_of
    share = Share(processes.rank, processes.world_size, config.accumulation)
    steps = range(progress.step, max(progress.step, config.steps))
    batches = prefetched(run.batches(data), share, steps, config.workers, config.prefetch)
    validate = run.validation(data) if run.validation is not None and processes.is_first else None
    setting = StepSetting(
        config.seed, share, config.clip_norm, _autocast(config.precision, processes.device), processes
    )
    return Prepared(config, method, optimizer, batches, validate, setting, progress)


def _autocast(precision: str, device: torch.device) -> bool:
    if precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return precision == "bfloat16"


def _load_optimizer(optimizer: torch.optim.Optimizer, checkpoint: Checkpoint) -> None:
    try:
        optimizer.load_state_dict(checkpoint.optimizer)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"the optimiser of '{checkpoint.path}' does not fit this recipe: {error}") from error


def checkpoint_to_resume(run: Run, out: Path, resume: bool) -> Checkpoint | None:
    """None for a run that starts. Raises InputError when ``out`` holds a run and is not resumed, or holds another."""
    found = find_checkpoint(out / CHECKPOINTS / LAST)
    if not resume:
        if found is not None:
            raise InputError(f"'{out}' holds a run already: go on with --resume, or choose another folder")
        return None
    if found is None:
        return None
    before, now = flat(read_config(out)["recipe"]), flat(json.loads(json.dumps(plain(run))))
    for field in sorted(before.keys() & now.keys()):  # a field that only one knows is new, or gone, in metriloc
        if before[field] != now[field] and field not in _FREE:
            raise InputError(
                f"'{out}' was trained with {field}={before[field]}, not {now[field]}: "
                f"resume with the same recipe, or start a new folder with --init '{found}'"
            )
    return load_checkpoint(found)


def describe(run: Run, data: Path | None, init: Path | None, processes: Processes) -> dict[str, Any]:
    """What config.json says of a run."""
    return {
        "recipe": plain(run),
        "data": None if data is None else str(data),
        "init": None if init is None else str(init),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "processes": processes.world_size,
        "device": str(processes.device),
        "software": software(),
    }
