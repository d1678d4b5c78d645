"""Fields of configurations from texts, ``training.optimizer.lr=3e-4``; and configurations as plain values, for JSON.

A path walks through the fields of (frozen) dataclasses; what a field may hold is what its annotation says. Everything
that cannot be is a ValueError of one sentence. No ``eval``.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Union

_END = re.compile(r"\[(first|last)\]$")
_PLAIN = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "Path": "a path"}


def override(
    target: Any, assignments: Sequence[str], *, group: str = "", aliases: Mapping[str, str] = MappingProxyType({})
) -> Any:
    """A copy of a dataclass with fields set from texts.

    They read ``path=value``, and are checked against their types.

    - assignments: values are numbers, true/false, none, text, one word of a Literal; tuples ``a,b,c`` or JSON;
      ``path[first]`` and ``path[last]`` are the ends of a tuple.
    - group: field whose own fields need no prefix.
    - aliases: other names of paths, for what is not a field; groups of other names may stand before them.

    Raises ValueError for an unknown field, a value of a wrong type, and what the dataclass itself refuses.

    >>> from metriloc.backbones import DinoV2Config
    >>> override(DinoV2Config(), ["depth=12"]).depth
    12
    """
    for assignment in assignments:
        given, equals, text = assignment.partition("=")
        if not equals or not given:
            raise ValueError(f"{assignment!r} does not read FIELD=VALUE")
        path = _resolved(target, given, group, aliases)
        target = _set(target, path.split("."), text, given)
    return target


def _resolved(target: Any, given: str, group: str, aliases: Mapping[str, str]) -> str:
    first = _END.sub("", given.split(".")[0])
    if first in _names(target):
        return given
    if group and first in _names(getattr(target, group)):
        return f"{group}.{given}"
    alias = given
    while alias and alias not in aliases:  # published files have groups of their own before the name
        alias = alias.partition(".")[2]
    if alias:
        return aliases[alias]
    return f"{group}.{given}" if group else given


def _names(target: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(target)]


def settable_fields(target: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of every field that ``override`` can set, in order.

    >>> from metriloc.backbones import EfficientNetLiteConfig
    >>> dict(settable_fields(EfficientNetLiteConfig()))
    {'variant': 'lite0', 'stride': 8, 'width': 64}
    """
    for field in dataclasses.fields(target):
        value, path = getattr(target, field.name), f"{prefix}{field.name}"
        if _is_group(value):
            yield from settable_fields(value, f"{path}.")
        elif not callable(value):
            yield path, value


def plain(value: Any) -> Any:
    """A recipe as JSON values.

    Dataclasses as objects with their ``type``, functions by name, tuples as lists.
    """
    if _is_group(value):
        entries = {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {"type": _name(type(value)), **entries}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return _name(value) if callable(value) else str(value)


def flat(content: Any, prefix: str = "") -> dict[str, Any]:
    """Nested JSON objects as one table with dotted keys."""
    if not isinstance(content, Mapping):
        return {prefix: content}
    pairs: dict[str, Any] = {}
    for key, value in content.items():
        pairs |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return pairs


def _set(target: Any, names: Sequence[str], text: str, path: str) -> Any:
    known = _names(target)
    end, name, rest = _END.search(names[0]), _END.sub("", names[0]), names[1:]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
        raise ValueError(f"{path}: there is no field {name!r} in {type(target).__name__}; {hint}")
    current = getattr(target, name)
    if rest:
        if not _is_group(current):
            raise ValueError(f"{path}: {name!r} has no fields of its own, it is {plain(current)!r}")
        value = _set(current, rest, text, path)
    elif end is not None:
        value = _with_end(current, end[1] == "first", text, path)
    else:
        value = _parse(text, _annotation(target, name), current, path)
    return dataclasses.replace(target, **{name: value})


def _with_end(current: Any, first: bool, text: str, path: str) -> tuple[Any, ...]:
    """A tuple of numbers with another first or last one."""
    if not isinstance(current, tuple) or not current:
        raise ValueError(f"{path}: it has no ends, it is {plain(current)!r}")
    value = _parse(text, type(current[0]), current[0], path)
    return (value, *current[1:]) if first else (*current[:-1], value)


def _annotation(target: Any, name: str) -> Any:
    try:
        return typing.get_type_hints(type(target))[name]
    except NameError:  # an annotation that only exists for type checkers
        return type(getattr(target, name))


def _parse(text: str, kind: Any, current: Any, path: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return _parse_union(text, arguments, current, path)
    if origin is Literal:
        for choice in arguments:
            if str(choice) == text:
                return choice
        raise ValueError(f"{path} must be one of {', '.join(map(str, arguments))}, got {text!r}")
    if origin is tuple:
        return _parse_tuple(text, arguments, path)
    if _is_group(current):
        example = dataclasses.fields(current)[0].name if dataclasses.fields(current) else "FIELD"
        raise ValueError(f"{path} is a group of fields: set them one by one, e.g. {path}.{example}=VALUE")
    if kind not in (int, float, bool, str, Path):
        raise ValueError(f"{path} cannot be set from the command line: it is {plain(current)!r}")
    try:
        return _parse_plain(text, kind)
    except ValueError:
        raise ValueError(f"{path} must be {_PLAIN[kind.__name__]}, got {text!r}") from None


def _parse_plain(text: str, kind: type) -> Any:
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind is int:
        number = float(text) if "e" in text.lower() else int(text)  # 1e5 is a whole number too
        if not math.isfinite(number) or number != int(number):
            raise ValueError(text)
        return int(number)
    if kind is float and not math.isfinite(float(text)):
        raise ValueError(text)
    return kind(text)


def _parse_union(text: str, arguments: Sequence[Any], current: Any, path: str) -> Any:
    if type(None) in arguments and text.lower() in ("none", "null"):  # as Python and JSON write it
        return None
    choices = sorted((a for a in arguments if a is not type(None)), key=lambda a: a is str)  # text fits everything
    for choice in choices[:-1]:
        try:
            return _parse(text, choice, current, path)
        except ValueError:
            continue
    return _parse(text, choices[-1], current, path)


def _parse_tuple(text: str, arguments: Sequence[Any], path: str) -> tuple[Any, ...]:
    items = _items(text, path)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = [arguments[0]] * len(items)
    if len(items) != len(arguments):
        raise ValueError(f"{path} must have {len(arguments)} values, got {len(items)}: {text!r}")
    return tuple(
        _parse(item, kind, None, f"{path}[{i}]") for i, (item, kind) in enumerate(zip(items, arguments, strict=True))
    )


def _items(text: str, path: str) -> list[str]:
    if not text.startswith("["):
        return text.split(",") if text else []
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not a JSON list: {error}") from error
    return [entry if isinstance(entry, str) else json.dumps(entry) for entry in entries]


def _is_group(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _name(thing: Any) -> str:
    name = getattr(thing, "__qualname__", None) or type(thing).__qualname__
    return f"{getattr(thing, '__module__', '')}.{name}"
