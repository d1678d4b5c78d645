"""The photos a map is made of: which files they are, and the camera of each, shared where cameras are the same.

A map belongs to pixels as they are *stored*, because that is what COLMAP reads; cameras are turned to them by EXIF
orientation. Keypoints are looked for in the upright photo, and turned as well.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from metriloc.geometry import Camera, ColmapCamera
from metriloc.io.exif import ExifData
from metriloc.io.files import InputError, read_bytes
from metriloc.io.intrinsics import Intrinsics, resolve_intrinsics
from metriloc.io.photo_headers import GpsPosition, read_header

PHOTO_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".heic", ".heif", ".mpo")
)
MIN_SIDE = 16
"""Pixels below which no network or SIFT looks at a photo."""
QUARTERS = {1: 0, 3: 2, 6: 1, 8: 3}
"""By EXIF orientation: how often the upright photo is turned against the clock to be as it is stored."""


@dataclass(frozen=True)
class MapPhoto:
    """name: path below the folder of photos, with slashes. digest: of its content. size: as stored.

    camera: of the stored pixels, in COLMAP's words. group: equal for photos of one camera. known: whether the intrinsics
    are given, and so not refined. focal_sigma, source: as of ``Intrinsics``.
    """

    name: str
    path: Path
    digest: str
    size: tuple[int, int]
    orientation: int
    camera: ColmapCamera
    group: str
    known: bool
    focal_sigma: float
    source: str
    position: GpsPosition | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) as the photo is to be held."""
        width, height = self.size
        return (height, width) if self.orientation >= 5 else (width, height)


def list_photos(folder: Path) -> list[Path]:
    """The files below a folder that are called as photos are, sorted by name; depth maps and hidden files are not.

    Raises InputError when it is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder of photos")
    found = (p for p in folder.rglob("*") if p.suffix.lower() in PHOTO_SUFFIXES and p.is_file())
    shown = (p for p in found if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    return sorted((p for p in shown if not p.stem.lower().endswith(".depth")), key=lambda p: p.as_posix())


def read_photos(
    folder: Path,
    *,
    intrinsics: Path | None = None,
    fov_deg: float | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> tuple[list[MapPhoto], list[str]]:
    """The photos of a folder, and one sentence for each that is left out: unreadable, mirrored, or a copy of another.

    intrinsics, fov_deg: see ``resolve_intrinsics``; without them a list beside the photos, EXIF or a guess. Raises
    InputError for a folder without photos, and for intrinsics that are wrong.
    """
    paths = list_photos(folder)
    if not paths:
        raise InputError(f"'{folder}' holds no photos ({', '.join(sorted(PHOTO_SUFFIXES))})")
    photos: list[MapPhoto] = []
    messages: list[str] = []
    first: dict[str, str] = {}
    for done, path in enumerate(paths, 1):
        name = path.relative_to(folder).as_posix()
        try:
            photo = _photo(name, path, intrinsics, fov_deg)
        except InputError as error:
            messages.append(f"{error} (left out)")
            continue
        if photo.digest in first:
            messages.append(f"'{path}' is a copy of {first[photo.digest]!r} (left out)")
        else:
            first[photo.digest] = name
            photos.append(photo)
        if progress is not None:
            progress(done, len(paths))
    return photos, messages


def _photo(name: str, path: Path, intrinsics: Path | None, fov_deg: float | None) -> MapPhoto:
    header = read_header(path)
    exif = header.exif
    if min(header.size) < MIN_SIDE:
        raise InputError(f"'{path}' has {header.size[0]}x{header.size[1]} pixels, and a map needs {MIN_SIDE} a side")
    if exif.orientation not in QUARTERS:
        raise InputError(f"'{path}' is stored mirrored (EXIF orientation {exif.orientation}): save it as it looks")
    known = resolve_intrinsics(header.upright_size, path=path, intrinsics=intrinsics, exif=exif, fov_deg=fov_deg)
    camera = colmap_camera(known, header.size, QUARTERS[exif.orientation])
    given = known.focal_sigma == 0
    return MapPhoto(
        name=name,
        path=path,
        digest=hashlib.sha256(read_bytes(path)).hexdigest()[:32],
        size=header.size,
        orientation=exif.orientation,
        camera=camera,
        group=_group(camera, exif, given),
        known=given,
        focal_sigma=known.focal_sigma,
        source=known.source,
        position=header.position,
    )


def colmap_camera(known: Intrinsics, size: tuple[int, int], quarters: int = 0) -> ColmapCamera:
    """The camera of the stored pixels.

    PINHOLE where its numbers are given, else SIMPLE_RADIAL about the center. quarters: how often
    the upright photo is turned against the clock to be as it is stored.
    """
    camera: Camera = known.camera.turn(quarters)
    (fx, fy), (cx, cy) = camera.f.double().tolist(), camera.c.double().tolist()
    if known.focal_sigma == 0:
        return ColmapCamera("PINHOLE", *size, (fx, fy, cx + 0.5, cy + 0.5))
    return ColmapCamera("SIMPLE_RADIAL", *size, (0.5 * (fx + fy), 0.5 * size[0], 0.5 * size[1], 0.0))


def _group(camera: ColmapCamera, exif: ExifData, given: bool) -> str:
    """Photos of one camera body, lens setting and size share their intrinsics."""
    lens = [round(value, 2) for value in camera.params] if given else [round(camera.params[0])]
    body = [] if given else [exif.make, exif.model, exif.focal_mm, exif.focal_35mm]
    return json.dumps([camera.model, camera.width, camera.height, lens, body])


def cameras_of(photos: Sequence[MapPhoto]) -> tuple[list[MapPhoto], list[int]]:
    """One photo for each camera, and which camera each photo has."""
    groups: dict[str, int] = {}
    firsts = []
    for photo in photos:
        if photo.group not in groups:
            groups[photo.group] = len(groups)
            firsts.append(photo)
    return firsts, [groups[photo.group] for photo in photos]


def stored_pixels(
    uv: npt.NDArray[np.float32], orientation: int, upright_size: tuple[int, int]
) -> npt.NDArray[np.float32]:
    """Pixels of the upright photo -> pixels as they are stored, first pixel's center at (0, 0) in both."""
    x, y = uv[:, 0], uv[:, 1]
    if orientation in (3, 6):
        x = upright_size[0] - 1 - x
    if orientation in (3, 8):
        y = upright_size[1] - 1 - y
    return np.stack([y, x] if orientation in (6, 8) else [x, y], axis=1)
