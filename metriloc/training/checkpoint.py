"""Checkpoints: a folder with the weights (safetensors), the trainer's state (read with ``weights_only=True``) and their
hashes; complete or not there.

A checkpoint is written beside the old one and takes its place by renaming whole folders; whatever a crash leaves in
between, ``find_checkpoint`` finds a complete one. Damaged files are refused in one sentence.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metriloc.io import InputError, prepare_output_folder, read_json, write_atomically
from metriloc.io.download import file_sha256
from metriloc.io.weights import RUN_CHECKPOINTS, read_checkpoint

WEIGHTS, TRAINER, INDEX = "model.safetensors", "trainer.pt", "checkpoint.json"
FORMAT_VERSION = 1


@dataclass
class Progress:
    """How far a run has come. step: steps done, skipped ones too; validated: the last step with a validation;
    skipped and skipped_in_a_row: steps that changed nothing; best, best_step: of the best metric, which best_of names;
    also_best: of further metrics, by "largest NAME" or "smallest NAME"; seconds: spent."""

    step: int = 0
    validated: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    best: float | None = None
    best_step: int = 0
    best_of: str = ""
    seconds: float = 0.0
    also_best: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a checkpoint folder holds. extra: entries of the module's state that are no tensors."""

    path: Path
    tensors: dict[str, Tensor]
    extra: dict[str, Any]
    optimizer: dict[str, Any]
    progress: Progress


def save_checkpoint(folder: Path, method: nn.Module, optimizer: torch.optim.Optimizer, progress: Progress) -> None:
    """Write the checkpoint, or leave the older one of that name as it is. Raises InputError when it cannot be written,
    and for an extra state that only a pickle of code could hold."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    new = _beside(folder, "new")
    state = method.state_dict()
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in state.items() if isinstance(v, Tensor)}
    extra = {k: v for k, v in state.items() if not isinstance(v, Tensor)}
    try:
        shutil.rmtree(new, ignore_errors=True)
        prepare_output_folder(new)
        save_file(tensors, new / WEIGHTS)
        _save_trainer(
            new / TRAINER, {"extra": extra, "optimizer": optimizer.state_dict(), "progress": asdict(progress)}
        )
        shutil.copymode(new / TRAINER, new / WEIGHTS)  # safetensors makes files that only their owner can read
        index = {name: file_sha256(new / name) for name in (WEIGHTS, TRAINER)}
        write_atomically(
            new / INDEX, json.dumps({"format_version": FORMAT_VERSION, **asdict(progress), "sha256": index}) + "\n"
        )
        _replace(new, folder)
    except (OSError, SafetensorError, RuntimeError) as error:
        raise InputError(f"'{folder}' cannot be written: {getattr(error, 'strerror', None) or error}") from error


def find_checkpoint(folder: Path) -> Path | None:
    """The folder to load for the checkpoint ``folder``: itself, or what a crash left beside it; None when there is none."""
    return next(
        (path for path in (folder, _beside(folder, "new"), _beside(folder, "old")) if (path / INDEX).is_file()), None
    )


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU; the hashes are checked. Raises InputError naming the file that is damaged."""
    index = _read_index(folder / INDEX)
    for name in (WEIGHTS, TRAINER):
        if not (folder / name).is_file():
            raise InputError(f"'{folder / name}' is missing")
        if file_sha256(folder / name) != index["sha256"].get(name):
            raise InputError(
                f"'{folder / name}' is damaged: it is not the file that '{folder / INDEX}' was written for"
            )
    state = read_checkpoint(folder / TRAINER)
    try:
        known = {"also_best": {}, **state["progress"]}  # older runs know one best only
        progress = Progress(**{f.name: known[f.name] for f in fields(Progress)})
        return Checkpoint(folder, read_checkpoint(folder / WEIGHTS), state["extra"], state["optimizer"], progress)
    except (KeyError, TypeError) as error:
        raise InputError(f"'{folder / TRAINER}' is not a trainer's state: {error} is missing") from error


def load_state(method: nn.Module, tensors: Mapping[str, Tensor], extra: Mapping[str, Any], source: str) -> None:
    """Copy a module's whole state into it. Raises InputError naming the first entry that is missing, unexpected or of
    another shape or type."""
    own, given = method.state_dict(), {**tensors, **extra}
    for key in sorted(own.keys() ^ given.keys()):
        raise InputError(f"{source} does not fit: {key!r} is {'missing' if key in own else 'unexpected'}")
    for key, value in own.items():
        other = given[key]
        if isinstance(value, Tensor) and (value.shape, value.dtype) != (other.shape, other.dtype):
            found, wanted = (f"{list(x.shape)} {x.dtype}".replace("torch.", "") for x in (other, value))
            raise InputError(f"{source} does not fit: {key!r} is {found}, not {wanted}")
    method.load_state_dict(given)


def load_initial_weights(method: nn.Module, source: Path) -> None:
    """Start from the weights of a checkpoint folder (or of any safetensors file) of the same method, not its optimiser.

    The folder of a run stands for its best checkpoint, or for the last where none is the best.

    Raises InputError when they are not there, are damaged, or do not fit.
    """
    if source.is_file():
        load_state(method, read_checkpoint(source), {}, f"'{source}'")
        return
    places = (source, *(source / RUN_CHECKPOINTS / name for name in ("best", "last")))
    folder = next((found for place in places if (found := find_checkpoint(place)) is not None), None)
    if folder is not None:
        checkpoint = load_checkpoint(folder)
        load_state(method, checkpoint.tensors, checkpoint.extra, f"'{folder}'")
        return
    raise InputError(f"'{source}' is neither a checkpoint of metriloc train nor a safetensors file")


def _beside(folder: Path, kind: str) -> Path:
    return folder.with_name(f"{folder.name}.{kind}")


def _replace(new: Path, folder: Path) -> None:
    old = _beside(folder, "old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    os.replace(new, folder)
    shutil.rmtree(old, ignore_errors=True)


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = read_json(path)
        if index["format_version"] != FORMAT_VERSION:
            raise InputError(f"'{path}' has format_version {index['format_version']}; this reads {FORMAT_VERSION}")
        if not isinstance(index["sha256"], dict):
            raise InputError(f"'{path}' is damaged: its 'sha256' is no table")
    except (KeyError, TypeError) as error:
        raise InputError(f"'{path}' is damaged, or not written by metriloc train") from error
    return dict(index)


def _save_trainer(path: Path, content: dict[str, Any]) -> None:
    try:
        torch.save(content, path)
        if content["extra"]:
            read_checkpoint(path)  # now, not at the end of the night
    except (pickle.PicklingError, AttributeError, TypeError, InputError) as error:
        entries = ", ".join(sorted(content["extra"])) or "the optimiser"
        raise InputError(f"the state of {entries} is not made of tensors, numbers, texts and tables only") from error
