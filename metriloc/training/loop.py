"""The one training loop of the library; every method is trained by it through the ``Trainable`` protocol.

Read ``Training.run`` first: validate when an epoch is over, save, step, log. Batches and chance are pure functions of
the step (``batches``, ``randomness``), so a checkpoint needs only weights, optimiser and a few counters (``checkpoint``).
Start one process with ``metriloc train``, several with ``torchrun --nproc-per-node N -m metriloc train ...``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch

from metriloc.io import prepare_output_folder
from metriloc.io.weights import RUN_WEIGHTS
from metriloc.training.checkpoint import Progress, save_checkpoint
from metriloc.training.config import Run, TrainingConfig
from metriloc.training.console import Reporter
from metriloc.training.gradients import StepReport, training_step
from metriloc.training.interruption import StopRequest
from metriloc.training.preparation import CHECKPOINTS, LAST, Prepared, checkpoint_to_resume, describe, prepare
from metriloc.training.processes import Processes, joined_processes
from metriloc.training.randomness import private_randomness
from metriloc.training.record import Record, git_commit, write_config
from metriloc.training.schedule import lr_factor, set_lr
from metriloc.training.validation import Validation, is_better, no_grad_evaluation
from metriloc.version import __version__

BEST, WEIGHTS = "best", RUN_WEIGHTS


class DivergedError(ValueError):
    """Too many steps in a row had no finite gradient; one sentence."""


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended. stopped_by: why before its last step (a signal's name, or the time limit), else empty."""

    progress: Progress
    stopped_by: str
    out: Path


def train(
    run: Run,
    out: Path,
    data: Path | None = None,
    *,
    resume: bool = False,
    init: Path | None = None,
    reporter: Callable[[int, int], AbstractContextManager[Reporter]] | None = None,
) -> TrainingResult:
    """Train a recipe and write the run folder ``out``.

    It is the same call in every process of a torchrun.

    - run, out: the recipe, and the folder.
    - data: folder handed to the recipe.
    - resume: go on from the last checkpoint of ``out`` (start, if there is none).
    - init: a checkpoint or safetensors file to take the first weights from.
    - reporter: makes a context, from (steps in all, steps done), that yields what is called after every step
      (``console.on_the_terminal``).

    Raises InputError when ``out`` holds a run and ``resume`` is not given, when it holds another run, and for damaged or
    unfitting files; DivergedError after ``max_bad_steps`` steps in a row without a finite gradient.
    """
    with ExitStack() as stack:
        processes = stack.enter_context(joined_processes(run.training.device))
        stack.enter_context(private_randomness(processes.device))
        checkpoint = checkpoint_to_resume(run, out, resume)
        prepared = prepare(run, data, processes, checkpoint, init)
        stack.callback(prepared.batches.close)
        step = prepared.progress.step
        if processes.is_first and checkpoint is None:
            prepare_output_folder(out)
            write_config(out, describe(run, data, init, processes))
        processes.wait()  # until all have looked at the folder
        record = stack.enter_context(
            Record(out if processes.is_first else None, run.name, step, run.training.tensorboard)
        )
        stop = stack.enter_context(StopRequest())
        show = reporter(run.training.steps, step) if reporter and processes.is_first else nullcontext(_no_report)
        report = stack.enter_context(show)
        _announce(prepared, record, data, resume)
        stopped_by = Training(prepared, record, stop, out / CHECKPOINTS).run(report)
        return TrainingResult(prepared.progress, stopped_by, out)


