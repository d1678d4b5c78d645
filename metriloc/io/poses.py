"""Text formats of poses: Map-free ``poses.txt`` and submissions, TUM, KITTI, ROS, and a dictionary for JSON.

| format | line | direction | quaternion |
|---|---|---|---|
| Map-free ``poses.txt`` | ``path qw qx qy qz tx ty tz`` | world to camera | w x y z |
| Map-free submission | the same and a confidence | query from reference | w x y z |
| TUM | ``timestamp tx ty tz qx qy qz qw`` | **camera to world** | **x y z w** |
| KITTI | the 12 numbers of [R t], row by row | **camera to world** | |
| ROS | the fields of a PoseStamped as JSON, axes of REP 103 | **camera to world** | **x y z w** |

In memory a pose is always ``cam_from_world``, float64 when read, metres. Readers are strict: a line that is not of the
format is an ``InputError`` naming file and line; blank lines and comments (``#`` at the start or after a blank) are skipped.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.io.files import InputError, parse_numbers, read_text, without_comment

LengthUnit = Literal["metre", "unit of the map", "unknown scale"]
ZERO_QUATERNION = 1e-8
"""Quaternions no longer than this stand for "no pose" (the withheld truth of Map-free test is seven zeros)."""
Naming = Literal["file", "folder/file"]
"""How a visuallocalization.net data set calls a query: Aachen and CMU by file name, RobotCar (and 7-Scenes and
Cambridge in hloc) by the last folder and file name."""
_POSE_FORM = "'image qw qx qy qz tx ty tz'"
_SUBMISSION_FORM = "'image qw qx qy qz tx ty tz confidence'"
_TUM_FORM = "'timestamp tx ty tz qx qy qz qw'"


# -- Map-free poses.txt -----------------------------------------------------------------------------------------------
def parse_mapfree_poses(text: str, file: str = "poses.txt") -> dict[str, Pose | None]:
    """Image name -> ``cam_from_world`` in file order. None where the quaternion is zero (withheld). Raises InputError
    ``file:line`` for a malformed line or a name that comes twice.

    >>> poses = parse_mapfree_poses("a.jpg 1 0 0 0 0 0 2")
    >>> poses["a.jpg"].t.tolist()
    [0.0, 0.0, 2.0]
    """
    rows: dict[str, list[float]] = {}
    for place, fields in _lines(text, file, 8, _POSE_FORM):
        if fields[0] in rows:
            raise InputError(f"{place}: {fields[0]!r} has a pose already")
        rows[fields[0]] = parse_numbers(fields[1:], place)
    return dict(zip(rows, _poses_wxyz(list(rows.values())), strict=True))


def read_mapfree_poses(path: str | os.PathLike[str]) -> dict[str, Pose | None]:
    """``parse_mapfree_poses`` of a file; InputError when it cannot be read.

    >>> with open("own_poses.txt", "w") as file:
    ...     print(mapfree_pose_line("a.jpg", Pose.identity()), file=file)
    >>> list(read_mapfree_poses("own_poses.txt"))
    ['a.jpg']
    """
    return parse_mapfree_poses(read_text(path), str(path))


def mapfree_pose_line(name: str, cam_from_world: Pose) -> str:
    """A line of ``poses.txt``, ten decimals. Raises ValueError for a pose or a name that it cannot hold.

    >>> mapfree_pose_line("a.jpg", Pose.identity()).partition(".0")[0]
    'a.jpg 1'
    """
    q, t = _numbers(cam_from_world, name)
    return " ".join([_checked_name(name), *(f"{value:.10f}" for value in [*q, *t])])


# -- Map-free submissions ---------------------------------------------------------------------------------------------
def format_submission_line(name: str, q: list[float], t: list[float], confidence: float) -> str:
    """``name qw qx qy qz tx ty tz confidence``. Six decimals, -0 as -0.000000, the confidence as Python's repr."""
    return " ".join([name, *(f"{value:.6f}" for value in [*q, *t]), repr(float(confidence))])


def submission_line(name: str, query_from_reference: Pose, confidence: float) -> str:
    """A line of a Map-free submission, without the line break.

    - name: of the query, without blanks and ``#``, which the format cannot hold.
    - query_from_reference: the pose. A failed one must be left out of a submission.
    - confidence: what the answers of a scene are sorted by.

    Raises ValueError for a pose that is not finite or no rotation, for a confidence that is not finite or is negative (it
    stops the official evaluation), and for another name.

    >>> submission_line("seq1/frame_00000.jpg", Pose.identity(), 0.5)
    'seq1/frame_00000.jpg 1.000000 0.000000 0.000000 0.000000 0.000000 0.000000 0.000000 0.5'
    """
    q, t = _numbers(query_from_reference, name)
    confidence = float(confidence)
    if not math.isfinite(confidence) or confidence < 0:
        raise ValueError(f"the confidence of {name!r} must be finite and not negative, got {confidence}")
    return format_submission_line(_checked_name(name), q, t, confidence)


