"""How the device's world lies in that of a map: its scale, and how it drifts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch

from metriloc.geometry import Pose, closest_rotation
from metriloc.types import TrackDrift

_LEAST_WAY = 0.3  # metres of the device that tell a drift
_SCALE_WAY, _SCALE_NOISE = 0.1, 0.03  # metres that tell a scale, and by which a way in the map may be off


class PlacedFrame(Protocol):
    """A frame whose pose in the map was measured, and perhaps told by the device; ``cam_from_world``."""

    @property
    def measured(self) -> Pose:
        """By its photo."""
        ...

    @property
    def device_pose(self) -> Pose | None:
        """In the device's world."""
        ...

    @property
    def world(self) -> int:
        """Number of the device's world."""
        ...


class MapScale:
    """Units of a map a metre of the device: 1 where the map has metres, else learned from the way, over all frames."""

    def __init__(self, known: bool) -> None:
        self._metric = known
        self._product = self._square = 0.0

    @property
    def sigma(self) -> float:
        """Relative standard deviation; inf while nothing is known."""
        if self._metric:
            return 0.0
        return math.inf if self._square == 0 else _SCALE_NOISE / math.sqrt(self._square)

    @property
    def value(self) -> float:
        """Units a metre; 1 while nothing is known."""
        return 1.0 if self._metric or self._square == 0 else self._product / self._square

    def learn(self, placed: Sequence[PlacedFrame]) -> None:
        """From the frame of the window farthest from the newest, by the device."""
        told = _of_one_world(placed)
        if self._metric or len(told) < 2:
            return
        ways = [_way(a, told[-1]) for a in told]
        k = max(range(len(ways)), key=ways.__getitem__)
        if ways[k] >= _SCALE_WAY:
            self._product += ways[k] * float(told[-1].measured.center_distance(told[k].measured))
            self._square += ways[k] ** 2


def drift_of(placed: Sequence[PlacedFrame], scale: float) -> TrackDrift | None:
    """How the device's world lies in the map now, and how much it moved there a metre of the way, by the measured poses
    of the first and the last third of the frames."""
    told = _of_one_world(placed)
    if not told:
        return None
    lies = [_map_from_device(frame, scale) for frame in told]
    third = max(1, len(told) // 3)
    way = sum(_way(a, b) for a, b in pairwise(told))
    moved, turned = math.nan, math.nan
    apart = way * (1 - third / len(told))
    if len(told) >= 6 and apart >= _LEAST_WAY:
        # where the camera is now, by the device's world as it lay then and as it lies now
        here = _scaled(told[-1], scale).center()[None]
        at = torch.stack([pose.transform(here)[0] for pose in lies])
        moved = float((at[-third:].median(0).values - at[:third].median(0).values).norm()) / (scale * apart)
        turned = math.degrees(float(_mean(lies[-third:]).angle_to(_mean(lies[:third])))) / apart
    return TrackDrift(lies[-1], moved, turned, way, scale)


def _of_one_world(placed: Sequence[PlacedFrame]) -> list[PlacedFrame]:
    """The frames with a device pose in the world of the newest."""
    return [f for f in placed if f.device_pose is not None and f.world == placed[-1].world]


def _scaled(frame: PlacedFrame, scale: float) -> Pose:
    if frame.device_pose is None:
        raise ValueError("the frame has no device pose")
    return Pose(frame.device_pose.R, scale * frame.device_pose.t)


def _map_from_device(frame: PlacedFrame, scale: float) -> Pose:
    return frame.measured.inverse() @ _scaled(frame, scale)


def _way(a: PlacedFrame, b: PlacedFrame) -> float:
    return float(_scaled(a, 1.0).center_distance(_scaled(b, 1.0)))


def _mean(poses: Sequence[Pose]) -> Pose:
    """Of rotations close to each other."""
    return Pose(closest_rotation(torch.stack([pose.R for pose in poses]).mean(0)), poses[0].t)
