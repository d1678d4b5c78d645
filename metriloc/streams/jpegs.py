"""JPEGs one after another on standard input, as ``ffmpeg -f image2pipe`` and cameras of robots write them.

Where a photo ends is read from its own segments, so that a thumbnail inside of it is no frame. A photo that is broken or
cut off costs itself; memory is bounded by the largest photo that is taken.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable, Iterator
from typing import BinaryIO

from metriloc.io import InputError
from metriloc.streams.frames import Stream, StreamFrame
from metriloc.streams.notes import Notes
from metriloc.streams.views import CameraOptions, view_of_jpeg
from metriloc.types import View

MAX_JPEG_BYTES = 64 * 2**20
MAX_STRAY_BYTES = 256 * 2**20
"""Between two photos, after which a stream is no stream of JPEGs."""
_CHUNK = 1 << 16
_START, _END = b"\xff\xd8", 0xD9
_SCAN = 0xDA
_ALONE = frozenset((0x01, *range(0xD0, 0xD8)))
"""Markers without a length: TEM and the restarts within a scan."""
_OF_PROGRAMS = frozenset((*range(0xE0, 0xF0), 0xFE))
"""Segments that programs fill as they like, also with thumbnails."""


def jpeg_stream(
    pipe: BinaryIO, options: CameraOptions, *, fps: float | None = None, clock: Callable[[], float] = time.monotonic
) -> Stream:
    """The photos of a pipe.

    - fps: frames a second; without it the time of a frame is that of its arrival, from the first one on.
    - clock: seconds.

    Raises InputError when 256 MiB come without the beginning of a photo.
    """
    notes = Notes()

    def frames() -> Iterator[StreamFrame]:
        began = None
        for index, (data, broken) in enumerate(split_jpegs(chunks_of(pipe))):
            began = clock() if began is None else began
            name = f"frame_{index:06d}"
            yield _frame(index, name, index / fps if fps else clock() - began, data, broken, options)

    return Stream("standard input", frames, live=True, notes=notes)


def _frame(index: int, name: str, seconds: float, data: bytes, broken: str, options: CameraOptions) -> StreamFrame:
    def load() -> View:
        if broken:
            raise InputError(f"{name} of standard input {broken}")
        return view_of_jpeg(data, name, options)

    return StreamFrame(index, name, seconds, load)


def chunks_of(pipe: BinaryIO) -> Iterator[bytes]:
    """What comes, as soon as it comes; waits in short steps, so that Ctrl+C is heard."""
    try:
        number = pipe.fileno()
    except (OSError, AttributeError):  # a buffer in memory
        while chunk := pipe.read(_CHUNK):
            yield chunk
        return
    while True:
        if not select.select([number], [], [], 1.0)[0]:
            continue
        chunk = os.read(number, _CHUNK)
        if not chunk:
            return
        yield chunk


def split_jpegs(chunks: Iterator[bytes]) -> Iterator[tuple[bytes, str]]:
    """Photos and an empty text, or what was read of a broken one and why it is none.

    Raises InputError when ``MAX_STRAY_BYTES`` hold no photo.
    """
    buffer, stray = bytearray(), 0
    scan = _Scan()
    for chunk in chunks:
        buffer += chunk
        while True:
            if scan.at == 0:  # between two photos
                skipped = _to_start(buffer)
                stray += skipped
                if stray > MAX_STRAY_BYTES:
                    raise InputError(f"standard input: {stray} bytes without a JPEG; it takes JPEGs one after another")
                if len(buffer) < 2:
                    break
                scan = _Scan(2)
            ended = scan.go_on(buffer)
            if ended is None and len(buffer) > MAX_JPEG_BYTES:
                ended = "is larger than the limit of 64 MiB"
            if ended is None:
                break
            yield bytes(buffer[: scan.at]), ended
            del buffer[: scan.at]
            scan, stray = _Scan(), 0
    if scan.at:
        yield bytes(buffer), "is cut off: the stream ended"


def _to_start(buffer: bytearray) -> int:
    """Drop what comes before the beginning of a photo; how much that was."""
    found = buffer.find(_START)
    # half a marker may be all that has come of it
    drop = found if found >= 0 else len(buffer) - (1 if buffer.endswith(b"\xff") else 0)
    del buffer[:drop]
    return drop


class _Scan:
    """How far a photo at the beginning of a buffer is understood."""

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.in_scan = False

    def go_on(self, buffer: bytearray) -> str | None:
        """Move ``at`` on; "" at the end of the photo, a reason where it is broken, None where more must come.

        At a broken one ``at`` is where the next may begin.
        """
        while True:
            if self.in_scan:
                found = buffer.find(b"\xff", self.at)
                self.at = len(buffer) if found < 0 else found
            if self.at + 2 > len(buffer):
                return None
            marker = buffer[self.at + 1]
            if buffer[self.at] != 0xFF:
                return "is broken: what follows a segment is none"
            if self.in_scan and (marker == 0 or marker in _ALONE):
                self.at += 2
            elif marker == 0xFF:  # a fill byte
                self.at += 1
            elif marker == _END:
                self.at += 2
                return ""
            elif marker == 0xD8:
                return "is cut off: another photo begins within it"
            elif marker == 0 or marker in _ALONE:
                return "is broken: a marker stands where none may"
            else:
                self.in_scan = False
                if self.at + 4 > len(buffer):
                    return None
                length = int.from_bytes(buffer[self.at + 2 : self.at + 4], "big")
                if self._begins_anew(buffer, marker, length):
                    return "is cut off: another photo begins within it"
                if length < 2:
                    return "is broken: a segment has no length"
                if self.at + 4 + length > len(buffer):  # with the marker behind it, of which a photo has one
                    return None
                self.at += 2 + length
                self.in_scan = marker == _SCAN

    def _begins_anew(self, buffer: bytearray, marker: int, length: int) -> bool:
        """Whether the next photo begins within a segment, where this one was cut; then ``at`` is there. What programs have
        written may hold a thumbnail, so of that only the place of the length is looked at."""
        end = self.at + (6 if marker in _OF_PROGRAMS else 4 + length)
        found = buffer.find(b"\xff\xd8\xff", self.at + 2, max(end, self.at + 6))
        self.at = max(found, self.at)
        return found >= 0
