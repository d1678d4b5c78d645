"""``metriloc train``: recipes and overrides, wrong use in one sentence, Ctrl+C in a real process, and torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from metriloc import recipes
from metriloc.cli.main import main
from metriloc.training import Run
from metriloc.training.batches import OneBatch
from metriloc.training.checkpoint import load_checkpoint

COMMAND = [sys.executable, "-c", "from metriloc.cli.main import main; main()", "train"]
QUICK = ["training.steps=40", "training.epoch_steps=20", "training.device=cpu", "training.tensorboard=off"]


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(("train", *arguments))
    return int(stop.value.code or 0)


def test_without_a_recipe_all_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run() == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in recipes.__all__)


@pytest.mark.parametrize("name", recipes.__all__)
def test_every_recipe_is_a_run_with_a_docstring(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert isinstance(getattr(recipes, name)(), Run)
    assert getattr(recipes, name).__doc__
    assert run(name, "--show") == 0
    assert "training.optimizer.lr=" in capsys.readouterr().out


def test_a_run_with_overrides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("toy", "--out", str(tmp_path), "--set", *QUICK, "--set", "method.width=16", "batches.batch_size=8") == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == f"finished at step 40 of 40: {tmp_path}"
    assert "step 40: validation rmse" in captured.err
    config = json.loads((tmp_path / "config.json").read_text())["recipe"]
    assert (config["method"]["width"], config["batches"]["batch_size"], config["training"]["steps"]) == (16, 8, 40)
    assert {p.name for p in tmp_path.iterdir()} == {
        "config.json",
        "log.txt",
        "metrics.jsonl",
        "checkpoints",
        "validation",
    }
    assert load_checkpoint(tmp_path / "checkpoints" / "best").tensors["layers.0.weight"].shape == (16, 1)


def test_the_toy_learns(tmp_path: Path) -> None:
    assert run("toy", "--out", str(tmp_path), "--set", "training.device=cpu", "training.tensorboard=off") == 0
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert (last["kind"], last["step"]) == ("validation", 300)
    assert last["rmse"] < 0.25  # a constant has 0.7


def test_overfit_sees_the_first_batch_alone(tmp_path: Path) -> None:
    whole, one = recipes.toy().batches(None), OneBatch(recipes.toy().batches)(None)
    for step in (0, 1, 7):
        assert torch.equal(one.batch(step, 0, 2)[0], whole.batch(0, 0, 2)[0])
    assert not torch.equal(whole.batch(1, 0, 1)[0], whole.batch(0, 0, 1)[0])
    assert run("toy", "--out", str(tmp_path), "--overfit", "--set", *QUICK) == 0
    assert json.loads((tmp_path / "config.json").read_text())["recipe"]["batches"]["type"].endswith("OneBatch")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("nothing",), "there is no recipe 'nothing': there are "),
        (("toy",), "say where the run shall be written: --out DIR"),
        (("toy", "--out", "x", "--data", "no-such-folder"), "'no-such-folder' is not a folder with training data"),
        (("toy", "--set", "training.lr=1"), "training.lr: there is no field 'lr' in TrainingConfig"),
        (("toy", "--set", "training.stepz=1"), "did you mean 'steps'?"),
        (("toy", "--set", "training.steps=soon"), "training.steps must be a whole number, got 'soon'"),
        (("toy", "--set", "training.optimizer.lr=-1"), "optimizer.lr must be positive, got -1.0"),
        (("toy", "--set", "training.optimizer=adam"), "training.optimizer is a group of fields"),
        (("toy", "--out", "x", "--init", "no-such"), "'no-such' is neither a checkpoint"),
        (("toy", "--out", "x", "--set", "training.device=cuda:77"), "there is no GPU 77"),
        (("toy", "--out", "x", "--set", "batches.batch_size=999"), "a batch of 999 cannot be taken from 256 samples"),
        (("toy", "--out", "x", "--set", "training.accumulation=3"), "a batch of 32 cannot be cut into 3 equal parts"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: tuple[str, ...],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("metriloc train: ") and message in error


def test_divergence_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoilt = ("method.noise=1e38", "training.max_bad_steps=3")
    assert run("toy", "--out", str(tmp_path), "--set", *QUICK, *spoilt) == 2
    assert (
        "steps in a row were skipped, the last because its loss was" in capsys.readouterr().err.strip().splitlines()[-1]
    )


@pytest.mark.slow
def test_ctrl_c_saves_and_resume_ends_as_if_never_stopped(tmp_path: Path) -> None:
    steps = [*QUICK, "training.steps=400", "training.workers=1", "method.dropout=0.2", "training.log_every=1"]
    arguments = [*COMMAND, "toy", "--out", str(tmp_path / "parts"), "--set", *steps]
    # as many threads as the runs it is compared with: the order of sums decides the last bits
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    metrics = tmp_path / "parts" / "metrics.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") > 30):
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    out, error = process.communicate(timeout=60)
    assert process.returncode == 130, error
    assert "Traceback" not in error
    assert "stopped by SIGINT after step" in error
    step = load_checkpoint(tmp_path / "parts" / "checkpoints" / "last").progress.step
    assert 30 <= step < 400 and f"stopped by SIGINT at step {step} of 400" in out
    assert run("toy", "--out", str(tmp_path / "parts"), "--resume", "--set", *steps) == 0
    assert run("toy", "--out", str(tmp_path / "whole"), "--set", *steps) == 0
    a, b = (load_checkpoint(tmp_path / name / "checkpoints" / "last") for name in ("parts", "whole"))
    assert all(torch.equal(a.tensors[key], b.tensors[key]) for key in a.tensors)
    assert str(a.optimizer) == str(b.optimizer)
    lines = [
        [{k: v for k, v in json.loads(line).items() if k != "step_seconds"} for line in path.read_text().splitlines()]
        for path in (metrics, tmp_path / "whole" / "metrics.jsonl")
    ]
    assert lines[0] == lines[1]


@pytest.mark.slow
def test_torchrun_starts_it_and_its_ctrl_c_saves_once(tmp_path: Path) -> None:
    steps = [*QUICK, "training.steps=100000", "training.log_every=1"]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    arguments = [*launcher, "metriloc", "train", "toy", "--out", str(tmp_path), "--set", *steps]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=environment
    )
    metrics = tmp_path / "metrics.jsonl"
    deadline = time.monotonic() + 90
    while time.monotonic() < deadline and not (metrics.exists() and metrics.read_text().count("\n") > 5):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=90)
    assert "on 2 process(es)" in error
    log = (tmp_path / "log.txt").read_text()
    assert log.count("stopped by SIGINT after step") == 1, error
    saved = load_checkpoint(tmp_path / "checkpoints" / "last")
    assert saved.progress.step > 5
    assert f"after step {saved.progress.step};" in log
