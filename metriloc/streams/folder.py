"""A folder of photos as a stream: in the natural order of their names, with time stamps of the names where they are any."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from metriloc.datasets.rgbd import natural_key
from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.streams.frames import DevicePoses, Stream, StreamFrame
from metriloc.streams.notes import Notes
from metriloc.streams.views import CameraOptions, view_of_file
from metriloc.types import View

MAX_PHOTOS = 1_000_000
PHOTO_ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".heic"))
DEFAULT_FPS = 30.0
"""Frames a second where nothing tells their times."""
_STAMP = re.compile(r"\d{9,20}(\.\d{1,9})?")
_UNITS = ((1e17, 1e-9), (1e14, 1e-6), (1e11, 1e-3))
"""From which number on a stamp of this age counts nanoseconds, microseconds, milliseconds."""


def photos_in(folder: Path) -> list[Path]:
    """The photos of a folder in natural order (``frame2`` before ``frame10``).

    Raises InputError for a folder that holds none, cannot be read, or holds more than a million.
    """
    found: list[Path] = []
    try:
        for path in folder.iterdir():
            # maps of depth that lie beside photos are no frames (frame.depth.png)
            if path.suffix.lower() in PHOTO_ENDINGS and not path.name.startswith(".") and _is_photo(path):
                found.append(path)
            if len(found) > MAX_PHOTOS:
                raise InputError(f"'{folder}' holds more than {MAX_PHOTOS} photos")
    except OSError as error:
        raise InputError(f"'{folder}' cannot be read: {error.strerror or error}") from error
    if not found:
        raise InputError(f"'{folder}' holds no photos, and nothing else that is known to be a stream")
    return sorted(found, key=lambda path: natural_key(path.name))


def _is_photo(path: Path) -> bool:
    return ".depth" not in path.suffixes[:-1] and path.is_file()


def stamps_of_names(stems: Sequence[str]) -> list[float] | None:
    """Seconds, where every name is a time stamp: 1305031102.175304, or as many nanoseconds; None otherwise."""
    if not stems or not all(_STAMP.fullmatch(stem) for stem in stems):
        return None
    return [seconds_of(stem) for stem in stems]


def seconds_of(stamp: str) -> float:
    """A time stamp of seconds, or of milli-, micro- or nanoseconds since 1970 by its size, in seconds."""
    number = float(stamp)
    return next((number * unit for least, unit in _UNITS if number >= least), number)


@dataclass(frozen=True, eq=False)
class Photos:
    """Files that are frames, in order.

    - paths, times: of each; seconds, None where nothing tells them.
    - names: how results call them; their file names where there are none.
    - cameras: of the photo of a number, None where the photo or the options tell it.
    - source: where the cameras came from.
    - upright: whether cameras and poses belong to photos as EXIF turns them, or to the stored pixels.
    """

    paths: Sequence[Path]
    times: Sequence[float | None]
    names: Sequence[str] = ()
    cameras: Callable[[int], Camera | None] = lambda index: None
    source: str = ""
    upright: bool = True

    def frame(self, index: int, options: CameraOptions) -> StreamFrame:
        """One of them, not read yet."""
        path = self.paths[index]
        name = self.names[index] if self.names else path.name

        def load() -> View:
            return view_of_file(path, name, options, self.cameras(index), self.source, self.upright)

        return StreamFrame(index, name, self.times[index], load, path)

    def stream(
        self, name: str, options: CameraOptions, device: DevicePoses | None = None, notes: Notes | None = None
    ) -> Stream:
        """All of them. name: as results tell it; device: their device poses; notes: where these say what is wrong."""

        def frames() -> Iterator[StreamFrame]:
            return (self.frame(index, options) for index in range(len(self.paths)))

        return Stream(name, frames, len(self.paths), device=device, notes=notes or Notes())


def folder_stream(folder: Path, options: CameraOptions, fps: float | None = None) -> Stream:
    """The photos of a folder. fps: frames a second, in place of what their names tell."""
    paths = photos_in(folder)
    stamps = stamps_of_names([path.stem for path in paths]) if fps is None else None
    times = stamps if stamps is not None else [i / (fps or DEFAULT_FPS) for i in range(len(paths))]
    return Photos(paths, times).stream(str(folder), options)
