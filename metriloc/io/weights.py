"""Weights on disk: ``config.json`` + ``model.safetensors``, and how they are found.

``read_checkpoint`` is the only place of the library that unpickles, and it does so with ``weights_only=True``.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import shutil
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metriloc.io.download import cache_folder, file_sha256
from metriloc.io.files import InputError, prepare_output_folder, read_json, require_file, write_atomically
from metriloc.io.hub import HUB_NAME, hub_snapshot
from metriloc.io.packaged import BUNDLED, bundled_folder
from metriloc.io.published import PUBLISHED
from metriloc.version import __version__

CONFIG, TENSORS = "config.json", "model.safetensors"
RUN_WEIGHTS, RUN_CHECKPOINTS = "weights", "checkpoints"
"""Folders of a training run."""
FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1 << 20
_FILE_SUFFIXES = (".safetensors", ".ckpt", ".pth", ".pt", ".bin", ".zip", ".json")
# what torch's restricted unpickler raises on bytes that are no pickle, or only part of one
_DAMAGE = (
    *(RuntimeError, EOFError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError, AssertionError),
    *(OSError, struct.error, zipfile.BadZipFile),
)


@dataclass(frozen=True, eq=False)
class Weights:
    """What a weights folder holds. weights_id: method and hash of the tensors, recorded with every result."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    weights_id: str
    path: Path


def file_identity(path: Path) -> str:
    """The first twelve hexadecimal digits of a file's SHA-256."""
    return file_sha256(path)[:12]


