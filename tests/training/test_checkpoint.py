"""Checkpoints: the round trip, crashes between any two writes, and damaged files."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from metriloc.io import InputError
from metriloc.training import checkpoint as module
from metriloc.training.checkpoint import (
    INDEX,
    TRAINER,
    WEIGHTS,
    Progress,
    find_checkpoint,
    load_checkpoint,
    load_initial_weights,
    load_state,
    save_checkpoint,
)


class Network(nn.Module):
    """Parameters, buffers, tied weights and an extra state."""

    def __init__(self, extra: Any = None) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        self.tied = self.layer
        self.norm = nn.BatchNorm1d(2)
        self.extra = extra if extra is not None else {"top": 30, "seen": [1, 2]}

    def get_extra_state(self) -> Any:
        return self.extra

    def set_extra_state(self, state: Any) -> None:
        self.extra = state


def trained(extra: Any = None) -> tuple[Network, torch.optim.Optimizer]:
    method = Network(extra)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.1)
    method.norm(method.layer(torch.randn(5, 3))).square().sum().backward()
    optimizer.step()
    return method, optimizer


def save(folder: Path, step: int = 7) -> Network:
    method, optimizer = trained()
    save_checkpoint(folder, method, optimizer, Progress(step=step, best=0.5, best_step=3))
    return method


def test_round_trip(tmp_path: Path) -> None:
    method, optimizer = trained()
    save_checkpoint(tmp_path / "last", method, optimizer, Progress(step=7, skipped=2, best=None))
    read = load_checkpoint(tmp_path / "last")
    assert read.progress == Progress(step=7, skipped=2)
    other = Network({"top": 0})
    load_state(other, read.tensors, read.extra, "it")
    for key, value in method.state_dict().items():
        assert torch.equal(other.state_dict()[key], value) if isinstance(value, Tensor) else True
    assert other.extra == {"top": 30, "seen": [1, 2]}
    again = torch.optim.Adam(other.parameters())
    again.load_state_dict(read.optimizer)
    assert torch.equal(again.state[other.layer.weight]["exp_avg"], optimizer.state[method.layer.weight]["exp_avg"])
    assert again.param_groups[0]["lr"] == 0.1
    assert sorted(os.listdir(tmp_path)) == ["last"]
    assert sorted(os.listdir(tmp_path / "last")) == sorted([INDEX, TRAINER, WEIGHTS])


def test_files_can_be_read_by_whom_the_umask_allows(tmp_path: Path) -> None:
    save(tmp_path / "last")
    modes = {(tmp_path / "last" / name).stat().st_mode for name in (INDEX, TRAINER, WEIGHTS)}
    assert len(modes) == 1


def test_a_newer_one_replaces_the_older(tmp_path: Path) -> None:
    save(tmp_path / "last", 1)
    save(tmp_path / "last", 2)
    assert load_checkpoint(tmp_path / "last").progress.step == 2
    assert os.listdir(tmp_path) == ["last"]


class Crash(BaseException):
    """As sudden as SIGKILL: nothing handles it."""


@pytest.mark.parametrize("crash_at", range(6))
def test_a_crash_anywhere_leaves_a_complete_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, crash_at: int
) -> None:
    save(tmp_path / "last", 1)
    calls = 0

    def crashing(function: Any) -> Any:
        def call(*arguments: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == crash_at + 1:
                raise Crash
            return function(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        patch.setattr(module.torch, "save", crashing(torch.save))
        patch.setattr(module, "file_sha256", crashing(module.file_sha256))
        patch.setattr(module, "write_atomically", crashing(module.write_atomically))
        patch.setattr(module.os, "replace", crashing(os.replace))
        with pytest.raises(Crash):
            save(tmp_path / "last", 2)
    found = find_checkpoint(tmp_path / "last")
    assert found is not None
    assert load_checkpoint(found).progress.step in (1, 2)
    save(tmp_path / "last", 3)  # and the next one heals everything
    assert load_checkpoint(tmp_path / "last").progress.step == 3
    assert [name for name in os.listdir(tmp_path) if name.endswith(".new")] == []


def test_nothing_is_found_where_nothing_is(tmp_path: Path) -> None:
    assert find_checkpoint(tmp_path / "last") is None
    (tmp_path / "last").mkdir()
    assert find_checkpoint(tmp_path / "last") is None


@pytest.mark.parametrize("name", [WEIGHTS, TRAINER])
@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "remove"])
def test_damaged_files_are_named(tmp_path: Path, name: str, damage: str) -> None:
    save(tmp_path)
    path = tmp_path / name
    data = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    else:
        data[len(data) // 2] ^= 1
        path.write_bytes({"flip": data, "cut": data[:-9], "empty": b""}[damage])
    with pytest.raises(InputError, match=f"{name}' is (damaged|missing)") as error:
        load_checkpoint(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format_version": 1}', '{"format_version": 1, "sha256": 3}'])
def test_a_damaged_index_is_named(tmp_path: Path, text: str) -> None:
    save(tmp_path)
    (tmp_path / INDEX).write_text(text)
    with pytest.raises(InputError, match=f"{INDEX}' is (damaged|not JSON)"):
        load_checkpoint(tmp_path)


def test_another_version_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    index = json.loads((tmp_path / INDEX).read_text())
    (tmp_path / INDEX).write_text(json.dumps({**index, "format_version": 2}))
    with pytest.raises(InputError, match="format_version 2"):
        load_checkpoint(tmp_path)


def test_a_trainer_state_of_somebody_else_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    torch.save({"optimizer": {}}, tmp_path / TRAINER)
    index = json.loads((tmp_path / INDEX).read_text())
    index["sha256"][TRAINER] = module.file_sha256(tmp_path / TRAINER)
    (tmp_path / INDEX).write_text(json.dumps(index))
    with pytest.raises(InputError, match="not a trainer's state"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("extra", [{"f": Path("x")}, {"f": lambda: 0}])
def test_an_extra_state_of_code_is_refused_when_saving_and_the_old_one_stays(tmp_path: Path, extra: Any) -> None:
    save(tmp_path / "last", 1)
    method, optimizer = trained(extra)
    with pytest.raises(InputError, match="_extra_state is not made of tensors"):
        save_checkpoint(tmp_path / "last", method, optimizer, Progress(step=2))
    assert load_checkpoint(tmp_path / "last").progress.step == 1


def test_what_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="a file is in the way"):
        save(tmp_path / "file" / "last")


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda t: t.pop("layer.bias"), "'layer.bias' is missing"),
        (lambda t: t.update(more=torch.zeros(1)), "'more' is unexpected"),
        (lambda t: t.update({"layer.bias": torch.zeros(3)}), r"'layer.bias' is \[3\] float32, not \[2\] float32"),
        (
            lambda t: t.update({"layer.bias": torch.zeros(2).double()}),
            r"'layer.bias' is \[2\] float64, not \[2\] float32",
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(change: Any, message: str) -> None:
    method = nn.Sequential()
    method.layer = nn.Linear(3, 2)
    tensors = dict(method.state_dict())
    change(tensors)
    with pytest.raises(InputError, match=f"it does not fit: {message}"):
        load_state(method, tensors, {}, "it")


def test_initial_weights_from_a_folder_or_a_file(tmp_path: Path) -> None:
    saved = save(tmp_path / "best")
    method = Network()
    load_initial_weights(method, tmp_path / "best")
    assert torch.equal(method.layer.weight, saved.layer.weight)
    with pytest.raises(InputError, match="'_extra_state' is missing"):
        load_initial_weights(Network(), tmp_path / "best" / WEIGHTS)
    with pytest.raises(InputError, match="neither a checkpoint"):
        load_initial_weights(Network(), tmp_path / "nowhere")
    shutil.rmtree(tmp_path / "best")