def listed_name(name: str) -> str:
    """A name that lists can hold. In them blanks separate, ``#`` begins a comment, and all is UTF-8 text.

    >>> listed_name("living room #2.jpg")
    'living_room__2.jpg'
    """
    return "".join("_" if c.isspace() or c == "#" or not c.isprintable() else c for c in name)


def visloc_name(image: str, naming: Naming) -> str:
    """How the submission calls a query: ``query/night/a.jpg`` -> ``a.jpg`` or ``night/a.jpg``."""
    parts = image.replace("\\", "/").split("/")
    return parts[-1] if naming == "file" else "/".join(parts[-2:])


def parse_submission(text: str, file: str = "submission") -> dict[str, tuple[Pose, float]]:
    """Image name -> (``query_from_reference``, confidence) in file order. Raises InputError ``file:line`` for a
    malformed line, a zero quaternion, a negative confidence or a repeated name.

    >>> pose, confidence = parse_submission("a.jpg 1 0 0 0 0 0 2 0.9")["a.jpg"]
    >>> confidence
    0.9
    """
    names: dict[str, float] = {}
    rows: list[list[float]] = []
    for place, fields in _lines(text, file, 9, _SUBMISSION_FORM):
        numbers = parse_numbers(fields[1:], place)
        if fields[0] in names:
            raise InputError(f"{place}: {fields[0]!r} has a pose already")
        if math.hypot(*numbers[:4]) <= ZERO_QUATERNION:
            raise InputError(f"{place}: the quaternion {' '.join(fields[1:5])} is zero")
        if numbers[7] < 0:
            raise InputError(f"{place}: the confidence {fields[8]} is negative")
        names[fields[0]] = numbers[7]
        rows.append(numbers[:7])
    poses = (pose for pose in _poses_wxyz(rows) if pose is not None)
    return {name: (pose, names[name]) for name, pose in zip(names, poses, strict=True)}


# -- TUM --------------------------------------------------------------------------------------------------------------
def tum_line(timestamp: float, cam_from_world: Pose) -> str:
    """A line of a TUM trajectory.

    The pose is inverted, since TUM stores camera to world; nine decimals. Raises ValueError for a
    pose that is not finite or no rotation, or a timestamp that is not finite.

    >>> tum_line(0.5, Pose.identity()).split()[0]
    '0.500000'
    """
    if not math.isfinite(timestamp):
        raise ValueError(f"the timestamp must be finite, got {timestamp}")
    _numbers(cam_from_world, f"timestamp {timestamp}")
    world_from_cam = _double(cam_from_world).inverse()
    w, x, y, z = world_from_cam.quaternion().tolist()
    return " ".join([f"{timestamp:.6f}", *(f"{value:.9f}" for value in [*world_from_cam.t.tolist(), x, y, z, w])])


def parse_tum(text: str, file: str = "trajectory") -> list[tuple[float, Pose]]:
    """(timestamp in seconds, ``cam_from_world``) in file order, from camera-to-world lines. Raises InputError
    ``file:line`` for a malformed line or a zero quaternion.

    >>> time, cam_from_world = parse_tum("0.5 1 2 3 0 0 0 1")[0]
    >>> time, cam_from_world.center().tolist()
    (0.5, [1.0, 2.0, 3.0])
    """
    times: list[float] = []
    rows: list[list[float]] = []
    for place, fields in _lines(text, file, 8, _TUM_FORM):
        time, *t, x, y, z, w = parse_numbers(fields, place)
        if math.hypot(x, y, z, w) <= ZERO_QUATERNION:
            raise InputError(f"{place}: the quaternion {' '.join(fields[4:])} is zero")
        times.append(time)
        rows.append([w, x, y, z, *t])
    poses = [pose.inverse() for pose in _poses_wxyz(rows) if pose is not None]
    return list(zip(times, poses, strict=True))


def read_tum(path: str | os.PathLike[str]) -> list[tuple[float, Pose]]:
    """``parse_tum`` of a file; InputError when it cannot be read.

    >>> with open("own_trajectory.txt", "w") as file:
    ...     print(tum_line(0.5, Pose.identity()), file=file)
    >>> len(read_tum("own_trajectory.txt"))
    1
    """
    return parse_tum(read_text(path), str(path))


# -- KITTI and ROS ------------------------------------------------------------------------------------------------------
def kitti_line(cam_from_world: Pose) -> str:
    """A line of KITTI's odometry poses. The 3x4 matrix camera to world, row by row, ten digits. Raises ValueError for a
    pose that is not finite or no rotation."""
    _numbers(cam_from_world, "a line of KITTI")
    world_from_cam = _double(cam_from_world).inverse().matrix()
    return " ".join(f"{value:.9e}" for value in world_from_cam[:3].flatten().tolist())


