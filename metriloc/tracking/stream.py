"""What a device says of a frame, its time and its pose, distrusted: named where it is wrong, and survived."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

import torch

from metriloc.geometry import Pose
from metriloc.types import TrackNote, TrackTrouble

_STEPS = 15  # the last steps that say how far a camera moves from frame to frame
_LEAP, _LEAP_TIMES, _FIRST_LEAP = 0.5, 6.0, 5.0  # metres; times the usual step; metres while nothing is usual
_FAST = 50.0  # metres a second, faster than which nothing moves whose steps are not known yet
_LATE, _LATE_TIMES = 5.0, 50.0  # seconds; times the usual interval
_NO_ROTATION = 1e-3  # how far R^T R may be from the identity


@dataclass(frozen=True, eq=False)
class Told:
    """What is believed of a frame. device_pose: ``cam_from_world`` in the device's world, float64, None where nothing
    usable was told. world: number of that world, which grows whenever the device starts a new one."""

    device_pose: Pose | None
    world: int
    notes: tuple[TrackNote, ...]


class StreamCheck:
    """Times and device poses of one stream, frame after frame; keeps a few numbers only."""

    def __init__(self) -> None:
        self._time: float | None = None
        self._intervals: deque[float] = deque(maxlen=_STEPS)
        self._good: Pose | None = None
        self._suspect: Pose | None = None
        self._steps: deque[float] = deque(maxlen=_STEPS)
        self._good_time: float | None = None
        self._missed = 0
        self._world = 0

    def told(self, name: str, time: float | None, device_pose: Pose | None) -> Told:
        """What to believe of the next frame."""
        notes = self._clock(name, time)
        if device_pose is None:
            self._missed += 1
            return Told(None, self._world, notes)
        pose = device_pose.detach().to("cpu", torch.float64)
        if not is_rigid(pose):
            self._missed += 1
            said = f"the device pose of '{name}' is not finite, or no rotation: it is not used"
            return Told(None, self._world, (*notes, TrackNote(TrackTrouble.BAD_DEVICE_POSE, said)))
        return self._placed(name, pose, notes)

    def _placed(self, name: str, pose: Pose, notes: tuple[TrackNote, ...]) -> Told:
        if self._good is None or self._follows(self._good, pose, self._missed + 1):
            if self._good is not None:
                self._steps.append(float(pose.center_distance(self._good)) / (self._missed + 1))
            self._good, self._suspect, self._missed, self._good_time = pose, None, 0, self._time
            return Told(pose, self._world, notes)
        if self._suspect is not None and self._follows(self._suspect, pose, 1):
            # two frames agree on the new place: the device has begun another world
            self._world, self._good, self._suspect, self._missed = self._world + 1, pose, None, 0
            self._good_time = self._time
            said = f"the device goes on from '{name}' in a world of its own: earlier frames no longer measure for it"
            return Told(pose, self._world, (*notes, TrackNote(TrackTrouble.DEVICE_JUMP, said)))
        leap = float(pose.center_distance(self._good))
        self._suspect, self._missed = pose, self._missed + 1
        said = f"the device pose of '{name}' leaps by {leap:.3g} m: it is not used"
        return Told(None, self._world, (*notes, TrackNote(TrackTrouble.DEVICE_JUMP, said)))

    def _follows(self, before: Pose, pose: Pose, frames: int) -> bool:
        """Whether a camera may have gone there in so many frames."""
        step = float(pose.center_distance(before))
        if len(self._steps) < 2:
            known = self._time is not None and self._good_time is not None
            seconds = (self._time or 0.0) - (self._good_time or 0.0) if known else 0.0
            return step <= max(_FIRST_LEAP * frames, _FAST * seconds)
        return step <= _LEAP + _LEAP_TIMES * frames * median(self._steps)

    def _clock(self, name: str, time: float | None) -> tuple[TrackNote, ...]:
        if time is None:
            return ()
        if not math.isfinite(time):
            return (TrackNote(TrackTrouble.BAD_TIME, f"the time of '{name}' is {time}: it is not used"),)
        before, self._time = self._time, time
        if before is None:
            return ()
        interval = time - before
        usual = median(self._intervals) if len(self._intervals) >= 2 else math.inf
        if abs(interval) > _LATE and abs(interval) > _LATE_TIMES * (usual if math.isfinite(usual) else 1.0):
            said = f"the clock jumps by {interval:+.4g} s at '{name}'"
            return (TrackNote(TrackTrouble.CLOCK_JUMP, said),)
        if interval > 0:
            self._intervals.append(interval)
            return ()
        self._time = max(before, time)
        if interval == 0:
            said = f"'{name}' has the time of the frame before, {time:.6f} s"
            return (TrackNote(TrackTrouble.DUPLICATE_TIME, said),)
        said = f"'{name}' is {-interval:.4g} s older than the frame before"
        return (TrackNote(TrackTrouble.OUT_OF_ORDER, said),)


def is_rigid(pose: Pose) -> bool:
    """Whether a single pose is finite and a rotation, not mirrored, not scaled."""
    if pose.shape != () or not bool(pose.is_finite()):
        return False
    off = pose.R @ pose.R.mT - torch.eye(3, dtype=pose.dtype)
    return float(off.abs().max()) <= _NO_ROTATION and float(torch.linalg.det(pose.R)) > 0
