"""Streams: the frames of a camera that moves, and how each of their poses came about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

from metriloc.geometry import Pose
from metriloc.wording import finite_or_none


class TrackState(str, Enum):
    """How a tracker stands after a frame.

    >>> TrackState("tracking") is TrackState.TRACKING
    True
    """

    LOST = "lost"
    """It has no pose."""
    FOUND = "found"
    """The first pose, found without a start."""
    TRACKING = "tracking"
    """Goes on from the pose before."""
    RELOCALIZED = "relocalised"
    """Found again after it was lost."""


class TrackTrouble(str, Enum):
    """What was wrong with a frame of a stream. Every one is survived.

    >>> TrackTrouble.CLOCK_JUMP.value
    'clock_jump'
    """

    NO_PHOTO = "no_photo"
    BAD_TIME = "bad_time"
    DUPLICATE_TIME = "duplicate_time"
    OUT_OF_ORDER = "out_of_order"
    CLOCK_JUMP = "clock_jump"
    BAD_DEVICE_POSE = "bad_device_pose"
    DEVICE_JUMP = "device_jump"
    FRAME_DISAGREES = "frame_disagrees"
    JUMP_REJECTED = "jump_rejected"


@dataclass(frozen=True, eq=False)
class Frame:
    """One photo of a stream.

    photo: a file, or what else ``as_view`` takes; None where there is none, and ``error`` says why. time: seconds.
    device_pose: what the device says of its camera: ``cam_from_world`` in a world of its own, metres.

    >>> Frame("0001", photo="query.jpg", time=0.04).time
    0.04
    """

    name: str
    photo: Any = None
    time: float | None = None
    device_pose: Pose | None = None
    error: str = ""


@dataclass(frozen=True)
class TrackNote:
    """A trouble, and a sentence on it.

    >>> TrackNote(TrackTrouble.NO_PHOTO, "the photo cannot be read").trouble.value
    'no_photo'
    """

    trouble: TrackTrouble
    said: str


@dataclass(frozen=True, eq=False)
class TrackDrift:
    """How the world of the device drifts in that of the answers. Over the frames that are kept.

    map_from_device: where the device's world lies now. metres_a_metre, degrees_a_metre: drift a metre of the way, as a
    share and in degrees; NaN where the way was too short to tell. way: metres of it, by the device. units_a_metre: units
    of the map a metre of the device.

    >>> drift = TrackDrift(Pose.identity(), metres_a_metre=0.01, degrees_a_metre=0.2, way=12.0)
    >>> f"{drift.metres_a_metre:.0%} of the way"
    '1% of the way'
    """

    map_from_device: Pose
    metres_a_metre: float
    degrees_a_metre: float
    way: float
    units_a_metre: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """As plain numbers for JSON, None for what is not known."""
        return {
            "map_from_device": self.map_from_device.to_dict(to_frame="map", from_frame="device world")["matrix"],
            "metres_a_metre": finite_or_none(self.metres_a_metre),
            "degrees_a_metre": finite_or_none(self.degrees_a_metre),
            "way": self.way,
            "units_a_metre": self.units_a_metre,
        }


@dataclass(frozen=True, eq=False)
class TrackDetails:
    """An estimate's place in the stream. A ``Tracker`` tells it.

    - index: number of the frame, from 0. time: as it was given.
    - frames: numbers of the frames that made the answer; moved: metres between the two of them farthest apart, by the
      device, NaN where it says nothing.
    - predicted: where the pose before and the device's motion put this frame. device_pose: as given, where it was usable.
    - smoothed: number and pose of the last frames, as this frame lets them appear.
    - searched: whether the frame was looked for without a start.

    >>> TrackDetails("0001", 1, 0.04, TrackState.TRACKING).to_dict()["state"]
    'tracking'
    """

    name: str
    index: int
    time: float | None
    state: TrackState
    frames: tuple[int, ...] = ()
    moved: float = math.nan
    notes: tuple[TrackNote, ...] = ()
    predicted: Pose | None = None
    device_pose: Pose | None = None
    drift: TrackDrift | None = None
    smoothed: tuple[tuple[int, Pose], ...] = ()
    searched: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Its part of ``PoseEstimate.to_dict``."""
        return {
            "name": self.name,
            "index": self.index,
            "time": None if self.time is None else finite_or_none(self.time),
            "state": self.state.value,
            "frames": list(self.frames),
            "moved": finite_or_none(self.moved),
            "searched": self.searched,
            "notes": [{"trouble": note.trouble.value, "said": note.said} for note in self.notes],
            "drift": None if self.drift is None else self.drift.to_dict(),
        }
