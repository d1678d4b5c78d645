"""The loop: resuming bit for bit, signals, bad steps, validation, the best checkpoint, and what the run folder holds."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from metriloc.io import InputError
from metriloc.training import (
    DivergedError,
    Picture,
    Run,
    Schedule,
    ShuffledBatches,
    TrainingConfig,
    Validation,
    override,
    train,
)
from metriloc.training.checkpoint import load_checkpoint
from metriloc.types import StepOutput


class Network(nn.Module):
    """Everything that a resumed run could get wrong: batch norm, dropout, draws from four generators, a curriculum."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 1))
        self.frozen = nn.Linear(2, 2)
        self.frozen.requires_grad_(False).eval()
        self.register_buffer("best_loss", torch.tensor(9.0))
        self.curriculum = {"top": 30}
        self.at_step: Any = lambda step: None

    def train(self, mode: bool = True) -> Network:
        super().train(mode)
        self.frozen.eval()
        return self

    def get_extra_state(self) -> dict[str, int]:
        return self.curriculum

    def set_extra_state(self, state: dict[str, int]) -> None:
        self.curriculum = state

    def training_step(self, batch: Tensor, step: int, generator: torch.Generator) -> StepOutput:
        self.at_step(step)
        noise = torch.randn(batch.shape, generator=generator) + random.random() + np.random.rand()  # noqa: NPY002
        loss = (self.layers(batch + 0.1 * noise) - batch[:, :1]).square().mean() * self.curriculum["top"] / 30
        self.curriculum = {"top": min(80, self.curriculum["top"] + 5)}
        self.best_loss = torch.minimum(self.best_loss, loss.detach())
        return StepOutput(loss, {"top": float(self.curriculum["top"]), "lr": -1.0})


@dataclass(frozen=True)
class Method:
    """at_step: called in every step with its number, for mischief."""

    at_step: Any = None

    def __call__(self) -> nn.Module:
        network = Network()
        if self.at_step is not None:
            network.at_step = self.at_step
        return network


@dataclass(frozen=True)
class Batches:
    spoilt: tuple[int, ...] = ()

    def __call__(self, data: Path | None) -> Any:
        source = ShuffledBatches(lambda i, g: torch.randn(2, generator=g) + i, 30, 6, torch.stack)
        return Spoiling(source, self.spoilt) if self.spoilt else source


@dataclass(frozen=True)
class Spoiling:
    source: ShuffledBatches
    steps: tuple[int, ...]

    def batch(self, step: int, part: int, parts: int) -> Tensor:
        return self.source.batch(step, part, parts) * (float("nan") if step in self.steps else 1)


def recipe(**fields: Any) -> Run:
    settings = {
        "steps": 12,
        "epoch_steps": 5,
        "log_every": 3,
        "tensorboard": "off",
        "device": "cpu",
        "max_bad_steps": 3,
    }
    config = TrainingConfig(**{**settings, "schedule": Schedule(2, "cosine"), **fields})  # type: ignore[arg-type]
    return Run("test", Method(), Batches(), config)


def weights(out: Path, name: str = "last") -> tuple[dict[str, Tensor], dict[str, Any], dict[str, Any]]:
    checkpoint = load_checkpoint(out / "checkpoints" / name)
    return checkpoint.tensors, checkpoint.optimizer, checkpoint.extra


