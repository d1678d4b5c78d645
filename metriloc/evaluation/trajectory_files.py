"""Trajectories from files, for comparing: of ``metriloc track``, TUM, KITTI, EuRoC."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from metriloc.geometry import Pose
from metriloc.io import InputError, read_text
from metriloc.io.files import parse_numbers, require_file
from metriloc.io.poses import pose_from_dict
from metriloc.io.trajectories import Trajectory
from metriloc.streams.device_poses import MatchConfig, NumberedPoses, TimedPoses
from metriloc.streams.notes import Notes
from metriloc.streams.pose_files import MountOptions, read_device_poses
from metriloc.types import MapUnit

FRAMES_FILE = "frames.jsonl"
MAX_FRAME_LINE = 2**20
MAX_FRAMES = 10_000_000
_HEAD = 4096
_POSES = ("query_from_reference", "cam_from_world")


def read_trajectory(path: Path, notes: Notes, offset: float = 0.0) -> Trajectory:
    """``cam_from_world`` over time; notes hear of lines that are left out.

    - path: a folder of ``metriloc track`` or its ``frames.jsonl``, TUM, EuRoC, or KITTI, whose times are in a
      ``times.txt`` beside it, else the numbers of its lines.
    - offset: seconds that are added.

    Raises InputError for a file of another kind, or without any pose.
    """
    file = _file_of(path)
    if file.suffix == ".jsonl":
        found = Trajectory.of(list(_tracked(file, notes)))
        if not len(found):
            raise InputError(f"'{file}' holds no frame with a pose and a time")
    else:
        mount = MountOptions(axes="opencv")  # trajectories are compared as they are, also those of a body
        found = _of_poses(read_device_poses(file, MatchConfig(), mount, notes), file)
    return Trajectory(tuple(stamp + offset for stamp in found.stamps), found.poses)


def read_frame_times(path: Path, offset: float = 0.0) -> list[float]:
    """Times of all frames of a run of ``metriloc track``, in order; none for another file, which does not tell them."""
    file = _file_of(path)
    if file.suffix != ".jsonl":
        return []
    times = (entry["time"] for entry in frame_entries(file, Notes()))
    return sorted(float(time) + offset for time in times if _is_time(time))


def lengths_of(path: Path) -> MapUnit:
    """What the lengths of a file are in, as far as it says so: metres, where it says nothing."""
    file = _file_of(path)
    if file.suffix == ".jsonl":
        told = (_told(entry) for entry in frame_entries(file, Notes()) if entry["success"])
        return "unit of the map" if any(_unit(one) == "unit of the map" for one in told) else "metre"
    with open(file, encoding="utf-8", errors="replace") as lines:
        head = lines.read(_HEAD).split("\n")
    return "unit of the map" if any(line.startswith("#") and "unit of the map" in line for line in head) else "metre"


def _told(entry: Mapping[str, Any]) -> Any:
    """The pose of a frame, as it is written."""
    return next((entry[key] for key in _POSES if key in entry), None)


def _unit(told: Any) -> str:
    return str(told.get("translation_unit", "metre")) if isinstance(told, dict) else "metre"


def _file_of(path: Path) -> Path:
    return path / FRAMES_FILE if path.is_dir() and (path / FRAMES_FILE).is_file() else path


def _is_time(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e18


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


def frame_entries(file: Path, notes: Notes) -> Iterator[Mapping[str, Any]]:
    """The lines of a ``frames.jsonl``, each an object with ``index``, ``time`` and ``success``; a line that a kill has cut
    off is passed over, and the notes say so. Raises InputError for a missing file, or one of more than ten million lines."""
    require_file(file)
    with open(file, encoding="utf-8", errors="replace") as lines:
        number = 0
        while line := lines.readline(MAX_FRAME_LINE):
            number += 1
            if number > MAX_FRAMES:
                raise InputError(f"'{file}' has more than {MAX_FRAMES} lines")
            try:
                entry = json.loads(line)
                whole = isinstance(entry["index"], int) and "time" in entry and isinstance(entry["success"], bool)
            except (ValueError, KeyError, TypeError, RecursionError):
                whole = False
            if whole:
                yield entry
            else:
                notes.add("line", f"{file}:{number}: this is no whole frame, so it is left out")


def _tracked(file: Path, notes: Notes) -> Iterator[tuple[float, Pose]]:
    """Time and pose of each frame that has both."""
    for entry in frame_entries(file, notes):
        time, told = entry["time"], _told(entry)
        if not entry["success"] or told is None or not _is_time(time):
            continue
        if _unit(told) == "unknown scale":
            notes.add("scale", f"'{file}', frame {entry['index']} has a direction without a length; it is left out")
            continue
        try:
            yield float(time), pose_from_dict(told)
        except (ValueError, TypeError, AttributeError) as error:
            notes.add("pose", f"'{file}', frame {entry['index']}: {' '.join(str(error).split())[:100]}; it is left out")
