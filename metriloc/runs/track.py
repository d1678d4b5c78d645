"""A stream against a photo or in a map, frame after frame, into a folder that can be resumed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from metriloc.io import InputError
from metriloc.io.view import warn_if_guessed
from metriloc.runs.track_files import TrackFolder
from metriloc.runs.track_results import TrackedFrame, TrackRun, frame_entry
from metriloc.streams.frames import Stream, StreamFrame
from metriloc.streams.pace import Pace
from metriloc.types import Frame, LocalizationDetails, PoseEstimate, TrackDetails, TrackState, View

WARM_UP = 5
"""Frames before the first new one that a resumed run looks at again, so that the tracker knows where it was."""

_REMEMBERED = 1000
"""Frames whose numbers are kept: more than a tracker looks back."""
_OF_ONE_FRAME = (ValueError, RuntimeError, ArithmeticError)
"""What a photo or the numbers of one frame may raise: the next one may be better."""


class FrameTracker(Protocol):
    """What follows the camera: ``metriloc.Tracker``."""

    def add_frame(self, frame: Frame) -> PoseEstimate:
        """The pose of the next frame."""
        ...


def run_track(
    run: TrackRun,
    tracker: FrameTracker,
    stream: Stream,
    *,
    folder: TrackFolder | None = None,
    resume: bool = False,
    every: int = 1,
    pace: Pace | None = None,
    told: Callable[[TrackedFrame], None] = lambda frame: None,
) -> None:
    """Follow a stream to its end; a frame that cannot be used costs itself alone.

    - run: its counts and notes are filled; frames themselves are not kept, so that memory stays steady.
    - folder, resume: where to write, if anywhere, and whether to go on where an equal run stopped.
    - every: only each so many-th frame is looked at.
    - pace: takes frames at their own speed and drops what is late; None takes them all.
    - told: hears every frame.

    Raises InputError where ``resume`` finds another run, where a run is there without it, and for a stream that breaks;
    what was found before is written, also after Ctrl+C.
    """
    if resume and stream.live:
        raise InputError(f"--resume: {stream.name} begins anew each time, so nothing of it can be skipped")
    done = 0 if folder is None else folder.begin(run, resume)
    frames = _thinned(stream, max(0, done - WARM_UP * every) if done else 0, every)
    follower = _Follower(tracker, run, stream.name, folder, told, warned=done > 0)
    try:
        for frame in iter(frames) if pace is None else pace.frames(frames):
            if frame.index < done:
                follower.follow(frame)
            else:
                follower.finish(frame)
    finally:
        run.notes.extend(stream.notes)
        if pace is not None:
            run.counts["dropped"] = pace.dropped
        if folder is not None:
            folder.finish(run)


def _thinned(stream: Stream, first: int, every: int) -> Stream:
    """Each so many-th frame, from a number on; nothing is decoded of the others."""

    def frames() -> Iterator[StreamFrame]:
        return (frame for frame in stream if frame.index >= first and frame.index % every == 0)

    return replace(stream, open=frames, device=None)  # frames have their device poses already


@dataclass(eq=False)
class _Follower:
    """A tracker, where its answers go, and which frame of the stream each of the frames is that it was given."""

    tracker: FrameTracker
    run: TrackRun
    source: str
    folder: TrackFolder | None
    told: Callable[[TrackedFrame], None]
    warned: bool = False
    count: int = 0
    numbers: dict[int, int] = field(default_factory=dict)

    def follow(self, frame: StreamFrame) -> tuple[PoseEstimate, View | None, str]:
        """What the tracker says of a frame, the photo, and why it could not be used."""
        self.numbers[self.count] = frame.index
        self.numbers.pop(self.count - _REMEMBERED, None)
        self.count += 1
        view, error = None, ""
        try:
            view = frame.load()
        except _OF_ONE_FRAME as problem:
            error = str(problem)
        given = Frame(frame.name, view, frame.time, frame.device_pose, error)
        try:
            return self.tracker.add_frame(given), view, error
        except _OF_ONE_FRAME as problem:
            said = f"'{frame.name}' could not be used: {' '.join(str(problem).split())[:200] or type(problem).__name__}"
            track = TrackDetails(frame.name, self.count - 1, frame.time, TrackState.LOST)
            return replace(PoseEstimate.failure("degenerate", LocalizationDetails()), track=track), view, said

    def finish(self, frame: StreamFrame) -> None:
        """A new frame: followed, written, counted and told."""
        found = self.line(frame)
        if found.view is not None and not self.warned:
            warn_if_guessed(found.view)
            self.warned = True
        self.run.count(found.entry)
        if self.folder is not None:
            self.folder.write(found.entry)
        _note(self.run, found)
        self.told(found)

    def line(self, frame: StreamFrame) -> TrackedFrame:
        """A frame that was followed, with its line, in which frames have their numbers in the stream."""
        start = time.perf_counter()
        estimate, view, error = self.follow(frame)
        seconds = time.perf_counter() - start
        kept = None if self.folder is None or frame.path is not None else self.folder.photo_path(frame.name)
        if kept is not None and view is not None and self.folder is not None:
            self.folder.keep_photo(kept, view)
        photo = str(frame.path or kept or f"{self.source}#{frame.index}")
        entry = frame_entry(frame, photo, estimate, view, error, seconds)
        track = entry.get("track")
        if track is not None:
            used = [self.numbers[n] for n in track["frames"] if n in self.numbers]
            entry["track"] = {**track, "index": frame.index, "frames": used}
        return TrackedFrame(entry, estimate, view)


def _note(run: TrackRun, found: TrackedFrame) -> None:
    """What was wrong with a frame, said once a kind."""
    if "error" in found.entry:
        run.notes.add("unusable frame", str(found.entry["error"]))
    track = None if found.estimate is None else found.estimate.track
    for note in () if track is None else track.notes:
        if not (note.trouble.value == "no_photo" and "error" in found.entry):
            run.notes.add(note.trouble.value, note.said)