def assert_same_state(a: Path, b: Path) -> None:
    """Bit for bit: weights, buffers, optimiser, extra state."""
    (tensors, optimizer, extra), (tensors2, optimizer2, extra2) = weights(a), weights(b)
    assert tensors.keys() == tensors2.keys() and extra == extra2
    assert all(torch.equal(tensors[key], tensors2[key]) for key in tensors)
    assert optimizer["param_groups"] == optimizer2["param_groups"]
    for key, entries in optimizer["state"].items():
        assert all(
            torch.equal(torch.as_tensor(v), torch.as_tensor(optimizer2["state"][key][k])) for k, v in entries.items()
        )


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def numbers(out: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if k != "step_seconds"} for line in lines(out)]


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_run_interrupted_twice_ends_as_the_uninterrupted_one(tmp_path: Path, workers: int, accumulation: int) -> None:
    whole = recipe(accumulation=accumulation, log_every=1)
    train(whole, tmp_path / "whole")
    for until in (4, 9, 99):
        stopping = replace(whole, method=Method(lambda step, until=until: stop_here(step, until)))
        result = train(override(stopping, [f"training.workers={workers}"]), tmp_path / "parts", resume=True)
        assert (result.progress.step, result.stopped_by) == ((until, "SIGINT") if until < 12 else (12, ""))
        random.seed(until)  # as in another process
        np.random.seed(until)  # noqa: NPY002
        torch.manual_seed(until)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    assert numbers(tmp_path / "whole") == numbers(tmp_path / "parts")


def stop_here(step: int, until: int) -> None:
    if step == until - 1:
        os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_saves_and_is_given_back(tmp_path: Path, number: signal.Signals) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run = replace(recipe(), method=Method(lambda step: os.kill(os.getpid(), number) if step == 5 else None))
    result = train(run, tmp_path)
    assert (result.progress.step, result.stopped_by) == (6, number.name)
    assert load_checkpoint(tmp_path / "checkpoints" / "last").progress.step == 6
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    assert f"stopped by {number.name} after step 6; go on with --resume" in (tmp_path / "log.txt").read_text()


def test_a_signal_to_the_workers_too_costs_no_step(tmp_path: Path) -> None:
    def to_all(step: int) -> None:
        if step == 5:
            for process in [*multiprocessing.active_children()]:
                os.kill(process.pid or 0, signal.SIGTERM)
        if step == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    result = train(replace(recipe(workers=2, prefetch=1), method=Method(to_all)), tmp_path)
    assert (result.progress.step, result.stopped_by) == (10, "SIGTERM")
    assert multiprocessing.active_children() == []


