"""Keys of published training files as fields of recipes: what both systems' readers share.

A reader gives ``Setting``s, one a key; ``applied`` sets them. Keys that nobody knows are told, not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metriloc.io import InputError
from metriloc.overrides import override
from metriloc.training import Run


@dataclass(frozen=True)
class Setting:
    """A key of a file, and the field it sets."""

    key: str
    path: str
    value: Any


@dataclass(frozen=True, eq=False)
class PublishedRun:
    """The run of a published file. unread: keys in it that have no counterpart here."""

    run: Run
    unread: tuple[str, ...]


def applied(run: Run, settings: Sequence[Setting], source: str) -> Run:
    """The run with its fields set. Raises InputError naming the file and the key of a value that cannot be."""
    for setting in settings:
        try:
            run = override(run, [f"{setting.path}={as_text(setting.value)}"])
        except ValueError as error:
            raise InputError(f"'{source}': {setting.key}: {error}") from error
    return run


def as_text(value: Any) -> str:
    """A value of YAML as ``--set`` wants it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return ",".join(map(as_text, value))
    return str(value)


def number(values: Mapping[str, Any], key: str, source: str, default: float) -> float:
    """The positive number under a dotted key. Raises InputError for anything else."""
    found = values.get(key, default)
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = -1.0
    if isinstance(found, bool) or not 0 < value < 1e12:
        raise InputError(f"'{source}': {key} must be a positive number, got {str(found)[:60]!r}")
    return value
