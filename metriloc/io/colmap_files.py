"""Whether COLMAP's binary files are whole, and whether what they say can be: pycolmap reads on, for ever, where a file
ends too early, and takes quaternions and focal lengths that mean nothing.

The files are walked from count to count; entries are counted from 1 in what is said of them.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np

from metriloc.io.colmap_rules import MODELS, camera_fault, pose_fault
from metriloc.io.files import InputError, read_bytes

MAX_NAME = 4096
_POSE = 7 * 8
_OBSERVATION = np.dtype([("xy", "<f8", 2), ("point", "<u8")])


class _DamagedError(Exception):
    """The walk left the file."""


class _FaultError(Exception):
    """An entry says what cannot be. end: where it ends."""

    def __init__(self, fault: str, end: int) -> None:
        super().__init__(fault)
        self.end = end


def check_binary_model(folder: Path) -> None:
    """Refuse a binary model that is damaged. Raises InputError, naming the file, when one is cut off, too long or not
    of its kind, and naming the entry for a camera, pose, pixel or point that cannot be."""
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
        except _FaultError as error:
            raise InputError(f"'{path}', {error}") from error


def _walk(data: bytes, step: Callable[[bytes, int], int]) -> None:
    (count,) = struct.unpack_from("<Q", data)
    if count > len(data):
        raise _DamagedError(f"it claims {count} entries in {len(data)} bytes")
    at, fault = 8, None
    for entry in range(count):
        start = at
        try:
            at = step(data, at)
        except _FaultError as error:
            # a file that is cut short is said to be so, whatever its last numbers look like
            fault = fault or _FaultError(f"entry {entry + 1} of {count}: {error}", error.end)
            at = error.end
        if at > len(data) or at <= start:
            raise _DamagedError(f"it ends within entry {entry + 1} of {count}")
    if at != len(data):
        raise _DamagedError(f"{len(data) - at} bytes follow its last entry")
    if fault is not None:
        raise fault


def _camera(data: bytes, at: int) -> int:
    number, width, height = struct.unpack_from("<iQQ", data, at + 4)
    if number not in MODELS:
        raise _DamagedError(f"camera model number {number} is not known")
    model = MODELS[number]
    end = at + 24 + 8 * model.parameters
    params = struct.unpack_from(f"<{model.parameters}d", data, at + 24)
    return _passed(camera_fault(model, width, height, params), end)


def _image(data: bytes, at: int) -> int:
    start = at + 4 + _POSE + 4
    end = data.find(b"\0", start, start + MAX_NAME)
    if end < 0:
        raise _DamagedError("the name of an image does not end")
    (count,) = struct.unpack_from("<Q", data, end + 1)
    after = end + 9 + 24 * count
    if after > len(data):
        return after
    fault = pose_fault(struct.unpack_from("<7d", data, at + 4))
    if fault is None and not np.isfinite(np.frombuffer(data, _OBSERVATION, count, end + 9)["xy"]).all():
        fault = f"the image {data[start:end].decode('utf-8', 'replace')!r} has pixels that are not finite"
    return _passed(fault, after)


def _point(data: bytes, at: int) -> int:
    (track,) = struct.unpack_from("<Q", data, at + 43)
    end = at + 51 + 8 * track
    xyz = struct.unpack_from("<3d", data, at + 8)
    if all(map(math.isfinite, xyz)):
        return end
    return _passed(f"a point that is not finite: {' '.join(f'{v:g}' for v in xyz)}", end)


def _rig(data: bytes, at: int) -> int:
    _, sensors = struct.unpack_from("<II", data, at)
    at += 8
    if sensors > len(data):
        raise _DamagedError(f"a rig claims {sensors} sensors")
    fault = None
    for sensor in range(sensors):
        at += 8
        if sensor > 0:  # the first is the reference and has no pose
            (has_pose,) = struct.unpack_from("<B", data, at)
            at += 1
            if has_pose:
                fault = fault or pose_fault(struct.unpack_from("<7d", data, at))
                at += _POSE
    return _passed(fault, at)


def _frame(data: bytes, at: int) -> int:
    (ids,) = struct.unpack_from("<I", data, at + 8 + _POSE)
    return _passed(pose_fault(struct.unpack_from("<7d", data, at + 8)), at + 8 + _POSE + 4 + 16 * ids)


def _passed(fault: str | None, end: int) -> int:
    """Where the entry ends, unless something is wrong with it."""
    if fault is not None:
        raise _FaultError(fault, end)
    return end