class Training:
    """A run in progress: what it needs, where it writes, and how far it has come."""

    def __init__(self, prepared: Prepared, record: Record, stop: StopRequest, checkpoints: Path) -> None:
        self.config, self.processes, self.progress = prepared.config, prepared.processes, prepared.progress
        self.prepared, self.record, self.stop, self.checkpoints = prepared, record, stop, checkpoints
        self.window = Window()
        self.started = self.saved = time.monotonic()
        self.seconds_before = prepared.progress.seconds

    def run(self, report: Reporter) -> str:
        """To the last step, or until asked to stop; returns by what. The last state is saved."""
        stopped_by = ""
        while True:
            if self._validation_is_due() and not stopped_by:
                self._validate()
                self._save(LAST)
            if stopped_by or self.progress.step >= self.config.steps:
                break
            result = self._step()
            report(self.progress.step, self.window.words())
            if self.progress.step % self.config.log_every == 0 or self.progress.step == self.config.steps:
                self._log()
            if result.stop_votes:
                stopped_by = max(self.processes.gather(self.stop.signal_name)) or "the time limit"
            if time.monotonic() - self.saved > 60 * self.config.checkpoint_minutes:
                self._save(LAST)
        self._save(LAST)
        _conclude(self.record, self.progress, self.config, stopped_by)
        self.processes.wait()
        return stopped_by

    def _step(self) -> StepReport:
        """One step, taken or skipped, and the counting. Raises DivergedError after too many skipped ones."""
        prepared, progress = self.prepared, self.progress
        lr = set_lr(prepared.optimizer, lr_factor(progress.step, self.config.steps, self.config.schedule))
        result = training_step(
            prepared.method, prepared.optimizer, prepared.batches, progress.step, prepared.setting, self._wants_to_stop
        )
        progress.step += 1
        progress.seconds = self.seconds_before + time.monotonic() - self.started
        progress.skipped += not result.applied
        progress.skipped_in_a_row = 0 if result.applied else progress.skipped_in_a_row + 1
        self.window.add(result, lr)
        if not result.applied:
            self.record.say(f"step {progress.step} is skipped: {result.why_not}", logging.WARNING)
        if progress.skipped_in_a_row >= self.config.max_bad_steps:
            self._save(LAST)
            raise DivergedError(
                f"training stopped at step {progress.step}: {progress.skipped_in_a_row} steps in a row were skipped, "
                f"the last because {result.why_not}; try a lower training.optimizer.lr, or look at these batches"
            )
        return result

    def _wants_to_stop(self) -> bool:
        limit = self.config.max_minutes
        return bool(self.stop.signal_name) or (limit is not None and time.monotonic() - self.started > 60 * limit)

    def _validation_is_due(self) -> bool:
        step = self.progress.step
        return step > self.progress.validated and (step % self.config.epoch_steps == 0 or step >= self.config.steps)

    def _validate(self) -> None:
        """On the first process; the others wait, so that every number is that of the whole validation set."""
        step, prepared = self.progress.step, self.prepared
        if prepared.validate is not None:
            with no_grad_evaluation(prepared.method):
                result = prepared.validate(prepared.method)
            self.record.validation(step, result)
            self.record.say(f"step {step}: validation {_words(result.metrics)}")
            best = self._best_of(result)
            self.progress.validated = step
            for name in best:
                self._save(name)
        self.progress.validated = step
        self.processes.wait()

    def _best_of(self, result: Validation) -> list[str]:
        """Names of the checkpoints that this validation is the best of so far; their values are noted."""
        progress, config = self.progress, self.config
        found = []
        if config.best_metric:
            value = self._value(result, config.best_metric, "best_metric")
            if is_better(value, progress.best, config.best_is):
                progress.best, progress.best_step = value, progress.step
                found.append(BEST)
        for name, best_is in config.also_best:
            value, key = self._value(result, name, "also_best"), f"{best_is} {name}"
            if is_better(value, progress.also_best.get(key), best_is):
                progress.also_best = {**progress.also_best, key: value}
                found.append(f"{BEST}_{name}")
        return found

    def _value(self, result: Validation, name: str, field: str) -> float:
        if name not in result.metrics:
            self._save(LAST)  # not validated: a resumed run, told the right name, begins with this validation
            raise ValueError(f"training.{field} {name!r} is none of the validation's {', '.join(result.metrics)}")
        return float(result.metrics[name])

    def _save(self, name: str) -> None:
        if self.processes.is_first:
            method = self.prepared.method
            save_checkpoint(self.checkpoints / name, method, self.prepared.optimizer, self.progress)
            is_best = name.startswith(BEST)
            if (is_best or not self.config.best_metric) and hasattr(method, "save_pretrained"):
                # "weights" are the best's, "weights_METRIC" those of a further metric's
                folder = WEIGHTS + name.removeprefix(BEST) if is_best else WEIGHTS
                method.save_pretrained(self.checkpoints.with_name(folder))  # type: ignore[operator]
        self.saved = time.monotonic()

    def _log(self) -> None:
        values = {**self.window.means(self.processes), "skipped": float(self.progress.skipped)}
        if self.processes.device.type == "cuda":
            values["gpu_gib"] = torch.cuda.max_memory_allocated() / 2**30
        step = self.progress.step
        self.record.numbers("train", step, values)
        left = (self.config.steps - step) * values["step_seconds"]
        self.record.say(f"step {step}/{self.config.steps}: {_words(values)}, {_duration(left)} left")
        self.window.clear()


