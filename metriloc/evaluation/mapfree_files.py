"""The files of the Map-free benchmark as its published scorer reads them: leniently, line by line, with its warnings.

These parsers decide scores, so they keep every quirk: a single blank splits fields, the frame is
the five digits before a three-letter extension, the folder in front of it is ignored, the last of two equal frames wins.
The library's own strict readers are in :mod:`metriloc.io.poses`.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float
from numpy import ndarray

ZERO_NORM = 1e-8
KEPT_WARNINGS = 100
"""Of one file; the rest is counted."""


@dataclass(frozen=True, eq=False)
class PoseTable:
    """Poses by frame number in file order (the first place a number comes up). q: w x y z, as written; t: metres;
    confidence: 0 where the file has none. warnings: the scorer's own sentences, each once, as ``LineWarnings`` keeps
    them."""

    frames: tuple[int, ...]
    q: Float[ndarray, "n 4"]
    t: Float[ndarray, "n 3"]
    confidence: Float[ndarray, " n"]
    warnings: tuple[str, ...] = field(default=())


class LineWarnings:
    """Sentences on the lines of one file: the first ``KEPT_WARNINGS``, and how many more there were."""

    def __init__(self, file: str) -> None:
        self.file, self.count = file, 0
        self.kept: list[str] = []

    def add(self, sentence: str) -> None:
        """One more, kept while there is room."""
        self.count += 1
        if len(self.kept) < KEPT_WARNINGS:
            self.kept.append(f"WARNING: {sentence}")

    def sentences(self) -> tuple[str, ...]:
        """Those kept, and one for all others."""
        more = self.count - len(self.kept)
        return (*self.kept, f"WARNING: {more} more warnings on lines of file {self.file}.") if more else (*self.kept,)


def parse_pose_lines(text: str, file: str, *, with_confidence: bool) -> PoseTable:
    """Lines of ``poses.txt`` (8 fields) or of a submission (9) as the published scorer takes them.

    A line it cannot use is left out with a warning that names file and line (from 0); lines whose first field has a
    ``#`` are left out silently. Negative confidences are kept: what to do about them is the scorer's business.
    """
    rows: dict[int, list[float]] = {}
    warnings = LineWarnings(file)
    for _, _, frame, values in pose_lines(text, file, warnings, with_confidence=with_confidence):
        rows[frame] = values
    return pose_table(rows, warnings, with_confidence=with_confidence)


def pose_lines(
    text: str, file: str, warnings: LineWarnings, *, with_confidence: bool
) -> Iterator[tuple[int, str, int, list[float]]]:
    """Of each usable line: its number (from 0), first field, frame and numbers; the others go to ``warnings``."""
    expected = 9 if with_confidence else 8
    for number, line in enumerate(file_lines(text)):
        fields = line.strip().split(" ", expected)
        place = f"file {file} line {number}."
        if len(fields) != expected:
            received = line.strip().count(" ") + 1
            warnings.add(
                f"Invalid number of fields in {place} Expected {expected}, received {received}. Ignoring line."
            )
            continue
        if "#" in fields[0]:
            continue
        frame = frame_number(fields[0])
        if frame is None:
            expectation = 'Expected formatting "seq1/frame_00000.jpg".'
            warnings.add(f"Invalid frame number in {place} {expectation} Ignoring line.")
            continue
        values = _finite(fields[1:])
        if values is None:
            warnings.add(f"Error parsing pose in {place} Ignoring line.")
        elif math.hypot(*values[:4]) <= ZERO_NORM:
            warnings.add(f"Error parsing pose in {place} Quaternion must have non-zero norm. Ignoring line.")
        else:
            yield number, fields[0], frame, values


def pose_table(rows: Mapping[int, list[float]], warnings: LineWarnings, *, with_confidence: bool) -> PoseTable:
    """Frame -> the numbers of its line, as arrays."""
    table = np.array(list(rows.values()), np.float64).reshape(len(rows), 8 if with_confidence else 7)
    confidence = table[:, 7] if with_confidence else np.zeros(len(rows))
    return PoseTable(tuple(rows), table[:, :4], table[:, 4:7], confidence, warnings.sentences())


def parse_intrinsics_lines(text: str) -> tuple[dict[int, Float[ndarray, "3 3"]], tuple[float, float]]:
    """Frame number -> K, rounded to float32 as upstream stores it, and (W, H) of the *last* usable line.

    Lines that are no ``path fx fy cx cy W H`` are left out, also those with a value that is not finite.
    """
    cameras: dict[int, ndarray] = {}
    size = (math.nan, math.nan)
    for line in file_lines(text):
        fields = line.strip().split(" ")
        if len(fields) != 7 or "#" in fields[0]:
            continue
        frame, values = frame_number(fields[0]), _finite(fields[1:])
        if frame is None or values is None:
            continue
        fx, fy, cx, cy, *size_ = values
        cameras[frame] = np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float32).astype(np.float64)
        size = (size_[0], size_[1])
    return cameras, size


def frame_number(name: str) -> int | None:
    """The number in the five characters before ``.xyz``; None when they are no number (``.jpeg`` never is)."""
    try:
        return int(name[-9:-4])
    except ValueError:
        return None


def file_lines(text: str) -> Iterator[str]:
    """As a text file is iterated: only newlines end a line, and nothing follows the last one."""
    return (line.rstrip("\n") for line in io.StringIO(text, newline=None))


def _finite(fields: list[str]) -> list[float] | None:
    try:
        values = [float(text) for text in fields]
    except ValueError:
        return None
    return values if all(map(math.isfinite, values)) else None
