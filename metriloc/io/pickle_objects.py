"""What classes and functions of a pickle stand for when it is read as plain data, and the finished data.

Arrays are made from a kind, a shape and bytes that must fit each other exactly; nothing of NumPy's own unpickling is
called, no name is looked up.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

MAX_DEPTH = 60
MAX_DIMENSIONS = 8
MAX_EMPTY = 1_000_000
"""Rows that an array without any numbers may claim."""
_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFERS = ("numpy.core.numeric", "numpy._core.numeric")
_PATHS = ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "PurePath")
_KIND = re.compile(r"[biufc](1|2|4|8|16)|[SU]\d{1,4}")
_KEYS = (str, bytes, int, float, bool, type(None))


class Opaque:
    """An object whose class was not looked at. ``state``: whatever it was saved with, usually a table by name.

    Two are only equal when they are the same. Attributes of the state can be read with ``get``.
    """

    def __init__(self, kind: str, args: tuple[Any, ...] = ()) -> None:
        self.kind = kind
        self.state: Any = {"args": args} if args else {}

    def get(self, name: str, default: Any = None) -> Any:
        """An entry of the state; ``default`` when there is none."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default

    def __repr__(self) -> str:
        return f"Opaque({self.kind})"


@dataclass(frozen=True)
class Name:
    """A class or function that the pickle names. It is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Kind:
    """A NumPy kind of number, such as ``f8``, and its byte order."""

    text: str
    order: str = "="

    def dtype(self) -> np.dtype:
        return np.dtype(self.order + self.text)


@dataclass
class PendingArray:
    """An array that is still to be told what it holds."""

    value: np.ndarray | None = None


MARK = object()


def entry_name(value: Any, depth: int = 0) -> Any:
    if isinstance(value, tuple) and depth < MAX_DEPTH:
        return tuple(entry_name(part, depth + 1) for part in value)
    if not isinstance(value, _KEYS):
        raise ValueError(f"a {type(value).__name__.strip('_').lower()} is the name of an entry")
    return value


def table_of(items: list[Any]) -> dict[Any, Any]:
    return {entry_name(key): value for key, value in zip(items[::2], items[1::2], strict=True)}


def _kind(text: Any, *_: Any) -> Kind:
    if not isinstance(text, str) or _KIND.fullmatch(text) is None:
        raise ValueError(f"an array of {str(text)[:60]!r} is no plain data")
    return Kind(text)


def array_of(kind: Any, shape: Any, content: Any, fortran: bool) -> np.ndarray:
    """Exactly what the bytes hold. ValueError when kind, shape and bytes do not fit each other."""
    if not isinstance(kind, Kind) or not isinstance(content, bytes | bytearray):
        raise ValueError("an array of objects is no plain data")
    if not isinstance(shape, tuple) or len(shape) > MAX_DIMENSIONS:
        raise ValueError("the shape of an array is wrong")
    if any(isinstance(n, bool) or not isinstance(n, int) or not 0 <= n < 2**40 for n in shape):
        raise ValueError("the shape of an array is wrong")
    dtype, count = kind.dtype(), math.prod(shape)
    if count * dtype.itemsize != len(content):
        raise ValueError(f"an array of shape {shape} does not fit its {len(content)} bytes")
    if count == 0:
        if math.prod(n for n in shape if n) > MAX_EMPTY:
            raise ValueError(f"an array of shape {shape} holds nothing")
        return np.empty(shape, dtype)
    return np.frombuffer(bytearray(content), dtype).reshape(shape, order="F" if fortran else "C")


def _from_buffer(content: Any, kind: Any, shape: Any, order: Any, *_: Any) -> PendingArray:
    return PendingArray(array_of(kind, shape, content, order == "F"))


def _scalar(kind: Any, content: Any = b"") -> Any:
    content = content.encode("latin1") if isinstance(content, str) else content
    return array_of(kind, (1,), content, False)[0]


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    # protocol 2 writes bytes so; other codecs could unpack to any size
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text in {str(encoding)[:20]!r}")
    return text.encode("latin1")


def _path(*parts: Any) -> str:
    if not all(isinstance(part, str) for part in parts):
        raise ValueError("a path of what is no text")
    return str(PurePosixPath(*parts)) if parts else ""


def _gathered(make: Callable[[Any], Any]) -> Callable[..., Any]:
    def gather(items: Any = ()) -> Any:
        if not isinstance(items, list | tuple):
            raise ValueError("a set of what is no list")
        return make(entry_name(item) for item in items)

    return gather


def _ordered(items: Any = ()) -> dict[Any, Any]:
    return table_of([part for pair in items for part in pair])


MAKERS: Mapping[tuple[str, str], Callable[..., Any]] = {
    **{(module, "_reconstruct"): lambda *_: PendingArray() for module in _ARRAYS},
    **{(module, "scalar"): _scalar for module in _ARRAYS},
    **{(module, "_frombuffer"): _from_buffer for module in _BUFFERS},
    ("numpy", "ndarray"): lambda *_: PendingArray(),
    ("numpy", "dtype"): _kind,
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): _ordered,
    **{(module, "set"): _gathered(set) for module in ("builtins", "__builtin__")},
    **{(module, "frozenset"): _gathered(frozenset) for module in ("builtins", "__builtin__")},
    **{(module, name): _path for module in ("pathlib", "pathlib._local") for name in _PATHS},
}


class Settling:
    """The finished data: arrays in the place of what stood for them. Nothing may contain itself."""

    def __init__(self) -> None:
        self.done: dict[int, Any] = {}
        self.open: set[int] = set()

    def value(self, item: Any, depth: int = 0) -> Any:
        """The value of an item. Raises ValueError for what is nested too deeply, contains itself or was never
        finished."""
        if isinstance(item, PendingArray):
            if item.value is None:
                raise ValueError("an array was never told what it holds")
            return item.value
        if isinstance(item, Kind | Name) or item is MARK:
            raise ValueError("a class is no plain data")
        if not isinstance(item, list | tuple | dict | Opaque):
            return item
        if id(item) in self.done:
            return self.done[id(item)]
        if id(item) in self.open or depth > MAX_DEPTH:
            raise ValueError("it contains itself, or is nested too deeply")
        self.open.add(id(item))
        found = self._settled(item, depth + 1)
        self.open.discard(id(item))
        self.done[id(item)] = found
        return found

    def _settled(self, item: Any, depth: int) -> Any:
        if isinstance(item, Opaque):
            item.state = self.value(item.state, depth)
            return item
        if isinstance(item, dict):
            return {key: self.value(value, depth) for key, value in item.items()}
        return type(item)(self.value(value, depth) for value in item)
