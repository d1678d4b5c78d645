"""Weights on disk: ``config.json`` + ``model.safetensors``, and how they are found.

``read_checkpoint`` is the only place of the library that unpickles, and it does so with ``weights_only=True``.
"""

from __future__ import annotations

import json
import os
import pickle
import secrets
import struct
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metriloc.io.download import cache_folder, file_sha256, is_offline
from metriloc.io.files import InputError, read_text, require_file, write_atomically
from metriloc.version import __version__

CONFIG, TENSORS = "config.json", "model.safetensors"
FORMAT_VERSION = 1
MAX_CONFIG_BYTES = 1 << 20
# what torch's restricted unpickler raises on bytes that are no pickle, or only part of one
_DAMAGE = (
    *(RuntimeError, EOFError, LookupError, AttributeError, TypeError, ValueError, ArithmeticError, AssertionError),
    *(OSError, struct.error),
)


@dataclass(frozen=True, eq=False)
class Weights:
    """What a weights folder holds. weights_id: method and hash of the tensors, recorded with every result."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    weights_id: str
    path: Path


@dataclass(frozen=True)
class Published:
    """Official weights that metriloc can fetch and convert.

    files: (url, SHA-256 or None where the publisher gives none, file name). members: what to take out of a zip.
    """

    name: str
    description: str
    licence: str
    files: tuple[tuple[str, str | None, str], ...]
    members: tuple[str, ...] = ()
    convert: str = ""


_MICKEY_ZIP = "https://storage.googleapis.com/niantic-lon-static/research/mickey/assets/mickey_weights.zip"
_MICKEY_LICENCE = "non-commercial research licence of Niantic, patent pending"
PUBLISHED = (
    Published(
        "mickey",
        "MicKey trained on Map-free without overlap scores (the paper's main model)",
        _MICKEY_LICENCE,
        ((_MICKEY_ZIP, None, "mickey_weights.zip"),),
        ("mickey.ckpt", "config.yaml"),
        "mickey.ckpt",
    ),
    Published(
        "mickey_sc",
        "MicKey trained on Map-free with overlap scores",
        _MICKEY_LICENCE,
        ((_MICKEY_ZIP, None, "mickey_weights.zip"),),
        ("mickey_sc.ckpt", "config.yaml"),
        "mickey_sc.ckpt",
    ),
)


def file_identity(path: Path) -> str:
    """The first twelve hexadecimal digits of a file's SHA-256."""
    return file_sha256(path)[:12]