class Window:
    """Means over the steps since the last line of the log."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Begin anew."""
        self._own: dict[str, tuple[float, int]] = {}
        self._metrics: dict[str, tuple[float, int]] = {}
        self._lr, self._steps, self._since = 0.0, 0, time.monotonic()

    def add(self, result: StepReport, lr: float) -> None:
        """Take in one step; a skipped one counts for the time only."""
        self._lr, self._steps = lr, self._steps + 1
        if result.applied:
            _accumulate(self._own, {"loss": (result.loss, 1), "gradient_norm": (result.gradient_norm, 1)})
            _accumulate(self._metrics, result.metrics)

    def words(self) -> str:
        """A few words for the bar."""
        total, count = self._own.get("loss", (0.0, 0))
        return f"loss {total / count:.4g}" if count else ""

    def means(self, processes: Processes) -> dict[str, float]:
        """The means over steps, parts and processes; the loop's own names win over those of the method's metrics."""
        sums: dict[str, tuple[float, int]] = {}
        for metrics in processes.gather(self._metrics):
            _accumulate(sums, metrics)
        means = {key: total / count for key, (total, count) in {**self._own, **sums, **self._own}.items()}
        return {**means, "lr": self._lr, "step_seconds": (time.monotonic() - self._since) / max(1, self._steps)}


def _accumulate(sums: dict[str, tuple[float, int]], more: Mapping[str, tuple[float, int]]) -> None:
    for key, (value, count) in more.items():
        total, number = sums.get(key, (0.0, 0))
        sums[key] = (total + value, number + count)


def _announce(prepared: Prepared, record: Record, data: Path | None, resume: bool) -> None:
    trained = sum(p.numel() for p in prepared.method.parameters() if p.requires_grad)
    all_ = sum(p.numel() for p in prepared.method.parameters())
    start = f"resumed at step {prepared.progress.step}" if prepared.progress.step else "started"
    if resume and not prepared.progress.step:
        start += " (there is no checkpoint to resume)"
    processes, precision = prepared.processes, "bfloat16 autocast" if prepared.setting.autocast else "float32"
    commit, changed = git_commit()
    record.say(
        f"{start}: {prepared.config.steps} steps of {prepared.setting.share.parts} part(s) on {processes.world_size} "
        f"process(es), {processes.device}, {precision}; {trained} of {all_} parameters are trained; data: {data}; "
        f"metriloc {__version__} {commit or ''}{' with changes' if changed else ''}".rstrip()
    )


def _conclude(record: Record, progress: Progress, config: TrainingConfig, stopped_by: str) -> None:
    end = f"stopped by {stopped_by} after step {progress.step}; go on with --resume" if stopped_by else "finished"
    best = f", best {config.best_metric} {progress.best:.5g} at step {progress.best_step}" if progress.best_step else ""
    record.say(f"{end}: {progress.skipped} steps skipped, {_duration(progress.seconds)} in all{best}")


def _no_report(_step: int, _words: str) -> None:
    return None


def _words(values: Mapping[str, float]) -> str:
    return ", ".join(f"{key} {value:.4g}" for key, value in values.items())


def _duration(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
