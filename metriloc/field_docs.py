"""What the fields of a configuration mean: the docstring after each of them, for ``--help`` and ``--show``."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any


def field_docs(kind: type) -> Mapping[str, str]:
    """The docstring after each field of a dataclass, by its name.

    Fields without one are left out.
    """
    body = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    if not isinstance(body, ast.ClassDef):
        raise TypeError(f"{kind} is no class")
    found = {}
    for field, doc in zip(body.body, body.body[1:], strict=False):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        if isinstance(doc, ast.Expr) and isinstance(doc.value, ast.Constant) and isinstance(doc.value.value, str):
            found[field.target.id] = inspect.cleandoc(doc.value.value)
    return found


def documented_fields(target: Any, prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    """The fields of a configuration with what they mean. They are (path, value, what it means) of every field and of
    those in it, in order."""
    docs = field_docs(type(target))
    for field in dataclasses.fields(target):
        value, path = getattr(target, field.name), f"{prefix}{field.name}"
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            yield from documented_fields(value, f"{path}.")
        else:
            yield path, value, docs.get(field.name, "")
