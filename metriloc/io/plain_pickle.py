"""Pickles of other tools as plain data, without running anything that a pickle asks for.

A pickle is a program. This reader interprets it itself and knows only the instructions that build numbers, texts, lists,
tuples, tables and sets, NumPy arrays and numbers, and paths (as text). Arrays are made here from a kind, a shape and
bytes that must fit each other exactly; nothing of NumPy's own unpickling is called. Objects of named packages become
``Opaque``: a name and the state they were saved with. Everything else is refused by name. Size, number of instructions,
depth and time are bounded, and nothing may contain itself.
"""

from __future__ import annotations

import os
import pickletools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from metriloc.io.files import InputError, read_bytes
from metriloc.io.pickle_objects import (
    MAKERS,
    MARK,
    Kind,
    Name,
    Opaque,
    PendingArray,
    Settling,
    array_of,
    entry_name,
    table_of,
)

MAX_BYTES = 512 * 2**20
MAX_INSTRUCTIONS = 30_000_000
MAX_SECONDS = 120.0
MAX_NUMBER_BYTES = 64

_DAMAGE = (IndexError, KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError)


def read_plain_pickle(path: str | os.PathLike[str], opaque: Sequence[str] = ()) -> Any:
    """The content of a pickle file as plain data.

    opaque: packages whose objects become ``Opaque``. Raises InputError, naming the class, for a pickle that needs
    anything else, and for a file that is no pickle, only part of one, or beyond the bounds of this module.
    """
    return parse_plain_pickle(read_bytes(path, MAX_BYTES), str(path), opaque)


def parse_plain_pickle(data: bytes, file: str = "pickle", opaque: Sequence[str] = ()) -> Any:
    """``read_plain_pickle`` of bytes."""
    try:
        return _Machine(file, tuple(opaque)).run(data)
    except InputError:
        raise
    except _DAMAGE as error:
        words = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(f"'{file}' is not a pickle, or is damaged: {words}") from error


# -- what stands on the stack until the end ---------------------------------------------------------------------------


@dataclass
class _Machine:
    """The stack machine that a pickle is a program for."""

    file: str
    opaque: tuple[str, ...]
    stack: list[Any] = field(default_factory=list)
    memo: dict[int, Any] = field(default_factory=dict)

    def run(self, data: bytes) -> Any:
        started = time.monotonic()
        for count, (instruction, argument, _) in enumerate(pickletools.genops(data)):
            if count > MAX_INSTRUCTIONS:
                raise InputError(f"'{self.file}' has more than {MAX_INSTRUCTIONS} instructions and is not read")
            if count % 65536 == 0 and time.monotonic() - started > MAX_SECONDS:
                raise InputError(f"'{self.file}' takes more than {MAX_SECONDS:g} s to read and is not read")
            name = instruction.name
            if name == "STOP":
                return Settling().value(self.stack.pop())
            if name in _CONSTANTS:
                self.stack.append(_number(argument))
            else:
                handler = _INSTRUCTIONS.get(name)
                if handler is None:
                    raise InputError(f"'{self.file}' is not read: it asks for {name}, which is no plain data")
                handler(self, argument)
        raise ValueError("it does not end")

    def marked(self) -> list[Any]:
        """What stands above the last mark; both are taken off."""
        at = len(self.stack) - 1
        while self.stack[at] is not MARK:
            at -= 1
            if at < 0:
                raise ValueError("a mark is missing")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def named(self, module: Any, name: Any) -> None:
        """A class or function, if it is one that stands for plain data here."""
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a name is not text")
        if (module, name) not in MAKERS and module.split(".")[0] not in self.opaque:
            raise InputError(f"'{self.file}' is not read: it wants to use {module}.{name}, which could run code")
        self.stack.append(Name(module, name))

    def call(self, what: Any, arguments: Any) -> None:
        """What a class or function stands for, made of its arguments."""
        if not isinstance(what, Name) or not isinstance(arguments, tuple):
            raise ValueError("something is called that is no class")
        maker = MAKERS.get((what.module, what.name))
        self.stack.append(Opaque(str(what), arguments) if maker is None else maker(*arguments))

    def build(self, state: Any) -> None:
        """Hand a state to what was made last."""
        target = self.stack[-1]
        if isinstance(target, Opaque):
            # what C++ bindings write: a table, or (a table, slots)
            target.state = state[0] if isinstance(state, tuple) and state and isinstance(state[0], dict) else state
        elif isinstance(target, Kind):
            _, order, *described = state
            if order not in ("<", ">", "|", "=") or any(part is not None for part in described[:3]):
                raise ValueError("a kind of number with fields is no plain data")
            target.order = order
        elif isinstance(target, PendingArray) and target.value is None:
            _, shape, kind, fortran, content = state
            target.value = array_of(kind, shape, content, bool(fortran))
        else:
            raise ValueError(f"a {type(target).__name__.strip('_').lower()} takes no state")


