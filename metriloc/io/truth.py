"""The true relative pose of photos from a file that somebody wrote by hand or took from a dataset."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from metriloc.geometry import Pose
from metriloc.io.files import InputError, parse_numbers, read_text, without_comment
from metriloc.io.poses import parse_mapfree_poses

_LINES = "lines 'photo qw qx qy qz tx ty tz'"


def read_true_poses(path: str | os.PathLike[str], reference: Path, queries: Sequence[Path]) -> dict[str, Pose]:
    """The true ``query_from_reference`` of queries, by their paths as given; float64.

    - path: a file with Map-free lines, world to camera (where it does not name the reference, that is the world), or with
      the 4 x 4 numbers of the matrix of the one query.
    - reference, queries: photos. In lines they are found by their path, a tail of it or the file name.

    Raises InputError for a file of another form, a matrix that is no motion, a matrix for several queries, and a file that
    names none of the queries.

    >>> _ = Path("own_truth.txt").write_text("query.jpg 1 0 0 0 0 0 0.5")
    >>> read_true_poses("own_truth.txt", Path("reference.jpg"), [Path("query.jpg")])["query.jpg"].t.tolist()
    [0.0, 0.0, 0.5]
    """
    text = read_text(path)
    rows = [fields for line in text.split("\n") if (fields := without_comment(line).split())]
    if [len(row) for row in rows] == [4, 4, 4, 4]:
        if len(queries) != 1:
            raise InputError(f"'{path}' holds one matrix for {len(queries)} queries: give {_LINES}")
        return {str(queries[0]): _motion([parse_numbers(row, str(path)) for row in rows], str(path))}
    if not rows or any(len(row) != 8 for row in rows):
        raise InputError(f"'{path}' holds no true poses: it must have {_LINES}, or 4 x 4 numbers")
    listed = parse_mapfree_poses(text, str(path))
    _require_known(listed, [reference], text, path)
    world = _found(listed, reference) or Pose.identity(dtype=torch.float64)
    found = {str(query): pose @ world.inverse() for query in queries if (pose := _found(listed, query)) is not None}
    if not found:
        _require_known(listed, queries, text, path)
        names = ", ".join(list(listed)[:3])
        raise InputError(f"'{path}' has a true pose of no query: it names {names}, not the photos that were given")
    return found


def read_reference_poses(path: str | os.PathLike[str], references: Sequence[Path]) -> list[Pose]:
    """``cam_from_world`` of each reference, in their order; float64.

    The file holds Map-free lines, world to camera, metres; photos are found by their path, a tail of it or the file name.
    Raises InputError for a file of another form, and for references that it does not name.

    >>> _ = Path("own_references.txt").write_text("reference.jpg 1 0 0 0 0 0 0.5")
    >>> read_reference_poses("own_references.txt", [Path("reference.jpg")])[0].t.tolist()
    [0.0, 0.0, 0.5]
    """
    text = read_text(path)
    rows = [fields for line in text.split("\n") if (fields := without_comment(line).split())]
    if not rows or any(len(row) != 8 for row in rows):
        raise InputError(f"'{path}' holds no poses of references: it must have {_LINES}")
    listed = parse_mapfree_poses(text, str(path))
    _require_known(listed, references, text, path)
    found = []
    for reference in references:
        pose = _found(listed, reference)
        if pose is None:
            names = ", ".join(list(listed)[:3])
            raise InputError(f"'{path}' has no pose of the reference '{reference}': it names {names}")
        found.append(pose)
    return found


def _require_known(
    listed: Mapping[str, Pose | None], photos: Sequence[Path], text: str, path: str | os.PathLike[str]
) -> None:
    """Raises InputError where a file names one of the photos with a quaternion of zeros."""
    named = {name for photo in photos for name in _names(photo)} & listed.keys()
    for number, line in enumerate(text.split("\n"), 1):
        fields = without_comment(line).split()
        if fields and fields[0] in named and listed[fields[0]] is None:
            raise InputError(f"{path}:{number}: the quaternion of {fields[0]!r} is zero, so its pose is not known")


def _found(listed: Mapping[str, Pose | None], photo: Path) -> Pose | None:
    """The pose under the photo's path, or the longest tail of it."""
    return next((pose for name in _names(photo) if (pose := listed.get(name)) is not None), None)


def _names(photo: Path) -> tuple[str, ...]:
    return str(photo), *("/".join(photo.parts[k:]) for k in range(len(photo.parts)))


def _motion(rows: list[list[float]], path: str) -> Pose:
    matrix = torch.tensor(rows, dtype=torch.float64)
    R = matrix[:3, :3]
    off = float((R @ R.mT - torch.eye(3, dtype=torch.float64)).abs().max())
    last = torch.tensor([0.0, 0.0, 0.0, 1.0], dtype=torch.float64)
    if off > 1e-3 or float(torch.linalg.det(R)) < 0 or not torch.equal(matrix[3], last):
        raise InputError(f"'{path}' holds no motion: a rotation beside a translation, and a last row 0 0 0 1")
    return Pose.from_matrix(matrix)