def save_weights(folder: str | Path, method: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Write a weights folder and return its weights id.

    Both files are complete under temporary names before either takes its own; an older pair stays whole until then, and
    a pair torn between the two renames is refused by ``load_weights``. Raises InputError when the folder cannot be
    written, and for tensors that ``load_weights`` would refuse (NaN, infinite).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    require_finite(tensors, f"'{folder}' is not written: the model")
    folder = prepare_output_folder(folder)
    data, text = (folder / f".{secrets.token_hex(4)}.{kind}.tmp" for kind in ("tensors", "config"))
    try:
        save_file(_separate(tensors), data)
        digest = file_sha256(data)
        content = {"method": method, "format_version": FORMAT_VERSION, "metriloc_version": __version__, **config}
        write_atomically(text, json.dumps({**content, "sha256": digest}, indent=2, allow_nan=False) + "\n")
        shutil.copymode(text, data)  # safetensors makes files that only their owner can read
        # the tensors last: killed in between, a new folder holds none, and is not taken for weights
        os.replace(text, folder / CONFIG)
        os.replace(data, folder / TENSORS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"'{folder}' cannot be written: {getattr(error, 'strerror', None) or error}") from error
    finally:
        for temporary in (data, text):
            temporary.unlink(missing_ok=True)
    return f"{method}-{digest[:12]}"


def _separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, none in the memory of another, which safetensors refuses."""
    taken: set[int] = set()
    separate = {}
    for key, value in tensors.items():
        value = value.detach().cpu().contiguous()
        separate[key] = value.clone() if value.untyped_storage().data_ptr() in taken else value
        taken.add(separate[key].untyped_storage().data_ptr())
    return separate


def method_of(path: str | Path) -> str | None:
    """What a weights folder says that it is for.

    None for what is none. Raises InputError for a broken config.
    """
    path = Path(path)
    file = (path.parent if path.suffix == ".safetensors" else path) / CONFIG
    return str(_read_config(file).get("method")) if file.is_file() else None


def load_weights(path: str | Path, method: str) -> Weights:
    """Read a weights folder that was made for ``method``. It may be a safetensors file with its config.json beside it,
    too.

    Raises InputError for anything missing, malformed, of another method or version, or not finite.
    """
    path = Path(path)
    folder, name = (path.parent, path.name) if path.suffix == ".safetensors" else (path, TENSORS)
    if not folder.is_dir():
        raise InputError(f"'{path}' is not a weights folder with {CONFIG} and {TENSORS}")
    config = _read_config(folder / CONFIG)
    if config.get("method") != method:
        raise InputError(f"'{folder}' holds weights of {config.get('method')!r}, not of {method!r}")
    if config.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"'{folder / CONFIG}' has format_version {config.get('format_version')!r}; this metriloc reads {FORMAT_VERSION}"
        )
    file = require_file(folder / name)
    tensors = _read_safetensors(file)
    require_finite(tensors, f"'{file}'")
    digest = file_sha256(file)
    if config.get("sha256", digest) != digest:
        raise InputError(f"'{file}' is not the file that '{folder / CONFIG}' was written for (their SHA-256 differ)")
    return Weights(config, tensors, f"{method}-{digest[:12]}", folder)


def load_state_dict_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load tensors that must fit exactly.

    InputError names the first that is missing, unexpected or of another shape. The module takes the
    tensors themselves, so it may have been built on the meta device without initialising anything.
    """
    own = module.state_dict()
    missing, unexpected = sorted(own.keys() - tensors.keys()), sorted(tensors.keys() - own.keys())
    shapes = [key for key in own.keys() & tensors.keys() if own[key].shape != tensors[key].shape]
    if missing:
        raise InputError(f"{source} does not fit: {len(missing)} tensors are missing, the first is {missing[0]!r}")
    if unexpected:
        raise InputError(f"{source} does not fit: {len(unexpected)} unexpected tensors, the first is {unexpected[0]!r}")
    if shapes:
        key = min(shapes)
        raise InputError(
            f"{source} does not fit: {key!r} has shape {list(tensors[key].shape)}, not {list(own[key].shape)}"
        )
    module.load_state_dict(tensors, assign=True)


def require_finite(tensors: Mapping[str, Any], source: str) -> None:
    """InputError naming the first tensor that holds NaN or infinite values.

    What is no tensor is passed over.
    """
    for key, value in tensors.items():
        if not isinstance(value, Tensor) or not (value.is_floating_point() or value.is_complex()):
            continue
        wide = value.float() if value.is_floating_point() and value.itemsize == 1 else value  # float8 knows no isfinite
        if not bool(torch.isfinite(wide).all()):
            raise InputError(f"{source} holds NaN or infinite values in {key!r}")


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of somebody else.

    Safetensors, or a pickle read with ``weights_only=True``, on the CPU. Raises InputError for a
    file that is neither, is damaged, holds anything but a table, or needs code to be run.
    """
    path = require_file(path)
    if path.suffix == ".safetensors":
        return dict(_read_safetensors(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; the errors below say enough
            # mapped, so that gigabytes are read once; the format before zip cannot be
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which would run whatever the file says
        raise InputError(f"'{path}' is not a checkpoint of plain tensors, and nothing else is loaded") from error
    except _DAMAGE as error:
        raise InputError(f"'{path}' is not a checkpoint, or is damaged") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds a {type(content).__name__}, not a table of tensors")
    return content


def resolve_weights(source: str | Path, *, offline: bool | None = None) -> Path:
    """The weights folder that ``source`` means.

    A bundled name, a folder, a file in one, a published or a hub name. Bundled weights are part of
    this package; a folder that is called as they are is meant by a Path or ``./name``. Published
    weights are looked for in the cache only (``metriloc weights get`` puts them there). Raises
    InputError, with the command that gets them, when there is nothing.
    """
    name, path = str(source), Path(source)
    # the default of every call: what lies in the working directory may not change it
    if isinstance(source, str) and name in {entry.name for entry in BUNDLED}:
        if not is_bundled(name):
            raise InputError(
                f"the weights {name!r} are not in this installation of metriloc ('{bundled_folder(name)}'): "
                "install metriloc again, or give other weights"
            )
        return bundled_folder(name)
    if name and _exists(path):
        if path.name == CONFIG:
            return path.parent
        if path.is_file() and path.suffix != ".safetensors":
            raise InputError(
                f"'{path}' is not a metriloc weights folder; convert it: metriloc weights convert '{path}' --out FOLDER"
            )
        return weights_of_run(path)
    known = {entry.name: entry for entry in PUBLISHED}
    if name in known and known[name].by_hand:
        raise InputError(f"the weights {name!r} cannot be fetched: {known[name].by_hand}")
    if name in known:
        folder = cache_folder() / name
        if not (folder / TENSORS).is_file():
            raise InputError(f"the weights {name!r} are not here: metriloc weights get {name}")
        return folder
    if HUB_NAME.fullmatch(name) and path.suffix not in _FILE_SUFFIXES:
        return hub_snapshot(name, (CONFIG, TENSORS), offline)
    raise InputError(f"there are no weights at '{name}': give a folder, or one of the names of: metriloc weights list")


def weights_of_run(path: str | Path) -> Path:
    """The weights in the folder of a training run, for the folder. Every other path as it is.

    Raises InputError for a run that has not written any yet.
    """
    path = Path(path)
    if not _exists(path / RUN_CHECKPOINTS) or _exists(path / TENSORS):
        return path
    if not (path / RUN_WEIGHTS / TENSORS).is_file():
        raise InputError(
            f"'{path}' is the folder of a training run, and it holds no '{RUN_WEIGHTS}' yet: let it finish"
        )
    return path / RUN_WEIGHTS


def is_bundled(name: str) -> bool:
    """Whether this installation carries the weights of a name of ``BUNDLED``."""
    return (bundled_folder(name) / TENSORS).is_file()


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # longer than a name can be, a NUL byte
        return False


def _read_config(path: Path) -> dict[str, Any]:
    content = read_json(path, MAX_CONFIG_BYTES)
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds a {type(content).__name__}, not a JSON object")
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"'{path}' is not a safetensors file, or is damaged: {error}") from error
