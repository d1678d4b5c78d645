"""Photos in: any common image file to upright 8-bit RGB, with its EXIF facts, or one clear sentence why not.

Accepted: JPEG (and MPO), PNG, WebP, TIFF, BMP, PPM/PGM, and HEIC with the extra ``heic``; of several frames the first.
Greyscale, palette, 1-bit, CMYK and 16-bit images become RGB; 16-bit values are divided by 257, not clipped;
transparent pixels are laid over black. EXIF orientation is applied, so intrinsics always refer to the upright image.
"""

from __future__ import annotations

import os
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metriloc.io.exif import ExifData, read_exif
from metriloc.io.files import InputError, require_file

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_MAX_MEGAPIXELS = 50.0
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM")
READABLE = "JPEG, PNG, WebP, HEIC, TIFF, BMP or PPM"
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"msf1")
DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    EOFError,
    OverflowError,
    RuntimeError,
    ZeroDivisionError,
    MemoryError,
    struct.error,
    zlib.error,
)
"""What the decoders raise on damaged files; each is turned into an InputError naming the file."""


@dataclass(frozen=True, eq=False)
class LoadedImage:
    """An upright photo. rgb: uint8 [H, W, 3]; exif: what the file says of its camera; original_size: (width, height)
    as stored, before EXIF orientation."""

    rgb: np.ndarray
    exif: ExifData
    original_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the upright image."""
        return self.rgb.shape[1], self.rgb.shape[0]


def read_image(
    path: str | os.PathLike[str], max_megapixels: float = DEFAULT_MAX_MEGAPIXELS, *, upright: bool = True
) -> LoadedImage:
    """Read a photo as 8-bit RGB, upright as its EXIF orientation says, or as its pixels are stored.

    The size in the header is checked against ``max_megapixels`` before anything is decoded (Pillow itself stops at
    179). Raises InputError for a file that is missing, empty, not an image, truncated or too large, for an image whose
    pixels are no photo (32-bit numbers), and for HEIC without ``pillow_heif``.
    """
    path = require_file(path)
    heif = _is_heif(path)
    image = open_heif(path, max_megapixels) if heif else open_image(path, max_megapixels)
    with image:
        stored = image.size
        try:
            image.load()
            exif = read_exif(image)
            rgb = _to_rgb(image, path)
        except InputError:
            raise
        except DECODING_ERRORS as error:
            raise InputError(f"'{path}' is truncated or damaged: {_reason(error)}") from error
    # libheif and Pillow's TIFF reader turn the picture themselves; Pillow then drops the tag, HEIF files may keep it
    turn = upright and not heif
    return LoadedImage(_upright(rgb, exif.orientation) if turn else rgb, exif, stored)


def upright_size(path: str | os.PathLike[str], max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> tuple[int, int]:
    """(width, height) of a photo as it is to be held, from its header. Raises InputError as ``read_image`` does."""
    path = require_file(path)
    if _is_heif(path):
        return open_heif(path, max_megapixels).size
    with open_image(path, max_megapixels) as image:
        width, height = image.size
        return (height, width) if read_exif(image).orientation in (5, 6, 7, 8) else (width, height)


def open_image(path: Path, max_megapixels: float) -> Image.Image:
    """A lazily opened Pillow image of an accepted format whose header promises at most ``max_megapixels``."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            # the limit below says the same, as an error and with the file's name
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path, formats=PILLOW_FORMATS)
    except Image.DecompressionBombError as error:
        found = re.search(r"(\d+) pixels", str(error))
        size = f"{int(found[1]) / 1e6:.0f} megapixels" if found else "too many pixels"
        raise InputError(f"'{path}' has {size}; the limit is {max_megapixels:g}") from error
    except DECODING_ERRORS as error:
        raise InputError(f"'{path}' is not an image that can be read ({READABLE})") from error
    try:
        check_size(path, image.size, max_megapixels)
    except InputError:
        image.close()
        raise
    return image


def open_heif(path: Path, max_megapixels: float) -> Image.Image:
    """The primary picture of a HEIC/HEIF file; InputError with the pip command when ``pillow_heif`` is missing."""
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"'{path}' is HEIC, which needs pillow_heif: pip install 'metriloc[heic]'") from error
    try:
        opened = pillow_heif.open_heif(path)
        check_size(path, opened.size, max_megapixels)
        image: Image.Image = opened.to_pillow()
    except InputError:
        raise
    except DECODING_ERRORS as error:
        raise InputError(f"'{path}' is truncated or damaged: {_reason(error)}") from error
    return image


def _is_heif(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def check_size(path: Path, size: tuple[int, int], max_megapixels: float) -> None:
    """Raise InputError when an image has no pixels or more than ``max_megapixels``."""
    width, height = size
    if width < 1 or height < 1:
        raise InputError(f"'{path}' has no pixels ({width}x{height})")
    if width * height > max_megapixels * 1e6:
        megapixels = width * height / 1e6
        raise InputError(
            f"'{path}' has {width}x{height} = {megapixels:.0f} megapixels; the limit is {max_megapixels:g}"
        )


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _to_rgb(image: Image.Image, path: Path) -> np.ndarray:
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales PGM to 16 bits
        wide = np.asarray(image).astype(np.uint32)
        grey = ((wide + 128) // 257).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise InputError(f"'{path}' holds {image.mode!r} values, not a photo with 8 or 16 bits a channel")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    return np.array(image.convert("RGB"))


def _upright(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """Apply EXIF orientation 1..8 (where the first row and column of the stored image belong)."""
    if orientation in (5, 6, 7, 8):
        rgb = rgb.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)
