"""Photos and pictures that are files, for whoever looks at what a run has left: what cannot be read is not shown."""

from __future__ import annotations

from pathlib import Path

from metriloc.io import InputError
from metriloc.io.images import read_image
from metriloc.viz.pictures import Picture, Rgb, shrink
from metriloc.viz.scene import THUMBNAIL_SIDE

_SIDE = 1000


def small_photo_at(path: Path, *, upright: bool = True) -> Rgb | None:
    """For a camera. None where there is no photo any more, or none that can be read."""
    try:
        return shrink(read_image(path, upright=upright).rgb, THUMBNAIL_SIDE)
    except (InputError, ImportError):
        return None


def photo_at(path: Path) -> tuple[Picture, ...]:
    """The photo, to be looked at. A sentence in its place where it cannot be read."""
    return picture_at(path, path.name) or (missing(f"'{path}' cannot be read"),)


def picture_at(path: Path, title: str) -> tuple[Picture, ...]:
    """A picture that a run has drawn, if it is there."""
    try:
        return (Picture(title, shrink(read_image(path).rgb, _SIDE)),)
    except (InputError, ImportError):
        return ()


def missing(why: str) -> Picture:
    """In place of a picture that cannot be shown."""
    import numpy as np

    return Picture("No picture", np.full((24, 400, 3), 60, np.uint8), why)
