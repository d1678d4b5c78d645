"""Settings of methods from texts, ``fine.longest_side=640``: what ``--set`` and ``--show`` do."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

from metriloc.field_docs import documented_fields
from metriloc.io import InputError
from metriloc.overrides import override, plain

_MAIN = "config"
"""Group of settings whose fields need no prefix, where a method has several groups."""
_Method = TypeVar("_Method")


@runtime_checkable
class Adjustable(Protocol):
    """A method whose settings can be changed.

    settings: a frozen dataclass. published_names: how published config files call the fields. with_settings: the same
    method with others.
    """

    @property
    def settings(self) -> Any:
        """All of them."""
        ...

    @property
    def published_names(self) -> Mapping[str, str]:
        """Name -> path of a field."""
        ...

    def with_settings(self, settings: Any) -> Any:
        """The same weights with other settings."""
        ...


def adjusted(method: _Method, assignments: Sequence[str]) -> _Method:
    """The method with settings as given, ``["fine.longest_side=640"]``.

    Raises InputError for what it cannot be set to, and for a method that has no settings.
    """
    if not assignments:
        return method
    if not isinstance(method, Adjustable):
        raise InputError(f"--set {assignments[0]}: {getattr(method, 'name', 'this method')} has no settings")
    try:
        settings = override(
            method.settings, assignments, group=main_group(method.settings), aliases=method.published_names
        )
        changed: _Method = method.with_settings(settings)
    except ValueError as error:
        raise InputError(f"--set {' '.join(assignments)}: {error}") from error
    return changed


def main_group(settings: Any) -> str:
    """The group whose fields need no prefix. "" where the fields are not in groups."""
    return _MAIN if hasattr(settings, _MAIN) else ""


def shown_settings(method: object, width: int = 80) -> Iterator[str]:
    """Lines of every setting.

    ``path=value``, what it means, and what published config files call it.
    """
    if not isinstance(method, Adjustable):
        return
    names: dict[str, list[str]] = {}
    for name, path in method.published_names.items():
        names.setdefault(path.partition("[")[0], []).append(name)
    for path, value, doc in documented_fields(method.settings):
        yield f"{path}={value if isinstance(value, str) else json.dumps(plain(value))}"
        published = f" (published: {', '.join(names[path])})" if path in names else ""
        yield from textwrap.wrap(f"{doc}{published}", width, initial_indent="    ", subsequent_indent="    ")