def test_a_second_ctrl_c_interrupts_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("metriloc.training.interruption._SAME_REQUEST_S", -1.0)

    def twice(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(replace(recipe(), method=Method(twice)), tmp_path)
    assert "KeyboardInterrupt" in (tmp_path / "log.txt").read_text()


def test_the_same_ctrl_c_twice_is_one(tmp_path: Path) -> None:
    def twice(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    assert train(replace(recipe(), method=Method(twice)), tmp_path).progress.step == 1


def test_outside_the_main_thread_it_trains_without_signals(tmp_path: Path) -> None:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(train(recipe(), tmp_path)))
    thread.start()
    thread.join()
    assert results[0].progress.step == 12


def test_the_time_limit_saves_and_stops(tmp_path: Path) -> None:
    result = train(recipe(max_minutes=1e-9), tmp_path)
    assert (result.progress.step, result.stopped_by) == (1, "the time limit")
    assert train(recipe(), tmp_path, resume=True).progress.step == 12


def test_the_global_generators_stand_where_they_stood(tmp_path: Path) -> None:
    random.seed(123)
    np.random.seed(123)  # noqa: NPY002
    torch.manual_seed(123)
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # noqa: NPY002
    train(recipe(), tmp_path)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.random.get_state()[1].tolist() == before[1] and random.getstate() == before[2]  # noqa: NPY002


def test_bad_steps_are_skipped_and_counted(tmp_path: Path) -> None:
    run = replace(recipe(), batches=Batches(spoilt=(1, 2, 7)))
    result = train(run, tmp_path)
    assert (result.progress.step, result.progress.skipped, result.progress.skipped_in_a_row) == (12, 3, 0)
    assert all(bool(torch.isfinite(t).all()) for t in weights(tmp_path)[0].values())
    assert [line["skipped"] for line in lines(tmp_path)] == [2, 2, 3, 3]
    assert "step 8 is skipped: its loss was nan" in (tmp_path / "log.txt").read_text()


def test_too_many_bad_steps_in_a_row_end_the_run_in_one_sentence(tmp_path: Path) -> None:
    run = replace(recipe(), batches=Batches(spoilt=(4, 5, 6, 7)))
    with pytest.raises(DivergedError, match="training stopped at step 7: 3 steps in a row were skipped") as error:
        train(run, tmp_path)
    assert "\n" not in str(error.value)
    saved = load_checkpoint(tmp_path / "checkpoints" / "last")
    assert saved.progress.step == 7
    assert all(bool(torch.isfinite(t).all()) for t in saved.tensors.values())


@dataclass(frozen=True)
class Scripted:
    """A validation that says these values in turn, and looks at what it is given."""

    values: tuple[float, ...]

    def __call__(self, data: Path | None) -> Any:
        values = iter(self.values)

        def validate(method: nn.Module) -> Validation:
            assert not torch.is_grad_enabled() and not any(m.training for m in method.modules())
            torch.rand(3)  # chance here must not move the training
            picture = Picture("a <b>", np.full((4, 6, 3), 200, np.uint8), "note & more")
            return Validation({"auc": next(values), "other": 1.0}, (picture,))

        return validate


def test_validation_leaves_modes_and_chance_alone_and_pages_are_written(tmp_path: Path) -> None:
    run = replace(recipe(), validation=Scripted((0.1, 0.2, 0.3)))
    train(run, tmp_path / "with")
    train(recipe(), tmp_path / "without")
    assert_same_state(tmp_path / "with", tmp_path / "without")
    pages = sorted((tmp_path / "with" / "validation").iterdir())
    assert [page.name for page in pages] == [f"step_{step:08d}.html" for step in (5, 10, 12)]
    text = pages[-1].read_text()
    assert "a &lt;b&gt;" in text and "note &amp; more" in text and "data:image/png;base64," in text
    assert "http" not in text.replace("http-equiv", "") and "<script" not in text
    assert text.count("<polyline") == 2


@pytest.mark.parametrize("best_is, expected", [("largest", (0.7, 10)), ("smallest", (0.2, 5))])
def test_the_best_checkpoint_is_kept(tmp_path: Path, best_is: str, expected: tuple[float, int]) -> None:
    run = replace(recipe(best_metric="auc", best_is=best_is), validation=Scripted((0.2, 0.7, float("nan"))))
    result = train(run, tmp_path)
    assert (result.progress.best, result.progress.best_step) == expected
    assert load_checkpoint(tmp_path / "checkpoints" / "best").progress.step == expected[1]
    assert [line["auc"] for line in lines(tmp_path) if line["kind"] == "validation"] == [0.2, 0.7, None]


def test_the_best_so_far_survives_resuming(tmp_path: Path) -> None:
    train(replace(recipe(best_metric="auc", steps=5), validation=Scripted((0.7,))), tmp_path)
    result = train(replace(recipe(best_metric="auc", steps=10), validation=Scripted((0.7,))), tmp_path, resume=True)
    assert (result.progress.best, result.progress.best_step) == (0.7, 5)
    other = replace(recipe(best_metric="other", steps=15), validation=Scripted((0.7,)))
    assert train(other, tmp_path, resume=True).progress.best == 1.0


def test_an_unknown_best_metric_is_named_and_can_be_mended(tmp_path: Path) -> None:
    run = replace(recipe(best_metric="auk"), validation=Scripted((0.1, 0.2, 0.3)))
    with pytest.raises(ValueError, match="best_metric 'auk' is none of the validation's auc, other"):
        train(run, tmp_path)
    result = train(override(run, ["training.best_metric=auc"]), tmp_path, resume=True)
    assert (result.progress.step, result.progress.best, result.progress.best_step) == (12, 0.3, 12)


def test_a_run_is_neither_overwritten_nor_mixed_up(tmp_path: Path) -> None:
    train(recipe(), tmp_path)
    with pytest.raises(InputError, match="holds a run already: go on with --resume"):
        train(recipe(), tmp_path)
    with pytest.raises(InputError, match=r"was trained with training.seed=0, not 1: resume with the same recipe"):
        train(recipe(seed=1), tmp_path, resume=True)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match=r"config.json' is not JSON"):
        train(recipe(), tmp_path, resume=True)


