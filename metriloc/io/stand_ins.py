"""Classes that foreign checkpoints name, stood in for by objects that keep their state and do nothing.

PyTorch's restricted unpickler calls what it is told to allow; the real ``numpy.dtype`` would take any state a file gives
it. Stand-ins are allowed under the real names instead, so nothing of numpy, Lightning or OmegaConf is ever called.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

_MAX_DEPTH = 50


class Inert:
    """Stands in for any other object: keeps its state and does nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = arguments

    def __setstate__(self, state: Any) -> None:
        self.state = state


@contextmanager
def stand_ins(objects: Sequence[str], tables: Sequence[str] = ()) -> Iterator[None]:
    """Lets ``torch.load(weights_only=True)`` accept these names: as inert objects, or as plain tables."""
    plain_tables = [(OrderedDict, name) for name in tables]  # the unpickler fills no class of ours
    inert = [(type("Inert", (Inert,), {}), name) for name in objects]
    with torch.serialization.safe_globals([*plain_tables, *inert]):
        yield


def plain(value: Any) -> Any:
    """Stand-ins -> dictionaries, lists and values.

    What is unknown, too deep or within itself becomes None.
    """
    return _plain(value, {}, 0)


def _plain(value: Any, known: dict[int, Any], depth: int) -> Any:
    if isinstance(value, (str, int, float, bool)):
        return value
    if depth > _MAX_DEPTH or id(value) in known:
        return known.get(id(value))  # the same table twice is one table here, too
    known[id(value)] = None
    found: Any = None
    if isinstance(value, Mapping):
        found = {str(key): _plain(entry, known, depth + 1) for key, entry in value.items()}
    elif isinstance(value, (list, tuple)):
        found = [_plain(entry, known, depth + 1) for entry in value]
    elif isinstance(value, Inert) and isinstance(value.state, Mapping):
        state = value.state
        found = _plain(state.get("_content", state.get("_val", state)), known, depth + 1)
    known[id(value)] = found
    return found
