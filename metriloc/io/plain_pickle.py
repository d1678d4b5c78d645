"""Pickles of other tools as plain data, without running anything that a pickle asks for.

A pickle is a program. This reader lets through numbers, texts, lists, tables, sets, NumPy arrays and numbers, and paths
(as text); objects of named packages become ``Opaque``: a name and the state they were saved with, no code of theirs is
run or even imported. Everything else is refused by name.
"""

from __future__ import annotations

import io
import os
import pickle
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metriloc.io.files import InputError, read_bytes

_ARRAYS = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFERS = ("numpy.core.numeric", "numpy._core.numeric")
_DAMAGE = (
    *(pickle.UnpicklingError, EOFError, AttributeError, LookupError, TypeError, ValueError, UnicodeError),
    *(OverflowError, MemoryError, RecursionError, NotImplementedError),
)
_KINDS = "biufcSU"
"""Kinds of NumPy types that are read: numbers, truth values and texts, but no objects."""


class Opaque:
    """An object whose class was not looked at. ``state``: whatever it was saved with, usually a table by name.

    Two are only equal when they are the same. Attributes of the state can be read with ``get``.
    """

    kind = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Opaque:
        made = super().__new__(cls)
        made.state = {"args": args} if args else {}
        return made

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state: Any

    def __setstate__(self, state: Any) -> None:
        # what C++ bindings write: a table, or (a table, slots)
        self.state = state[0] if isinstance(state, tuple) and state and isinstance(state[0], dict) else state

    def get(self, name: str, default: Any = None) -> Any:
        """An entry of the state; ``default`` when there is none."""
        return self.state.get(name, default) if isinstance(self.state, dict) else default

    def __repr__(self) -> str:
        return f"Opaque({self.kind})"


def read_plain_pickle(path: str | os.PathLike[str], opaque: Sequence[str] = ()) -> Any:
    """The content of a pickle file as plain data.

    opaque: packages whose objects become ``Opaque``. Raises InputError, naming the class, for a pickle that needs
    anything else, and for a file that is no pickle or only part of one.
    """
    return parse_plain_pickle(read_bytes(path), str(path), opaque)


def parse_plain_pickle(data: bytes, file: str = "pickle", opaque: Sequence[str] = ()) -> Any:
    """``read_plain_pickle`` of bytes."""
    try:
        return _PlainUnpickler(data, file, tuple(opaque)).load()
    except InputError:
        raise
    except _DAMAGE as error:
        words = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"'{file}' is not a pickle, or is damaged: {words}") from error


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, data: bytes, file: str, opaque: tuple[str, ...]) -> None:
        super().__init__(io.BytesIO(data))
        self._file, self._opaque = file, opaque
        self._stubs: dict[str, type[Opaque]] = {}

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or function of a pickle; see the module."""
        found = _ALLOWED.get((module, name))
        if found is not None:
            return found
        if module.split(".")[0] in self._opaque:
            full = f"{module}.{name}"
            if full not in self._stubs:
                self._stubs[full] = type("Opaque", (Opaque,), {"kind": full})
            return self._stubs[full]
        raise InputError(f"'{self._file}' is not read: it wants to use {module}.{name}, which could run code")

    def persistent_load(self, pid: Any) -> Any:
        """References to storage outside the pickle are refused."""
        raise InputError(f"'{self._file}' is not read: it refers to data outside of it")


def _empty_array(subtype: Any, shape: Any, kind: Any) -> np.ndarray:
    # the state that follows says what the array is; a made-up shape here would take as much memory as it likes
    return np.ndarray.__new__(np.ndarray, (0,), np.int8)


def _array_from_buffer(buffer: Any, kind: np.dtype, shape: Any, order: str, *_: Any) -> np.ndarray:
    return np.frombuffer(bytes(buffer), _plain(kind)).reshape(shape, order="F" if order == "F" else "C")


def _number(kind: np.dtype, data: Any = b"") -> Any:
    data = data.encode("latin1") if isinstance(data, str) else bytes(data)
    return np.frombuffer(data, _plain(kind), count=1)[0]


def _dtype(text: Any, *_: Any) -> np.dtype:
    return _plain(np.dtype(text if isinstance(text, str) else str(text)))


def _plain(kind: np.dtype) -> np.dtype:
    if not isinstance(kind, np.dtype) or kind.kind not in _KINDS or kind.hasobject:
        raise ValueError(f"an array of {kind!s:.60} is no plain data")
    return kind


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    # protocol 2 writes bytes so; other codecs could unpack to any size
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"text in {encoding!r}")
    return text.encode("latin1")


def _path(*parts: str) -> str:
    return str(Path(*parts)) if parts else ""


_ALLOWED: dict[tuple[str, str], Any] = {
    **{(module, "_reconstruct"): _empty_array for module in _ARRAYS},
    **{(module, "scalar"): _number for module in _ARRAYS},
    **{(module, "_frombuffer"): _array_from_buffer for module in _BUFFERS},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _dtype,
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): OrderedDict,
    **{
        (module, name): kind
        for module in ("builtins", "__builtin__")
        for name, kind in (("set", set), ("frozenset", frozenset))
    },
    **{
        (module, name): _path
        for module in ("pathlib", "pathlib._local")
        for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath", "PurePath")
    },
}
