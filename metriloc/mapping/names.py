"""Photos by the names that people give them: as the map has it, a path that ends so, or the end of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import PurePath

from metriloc.io.files import InputError


def find_name(names: Iterable[str], given: str) -> str | None:
    """The photo of a map that is meant.

    Of exactly this name, else the only one of which one name ends as the other does (whole parts of
    the path). None where there is none. Raises InputError where several end so.
    """
    names = list(names)
    if given in names:
        return given
    parts = PurePath(given.replace("\\", "/")).parts
    found = [name for name in names if _ends_alike(PurePath(name).parts, parts)]
    if len(found) > 1:
        raise InputError(f"{given!r} may be {found[0]!r} or {found[1]!r}: give more of the path")
    return found[0] if found else None


def require_name(names: Iterable[str], given: str) -> str:
    """The same; raises InputError, with an example, where there is none."""
    names = list(names)
    found = find_name(names, given)
    if found is None:
        example = f", such as {names[0]!r}" if names else ""
        raise InputError(f"there is no photo {given!r} in the map (it has {len(names)}{example})")
    return found


def _ends_alike(a: tuple[str, ...], b: tuple[str, ...]) -> bool:
    length = min(len(a), len(b))
    return length > 0 and a[-length:] == b[-length:]
