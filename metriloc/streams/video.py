"""A video file as a stream (extra ``video``: PyAV): every frame with the time that the file gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.io.files import require_file
from metriloc.streams.child import Record, read_records
from metriloc.streams.folder import DEFAULT_FPS
from metriloc.streams.frames import DevicePoses, Stream, StreamFrame
from metriloc.streams.notes import Notes
from metriloc.streams.views import CameraOptions, view_of_rgb
from metriloc.types import View

VIDEO_ENDINGS = frozenset((".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".3gp", ".ts", ".mts"))
MISSING_PYAV = "videos are read by PyAV: pip install 'metriloc[video]'"


def require_pyav() -> None:
    """Raises ImportError, with the pip command, where PyAV is not here; it is not loaded into this process."""
    if find_spec("av") is None:
        raise ImportError(MISSING_PYAV)


@dataclass(frozen=True, eq=False)
class VideoFacts:
    """What is known of a video beside the file itself.

    - cameras: of the frame of a number and (width, height), None where options or nothing tell it.
    - source: where these came from.
    - times: seconds by number, in place of those in the file.
    - upright: turn frames as the file says; False where cameras and poses belong to the stored pixels.
    """

    cameras: Callable[[int, tuple[int, int]], Camera | None] = lambda index, size: None
    source: str = ""
    times: Mapping[int, float] = field(default_factory=dict)
    upright: bool = True


def video_stream(
    path: Path,
    options: CameraOptions,
    *,
    fps: float | None = None,
    facts: VideoFacts = VideoFacts(),
    device: DevicePoses | None = None,
    notes: Notes | None = None,
) -> Stream:
    """The frames of a video file, also of a variable rate.

    - fps: frames a second, in place of the times in the file.
    - facts: what is known beside the file; device: poses that came with it; notes: where these say what is wrong.

    Raises ImportError without PyAV and InputError for a file that is none; a damaged part costs its own frames.
    """
    require_pyav()
    require_file(path)
    if options.intrinsics is not None:
        raise InputError(f"--intrinsics {options.intrinsics} lists photos of a folder; of a video give --k or --fov")
    noted = notes or Notes()

    def frames() -> Iterator[StreamFrame]:
        records = read_records("video", {"path": str(path.absolute()), "upright": facts.upright})
        index = -1
        for index, record in enumerate(record for record in records if "frames" not in record.head):
            yield _frame(path, index, record, options, _time(path, index, record, fps, facts, noted), facts)
        if index < 0:
            raise InputError(f"'{path}' holds no frame that can be decoded")

    return Stream(str(path), frames, device=device, notes=noted)


def _time(path: Path, index: int, record: Record, fps: float | None, facts: VideoFacts, notes: Notes) -> float | None:
    if fps is not None:
        return index / fps
    time: float | None = facts.times.get(index, record.head.get("time"))
    if time is None and "bad" not in record.head:
        time = index / DEFAULT_FPS
        notes.add("no time", f"'{path}': frame {index} has no time, so {DEFAULT_FPS:g} frames a second are assumed")
    return time


def _frame(
    path: Path, index: int, record: Record, options: CameraOptions, time: float | None, facts: VideoFacts
) -> StreamFrame:
    name, head = f"{path.stem}_{index:06d}", record.head

    def load() -> View:
        if "bad" in head:
            raise InputError(f"'{path}': frame {index} cannot be decoded: {head['bad']}")
        rgb = np.frombuffer(record.data, np.uint8).reshape(head["height"], head["width"], 3)
        return view_of_rgb(rgb, name, options, facts.cameras(index, (head["width"], head["height"])), facts.source)

    return StreamFrame(index, name, time, load)
