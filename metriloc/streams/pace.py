"""Frames at the speed at which they were taken: those that nobody has time for are dropped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from metriloc.streams.frames import Stream, StreamFrame

LONGEST_WAIT_S = 10.0
"""Between two frames of a recording: a clock that jumps ahead is not waited for."""


@dataclass(eq=False)
class Pace:
    """Takes frames as a camera would give them.

    - dropped: how many were passed over so far.
    - clock, sleep: seconds; replaced in tests.
    """

    dropped: int = 0
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep

    def frames(self, stream: Stream) -> Iterator[StreamFrame]:
        """The frames of a stream, without those that were over before anybody asked for the next one.

        Of a recording a frame is due when as much time has passed as between its time stamp and that of the first frame;
        a live stream is read on meanwhile, and the newest frame counts. Nothing is decoded of what is dropped.
        """
        return self._newest(stream) if stream.live else self._due(stream)

    def _due(self, stream: Stream) -> Iterator[StreamFrame]:
        frames = iter(stream)
        offset: float | None = None  # clock minus time stamp
        before = 0.0
        ahead = next(frames, None)
        while ahead is not None:
            frame, ahead = ahead, next(frames, None)
            if frame.time is None:
                yield frame
                continue
            now = self.clock()
            # after a jump of the time stamps, either way, counting begins anew
            if offset is None or not 0 <= frame.time - before <= LONGEST_WAIT_S:
                offset = now - frame.time
            before = frame.time
            if now < frame.time + offset:
                self.sleep(frame.time + offset - now)
            elif ahead is not None and ahead.time is not None and before <= ahead.time <= now - offset:
                self.dropped += 1
                continue
            yield frame

    def _newest(self, stream: Stream) -> Iterator[StreamFrame]:
        slot = _Slot()
        threading.Thread(target=slot.fill, args=(stream,), daemon=True).start()
        while (frame := slot.take()) is not None:
            yield frame
            self.dropped = slot.dropped
        self.dropped = slot.dropped


class _Slot:
    """Room for one frame: a newer one takes the place of one that nobody has taken."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.frame: StreamFrame | None = None
        self.ended = False
        self.error: BaseException | None = None
        self.dropped = 0

    def fill(self, stream: Stream) -> None:
        """Read on until the stream ends."""
        try:
            for frame in stream:
                with self.changed:
                    self.dropped += self.frame is not None
                    self.frame = frame
                    self.changed.notify()
        except Exception as error:  # raised again where frames are taken
            self.error = error
        with self.changed:
            self.ended = True
            self.changed.notify()

    def take(self) -> StreamFrame | None:
        """The newest frame, as soon as there is one; None at the end."""
        with self.changed:
            while self.frame is None and not self.ended:
                self.changed.wait(1.0)  # not forever, so that Ctrl+C is heard
            frame, self.frame = self.frame, None
        if frame is None and self.error is not None:
            raise self.error
        return frame
