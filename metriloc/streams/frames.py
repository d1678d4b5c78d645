"""A frame of a stream, and a stream: frames in the order in which they come, nothing read before it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from metriloc.geometry import Pose
from metriloc.streams.notes import Notes
from metriloc.types import View


@dataclass(frozen=True, eq=False)
class StreamFrame:
    """One frame.

    - index: its number in the stream, from 0; frames that are dropped or unreadable have theirs, too.
    - name: how results call it.
    - time: seconds, None where nothing tells it.
    - load: the photo with its camera; raises InputError, one sentence, when it cannot be used.
    - path: its file, where it has one of its own.
    - device_pose: ``cam_from_device_world`` in metres, as the device told; None where it did not.
    """

    index: int
    name: str
    time: float | None
    load: Callable[[], View]
    path: Path | None = None
    device_pose: Pose | None = None


class DevicePoses(Protocol):
    """Where the device says that its camera stood."""

    def at(self, frame: StreamFrame) -> Pose | None:
        """``cam_from_device_world`` of a frame; None where the device tells none."""
        ...


@dataclass(frozen=True, eq=False)
class Stream:
    """Frames one after another.

    - name: where they come from, as results tell it.
    - open: begins from the first frame.
    - count: of the frames, None where it is not known beforehand.
    - live: whether frames are lost when nobody takes them in time (standard input).
    - device: poses that came with the frames, None for none.
    - notes: what was wrong and survived, filled while frames are read.
    """

    name: str
    open: Callable[[], Iterator[StreamFrame]]
    count: int | None = None
    live: bool = False
    device: DevicePoses | None = None
    notes: Notes = field(default_factory=Notes)

    def __iter__(self) -> Iterator[StreamFrame]:
        """Frames with the poses of the device."""
        for frame in self.open():
            known = frame.device_pose is not None or self.device is None
            yield frame if known else replace(frame, device_pose=self.device.at(frame))  # type: ignore[union-attr]
