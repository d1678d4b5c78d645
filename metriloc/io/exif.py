"""What a photo's EXIF block says about its camera, and the focal length in pixels that follows.

Three ways: the 35-mm equivalent focal length (CIPA DCG-001: equal *diagonal* angle of view, so
``f_px = f35 / 43.27 mm * diagonal_px``), else focal length and focal-plane resolution (pixels a millimetre of sensor),
else focal length and a body that is known by its name (``sensors``). All hold for a photo that was resized but not for
one that was cropped; a crop shows when the recorded size has another aspect ratio. One that kept the ratio cannot be
seen, so a photo of another size than recorded says so. Digital zoom is a crop too: makers differ in whether the 35-mm
equivalent includes it, and where nothing tells, nothing is said.
"""

from __future__ import annotations

import dataclasses
import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from metriloc.io.sensors import FILM_DIAGONAL_MM, find_body

if TYPE_CHECKING:
    from PIL import Image

DIAGONAL_35MM = FILM_DIAGONAL_MM
PLAUSIBLE_35MM = (4.0, 3000.0)
"""35-mm equivalents of real lenses, generously: fisheyes to the longest telephotos."""
EXIF_SIGMA, BODY_SIGMA = 0.015, 0.03
"""Relative standard deviations of focal lengths. Makers' figures are good to 1 to 2 %, besides the rounding of the 35-mm
equivalent to whole millimetres; a crop factor of two rounded figures of a specification to 3 %."""
NO_ZOOM, SAME_FOCAL = 1.02, 1.08
"""Zoom below which a photo counts as not zoomed; ratio of two 35-mm equivalents up to which they count as equal."""
CAMERA_SHAPES = (4 / 3, 3 / 2, 16 / 9)
_ROUNDING_MM = 0.29  # standard deviation of what is rounded to whole numbers
_MAKE, _MODEL, _ORIENTATION, _EXIF_IFD = 0x010F, 0x0110, 0x0112, 0x8769
_FOCAL, _FOCAL_35MM, _WIDTH, _HEIGHT, _ZOOM = 0x920A, 0xA405, 0xA002, 0xA003, 0xA404
_PLANE_X, _PLANE_Y, _PLANE_UNIT = 0xA20E, 0xA20F, 0xA210
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0, 5: 0.001}
EXIF_ERRORS = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, struct.error, OverflowError)
"""What Pillow raises on damaged EXIF blocks; a photo without usable EXIF is still a photo."""


@dataclass(frozen=True)
class ExifData:
    """The EXIF fields that matter here. None where absent or not a positive number.

    orientation: 1..8, as stored. focal_35mm, focal_mm: millimetres. plane_resolution: pixels a millimetre, x and y.
    recorded_size: (width, height) the camera wrote down, pixels. zoom: digital zoom, 1 where absent. make, model: of the
    body. plane_without_unit: a focal-plane resolution is there but not of what unit.

    >>> ExifData(focal_35mm=26.0, make="Fairphone").zoom
    1.0
    """

    orientation: int = 1
    focal_35mm: float | None = None
    focal_mm: float | None = None
    plane_resolution: tuple[float, float] | None = None
    recorded_size: tuple[int, int] | None = None
    zoom: float = 1.0
    make: str = ""
    model: str = ""
    plane_without_unit: bool = False


@dataclass(frozen=True)
class ExifFocal:
    """A focal length in pixels, or None. One phrase says where it came from or why it was not used.

    sigma: relative standard deviation, before anything that EXIF cannot tell.
    """

    pixels: float | None
    note: str
    sigma: float = EXIF_SIGMA


def read_exif(image: Image.Image) -> ExifData:
    """The EXIF fields of an opened (and loaded) image.

    An absent or damaged block gives the default ``ExifData()``.
    """
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
        zoom=_positive(sub.get(_ZOOM)) or 1.0,
        make=_text(top.get(_MAKE)),
        model=_text(top.get(_MODEL)),
        plane_without_unit=bool(per_unit[0] and per_unit[1] and not unit_mm),
    )


def _text(value: Any) -> str:
    return " ".join(value.replace("\0", " ").split())[:80] if isinstance(value, str) else ""