def test_a_damaged_checkpoint_stops_the_resumption(tmp_path: Path) -> None:
    train(recipe(), tmp_path)
    path = tmp_path / "checkpoints" / "last" / "trainer.pt"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"trainer.pt' is damaged"):
        train(recipe(steps=20), tmp_path, resume=True)


def test_a_finished_run_can_be_prolonged(tmp_path: Path) -> None:
    train(recipe(schedule=Schedule(), steps=12), tmp_path / "a")
    train(recipe(schedule=Schedule(), steps=5), tmp_path / "b")
    train(recipe(schedule=Schedule(), steps=12), tmp_path / "b", resume=True)
    assert_same_state(tmp_path / "a", tmp_path / "b")
    assert train(recipe(schedule=Schedule(), steps=12), tmp_path / "b", resume=True).progress.step == 12


def test_metrics_after_the_checkpoint_are_taken_back(tmp_path: Path) -> None:
    train(recipe(), tmp_path)
    before = (tmp_path / "metrics.jsonl").read_text()
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"kind": "train", "step": 15, "loss": 1}\nnot json\n{"kind": "tra')
    train(recipe(), tmp_path, resume=True)
    assert (tmp_path / "metrics.jsonl").read_text() == before


def test_the_folder_tells_what_was_run(tmp_path: Path) -> None:
    data = tmp_path / "data"
    train(recipe(), tmp_path / "run", data)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["recipe"]["training"]["schedule"]["decay"] == "cosine"
    assert config["data"] == str(data)
    assert {"metriloc", "git_commit", "torch", "python"} <= config["software"].keys()
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "started: 12 steps" in log and "49 of 55 parameters are trained" in log
    assert "step 12/12: loss" in log and "left" in log
    train_lines = [line for line in lines(tmp_path / "run") if line["kind"] == "train"]
    assert [line["step"] for line in train_lines] == [3, 6, 9, 12]
    assert all(line["lr"] >= 0 for line in train_lines)  # the loop's, not the method's of that name
    assert {"loss", "gradient_norm", "lr", "step_seconds", "skipped", "top"} <= train_lines[0].keys()


def test_what_ended_a_run_is_in_its_log(tmp_path: Path) -> None:
    def fail(step: int) -> None:
        if step == 2:
            raise ArithmeticError("the third step is wrong")

    handlers = list(logging.getLogger("metriloc.training").handlers)
    with pytest.raises(ArithmeticError):
        train(replace(recipe(), method=Method(fail)), tmp_path)
    assert "the third step is wrong" in (tmp_path / "log.txt").read_text()
    assert logging.getLogger("metriloc.training").handlers == handlers


def test_first_weights_come_from_another_run(tmp_path: Path) -> None:
    train(recipe(), tmp_path / "warm_up")
    train(recipe(steps=1, optimizer=small()), tmp_path / "fine", init=tmp_path / "warm_up" / "checkpoints" / "last")
    before, after = weights(tmp_path / "warm_up")[0], weights(tmp_path / "fine")[0]
    torch.testing.assert_close(after["layers.0.weight"], before["layers.0.weight"], rtol=0, atol=1e-9)
    assert weights(tmp_path / "fine")[2]["_extra_state"] == {"top": 80}
    assert str(tmp_path / "warm_up") in (tmp_path / "fine" / "config.json").read_text()


def small() -> Any:
    from metriloc.training import OptimizerConfig

    return OptimizerConfig(lr=1e-12)


class Exporting(Network):
    def save_pretrained(self, folder: Path) -> str:
        folder.mkdir(exist_ok=True)
        (folder / "weights").write_text(str(self.curriculum["top"]))
        return "id"


def test_a_method_that_can_export_leaves_weights_ready_to_use(tmp_path: Path) -> None:
    best = replace(recipe(best_metric="auc"), method=Exporting, validation=Scripted((0.9, 0.1, 0.1)))
    train(best, tmp_path / "best")
    assert (tmp_path / "best" / "weights" / "weights").read_text() == "55"  # 5 steps
    train(replace(recipe(), method=Exporting), tmp_path / "last")
    assert (tmp_path / "last" / "weights" / "weights").read_text() == "80"


@dataclass(frozen=True)
class TwoNumbers:
    """A validation with two metrics, whose best steps differ."""

    values: tuple[tuple[float, float], ...]

    def __call__(self, data: Path | None) -> Any:
        values = iter(self.values)

        def validate(method: nn.Module) -> Validation:
            auc, loss = next(values)
            return Validation({"auc": auc, "loss": loss})

        return validate


def test_the_best_of_every_metric_is_kept_also_over_a_resumption(tmp_path: Path) -> None:
    numbers = TwoNumbers(((0.1, 5.0), (0.9, 7.0), (0.2, 1.0)))
    run = replace(recipe(best_metric="auc", also_best=(("loss", "smallest"),)), method=Exporting, validation=numbers)
    train(override(run, ["training.steps=5"]), tmp_path)
    train(override(run, ["training.steps=10"]), tmp_path, resume=True)  # the numbers begin anew: as good, not better
    found = [load_checkpoint(tmp_path / "checkpoints" / name).progress.step for name in ("best", "best_loss")]
    assert found == [5, 5]
    assert load_checkpoint(tmp_path / "checkpoints" / "last").progress.also_best == {"smallest loss": 5.0}


def test_best_checkpoints_of_two_metrics_are_two(tmp_path: Path) -> None:
    numbers = TwoNumbers(((0.1, 5.0), (0.9, 7.0), (0.2, 1.0)))
    run = replace(recipe(best_metric="auc", also_best=(("loss", "smallest"),)), method=Exporting, validation=numbers)
    train(run, tmp_path)
    found = [load_checkpoint(tmp_path / "checkpoints" / name).progress.step for name in ("best", "best_loss")]
    assert found == [10, 12]
    assert [(tmp_path / name / "weights").read_text() for name in ("weights", "weights_loss")] == ["80", "80"]
    with pytest.raises(ValueError, match="also_best 'lost' is none of the validation's auc, loss"):
        train(replace(run, training=replace(run.training, also_best=(("lost", "largest"),))), tmp_path / "other")
    with pytest.raises(ValueError, match="'auc' must be a metric other than best_metric"):
        recipe(best_metric="auc", also_best=(("auc", "largest"),))


def test_a_method_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"recipe 'test' must be an nn.Module with training_step"):
        train(replace(recipe(), method=lambda: nn.Linear(1, 1)), tmp_path)


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(tmp_path: Path, device: str) -> None:
    with pytest.raises(ValueError, match=r"training\.device"):
        train(recipe(device=device), tmp_path)


