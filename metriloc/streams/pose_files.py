"""Files of device poses; the format is told from the file.

| file | what a line has | matched by |
|---|---|---|
| TUM | ``timestamp tx ty tz qx qy qz qw``, camera to world | time |
| Map-free | ``photo qw qx qy qz tx ty tz``, world to camera | name |
| KITTI odometry | the 12 numbers of camera to world | number |
| EuRoC ``data.csv`` | nanoseconds, position, quaternion w x y z of the body | time |
| Stray Scanner ``odometry.csv`` | ``timestamp, frame, x, y, z, qx, qy, qz, qw``, camera to world | number |
| nerfstudio ``transforms.json`` | camera to world, OpenGL axes | name |
| Record3D ``metadata`` or ``.r3d`` | ``qx qy qz qw x y z``, camera to world, OpenGL axes | number |
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from metriloc.datasets.matrices import parse_matrix, rigid_pose
from metriloc.datasets.nerfstudio import read_nerfstudio
from metriloc.geometry import Pose
from metriloc.io import InputError, read_json, read_text
from metriloc.io.files import parse_numbers, without_comment
from metriloc.streams.device_poses import (
    Axes,
    MatchConfig,
    NamedPoses,
    NumberedPoses,
    PoseRow,
    TimedPoses,
    mounted,
    named_rows,
    timed_rows,
)
from metriloc.streams.euroc import euroc_mount, euroc_rows, is_euroc_poses
from metriloc.streams.frames import DevicePoses
from metriloc.streams.notes import Notes
from metriloc.streams.phones import is_odometry, read_odometry
from metriloc.streams.record3d import read_record3d

_FORMATS = "TUM, Map-free, KITTI, EuRoC, Stray Scanner, nerfstudio and Record3D are"


@dataclass(frozen=True)
class MountOptions:
    """What the device poses are of."""

    axes: Axes | None = None
    """Axes of the poses, camera to world: opencv (right, down, forward), arkit (right, up, back) or ros (forward, left, up,
    of a body). By default as the format says, of TUM and KITTI opencv."""
    mount: Path | None = None
    """Where the camera stands in the body that the poses are of: the 4 x 4 numbers of body from camera."""

    def cam_from_body(self, usual: Axes = "opencv") -> Pose | None:
        """None where the poses are the camera's own. Raises InputError for a file that holds no motion."""
        mount = None if self.mount is None else read_mount(self.mount)
        return mounted(self.axes or usual, mount)


def read_mount(path: Path) -> Pose:
    """``body_from_cam`` of a file with 4 x 4 numbers. Raises InputError for one that holds no motion."""
    mount = rigid_pose(parse_matrix(read_text(path), str(path)), str(path))
    if mount is None:
        raise InputError(f"'{path}' holds numbers that are not finite: it must be where the camera stands in the body")
    return mount


def read_device_poses(
    path: Path, match: MatchConfig, options: MountOptions, notes: Notes, camera: str = "cam0"
) -> DevicePoses:
    """The poses of a file whose format is told from it; notes hear of lines that are left out or out of order.

    camera: of EuRoC, whose ``sensor.yaml`` says where it stands in the body.

    Raises InputError for a file of no known format, a malformed line (file:line), and one without any pose.
    """
    where = f"'{path}'"
    if path.is_dir():
        path = _within(path)
    if path.suffix.lower() == ".r3d" or path.name in ("metadata", "metadata.json"):
        capture = read_record3d(path, notes)
        return NumberedPoses(capture.poses, notes, where, options.cam_from_body())
    if path.suffix.lower() == ".json":
        return _of_json(path, options, notes)
    text = read_text(path)
    first = next((line for line in text.split("\n") if line.strip()), "")
    if is_euroc_poses(first):
        trajectory = timed_rows(euroc_rows(text, str(path)), notes, str(path))
        mount = options.cam_from_body() if options.axes or options.mount else euroc_mount(path, camera)
        return TimedPoses(trajectory, match, notes, where, mount)
    if is_odometry(first):
        odometry = read_odometry(path, notes)
        return NumberedPoses(odometry.poses, notes, where, options.cam_from_body())
    lines = [(f"{path}:{n}", fields) for n, fields in _lines(text)]
    if lines and len(lines[0][1]) == 12:
        return NumberedPoses(_kitti_poses(lines, notes), notes, where, options.cam_from_body())
    if lines and all(_is_number(fields[0]) for _, fields in lines):
        trajectory = timed_rows(_tum_rows(lines), notes, str(path))
        return TimedPoses(trajectory, match, notes, where, options.cam_from_body())
    return NamedPoses(named_rows(_mapfree_rows(lines, path), notes, str(path)), notes, where, options.cam_from_body())


def _within(folder: Path) -> Path:
    """The file of poses in a folder of a known form. Raises InputError where there is none."""
    names = (
        "odometry.csv",
        "data.csv",
        "transforms.json",
        "metadata",
        "metadata.json",
        "poses_device.txt",
        "poses.txt",
    )
    found = next((folder / name for name in names if (folder / name).is_file()), None)
    if found is None:
        raise InputError(f"'{folder}' is a folder without device poses (none of {', '.join(names)} is in it)")
    return found


def _of_json(path: Path, options: MountOptions, notes: Notes) -> DevicePoses:
    top = read_json(path)
    if isinstance(top, dict) and "poses" in top and "frames" not in top:
        return NumberedPoses(read_record3d(path, notes).poses, notes, f"'{path}'", options.cam_from_body())
    scene = read_nerfstudio(path)
    known = {name: scene.cam_from_world[i] for i, name in enumerate(scene.names)}
    return NamedPoses(known, notes, f"'{path}'", options.cam_from_body())


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.split("\n"), 1):
        fields = without_comment(line).replace(",", " ").split()
        if fields:
            yield number, fields


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _tum_rows(lines: list[tuple[str, list[str]]]) -> Iterator[PoseRow]:
    for place, fields in lines:
        if len(fields) != 8:
            form = "'timestamp tx ty tz qx qy qz qw'"
            raise InputError(f"{place}: {len(fields)} fields instead of 8, {form} ({_FORMATS} known, too)")
        (time,) = parse_numbers(fields[:1], place)
        x, y, z, qx, qy, qz, qw = parse_numbers(fields[1:], place, finite=False)
        yield PoseRow(place, time, (qw, qx, qy, qz), (x, y, z))


def _mapfree_rows(lines: list[tuple[str, list[str]]], path: Path) -> Iterator[PoseRow]:
    for place, fields in lines:
        if len(fields) != 8:
            raise InputError(f"{place}: this is no line of device poses ({_FORMATS} known)")
        w, qx, qy, qz, x, y, z = parse_numbers(fields[1:], place, finite=False)
        yield PoseRow(place, fields[0], (w, qx, qy, qz), (x, y, z))
    if not lines:
        raise InputError(f"'{path}' holds no device poses ({_FORMATS} known)")


def _kitti_poses(lines: list[tuple[str, list[str]]], notes: Notes) -> dict[int, Pose]:
    found = {}
    for number, (place, fields) in enumerate(lines):
        if len(fields) != 12:
            raise InputError(f"{place}: {len(fields)} numbers instead of the 12 of a 3x4 matrix")
        matrix = torch.tensor(parse_numbers(fields, place, finite=False), dtype=torch.float64).reshape(3, 4)
        pose = rigid_pose(matrix, place)
        if pose is None:
            notes.add("not finite", f"{place}: the pose is not finite, so it is left out")
        else:
            found[number] = pose.inverse()
    return found
