"""Options of the command line that are made from the fields of a configuration, in place of told again."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar

import tyro

from metriloc.field_docs import field_docs

_T = TypeVar("_T")

Assignments = Annotated[tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]], tyro.conf.arg(metavar="FIELD=VALUE")]
"""Of ``--set``: once or more often, one or more at a time."""


def options_from(config: type, without: Collection[str] = ()) -> Callable[[type[_T]], type[_T]]:
    """Adds an option for each field of a configuration to a class of options: the same kind, name and docstring, and
    None where it is not given. The fields of the class itself stand first."""
    kinds, docs = typing.get_type_hints(config), field_docs(config)

    def made(options: type[_T]) -> type[_T]:
        own, told = typing.get_type_hints(options), field_docs(options)
        annotations: dict[str, Any] = {
            name: Annotated[kind, tyro.conf.arg(help=told[name])] for name, kind in own.items()
        }
        for field in dataclasses.fields(config):
            if field.name not in without:
                annotations[field.name] = Annotated[kinds[field.name] | None, tyro.conf.arg(help=docs[field.name])]
                setattr(options, field.name, None)
        options.__annotations__ = annotations
        return dataclasses.dataclass(frozen=True)(options)

    return made