def test_tensorboard_has_scalars_and_pictures(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run = replace(recipe(tensorboard="on"), validation=Scripted((0.1, 0.2, 0.3)))
    train(run, tmp_path)
    events = accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert {"train/loss", "train/lr", "validation/auc"} <= set(events.Tags()["scalars"])
    assert [(e.step, round(e.value, 5)) for e in events.Scalars("validation/auc")] == [(5, 0.1), (10, 0.2), (12, 0.3)]
    assert len(events.Images("a <b>" if "a <b>" in events.Tags()["images"] else events.Tags()["images"][0])) == 3


def test_without_tensorboard_only_asking_for_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    train(recipe(tensorboard="auto"), tmp_path / "auto")
    assert not (tmp_path / "auto" / "tensorboard").exists()
    with pytest.raises(ImportError, match=r'pip install "metriloc\[train\]"'):
        train(recipe(tensorboard="on"), tmp_path / "on")


def test_every_step_is_reported(tmp_path: Path) -> None:
    from contextlib import contextmanager

    seen: list[Any] = []

    @contextmanager
    def reporter(total: int, start: int) -> Any:
        seen.append((total, start))
        yield lambda step, words: seen.append((step, words.split()[0]))

    train(recipe(), tmp_path, reporter=reporter)
    assert seen == [(12, 0), *((step, "loss") for step in range(1, 13))]