def save_weights(folder: str | Path, method: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Write a weights folder and return its weights id.

    Both files are complete under temporary names before either takes its own; an older pair stays whole until then.
    Raises InputError when the folder cannot be written.
    """
    from safetensors.torch import save_file

    folder = Path(folder)
    temporary = folder / f".{secrets.token_hex(4)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items()}, temporary)
        identity = file_identity(temporary)
        content = {"method": method, "format_version": FORMAT_VERSION, "metriloc_version": __version__, **config}
        text = json.dumps({**content, "sha256": file_sha256(temporary)}, indent=2, allow_nan=False) + "\n"
        os.replace(temporary, folder / TENSORS)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
    write_atomically(folder / CONFIG, text)
    return f"{method}-{identity}"


def load_weights(path: str | Path, method: str) -> Weights:
    """Read a weights folder (or the ``model.safetensors`` in it), made for ``method``.

    Raises InputError for anything missing, malformed, of another method or version, or not finite.
    """
    path = Path(path)
    folder = path.parent if path.suffix == ".safetensors" else path
    if not folder.is_dir():
        raise InputError(f"'{path}' is not a weights folder with {CONFIG} and {TENSORS}")
    config = _read_config(folder / CONFIG)
    if config.get("method") != method:
        raise InputError(f"'{folder}' holds weights of {config.get('method')!r}, not of {method!r}")
    if config.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"'{folder / CONFIG}' has format_version {config.get('format_version')!r}; this metriloc reads {FORMAT_VERSION}"
        )
    file = require_file(folder / TENSORS)
    tensors = _read_safetensors(file)
    _require_finite(tensors, file)
    digest = file_sha256(file)
    if config.get("sha256", digest) != digest:
        raise InputError(f"'{file}' is not the file that '{folder / CONFIG}' was written for (their SHA-256 differ)")
    return Weights(config, tensors, f"{method}-{digest[:12]}", folder)


def load_state_dict_strictly(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load tensors that must fit exactly; InputError names the first that is missing, unexpected or of another shape.

    The module takes the tensors themselves, so it may have been built on the meta device without initialising anything.
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


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """A checkpoint of somebody else: safetensors, or a pickle read with ``weights_only=True``, on the CPU.

    Raises InputError for a file that is neither, is damaged, holds anything but a table, or needs code to be run.
    """
    path = require_file(path)
    if path.suffix == ".safetensors":
        return dict(_read_safetensors(path))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # about pickle protocols; the errors below say enough
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's own message advises weights_only=False, which would run whatever the file says
        raise InputError(f"'{path}' is not a checkpoint of plain tensors, and nothing else is loaded") from error
    except _DAMAGE as error:
        raise InputError(f"'{path}' is not a checkpoint, or is damaged") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' holds a {type(content).__name__}, not a table of tensors")
    return content


def resolve_weights(source: str | Path, *, offline: bool | None = None) -> Path:
    """The weights folder that ``source`` means: a folder, a file in one, a published name, or a hub ``owner/name``.

    Published weights are looked for in the cache only (``metriloc weights get`` puts them there). Raises InputError,
    with the command that gets them, when there is nothing.
    """
    path = Path(source)
    if path.exists():
        if path.is_file() and path.suffix != ".safetensors":
            raise InputError(
                f"'{path}' is not a metriloc weights folder; convert it: metriloc weights convert '{path}' --out FOLDER"
            )
        return path
    name = str(source)
    if name in {entry.name for entry in PUBLISHED}:
        folder = cache_folder() / name
        if not (folder / TENSORS).is_file():
            raise InputError(f"the weights {name!r} are not here: metriloc weights get {name}")
        return folder
    if name.count("/") == 1 and not path.is_absolute() and not name.startswith("."):
        return _from_hub(name, offline)
    raise InputError(f"there are no weights at '{name}': give a folder, or one of the names of: metriloc weights list")


def extract_members(archive: Path, members: tuple[str, ...], folder: Path, max_bytes: int = 4 * 1024**3) -> list[Path]:
    """Take files out of a zip by their bare names, whatever folders the archive puts them in.

    Only the names asked for are written, straight into ``folder``, so that no path of the archive is ever used. Raises
    InputError for a damaged archive, a missing or repeated member, and one over ``max_bytes``.
    """
    try:
        with zipfile.ZipFile(archive) as content:
            entries = [entry for entry in content.infolist() if not entry.is_dir()]
            if len(entries) > 1000:
                raise InputError(f"'{archive}' holds {len(entries)} files; a weights archive has a few")
            written = []
            for name in members:
                found = [entry for entry in entries if entry.filename.rsplit("/", 1)[-1] == name]
                if len(found) != 1:
                    raise InputError(f"'{archive}' holds {len(found)} files named {name!r}, not one")
                if found[0].file_size > max_bytes:
                    raise InputError(
                        f"{name!r} in '{archive}' has {found[0].file_size} bytes; the limit is {max_bytes}"
                    )
                written.append(_extract(content, found[0], folder / name))
            return written
    except zipfile.BadZipFile as error:
        raise InputError(f"'{archive}' is not a zip archive, or is damaged") from error


def _extract(content: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> Path:
    part = target.with_name(target.name + ".part")
    left = entry.file_size
    with content.open(entry) as source, open(part, "wb") as file:
        while chunk := source.read(1 << 20):
            left -= len(chunk)
            if left < 0:
                raise InputError(f"{entry.filename!r} is longer than its archive says")
            file.write(chunk)
    os.replace(part, target)
    return target


def _from_hub(name: str, offline: bool | None) -> Path:
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError(f'the hub name {name!r} needs huggingface_hub: pip install "metriloc[hub]"') from error
    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=[CONFIG, TENSORS],
            local_files_only=is_offline(offline),
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the hub weights {name!r} could not be had: {reason}") from error
    return Path(folder)


def _read_config(path: Path) -> dict[str, Any]:
    require_file(path)
    if path.stat().st_size > MAX_CONFIG_BYTES:
        raise InputError(f"'{path}' has {path.stat().st_size} bytes; a configuration has at most {MAX_CONFIG_BYTES}")
    try:
        content = json.loads(read_text(path))
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{path}' is not JSON: {error}") from error
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


def _require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for key, value in tensors.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise InputError(f"'{path}' holds NaN or infinite values in {key!r}")