# -- instructions -----------------------------------------------------------------------------------------------------
def _number(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > 8 * MAX_NUMBER_BYTES:
        raise ValueError(f"a number has more than {MAX_NUMBER_BYTES} bytes")
    return value


def _put(key: Callable[[Any, _Machine], int]) -> Callable[[_Machine, Any], None]:
    def put(machine: _Machine, argument: Any) -> None:
        machine.memo[key(argument, machine)] = machine.stack[-1]

    return put


def _get(machine: _Machine, argument: Any) -> None:
    machine.stack.append(machine.memo[argument])


def _make(kind: type) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(kind())


def _append(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, list):
        raise ValueError("something is appended to what is no list")
    target.extend(items)


def _set_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, dict):
        raise ValueError("an entry is set in what is no table")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[entry_name(key)] = value


def _add_items(machine: _Machine, items: list[Any]) -> None:
    target = machine.stack[-1]
    if not isinstance(target, set):
        raise ValueError("something is added to what is no set")
    target.update(entry_name(item) for item in items)


def _tuple(count: int) -> Callable[[_Machine, Any], None]:
    def make(machine: _Machine, _: Any) -> None:
        items = machine.stack[len(machine.stack) - count :]
        if len(items) != count:
            raise ValueError("the stack is too short")
        del machine.stack[len(machine.stack) - count :]
        machine.stack.append(tuple(items))

    return make


def _reduce(machine: _Machine, _: Any) -> None:
    arguments, what = machine.stack.pop(), machine.stack.pop()
    machine.call(what, arguments)


def _new_with_names(machine: _Machine, _: Any) -> None:
    names, arguments, what = machine.stack.pop(), machine.stack.pop(), machine.stack.pop()
    machine.call(what, (*arguments, *names.values()))


def _global(machine: _Machine, argument: Any) -> None:
    machine.named(*argument.split(" ", 1))


def _stack_global(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.named(module, name)


def _pushed(value: Any) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(value)


def _pop(machine: _Machine, _: Any) -> None:
    machine.stack.pop()


def _pop_mark(machine: _Machine, _: Any) -> None:
    machine.marked()


_CONSTANTS = frozenset(
    (
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    )
)
_INSTRUCTIONS: Mapping[str, Callable[[_Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": _pushed(MARK),
    "NONE": _pushed(None),
    "NEWTRUE": _pushed(True),
    "NEWFALSE": _pushed(False),
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "EMPTY_LIST": _make(list),
    "EMPTY_TUPLE": _make(tuple),
    "EMPTY_DICT": _make(dict),
    "EMPTY_SET": _make(set),
    "LIST": lambda machine, _: machine.stack.append(machine.marked()),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.marked())),
    "TUPLE1": _tuple(1),
    "TUPLE2": _tuple(2),
    "TUPLE3": _tuple(3),
    "DICT": lambda machine, _: machine.stack.append(table_of(machine.marked())),
    "FROZENSET": lambda machine, _: machine.stack.append(frozenset(entry_name(i) for i in machine.marked())),
    "APPEND": lambda machine, _: _append(machine, [machine.stack.pop()]),
    "APPENDS": lambda machine, _: _append(machine, machine.marked()),
    "SETITEM": lambda machine, _: _set_items(machine, [machine.stack.pop(), machine.stack.pop()][::-1]),
    "SETITEMS": lambda machine, _: _set_items(machine, machine.marked()),
    "ADDITEMS": lambda machine, _: _add_items(machine, machine.marked()),
    "PUT": _put(lambda argument, _: int(argument)),
    "BINPUT": _put(lambda argument, _: argument),
    "LONG_BINPUT": _put(lambda argument, _: argument),
    "MEMOIZE": _put(lambda _, machine: len(machine.memo)),
    "GET": lambda machine, argument: _get(machine, int(argument)),
    "BINGET": _get,
    "LONG_BINGET": _get,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_with_names,
    "BUILD": lambda machine, _: machine.build(machine.stack.pop()),
}


# -- what classes and functions stand for -----------------------------------------------------------------------------
