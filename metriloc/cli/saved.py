"""Results of earlier runs: where a query's files are, and whether they may be kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def query_folder(path: Path, index: int, photo: Path, *, single: bool) -> Path:
    """One query: everything in ``path``; many: a folder each, whose number keeps equal names apart."""
    return path if single else path / f"{index:04d}_{photo.stem}"


def saved_entry(folder: Path, photo: Path, fingerprint: Callable[[], str]) -> dict[str, Any] | None:
    """The entry of a ``pose.json`` with the same fingerprint (photos, weights, settings); None when there is none."""
    file = folder / "pose.json"
    if not file.is_file() or not photo.is_file():
        return None
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        entry = content["queries"][0]
        return entry if isinstance(entry, dict) and content["fingerprint"] == fingerprint() else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None  # not a file of ours: compute again
