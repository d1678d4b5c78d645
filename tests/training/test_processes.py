"""Two gloo processes train as one process does with the double batch; they stop together; files are written once."""

from __future__ import annotations

import json
import os
import runpy
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from metriloc.training.checkpoint import load_checkpoint
from metriloc.training.processes import Processes, choose_device

SCRIPT = """
import os, signal, sys
from dataclasses import dataclass
from pathlib import Path
import torch
from torch import nn
from metriloc.training import OptimizerConfig, Run, ShuffledBatches, TrainingConfig, Validation, train
from metriloc.types import StepOutput

RANK = int(os.environ.get("RANK", "0"))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(int(os.environ.get("RANK", "0")))  # every process makes other weights: the first's must win
        self.layers = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1)).double()
        self.sometimes = nn.Parameter(torch.ones(3, dtype=torch.float64))
        self.never = nn.Parameter(torch.ones(3))
        self.register_buffer("seen", torch.zeros(()))

    def training_step(self, batch, step, generator):
        seen = float(self.seen)
        self.seen = self.seen + 1 + RANK
        if stop_at is not None and RANK == 1 and step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        loss = (self.layers(batch) - batch.sum(-1, keepdim=True)).square().mean()
        if (batch[:, 0] > 15).any():  # a parameter that only some processes have a gradient for
            loss = loss + self.sometimes.square().sum() * (batch[:, 0] > 15).double().mean()
        if step in bad and RANK == 0:
            loss = loss * float("nan")
        return StepOutput(loss, {"first": float(batch[0, 0]), f"seen{RANK}": seen})


@dataclass(frozen=True)
class Batches:
    def __call__(self, data):
        return ShuffledBatches(
            lambda i, g: torch.rand(3, generator=g, dtype=torch.float64) + i, 16, 8, torch.stack)


def validation(data):
    assert RANK == 0
    return lambda method: Validation({"seen": float(method.seen)})


out, steps, accumulation = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
stop_at, bad = eval(sys.argv[4]), eval(sys.argv[5])
config = TrainingConfig(steps=steps, epoch_steps=5, accumulation=accumulation, log_every=2, device="cpu", tensorboard="off",
                        optimizer=OptimizerConfig(lr=0.01), clip_norm=1.0)
result = train(Run("two", Network, Batches(), config, validation), Path(out))
threads = Path("/proc/self/task")  # where there is one: threads that outlive the group abort at the interpreter's end
assert not any("gloo" in (task / "comm").read_text() for task in threads.glob("*")), "a thread of the group is left"
print(RANK, result.progress.step, result.progress.skipped, result.stopped_by or "-")
"""


def launch(folder: Path, world_size: int, *arguments: str) -> list[str]:
    """Run the script in so many processes; their last lines, by rank."""
    script = folder / "script.py"
    script.write_text(SCRIPT)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    common = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
        "OMP_NUM_THREADS": "1",
    }
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), *arguments],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]
    try:
        outputs = [process.communicate(timeout=120) for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, (_, error) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, error
    return [output.strip().splitlines()[-1] for output, _ in outputs]


def state(out: Path) -> dict[str, Tensor]:
    return load_checkpoint(out / "checkpoints" / "last").tensors


def train_lines(out: Path) -> list[dict[str, Any]]:
    return [x for x in map(json.loads, (out / "metrics.jsonl").read_text().splitlines()) if x["kind"] == "train"]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_double_batch_and_stop_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes in two parts each, told to stop in the seventh step, against one process with seven steps."""
    told = launch(tmp_path, 2, str(tmp_path / "two"), "10", "2", "6", "(1, 3)")
    assert told == ["0 7 2 SIGTERM", "1 7 2 SIGTERM"]
    assert (tmp_path / "two" / "log.txt").read_text().count("stopped by SIGTERM after step 7") == 1
    monkeypatch.setattr(sys, "argv", ["script.py", str(tmp_path / "one"), "7", "1", "None", "(1, 3)"])
    runpy.run_path(str(tmp_path / "script.py"))
    a, b = state(tmp_path / "two"), state(tmp_path / "one")
    for key in a.keys() - {"seen"}:
        torch.testing.assert_close(a[key], b[key], rtol=1e-11, atol=1e-13, msg=key)
    assert not torch.equal(a["sometimes"], torch.ones(3, dtype=torch.float64))
    assert torch.equal(a["never"], torch.ones(3))
    assert float(a["seen"]) == 10  # the first process's: two parts in each of five steps that were not skipped
    two, one = train_lines(tmp_path / "two"), train_lines(tmp_path / "one")
    assert [line["step"] for line in two] == [2, 4, 6]
    for mine, other in zip(two, one, strict=False):
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-11)
        assert mine["gradient_norm"] == pytest.approx(other["gradient_norm"], rel=1e-11)
    # what the first and the second process saw in their buffers, before each of the parts of steps 4 and 5
    assert (two[2]["seen0"], two[2]["seen1"]) == ((4 + 5 + 6 + 7) / 4, (4 + 6 + 6 + 8) / 4)


def test_alone_nothing_is_sent() -> None:
    alone, tensor = Processes(0, 1, torch.device("cpu")), torch.ones(2)
    alone.sum(tensor)
    alone.spread([tensor])
    alone.wait()
    assert alone.gather("x") == ["x"] and torch.equal(tensor, torch.ones(2))


def test_devices() -> None:
    assert choose_device("cpu", 3) == torch.device("cpu")
    assert choose_device("auto", 0).type in ("cpu", "cuda")
    with pytest.raises(ValueError, match="'gpu' is not a device: give auto, cpu, cuda or cuda:N"):
        choose_device("gpu", 0)
    with pytest.raises(ValueError, match="there is no GPU 99"):
        choose_device("cuda:99", 0)
