"""Photos in: any common image file to upright 8-bit RGB, with its EXIF facts, or one clear sentence why not.

Accepted: JPEG (and MPO), PNG, WebP, TIFF, BMP, PPM/PGM, and HEIC with the extra ``heic``; of several frames the first.
Greyscale, palette, 1-bit, CMYK and 16-bit images become RGB; 16-bit values are divided by 257, or by the maximum that a
PGM or a TIFF states, not clipped; transparent pixels are laid over black. EXIF orientation is applied, so intrinsics
always refer to the upright image.
"""

from __future__ import annotations

import io
import os
import re
import struct
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metriloc.io.deep_images import check_bits, gray_of_16_bits, has_16_bits, stated_maximum
from metriloc.io.exif import ExifData, read_exif
from metriloc.io.files import InputError, require_file

if TYPE_CHECKING:
    from PIL import Image

DEFAULT_MAX_MEGAPIXELS = 50.0
PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "PPM")
READABLE = "JPEG, PNG, WebP, HEIC, TIFF, BMP or PPM"
_HEAD_BYTES = 12
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
    as stored, before EXIF orientation.

    >>> photo = read_image("reference.jpg")
    >>> photo.original_size, photo.exif.orientation
    ((640, 480), 1)
    """

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
    """Read a photo as 8-bit RGB.

    - path: of the file.
    - max_megapixels: the size in the header is checked against it before anything is decoded (Pillow itself stops at 179).
    - upright: whether it is turned as its EXIF orientation says, or stays as its pixels are stored.

    Raises InputError for a file that is missing, empty, not an image, truncated or too large, for an image whose pixels are
    no photo (32-bit numbers), for 16 bits of which only 12 are used without the file saying so (nearly black otherwise),
    and for HEIC without ``pillow_heif``.

    >>> read_image("reference.jpg").rgb.shape
    (480, 640, 3)
    """
    path = require_file(path)
    return _read(path, _head(path), path, max_megapixels, upright)


def decode_image(data: bytes, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS, *, name: str = "photo") -> LoadedImage:
    """Read an encoded photo in memory. It is read as ``read_image`` reads a file, with the same limits.

    - data: the bytes of a JPEG, PNG, ... file.
    - name: what errors call it.
    """
    if not data:
        raise InputError(f"'{name}' is empty")
    return _read(io.BytesIO(data), data[:_HEAD_BYTES], name, max_megapixels, upright=True)


def image_of_pillow(
    image: Image.Image, max_megapixels: float = DEFAULT_MAX_MEGAPIXELS, *, name: str = "photo"
) -> LoadedImage:
    """Read an opened Pillow image. It is read as the file it came from would be, EXIF orientation included.

    The image itself stays as it is. Raises InputError as ``read_image`` does.
    """
    check_size(name, image.size, max_megapixels)
    return _loaded(image, name, turn=True)


def _read(
    source: Path | io.BytesIO, head: bytes, name: Path | str, max_megapixels: float, upright: bool
) -> LoadedImage:
    heif = _is_heif(head)
    image = (open_heif if heif else open_image)(source, max_megapixels, name)
    with image:
        # libheif turns the picture itself; HEIF files may keep the tag
        return _loaded(image, name, turn=upright and not heif)


def _loaded(image: Image.Image, name: Path | str, turn: bool) -> LoadedImage:
    stored = image.size
    deep = has_16_bits(image)
    try:
        image.load()
        exif = read_exif(image)
        rgb = _to_rgb(image, name, deep)
    except InputError:
        raise
    except DECODING_ERRORS as error:
        raise InputError(f"'{name}' is truncated or damaged: {_reason(error)}") from error
    # Pillow's TIFF reader turns the picture itself and drops the tag
    return LoadedImage(_upright(rgb, exif.orientation) if turn else rgb, exif, stored)


def upright_size(path: str | os.PathLike[str], max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> tuple[int, int]:
    """The (width, height) of a photo as it is to be held. It is read from the header. Raises InputError as
    ``read_image`` does."""
    size, turned = _header(path, max_megapixels)
    return (size[1], size[0]) if turned else size


def stored_size(path: str | os.PathLike[str], max_megapixels: float = DEFAULT_MAX_MEGAPIXELS) -> tuple[int, int]:
    """(width, height) of the pixels as they are stored, from the header. Raises InputError as ``read_image`` does."""
    return _header(path, max_megapixels)[0]


def _header(path: str | os.PathLike[str], max_megapixels: float) -> tuple[tuple[int, int], bool]:
    """Size, and whether the photo is to be turned on its side."""
    path = require_file(path)
    if is_heif(path):
        return open_heif(path, max_megapixels).size, False
    with open_image(path, max_megapixels) as image:
        return image.size, read_exif(image).orientation in (5, 6, 7, 8)


def open_image(source: Path | io.BytesIO, max_megapixels: float, name: Path | str | None = None) -> Image.Image:
    """A lazily opened Pillow image of an accepted format. Its header promises at most ``max_megapixels``.

    name: what errors call it, by default the file.
    """
    from PIL import Image

    name = str(source) if name is None else name
    try:
        with warnings.catch_warnings():
            # the limit below says the same, as an error and with the file's name
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(source, formats=PILLOW_FORMATS)
    except Image.DecompressionBombError as error:
        found = re.search(r"(\d+) pixels", str(error))
        size = f"{int(found[1]) / 1e6:.0f} megapixels" if found else "too many pixels"
        raise InputError(f"'{name}' has {size}; the limit is {max_megapixels:g}") from error
    except DECODING_ERRORS as error:
        raise InputError(f"'{name}' is not an image that can be read ({READABLE})") from error
    try:
        check_size(name, image.size, max_megapixels)
    except InputError:
        image.close()
        raise
    return image


def open_heif(source: Path | io.BytesIO, max_megapixels: float, name: Path | str | None = None) -> Image.Image:
    """The primary picture of a HEIC/HEIF file.

    InputError with the pip command when ``pillow_heif`` is missing.
    """
    name = str(source) if name is None else name
    try:
        import pillow_heif
    except ImportError as error:
        raise InputError(f"'{name}' is HEIC, which needs pillow_heif: pip install 'metriloc[heic]'") from error
    try:
        opened = pillow_heif.open_heif(source)
        check_size(name, opened.size, max_megapixels)
        image: Image.Image = opened.to_pillow()
    except InputError:
        raise
    except DECODING_ERRORS as error:
        raise InputError(f"'{name}' is truncated or damaged: {_reason(error)}") from error
    return image


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(_HEAD_BYTES)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error


def is_heif(path: Path) -> bool:
    """Whether a file begins as HEIC and HEIF files do."""
    return _is_heif(_head(path))


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def check_size(path: Path | str, size: tuple[int, int], max_megapixels: float) -> None:
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


def _to_rgb(image: Image.Image, path: Path | str, deep: bool) -> np.ndarray:
    from PIL import Image

    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):  # Pillow scales PGM to 16 bits
        gray = gray_of_16_bits(np.asarray(image).astype(np.uint32), path, stated_maximum(image), deep)
        return np.repeat(gray[..., None], 3, axis=2)
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise InputError(f"'{path}' holds {image.mode!r} values, not a photo with 8 or 16 bits a channel")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    rgb = np.array(image if image.mode == "RGB" else image.convert("RGB"))
    if deep:  # of which Pillow keeps the upper eight, cut or rounded
        check_bits(path, 256 * int(rgb.max(initial=0)) - 1)
    return rgb


def _upright(rgb: np.ndarray, orientation: int) -> np.ndarray:
    """Apply EXIF orientation 1..8 (where the first row and column of the stored image belong)."""
    if orientation in (5, 6, 7, 8):
        rgb = rgb.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        rgb = rgb[::-1]
    if orientation in (2, 3, 6, 7):
        rgb = rgb[:, ::-1]
    return np.ascontiguousarray(rgb)


def require_one_size(paths: Sequence[Path], option: str) -> None:
    """Refuse intrinsics given for photos of several sizes. Raises InputError, naming two photos, when those that are
    given for all are for such."""
    first = upright_size(paths[0])
    for path in paths[1:]:
        size = upright_size(path)
        if size != first:
            raise InputError(
                f"{option} is for photos of one size, but '{paths[0]}' has {first[0]}x{first[1]} pixels and "
                f"'{path}' {size[0]}x{size[1]}: say which it is for ({option}-size WIDTH HEIGHT), or list each photo "
                "in an intrinsics.txt"
            )
