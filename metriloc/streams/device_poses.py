"""Poses that a device told, matched to frames: by time stamp, by name, or by number."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.geometry.conventions import CONVENTIONS
from metriloc.io import InputError
from metriloc.io.poses import ZERO_QUATERNION
from metriloc.io.trajectories import Trajectory
from metriloc.streams.frames import StreamFrame
from metriloc.streams.notes import Notes

Axes = Literal["opencv", "arkit", "ros"]
"""What the axes of a pose are, camera to world: of a camera (right, down, forward), of ARKit and OpenGL (right, up, back),
of a body (forward, left, up)."""


@dataclass(frozen=True)
class MatchConfig:
    """How poses and frames are brought together by time."""

    tolerance: float = 0.02
    """Seconds that a pose may be away from a frame that lies between no two poses."""
    gap: float = 0.2
    """Seconds between two poses that are interpolated, at most; 0 takes the nearest pose alone."""
    offset: float = 0.0
    """Seconds that are added to the times of poses."""

    def check(self) -> None:
        """Raises InputError for numbers that cannot be."""
        for name, low in (("tolerance", 0.0), ("gap", 0.0), ("offset", float("-inf"))):
            value = getattr(self, name)
            if not low <= value < float("inf"):
                raise InputError(f"--device-{name} {value:g} must be a number of seconds, not negative")


@dataclass(frozen=True, eq=False)
class TimedPoses:
    """Poses with times. trajectory: of what the device poses are of; mount: ``cam_from_body``; where: the file."""

    trajectory: Trajectory
    match: MatchConfig
    notes: Notes
    where: str
    mount: Pose | None = None

    def at(self, frame: StreamFrame) -> Pose | None:
        """By the time of the frame."""
        if frame.time is None:
            self.notes.add("frame without time", f"{frame.name} has no time, so {self.where} has no pose for it")
            return None
        time = frame.time - self.match.offset
        found = self.trajectory.at(time, max_gap=self.match.gap, reach=self.match.tolerance)
        if found is None:
            self._explain(frame, time)
            return None
        return found if self.mount is None else self.mount @ found

    def _explain(self, frame: StreamFrame, time: float) -> None:
        low, high = self.trajectory.span
        if low <= time <= high:
            said = f"no pose lies within {self.match.tolerance:g} s, and no two {self.match.gap:g} s apart around it"
            self.notes.add("gap in poses", f"{frame.name} at {time:.3f} s has no pose in {self.where}: {said}")
            return
        said = f"its poses are of {low:.3f} to {high:.3f} s (--device-offset moves them)"
        self.notes.add("outside of poses", f"{frame.name} at {time:.3f} s has no pose in {self.where}: {said}")


@dataclass(frozen=True, eq=False)
class NamedPoses:
    """Poses by the name of the photo."""

    poses: Mapping[str, Pose]
    notes: Notes
    where: str
    mount: Pose | None = None

    def at(self, frame: StreamFrame) -> Pose | None:
        """By the name of the frame, or the longest tail of its path that is listed."""
        parts = () if frame.path is None else frame.path.parts
        names = (frame.name, *("/".join(parts[k:]) for k in range(len(parts))), PurePath(frame.name).name)
        found = next((pose for name in names if (pose := self.poses.get(name)) is not None), None)
        if found is None:
            self.notes.add("photo without pose", f"{frame.name} has no pose in {self.where}")
            return None
        return found if self.mount is None else self.mount @ found


@dataclass(frozen=True, eq=False)
class NumberedPoses:
    """Poses by the number of the frame."""

    poses: Mapping[int, Pose]
    notes: Notes
    where: str
    mount: Pose | None = None

    def at(self, frame: StreamFrame) -> Pose | None:
        """By the number of the frame."""
        found = self.poses.get(frame.index)
        if found is None:
            self.notes.add("number without pose", f"{frame.name}, frame {frame.index}, has no pose in {self.where}")
            return None
        return found if self.mount is None else self.mount @ found


def mounted(axes: Axes, mount: Pose | None = None) -> Pose | None:
    """``cam_from_body`` for poses of something with these axes; None where they are the camera's own.

    mount: ``body_from_cam``, where the camera stands in the body.
    """
    if mount is not None:
        return mount.inverse()
    if axes == "opencv":
        return None
    return Pose(CONVENTIONS[axes].matrix().mT, torch.zeros(3, dtype=torch.float64))


@dataclass(frozen=True)
class PoseRow:
    """One line of a file: where it stands, its time, name or number, quaternion w x y z and translation as stored."""

    place: str
    key: float | str
    q: tuple[float, float, float, float]
    t: tuple[float, float, float]


def known_rows(rows: Iterable[PoseRow], notes: Notes) -> list[tuple[PoseRow, Pose]]:
    """The pose of each row that holds one, float64, as stored; the others are named in the notes."""
    kept, numbers = [], []
    for row in rows:
        values = [*row.q, *row.t]
        if not all(abs(value) < float("inf") for value in values):
            notes.add("not finite", f"{row.place}: the pose is not finite, so it is left out")
        elif sum(value * value for value in row.q) <= ZERO_QUATERNION**2:
            notes.add("zero quaternion", f"{row.place}: the quaternion is zero, so it is left out")
        else:
            kept.append(row)
            numbers.append(values)
    if not kept:
        return []
    table: Float[Tensor, "n 7"] = torch.tensor(numbers, dtype=torch.float64)
    poses = Pose.from_quaternion(table[:, :4], table[:, 4:])
    return [(row, poses[i]) for i, row in enumerate(kept)]


def timed_rows(rows: Iterable[PoseRow], notes: Notes, file: str) -> Trajectory:
    """Rows of world from body over time, in order, as ``body_from_world``; what came out of order or twice is named.

    Raises InputError for a file without a single pose.
    """
    found: dict[float, Pose] = {}
    before = float("-inf")
    for row, pose in known_rows(rows, notes):
        time = float(row.key)
        if time in found:
            notes.add("duplicate time", f"{row.place}: the time {time:.6f} has a pose already; the first one counts")
            continue
        if time < before:
            notes.add(
                "wrong order", f"{row.place}: the time {time:.6f} is before that of an earlier line; they are sorted"
            )
        found[time], before = pose, max(before, time)
    if not found:
        raise InputError(f"'{file}' holds no pose")
    ordered = Trajectory.of(list(found.items()))
    return Trajectory(ordered.stamps, ordered.poses.inverse())


def named_rows(rows: Iterable[PoseRow], notes: Notes, file: str) -> dict[str, Pose]:
    """Rows by name, as stored; of a name that comes twice the first counts, and the notes say so.

    Raises InputError for a file without a single pose.
    """
    found: dict[str, Pose] = {}
    for row, pose in known_rows(rows, notes):
        if row.key in found:
            notes.add("duplicate name", f"{row.place}: {row.key!r} has a pose already; the first one counts")
        else:
            found[str(row.key)] = pose
    if not found:
        raise InputError(f"'{file}' holds no pose")
    return found


def numbered_rows(rows: Iterable[PoseRow], notes: Notes, file: str) -> dict[int, Pose]:
    """Rows of world from camera by the number of their frame, as ``cam_from_world``; otherwise as ``named_rows``."""
    return {int(float(key)): pose.inverse() for key, pose in named_rows(rows, notes, file).items()}
