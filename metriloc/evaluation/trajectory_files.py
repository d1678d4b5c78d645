"""Trajectories from files, for comparing: of ``metriloc track``, TUM, KITTI, EuRoC."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch

from metriloc.geometry import Pose
from metriloc.io import InputError, read_text
from metriloc.io.files import parse_numbers, require_file
from metriloc.io.poses import pose_from_dict
from metriloc.io.trajectories import Trajectory
from metriloc.streams.device_poses import MatchConfig, NumberedPoses, TimedPoses
from metriloc.streams.notes import Notes
from metriloc.streams.pose_files import MountOptions, read_device_poses

FRAMES_FILE = "frames.jsonl"
MAX_FRAME_LINE = 2**20
MAX_FRAMES = 10_000_000
_POSES = ("query_from_reference", "cam_from_world")


def read_trajectory(path: Path, notes: Notes, offset: float = 0.0) -> Trajectory:
    """``cam_from_world`` over time; notes hear of lines that are left out.

    - path: a folder of ``metriloc track`` or its ``frames.jsonl``, TUM, EuRoC, or KITTI, whose times are in a
      ``times.txt`` beside it, else the numbers of its lines.
    - offset: seconds that are added.

    Raises InputError for a file of another kind, or without any pose.
    """
    file = path / FRAMES_FILE if path.is_dir() and (path / FRAMES_FILE).is_file() else path
    if file.suffix == ".jsonl":
        found = Trajectory.of([(time, pose) for time, pose in _tracked(file, notes) if pose is not None])
        if not len(found):
            raise InputError(f"'{file}' holds no frame with a pose and a time")
    else:
        mount = MountOptions(axes="opencv")  # trajectories are compared as they are, also those of a body
        found = _of_poses(read_device_poses(file, MatchConfig(), mount, notes), file)
    return Trajectory(tuple(stamp + offset for stamp in found.stamps), found.poses)


def _of_poses(poses: object, file: Path) -> Trajectory:
    if isinstance(poses, TimedPoses):
        return poses.trajectory
    if isinstance(poses, NumberedPoses):
        times = file.parent / "times.txt"
        stamps = _times(times) if times.is_file() else None
        if stamps is not None and max(poses.poses) >= len(stamps):
            raise InputError(f"'{times}' has {len(stamps)} times for pose {max(poses.poses)} of '{file}'")
        return Trajectory.of([(float(i) if stamps is None else stamps[i], pose) for i, pose in poses.poses.items()])
    raise InputError(f"'{file}' has poses by the names of photos, which have no times: give a TUM, KITTI or EuRoC file")


def _times(file: Path) -> list[float]:
    lines = enumerate(read_text(file).split("\n"), 1)
    return [parse_numbers(line.split()[:1], f"{file}:{n}")[0] for n, line in lines if line.strip()]


def _tracked(file: Path, notes: Notes) -> Iterator[tuple[float, Pose | None]]:
    """Time and pose of each frame that has a time; a line that a kill has cut off is passed over."""
    require_file(file)
    with open(file, encoding="utf-8", errors="replace") as lines:
        number = 0
        while line := lines.readline(MAX_FRAME_LINE):
            number += 1
            if number > MAX_FRAMES:
                raise InputError(f"'{file}' has more than {MAX_FRAMES} lines")
            try:
                entry = json.loads(line)
                time, told = entry["time"], next((entry[key] for key in _POSES if key in entry), None)
                pose = pose_from_dict(told) if told is not None and entry["success"] is True else None
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                notes.add("line", f"{file}:{number}: this is no whole frame, so it is left out")
                continue
            if isinstance(time, (int, float)) and abs(time) < 1e18:
                yield float(time), pose if pose is None else pose.to(torch.float64)
