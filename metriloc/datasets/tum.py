"""TUM RGB-D folders: ``rgb.txt`` (and ``depth.txt``) list time stamps and files, ``groundtruth.txt`` the trajectory.

The stamps of photos and poses differ. Taking the nearest pose costs pixels when the camera moves, so the pose of each
photo is interpolated between the two that bracket it.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from metriloc.datasets.matrices import stack_poses
from metriloc.datasets.sources import DepthFormat, PosedScene
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, read_text, read_tum
from metriloc.io.files import parse_numbers
from metriloc.io.trajectories import Trajectory, nearest_stamp

DEPTH_UNIT = 1 / 5000
"""Metres a unit of TUM's 16-bit depth images."""
KINECT_FREIBURG = {
    "freiburg1": ((517.3, 516.5, 318.6, 255.3), (0.2624, -0.9531, -0.0054, 0.0026, 1.1633)),
    "freiburg2": ((520.9, 521.0, 325.1, 249.7), (0.2312, -0.7849, -0.0033, -0.0001, 0.9172)),
    "freiburg3": ((535.4, 539.2, 320.1, 247.6), ()),
}
"""Published calibration (fx fy cx cy; k1 k2 p1 p2 k3) of the colour cameras, 640x480, told from the folder's name.
freiburg3 is distributed undistorted."""


def tum_camera(folder: str | os.PathLike[str]) -> Camera:
    """The published camera of an original TUM sequence, by its folder name (``rgbd_dataset_freiburg1_desk``).

    Raises InputError for another name: then the camera must be given.
    """
    name = Path(folder).resolve().name
    found = next((value for key, value in KINECT_FREIBURG.items() if key in name), None)
    if found is None:
        raise InputError(f"the camera of '{folder}' is not known: give it (only freiburg1 to 3 are built in)")
    (fx, fy, cx, cy), terms = found
    f, c = torch.tensor([fx, fy], dtype=torch.float64), torch.tensor([cx, cy], dtype=torch.float64)
    size = torch.tensor([640.0, 480.0], dtype=torch.float64)
    if not terms:
        return Camera(size, f, c)
    return Camera(size, f, c, torch.tensor(terms, dtype=torch.float64), "radtan")


def read_tum_folder(
    folder: str | os.PathLike[str], camera: Camera | None = None, *, max_gap: float = 0.1, max_difference: float = 0.02
) -> PosedScene:
    """The photos of ``rgb.txt`` that have a pose, in time order.

    - camera: of the colour photos; None for the published one.
    - max_gap: longest time between two poses that are interpolated, seconds.
    - max_difference: depth belongs to a photo when it is no further away in time, seconds.

    Raises InputError for missing or malformed files, and when no photo has a pose.
    """
    folder = Path(folder)
    camera = camera if camera is not None else tum_camera(folder)
    photos = parse_stamped_files(read_text(folder / "rgb.txt"), str(folder / "rgb.txt"))
    trajectory = sorted(read_tum(folder / "groundtruth.txt"), key=lambda entry: entry[0])
    depth_list = folder / "depth.txt"
    depths = parse_stamped_files(read_text(depth_list), str(depth_list)) if depth_list.is_file() else []
    poses = interpolate_poses(trajectory, [time for time, _ in photos], max_gap)
    found = [(time, name, pose) for (time, name), pose in zip(photos, poses, strict=True) if pose is not None]
    if not found:
        raise InputError(f"'{folder}': none of the {len(photos)} photos lies between two poses of groundtruth.txt")
    times = [time for time, _ in depths]
    beside = [nearest_stamp(times, time, max_difference) for time, _, _ in found]
    return PosedScene(
        name=folder.resolve().name,
        folder=folder,
        names=tuple(name for _, name, _ in found),
        cameras=(camera,) * len(found),
        cam_from_world=stack_poses([pose for _, _, pose in found]),
        depths=tuple(None if at is None else folder / depths[at][1] for at in beside),
        depth_format=DepthFormat(scale=DEPTH_UNIT),
        intrinsics_source="the given camera" if camera is not None else "TUM's published calibration",
    )


def parse_stamped_files(text: str, file: str = "rgb.txt") -> list[tuple[float, str]]:
    """(time stamp in seconds, file) of lines ``timestamp path``, sorted by time.

    Raises InputError ``file:line`` for a line of another form and for a file that comes twice.
    """
    entries: dict[str, float] = {}
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split(None, 1)
        if line.lstrip().startswith("#") or not fields:
            continue
        if len(fields) != 2:
            raise InputError(f"{file}:{number}: {line.strip()[:60]!r} is not of the form 'timestamp path'")
        (time,) = parse_numbers(fields[:1], f"{file}:{number}")
        name = fields[1].strip()
        if name in entries:
            raise InputError(f"{file}:{number}: {name!r} is listed already")
        entries[name] = time
    return sorted((time, name) for name, time in entries.items())


def interpolate_poses(
    trajectory: list[tuple[float, Pose]], times: list[float], max_gap: float = 0.1
) -> list[Pose | None]:
    """``cam_from_world`` at each time.

    The rotation along the shortest arc, the camera centre along a straight line. trajectory:
    (seconds, ``cam_from_world``) sorted by time. None before the first pose, after the last one,
    and between two that are more than ``max_gap`` seconds apart (unless a pose has exactly that
    time).
    """
    known = Trajectory.of(trajectory)
    return [known.at(time, max_gap=max_gap) for time in times]
