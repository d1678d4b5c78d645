"""What was seen in the photos of a folder, kept in one file, which is written whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.io.files import InputError, prepare_output_folder, write_atomically

Stamp = tuple[int, int]
"""Size and time of change of a photo."""
Seen = tuple[Stamp, Float[Tensor, "n C"]]
"""Descriptors, and the photo that they are of."""


def stamp_of(path: Path) -> Stamp:
    """What tells that a photo is another one. Raises InputError when it cannot be looked at."""
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return status.st_size, status.st_mtime_ns


def read_seen(file: Path | None) -> dict[str, Seen]:
    """What an earlier run saw, by name; nothing when there is no file, or it is not whole."""
    from safetensors import SafetensorError, safe_open

    if file is None or not file.is_file():
        return {}
    try:
        with safe_open(file, framework="pt") as content:
            descriptors = content.get_tensor("descriptors")
            entries: Any = json.loads(content.metadata()["entries"])
        parts = descriptors.split([int(count) for _, _, _, count in entries])
        rows = zip(entries, parts, strict=True)
        return {str(name): ((int(size), int(time)), part) for (name, size, time, _), part in rows}
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, OverflowError):
        return {}  # not a file of ours: look again


def write_seen(file: Path | None, seen: Mapping[str, Seen]) -> None:
    """Keep what was seen; nothing is written where there is no file for it, or nothing to keep."""
    from safetensors.torch import save

    if file is None or not seen:
        return
    entries = [[name, *stamp, len(part)] for name, (stamp, part) in seen.items()]
    tensors = {"descriptors": torch.cat([part for _, part in seen.values()])}
    prepare_output_folder(file.parent)
    write_atomically(file, save(tensors, {"entries": json.dumps(entries)}))