def ros_pose_stamped(
    cam_from_world: Pose, *, stamp: float, frame_id: str, keep_world: bool = False
) -> dict[str, dict[str, Any]]:
    """The fields of ``geometry_msgs/PoseStamped``. Where a camera stands, its axes forward, left, up (REP 103).

    - cam_from_world: OpenCV axes, as everywhere here.
    - stamp: seconds. frame_id: what the world is called.
    - keep_world: whether the world keeps its axes, as that of a map does; else it takes forward, left, up as well.

    Raises ValueError for a pose that is not finite or no rotation.
    """
    _numbers(cam_from_world, frame_id)
    world_from_cam = _double(cam_from_world).to("ros", keep_world=keep_world)
    w, x, y, z = world_from_cam.quaternion().tolist()
    sec, nanosec = divmod(round(1e9 * stamp), 10**9)
    return {
        "header": {"stamp": {"sec": sec, "nanosec": nanosec}, "frame_id": frame_id},
        "pose": {
            "position": dict(zip("xyz", world_from_cam.t.tolist(), strict=True)),
            "orientation": {"x": x, "y": y, "z": z, "w": w},
        },
    }


# -- JSON -------------------------------------------------------------------------------------------------------------
def pose_as_dict(pose: Pose, *, to_frame: str, from_frame: str, unit: LengthUnit = "metre") -> dict[str, Any]:
    """A pose as plain numbers and words for JSON. It names its frames and units.

    - pose: written as ``matrix`` 4x4, ``quaternion_wxyz`` and ``translation``.
    - to_frame, from_frame: what the two frames are called.
    - unit: of the translation.

    Raises ValueError for a failed pose.

    >>> pose_as_dict(Pose.identity(), to_frame="query", from_frame="reference")["translation_unit"]
    'metre'
    """
    _numbers(pose, f"{to_frame} from {from_frame}")
    return pose.to_dict(to_frame=to_frame, from_frame=from_frame, unit=unit)


def pose_from_dict(entry: Mapping[str, Any]) -> Pose:
    """The pose of ``pose_as_dict``, float64, from its matrix. InputError when that is not a finite 4x4 matrix.

    >>> entry = pose_as_dict(Pose.identity(), to_frame="query", from_frame="reference")
    >>> float(pose_from_dict(entry).angle())
    0.0
    """
    try:
        matrix = torch.tensor(entry["matrix"], dtype=torch.float64)
    except (KeyError, TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise InputError(f"a pose needs a 4x4 'matrix', got {str(entry)[:80]}") from error
    if matrix.shape != (4, 4) or not torch.isfinite(matrix).all():
        raise InputError(f"the 'matrix' of a pose must be 4x4 and finite, got {str(entry['matrix'])[:120]}")
    return Pose.from_matrix(matrix)


# -- common to the formats --------------------------------------------------------------------------------------------
def _lines(text: str, file: str, count: int, form: str) -> Iterator[tuple[str, list[str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        fields = without_comment(line).split()
        if not fields:
            continue
        if len(fields) != count:
            raise InputError(f"{file}:{number}: {len(fields)} fields instead of {count}, {form}")
        yield f"{file}:{number}", fields


def _poses_wxyz(rows: list[list[float]]) -> Iterator[Pose | None]:
    if not rows:
        return
    numbers = torch.tensor(rows, dtype=torch.float64)
    poses = Pose.from_quaternion(numbers[:, :4], numbers[:, 4:7])
    present: Tensor = numbers[:, :4].norm(dim=-1) > ZERO_QUATERNION
    for index, known in enumerate(present.tolist()):
        yield poses[index] if known else None


def _double(pose: Pose) -> Pose:
    return pose.detach().to("cpu", torch.float64)


def _numbers(pose: Pose, what: str) -> tuple[list[float], list[float]]:
    """Quaternion w x y z and translation of one pose that is finite and a rotation; ValueError otherwise."""
    if pose.shape != ():
        raise ValueError(f"{what!r}: one pose is needed, got batch shape {tuple(pose.shape)}")
    pose = _double(pose)
    if not bool(pose.is_finite()):
        raise ValueError(f"{what!r}: the pose is not finite: failed poses are not written")
    error = float((pose.R @ pose.R.mT - torch.eye(3, dtype=torch.float64)).abs().max())
    if error > 1e-3 or float(torch.linalg.det(pose.R)) < 0:
        raise ValueError(f"{what!r}: R is no rotation (R R^T is {error:.2g} from the identity, or R mirrors)")
    return pose.quaternion().tolist(), pose.t.tolist()


def _checked_name(name: str) -> str:
    if not name or "#" in name or len(name.split()) != 1 or name != name.strip():
        raise ValueError(f"{name!r} cannot stand in a line of this format: names without blanks and '#' only")
    return name
