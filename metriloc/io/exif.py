"""What a photo's EXIF block says about its camera, and the focal length in pixels that follows.

Two ways: the 35-mm equivalent focal length (CIPA DCG-001: equal *diagonal* angle of view, so
``f_px = f35 / 43.27 mm * diagonal_px``), else focal length and focal-plane resolution (pixels a millimetre of sensor).
Both hold for a photo that was resized but not for one that was cropped; a crop shows when the recorded size has
another aspect ratio. A crop that kept the ratio cannot be seen.
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

DIAGONAL_35MM = math.hypot(36.0, 24.0)
PLAUSIBLE_35MM = (4.0, 3000.0)
"""35-mm equivalents of real lenses, generously: fisheyes to the longest telephotos."""
_ORIENTATION, _EXIF_IFD = 0x0112, 0x8769
_FOCAL, _FOCAL_35MM, _WIDTH, _HEIGHT = 0x920A, 0xA405, 0xA002, 0xA003
_PLANE_X, _PLANE_Y, _PLANE_UNIT = 0xA20E, 0xA20F, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
EXIF_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, OverflowError)
"""What Pillow raises on damaged EXIF blocks; a photo without usable EXIF is still a photo."""


@dataclass(frozen=True)
class ExifData:
    """The EXIF fields that matter here; None where absent or not a positive number.

    orientation: 1..8, as stored. focal_35mm, focal_mm: millimetres. plane_resolution: pixels a millimetre, x and y.
    recorded_size: (width, height) the camera wrote down, pixels.
    """

    orientation: int = 1
    focal_35mm: float | None = None
    focal_mm: float | None = None
    plane_resolution: tuple[float, float] | None = None
    recorded_size: tuple[int, int] | None = None


@dataclass(frozen=True)
class ExifFocal:
    """A focal length in pixels, or None, with one phrase that says where it came from or why it was not used."""

    pixels: float | None
    note: str


def read_exif(image: Image.Image) -> ExifData:
    """The EXIF fields of an opened (and loaded) image; an absent or damaged block gives the default ``ExifData()``."""
    try:
        top = image.getexif()
        sub = top.get_ifd(_EXIF_IFD)
    except EXIF_ERRORS:
        return ExifData()
    orientation = top.get(_ORIENTATION, 1)
    width, height = _positive(sub.get(_WIDTH)), _positive(sub.get(_HEIGHT))
    per_unit = _positive(sub.get(_PLANE_X)), _positive(sub.get(_PLANE_Y))
    unit = sub.get(_PLANE_UNIT, 2)
    unit_mm = _UNIT_MM.get(unit) if isinstance(unit, int) else None
    resolution = None
    if per_unit[0] and per_unit[1] and unit_mm:
        resolution = (per_unit[0] / unit_mm, per_unit[1] / unit_mm)
    return ExifData(
        orientation=orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1,
        focal_35mm=_positive(sub.get(_FOCAL_35MM)),
        focal_mm=_positive(sub.get(_FOCAL)),
        plane_resolution=resolution,
        recorded_size=(round(width), round(height)) if width and height and min(width, height) >= 1 else None,
    )


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def focal_from_exif(exif: ExifData, size: tuple[int, int]) -> ExifFocal:
    """Focal length in pixels of an image of ``size`` (width, height), from the 35-mm equivalent or the sensor.

    Not used, with the reason in the note: nothing recorded, an absurd value, or a photo that was cropped.
    """
    diagonal = math.hypot(*size)
    if exif.focal_35mm is not None:
        pixels = exif.focal_35mm / DIAGONAL_35MM * diagonal
        note = f"EXIF 35-mm equivalent focal length {exif.focal_35mm:g} mm"
    elif exif.focal_mm is not None and exif.plane_resolution is not None:
        x, y = exif.plane_resolution
        if abs(x - y) > 0.05 * max(x, y):
            return ExifFocal(None, f"the EXIF focal-plane resolutions {x:g} and {y:g} px/mm contradict each other")
        pixels = exif.focal_mm * 0.5 * (x + y) * max(size) / max(exif.recorded_size or size)
        note = f"EXIF focal length {exif.focal_mm:g} mm and focal-plane resolution {0.5 * (x + y):g} px/mm"
    else:
        return ExifFocal(None, "")
    if not PLAUSIBLE_35MM[0] <= pixels / diagonal * DIAGONAL_35MM <= PLAUSIBLE_35MM[1]:
        return ExifFocal(None, f"the {note} is absurd")
    if exif.recorded_size is not None and _is_cropped(exif.recorded_size, size):
        width, height = exif.recorded_size
        return ExifFocal(None, f"the {note} was not used because the photo was cropped from {width}x{height}")
    return ExifFocal(pixels, note)


def _is_cropped(recorded: tuple[int, int], size: tuple[int, int]) -> bool:
    # long side by short side: programs that turn a photo do not always exchange the recorded numbers
    before, now = max(recorded) / min(recorded), max(size) / min(size)
    return abs(before - now) > 0.02 * before
