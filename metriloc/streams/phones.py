"""Dumps of Stray Scanner (iPhone): ``rgb.mp4``, ``odometry.csv``, ``camera_matrix.csv``; and what dumps of phones share.

Poses are ARKit's, camera to world, of the pixels as they are stored, with the camera's axes right, down, forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metriloc.datasets.matrices import parse_matrix
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, camera_from_K, read_text
from metriloc.io.files import parse_numbers
from metriloc.streams.device_poses import NumberedPoses, PoseRow, numbered_rows
from metriloc.streams.frames import Stream
from metriloc.streams.notes import Notes
from metriloc.streams.video import VideoFacts, video_stream
from metriloc.streams.views import CameraOptions

_ODOMETRY = ("x", "y", "z", "qx", "qy", "qz", "qw")
_FOCAL = ("fx", "fy", "cx", "cy")


@dataclass(frozen=True, eq=False)
class Capture:
    """What a phone told of its frames, by their numbers. intrinsics: fx fy cx cy; size: (width, height) of the photos that
    these are for, None for those of the frames; times: seconds."""

    poses: Mapping[int, Pose]
    intrinsics: Mapping[int, tuple[float, ...]] = field(default_factory=dict)
    times: Mapping[int, float] = field(default_factory=dict)
    size: tuple[int, int] | None = None
    count: int = 0

    def camera(self, index: int, size: tuple[int, int] | None = None) -> Camera | None:
        """Of a frame; size: of its pixels."""
        numbers, wanted = self.intrinsics.get(index), self.size or size
        return None if numbers is None or wanted is None else camera_from_K(numbers, wanted)


def is_odometry(first: str) -> bool:
    """Whether the first line of a file is one of Stray Scanner's ``odometry.csv``: its head, or seven numbers."""
    fields = [name.strip().lower() for name in first.split(",")]
    return set(_ODOMETRY) <= set(fields) or (len(fields) == 7 and not first.lstrip().startswith("#"))


def read_odometry(path: Path, notes: Notes) -> Capture:
    """Poses and, where they are told, intrinsics of each frame.

    Raises InputError ``file:line`` for a malformed line, and for a file without a pose.
    """
    head: list[str] = list(_ODOMETRY)  # early versions had no head
    rows, intrinsics, times = [], {}, {}
    number = -1
    for line_number, line in enumerate(read_text(path).split("\n"), 1):
        fields = [text.strip() for text in line.split(",")]
        if not line.strip():
            continue
        if line_number == 1 and "qw" in (names := [text.lower() for text in fields]):
            head = names
            continue
        place = f"{path}:{line_number}"
        if len(fields) != len(head):
            raise InputError(f"{place}: {len(fields)} fields instead of {len(head)}, {', '.join(head)}")
        values = dict(zip(head, parse_numbers(fields, place, finite=False), strict=True))
        number = int(_whole(values["frame"], place)) if "frame" in values else number + 1
        x, y, z, qx, qy, qz, qw = (values[name] for name in _ODOMETRY)
        rows.append(PoseRow(place, str(number), (qw, qx, qy, qz), (x, y, z)))
        if set(_FOCAL) <= values.keys():
            intrinsics[number] = tuple(values[name] for name in _FOCAL)
        if "timestamp" in values:
            times[number] = values["timestamp"]
    return Capture(numbered_rows(rows, notes, str(path)), intrinsics, times, count=len(rows))


def _whole(value: float, place: str) -> float:
    if not 0 <= value < 1e9 or value != int(value):
        raise InputError(f"{place}: {value:g} is not the number of a frame")
    return value


def is_stray(folder: Path) -> bool:
    """Whether a folder is a dump of Stray Scanner."""
    return (folder / "rgb.mp4").is_file() and (folder / "odometry.csv").is_file()


def stray_stream(folder: Path, options: CameraOptions) -> Stream:
    """The video of a dump with intrinsics and poses. Raises InputError for malformed files, ImportError without PyAV."""
    notes = Notes()
    odometry = read_odometry(folder / "odometry.csv", notes)
    matrix = folder / "camera_matrix.csv"
    shared = _stray_matrix(matrix) if matrix.is_file() else None

    def camera(index: int, size: tuple[int, int]) -> Camera | None:
        own = odometry.camera(index, size)
        return own if own is not None or shared is None else camera_from_K(shared, size)

    device = NumberedPoses(odometry.poses, notes, f"'{folder / 'odometry.csv'}'")
    source = str(folder / ("odometry.csv" if odometry.intrinsics else "camera_matrix.csv"))
    facts = VideoFacts(camera, source, odometry.times, upright=False)
    return video_stream(folder / "rgb.mp4", options, facts=facts, device=device, notes=notes)


def _stray_matrix(file: Path) -> tuple[float, ...]:
    K = parse_matrix(read_text(file), str(file))
    if K.shape != (3, 3):
        raise InputError(f"'{file}' must hold the 3x3 numbers of K, got {K.shape[0]}x{K.shape[1]}")
    return float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2])
