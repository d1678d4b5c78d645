"""Settings in one line: what made an estimate besides weights, as calibrations name it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator
from typing import Any


def differing_settings(config: Any, default: Any, without: Collection[str] = ()) -> str:
    """``a=1, b.c=2``.

    The fields of a dataclass that are not as in another one of its kind, in order; "" for none.
    without: names of fields that do not matter.
    """
    return ", ".join(f"{name}={value}" for name, value in _differences(config, default, without))


def _differences(config: Any, default: Any, without: Collection[str]) -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(config):
        own, other = getattr(config, field.name), getattr(default, field.name)
        if field.name in without or own == other:
            continue
        if dataclasses.is_dataclass(own) and type(own) is type(other):
            yield from ((f"{field.name}.{name}", value) for name, value in _differences(own, other, without))
        else:
            yield field.name, own