def _positive(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return number if math.isfinite(number) and number > 0 else None


def focal_from_exif(exif: ExifData, size: tuple[int, int]) -> ExifFocal:
    """Focal length in pixels of an image of ``size`` (width, height).

    It comes from the 35-mm equivalent or the sensor. Not used, with the reason in the note: nothing
    recorded, an absurd value, a photo that was cropped, or a digital zoom that the recorded
    equivalent may or may not include.

    >>> focal = focal_from_exif(ExifData(focal_35mm=26.0), (4000, 3000))
    >>> round(focal.pixels), round(focal.sigma, 3)
    (3005, 0.019)
    """
    if exif.focal_35mm is not None:
        found = _of_equivalent(exif, exif.focal_35mm, size)
    elif exif.focal_mm is not None and exif.plane_resolution is not None:
        found = _of_plane(exif, size)
    elif exif.focal_mm is not None:
        found = _of_body(exif, size)
    else:
        found = ExifFocal(None, "")
    if found.pixels is None:
        return found
    if not PLAUSIBLE_35MM[0] <= _equivalent(found.pixels, size) <= PLAUSIBLE_35MM[1]:
        return ExifFocal(None, f"the {found.note} is absurd")
    recorded = exif.recorded_size
    if recorded is None or sorted(recorded) == sorted(size):
        return found
    if not _same_shape(max(recorded) / min(recorded), size):
        return _unused(found, f"the photo was cropped from {recorded[0]}x{recorded[1]}")
    resized = f"{found.note}, resized from {recorded[0]}x{recorded[1]} unless it was cropped, which EXIF cannot tell"
    return dataclasses.replace(found, note=resized)


def _of_equivalent(exif: ExifData, focal_35mm: float, size: tuple[int, int]) -> ExifFocal:
    sigma = math.hypot(EXIF_SIGMA, _ROUNDING_MM / focal_35mm)
    found = ExifFocal(_pixels(focal_35mm, size), f"EXIF 35-mm equivalent focal length {focal_35mm:g} mm", sigma)
    if exif.recorded_size is None and not any(_same_shape(shape, size) for shape in CAMERA_SHAPES):
        shape = f"{size[0]}x{size[1]} is neither 4:3 nor 3:2 nor 16:9"
        return _unused(found, f"{shape}: the photo was cropped, and EXIF does not say from what size")
    if exif.zoom < NO_ZOOM:
        return found
    zoomed = f"the photo was zoomed digitally ({exif.zoom:g} times)"
    optical = _optical_35mm(exif, size)
    if optical is None:
        return _unused(found, f"{zoomed} and nothing tells whether it includes that")
    # how far the equivalent is from the lens alone, and from lens and zoom together
    without, included = (abs(math.log(focal_35mm / (optical * zoom))) for zoom in (1.0, exif.zoom))
    if min(without, included) > math.log(SAME_FOCAL):
        return _unused(found, f"{zoomed} and the lens alone has {optical:.3g} mm")
    if included <= without:
        return dataclasses.replace(found, note=f"{found.note}, digital zoom of {exif.zoom:g} included")
    return _zoomed(found, exif.zoom)


def _optical_35mm(exif: ExifData, size: tuple[int, int]) -> float | None:
    """35-mm equivalent of the lens without any digital zoom, where the sensor is known."""
    lens = dataclasses.replace(exif, zoom=1.0)
    if exif.focal_mm is None:
        return None
    pixels = (_of_body(lens, size) if exif.plane_resolution is None else _of_plane(lens, size)).pixels
    return None if pixels is None else _equivalent(pixels, size)


def _of_plane(exif: ExifData, size: tuple[int, int]) -> ExifFocal:
    assert exif.plane_resolution is not None and exif.focal_mm is not None
    x, y = exif.plane_resolution
    if abs(x - y) > 0.05 * max(x, y):
        return ExifFocal(None, f"the EXIF focal-plane resolutions {x:g} and {y:g} px/mm contradict each other")
    pixels = exif.focal_mm * 0.5 * (x + y) * max(size) / max(exif.recorded_size or size)
    note = f"EXIF focal length {exif.focal_mm:g} mm and focal-plane resolution {0.5 * (x + y):g} px/mm"
    return _zoomed(ExifFocal(pixels, note), exif.zoom)


def _of_body(exif: ExifData, size: tuple[int, int]) -> ExifFocal:
    assert exif.focal_mm is not None
    body = find_body(exif.make, exif.model, exif.focal_mm)
    if body is None:
        unit = "the EXIF focal-plane resolution was not used because it has no unit"
        return ExifFocal(None, unit if exif.plane_without_unit else "")
    note = f"EXIF focal length {exif.focal_mm:g} mm and the sensor of the {body.name} (crop factor {body.crop:.2f})"
    found = ExifFocal(_pixels(exif.focal_mm * body.crop, size), note, BODY_SIGMA)
    if not _same_shape(body.shape[0] / body.shape[1], size):
        shape = f"{body.shape[0]}:{body.shape[1]}"
        return _unused(found, f"the sensor is {shape} and the photo {size[0]}x{size[1]}, so it was cropped")
    return _zoomed(found, exif.zoom)


def _zoomed(found: ExifFocal, zoom: float) -> ExifFocal:
    if found.pixels is None or zoom < NO_ZOOM:
        return found
    return dataclasses.replace(
        found, pixels=found.pixels * zoom, note=f"{found.note}, times a digital zoom of {zoom:g}"
    )


def _unused(found: ExifFocal, why: str) -> ExifFocal:
    return ExifFocal(None, f"the {found.note} was not used because {why}")


def _pixels(focal_35mm: float, size: tuple[int, int]) -> float:
    return focal_35mm / DIAGONAL_35MM * math.hypot(*size)


def _equivalent(pixels: float, size: tuple[int, int]) -> float:
    return pixels / math.hypot(*size) * DIAGONAL_35MM


def _same_shape(aspect: float, size: tuple[int, int]) -> bool:
    # long side by short side: programs that turn a photo do not always exchange the recorded numbers
    return abs(aspect - max(size) / min(size)) <= 0.02 * aspect
