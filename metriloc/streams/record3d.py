"""Captures of Record3D (iPhone): an archive ``.r3d``, or a folder with ``metadata`` and ``rgbd/`` or ``rgb/``.

Poses are ARKit's, camera to world with axes right, up, back, one a photo, and so are the intrinsics.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from metriloc.geometry import Pose
from metriloc.io import InputError, read_json
from metriloc.io.archives import ZIP_DAMAGE, open_zip
from metriloc.io.files import MAX_JSON_BYTES, parse_json, require_file
from metriloc.streams.device_poses import NumberedPoses, PoseRow, known_rows
from metriloc.streams.folder import DEFAULT_FPS, Photos
from metriloc.streams.frames import Stream, StreamFrame
from metriloc.streams.notes import Notes
from metriloc.streams.phones import Capture
from metriloc.streams.views import CameraOptions, view_of_jpeg
from metriloc.types import View

MAX_PHOTO_BYTES = 64 * 2**20
"""Of one photo in an archive of Record3D."""
_NAMES = ("metadata", "metadata.json")


def is_record3d(path: Path) -> bool:
    """Whether a path is an archive of Record3D, or the folder of an unpacked one."""
    if path.suffix.lower() == ".r3d":
        return path.is_file()
    return any((path / name).is_file() for name in _NAMES) and any((path / name).is_dir() for name in ("rgbd", "rgb"))


def read_record3d(path: Path, notes: Notes) -> Capture:
    """What ``metadata`` of an archive, of a folder or by itself tells. Raises InputError for one that is malformed."""
    if path.is_dir():
        path = next((path / name for name in _NAMES if (path / name).is_file()), path / _NAMES[0])
    if path.suffix.lower() != ".r3d":
        return parse_record3d(read_json(path), f"'{path}'", notes)
    place = f"'{path}', metadata"
    with _archive(path) as archive:
        text = _member(archive, "metadata", path, MAX_JSON_BYTES).decode("utf-8", "replace")
    return parse_record3d(parse_json(text, place), place, notes)


def parse_record3d(top: Any, place: str, notes: Notes) -> Capture:
    """The content of a ``metadata``. Raises InputError, which begins with ``place``, for what is malformed."""
    if not isinstance(top, dict):
        raise InputError(f"{place}: a capture of Record3D is an object with poses")
    listed = _table(top.get("poses"), "poses", 7, place)
    rows = [
        PoseRow(f"{place}, pose {i}", str(i), (w, qx, qy, qz), (x, y, z))
        for i, (qx, qy, qz, w, x, y, z) in enumerate(listed)
    ]
    found = known_rows(rows, notes)
    if not found:
        raise InputError(f"{place}: there is no pose")
    poses = {int(row.key): Pose.from_convention(pose, "arkit", keep_world=True) for row, pose in found}
    width, height = (_number(top, name, place) for name in ("w", "h"))
    times = _times(top, len(listed), place)
    return Capture(poses, _intrinsics(top, len(listed), place), times, (int(width), int(height)), len(listed))


def _intrinsics(top: Mapping[str, Any], count: int, place: str) -> dict[int, tuple[float, ...]]:
    """fx fy cx cy of each photo; of ``K``, which is stored column by column, where a photo has none of its own."""
    each = top.get("perFrameIntrinsicCoeffs")
    own = _table(each, "perFrameIntrinsicCoeffs", 4, place) if each else []
    found: dict[int, tuple[float, ...]] = {}
    if top.get("K"):
        (K,) = _table([top["K"]], "K", 9, place)
        found = dict.fromkeys(range(count), (K[0], K[4], K[6], K[7]))
    return found | {i: tuple(numbers) for i, numbers in enumerate(own[:count])}


def _times(top: Mapping[str, Any], count: int, place: str) -> dict[int, float]:
    stamps = top.get("frameTimestamps")
    if isinstance(stamps, list) and stamps:
        return {i: time for i, (time,) in enumerate(_table([[t] for t in stamps], "frameTimestamps", 1, place))}
    rate = _number(top, "fps", place) if "fps" in top else DEFAULT_FPS
    return {i: i / rate for i in range(count)}


def record3d_stream(path: Path, options: CameraOptions) -> Stream:
    """The photos of a capture with intrinsics and poses of each. Raises InputError for malformed files."""
    notes = Notes()
    capture = read_record3d(path, notes)
    device = NumberedPoses(capture.poses, notes, f"'{path}'")
    numbers = range(capture.count)
    if path.is_dir():
        folder = next(path / name for name in ("rgbd", "rgb") if (path / name).is_dir())
        paths = [folder / f"{i}.jpg" for i in numbers]
        times = [capture.times.get(i) for i in numbers]
        photos = Photos(paths, times, cameras=capture.camera, source=f"metadata of {path}", upright=False)
        return photos.stream(str(path), options, device, notes)

    def frames() -> Iterator[StreamFrame]:
        with _archive(path) as archive:
            for index in numbers:
                yield _record3d_frame(path, archive, index, capture, options)

    return Stream(str(path), frames, capture.count, device=device, notes=notes)


def _record3d_frame(
    path: Path, archive: zipfile.ZipFile, index: int, capture: Capture, options: CameraOptions
) -> StreamFrame:
    name = f"{index}.jpg"

    def load() -> View:
        data = _member(archive, f"rgbd/{name}", path, MAX_PHOTO_BYTES)
        return view_of_jpeg(data, name, options, capture.camera(index), f"metadata of {path}")

    return StreamFrame(index, name, capture.times.get(index), load)


@contextmanager
def _archive(path: Path) -> Iterator[zipfile.ZipFile]:
    require_file(path)
    try:
        with open_zip(path) as archive:
            yield archive
    except ZIP_DAMAGE as error:
        raise InputError(f"'{path}' is not an archive of Record3D, or is damaged: {error}") from error


def _member(archive: zipfile.ZipFile, name: str, path: Path, limit: int) -> bytes:
    """A file of an archive, at most ``limit`` bytes whatever its head says."""
    try:
        with archive.open(name) as file:
            data = file.read(limit + 1)
    except KeyError:
        raise InputError(f"'{path}' holds no {name!r}") from None
    except (*ZIP_DAMAGE, RuntimeError) as error:
        raise InputError(f"'{path}': {name!r} is damaged: {error}") from error
    if len(data) > limit:
        raise InputError(f"'{path}': {name!r} has more than {limit} bytes")
    return data


def _table(rows: Any, key: str, width: int, place: str) -> list[list[float]]:
    """Rows of numbers; NaN is let through."""
    try:
        table = torch.tensor(rows, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"{place}: {key} must be rows of {width} numbers, got {str(rows)[:60]!r}") from error
    if table.ndim != 2 or table.shape[1] != width:
        raise InputError(f"{place}: {key} must be rows of {width} numbers, got shape {list(table.shape)}")
    found: list[list[float]] = table.tolist()
    return found


def _number(top: Mapping[str, Any], key: str, place: str) -> float:
    value = top.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e6:
        raise InputError(f"{place}: {key} must be a positive number, got {str(value)[:40]!r}")
    return float(value)
