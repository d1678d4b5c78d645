"""Whether COLMAP's binary files are whole: pycolmap reads on, for ever, where a file ends too early.

Only lengths are checked here, by walking from count to count; what the numbers mean is pycolmap's business.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path

from metriloc.io.files import InputError, read_bytes

_PARAMETERS = {0: 3, 1: 4, 2: 4, 3: 5, 4: 8, 5: 8, 6: 12, 7: 5, 8: 4, 9: 5, 10: 12}
"""Numbers of parameters by COLMAP's model ids, SIMPLE_PINHOLE to THIN_PRISM_FISHEYE."""
MAX_NAME = 4096
_POSE = 7 * 8


class _DamagedError(Exception):
    """The walk left the file."""


def check_binary_model(folder: Path) -> None:
    """Raises InputError, naming the file, when one of a binary model is cut off, too long or not of its kind."""
    walks: dict[str, Callable[[bytes, int], int]] = {
        "cameras": _camera,
        "images": _image,
        "points3D": _point,
        "rigs": _rig,
        "frames": _frame,
    }
    for name, walk in walks.items():
        path = folder / f"{name}.bin"
        if not path.is_file() and name in ("rigs", "frames"):
            continue  # models of before COLMAP 3.12 have none
        data = read_bytes(path)
        try:
            _walk(data, walk)
        except (_DamagedError, struct.error) as error:
            raise InputError(f"'{path}' is damaged: {error}") from error


def _walk(data: bytes, step: Callable[[bytes, int], int]) -> None:
    (count,) = struct.unpack_from("<Q", data)
    if count > len(data):
        raise _DamagedError(f"it claims {count} entries in {len(data)} bytes")
    at = 8
    for entry in range(count):
        at = step(data, at)
        if at > len(data):
            raise _DamagedError(f"it ends within entry {entry} of {count}")
    if at != len(data):
        raise _DamagedError(f"{len(data) - at} bytes follow its last entry")


def _camera(data: bytes, at: int) -> int:
    (model,) = struct.unpack_from("<i", data, at + 4)
    if model not in _PARAMETERS:
        raise _DamagedError(f"camera model number {model} is not known")
    return at + 24 + 8 * _PARAMETERS[model]


def _image(data: bytes, at: int) -> int:
    start = at + 4 + _POSE + 4
    end = data.find(b"\0", start, start + MAX_NAME)
    if end < 0:
        raise _DamagedError("the name of an image does not end")
    (points,) = struct.unpack_from("<Q", data, end + 1)
    return end + 9 + 24 * points


def _point(data: bytes, at: int) -> int:
    (track,) = struct.unpack_from("<Q", data, at + 43)
    return at + 51 + 8 * track


def _rig(data: bytes, at: int) -> int:
    _, sensors = struct.unpack_from("<II", data, at)
    at += 8
    if sensors > len(data):
        raise _DamagedError(f"a rig claims {sensors} sensors")
    for sensor in range(sensors):
        at += 8
        if sensor > 0:  # the first is the reference and has no pose
            (has_pose,) = struct.unpack_from("<B", data, at)
            at += 1 + (_POSE if has_pose else 0)
    return at


def _frame(data: bytes, at: int) -> int:
    (ids,) = struct.unpack_from("<I", data, at + 8 + _POSE)
    return at + 8 + _POSE + 4 + 16 * ids
