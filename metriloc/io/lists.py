"""Text lists of localisation benchmarks: image names, queries with intrinsics, retrieved pairs (the formats of hloc).

| list | line |
|---|---|
| names (``list_test.txt``) | ``name`` |
| queries (``*_with_intrinsics.txt``) | ``name MODEL width height params...``, COLMAP's models and order |
| pairs (``pairs-*.txt``) | ``query reference``, the best first; a tab between names that hold blanks |

Lines that start with ``#`` and blank lines are skipped.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

from metriloc.geometry import Camera
from metriloc.io.colmap_rules import NAMED
from metriloc.io.files import InputError, parse_numbers, read_text

MAX_SIDE = 1_000_000


def parse_names(text: str, file: str = "list") -> list[str]:
    """Image names in file order. Raises InputError ``file:line`` for a name that comes twice."""
    names: dict[str, None] = {}
    for place, line in _lines(text, file):
        if line in names:
            raise InputError(f"{place}: {line[:80]!r} is listed already")
        names[line] = None
    return list(names)


def parse_queries(text: str, file: str = "queries") -> dict[str, Camera]:
    """The cameras of the queries by the names of their images. They are float64, first pixel centre at (0, 0), in file
    order.

    Raises InputError ``file:line`` for a malformed line, a camera model that is not supported, a focal length or size
    that is not positive, and a name that comes twice with another camera.
    """
    lines: dict[str, list[str]] = {}
    cameras: dict[str, Camera] = {}
    for place, line in _lines(text, file):
        name, *fields = _query_fields(line)
        if len(fields) < 4:
            raise InputError(f"{place}: {line[:80]!r} is not of the form 'name MODEL width height params...'")
        model = fields[0]
        if name in lines:
            if lines[name] != fields:
                raise InputError(f"{place}: {name!r} has another camera already")
            continue
        width, height, *params = parse_numbers(fields[1:], place)
        if (
            width != int(width)
            or height != int(height)
            or not 1 <= min(width, height) <= max(width, height) <= MAX_SIDE
        ):
            raise InputError(f"{place}: {fields[1]} {fields[2]} is not an image size in pixels")
        try:
            camera = Camera.from_colmap(model, int(width), int(height), params)
        except ValueError as error:
            raise InputError(f"{place}: {error}") from error
        if not bool((camera.f > 0).all()):
            raise InputError(f"{place}: the focal length must be positive, got {camera.f.tolist()}")
        lines[name], cameras[name] = fields, camera
    return cameras


def read_queries(pattern: str | os.PathLike[str]) -> dict[str, Camera]:
    """Read lists of queries, as ``parse_queries`` does. The list is one file, or all that a pattern with ``*`` matches,
    in the order of their names.

    Raises InputError when none matches, and for a name that two files give different cameras.
    """
    files = [str(pattern)] if Path(pattern).is_file() else sorted(glob.glob(str(pattern)))
    if not files:
        raise InputError(f"'{pattern}' is no list of queries, and no pattern that matches one")
    found: dict[str, Camera] = {}
    for file in files:
        for name, camera in parse_queries(read_text(file), file).items():
            if name in found and not _same(found[name], camera):
                raise InputError(f"'{file}' gives {name!r} another camera than an earlier file")
            found[name] = camera
    return found


def parse_pairs(text: str, file: str = "pairs") -> dict[str, tuple[str, ...]]:
    """The references to look at for each query. Query -> names in the order of the file, the best first; a repeated
    line counts once.

    Raises InputError ``file:line`` for a line that is not two names.
    """
    found: dict[str, dict[str, None]] = {}
    for place, line in _lines(text, file):
        fields = [name.strip() for name in line.split("\t")] if "\t" in line else line.split()
        if len(fields) != 2:
            raise InputError(
                f"{place}: {line[:80]!r} is not of the form 'query reference' (names with blanks need a tab between them)"
            )
        found.setdefault(fields[0], {})[fields[1]] = None
    return {query: tuple(references) for query, references in found.items()}


def _query_fields(line: str) -> list[str]:
    """Name, model and numbers; the name may hold blanks, and ends before the last word that is a model of COLMAP's."""
    parts = re.split(r"(\s+)", line.strip())
    places = [n for n in range(2, len(parts), 2) if parts[n] in NAMED]
    if not places:
        return parts[::2]
    return ["".join(parts[: places[-1] - 1]), *parts[places[-1] :: 2]]


def _same(a: Camera, b: Camera) -> bool:
    return a.model == b.model and all(
        bool((getattr(a, name) == getattr(b, name)).all()) for name in ("size", "f", "c", "distortion")
    )


def _lines(text: str, file: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield f"{file}:{number}", line.strip()
