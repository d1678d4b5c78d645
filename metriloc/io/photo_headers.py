"""What a photo says of itself before its pixels are decoded: size, EXIF facts, where it was taken."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from metriloc.io.exif import EXIF_ERRORS, ExifData, read_exif
from metriloc.io.files import require_file
from metriloc.io.images import DEFAULT_MAX_MEGAPIXELS, is_heif, open_heif, open_image

GPS_SIGMA_M = 5.0
"""Standard deviation of positions of phones and cameras under open sky, where EXIF does not say better or worse."""
_GPS_IFD = 0x8825
_LAT_REF, _LAT, _LON_REF, _LON, _ALT_REF, _ALT, _H_ERROR = 1, 2, 3, 4, 5, 6, 0x1F


@dataclass(frozen=True)
class GpsPosition:
    """latitude, longitude: degrees, WGS 84. altitude: metres, None where not recorded. sigma: metres, horizontally."""

    latitude: float
    longitude: float
    altitude: float | None
    sigma: float = GPS_SIGMA_M


@dataclass(frozen=True)
class PhotoHeader:
    """size: (width, height) as stored. exif: of the camera; its orientation is 1 where a decoder turns the photo itself."""

    size: tuple[int, int]
    exif: ExifData
    position: GpsPosition | None

    @property
    def upright_size(self) -> tuple[int, int]:
        """(width, height) as the photo is to be held."""
        width, height = self.size
        return (height, width) if self.exif.orientation >= 5 else (width, height)


def read_header(path: str | os.PathLike[str], max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> PhotoHeader:
    """The header of a photo; pixels are not looked at. Raises InputError as ``read_image`` does."""
    path = require_file(path)
    turned = is_heif(path)  # libheif turns the picture itself
    with (open_heif if turned else open_image)(path, max_megapixels) as image:
        exif = read_exif(image)
        if turned and exif.orientation != 1:
            exif = ExifData(**{**vars(exif), "orientation": 1})
        return PhotoHeader(image.size, exif, _position(image))


def _position(image: Any) -> GpsPosition | None:
    try:
        gps = image.getexif().get_ifd(_GPS_IFD)
        latitude = _angle(gps[_LAT], gps.get(_LAT_REF) == "S", 90.0)
        longitude = _angle(gps[_LON], gps.get(_LON_REF) == "W", 180.0)
        altitude = None if gps.get(_ALT) is None else float(gps[_ALT])
        error = float(gps.get(_H_ERROR) or GPS_SIGMA_M)
    except (*EXIF_ERRORS, ZeroDivisionError, AttributeError):
        return None
    if latitude is None or longitude is None or (latitude == 0 and longitude == 0):
        return None
    if altitude is not None:
        below = gps.get(_ALT_REF) in (1, b"\x01")
        altitude = (-altitude if below else altitude) if math.isfinite(altitude) and altitude < 20_000 else None
    return GpsPosition(latitude, longitude, altitude, error if 0.01 <= error <= 1e4 else GPS_SIGMA_M)


def _angle(value: Any, negative: bool, limit: float) -> float | None:
    degrees, minutes, seconds = (float(part) for part in value)
    angle = degrees + minutes / 60 + seconds / 3600
    if not (math.isfinite(angle) and 0 <= angle <= limit):
        return None
    return -angle if negative else angle
