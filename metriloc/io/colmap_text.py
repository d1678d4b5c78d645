"""COLMAP's text files, line by line: whether what they say can be, and the names that pycolmap cuts at their first blank."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from metriloc.io.colmap_rules import NAMED, camera_fault, pose_fault
from metriloc.io.files import InputError

_POSE = 7


def check_text_model(folder: Path) -> dict[int, str]:
    """The whole names of the images, by COLMAP's ids.

    Raises InputError ``file:line`` for a camera, pose, pixel or point that cannot be, and for a line with too few fields.
    """
    _check_cameras(folder / "cameras.txt")
    names = _check_images(folder / "images.txt")
    _check_points(folder / "points3D.txt")
    for name, check in (("rigs", _check_rigs), ("frames", _check_frames)):
        path = folder / f"{name}.txt"
        if path.is_file():  # models of before COLMAP 3.12 have none
            check(path)
    return names


def _check_cameras(path: Path) -> None:
    for place, line in _entries(path):
        fields = line.split()
        if len(fields) < 5:
            raise InputError(f"{place}: {len(fields)} fields, too few for a camera")
        model = NAMED.get(fields[1])
        if model is None:
            raise InputError(f"{place}: camera model {fields[1][:40]!r} is not known")
        width, height, *params = _numbers(fields[2:], place)
        _refuse(camera_fault(model, width, height, params), place)


def _check_images(path: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    owner: dict[str, int] = {}
    lines = _lines(path)
    for place, line in lines:
        if not line or line.startswith("#"):
            continue
        fields = line.split(None, 9)
        if len(fields) < 10:
            raise InputError(f"{place}: {len(fields)} fields, too few for an image")
        _refuse(pose_fault(_numbers(fields[1 : 1 + _POSE], place)), place)
        number, name = int(_whole(fields[0], place)), fields[9]
        if owner.setdefault(name, number) != number:
            raise InputError(f"{place}: two images are called {name!r}")
        names[number] = name
        # the line after an image is its observations, also when it is empty
        where, observed = next(lines, (place, ""))
        _check_observations(observed, where)
    return names


def _check_observations(line: str, place: str) -> None:
    fields = line.split()
    if len(fields) % 3:
        raise InputError(f"{place}: {len(fields)} fields are no list of x y point")
    try:
        finite = all(map(math.isfinite, map(float, fields[0::3]))) and all(map(math.isfinite, map(float, fields[1::3])))
    except ValueError:
        finite = False
    if not finite:
        raise InputError(f"{place}: an observation is at pixels that are not finite numbers")


def _check_points(path: Path) -> None:
    for place, line in _entries(path):
        fields = line.split(None, 8)
        if len(fields) < 8:
            raise InputError(f"{place}: {len(fields)} fields, too few for a point")
        if not all(map(math.isfinite, _numbers(fields[1:4], place))):
            raise InputError(f"{place}: a point that is not finite: {' '.join(fields[1:4])}")


def _check_rigs(path: Path) -> None:
    for place, line in _entries(path):
        fields = line.split()[4:]  # of the rig itself and its reference sensor
        while fields:
            posed = len(fields) > 2 and fields[2] == "1"
            if posed:
                _refuse(pose_fault(_numbers(fields[3 : 3 + _POSE], place)), place)
            fields = fields[3 + _POSE * posed :]


def _check_frames(path: Path) -> None:
    for place, line in _entries(path):
        _refuse(pose_fault(_numbers(line.split()[2 : 2 + _POSE], place)), place)


# -- lines ------------------------------------------------------------------------------------------------------------
def _lines(path: Path) -> Iterator[tuple[str, str]]:
    """(file:line, the line without blanks at its ends), one at a time: models may be larger than memory should hold."""
    try:
        with open(path, "rb") as file:  # splats come with points3D.txt of no line at all
            for number, raw in enumerate(file, 1):
                yield f"{path}:{number}", raw.decode("utf-8", "replace").strip()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error


def _entries(path: Path) -> Iterator[tuple[str, str]]:
    return ((place, line) for place, line in _lines(path) if line and not line.startswith("#"))


def _numbers(fields: list[str], place: str) -> list[float]:
    found = []
    for text in fields:
        try:
            found.append(float(text))
        except ValueError:
            raise InputError(f"{place}: {text[:40]!r} is not a number") from None
    return found


def _whole(text: str, place: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(f"{place}: {text[:40]!r} is not a whole number") from None


def _refuse(fault: str | None, place: str) -> None:
    if fault is not None:
        raise InputError(f"{place}: {fault}")
