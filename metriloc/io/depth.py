"""Depth maps in: 16-bit PNG or PGM in millimetres, 32-bit float TIFF and ``.npy`` in metres.

The kind is told from the content, not from the name. Depth is distance along z; 0 (and NaN, infinite or negative
values) means unknown. A map may have any resolution: it covers the same field of view as its photo.
"""

from __future__ import annotations

import os
import re
import tokenize
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.io.files import InputError, read_bytes, require_file
from metriloc.io.images import DECODING_ERRORS, DEFAULT_MAX_MEGAPIXELS, check_size, open_image
from metriloc.io.intrinsics import same_aspect

MILLIMETRE = 0.001
FARTHEST_MEDIAN = 1000.0
"""A map of floating point metres whose median is beyond this is in millimetres."""
FARTHEST_INDOORS = 12.0
"""A map of whole numbers that is taken for millimetres and has its median beyond this deserves a question."""
PLAUSIBLE_MEDIANS = (0.001, 10_000.0)
"""Metres; beyond them no camera sees a depth, whoever stated the scale."""
ASPECT_TOLERANCE = 0.02
_KINDS = "16-bit PNG or PGM, 32-bit float TIFF, or .npy"
MAX_PGM_BYTES = 256 * 2**20
_PGM_HEADER = re.compile(rb"P5" + 3 * rb"(?:\s|#[^\n]*\n)+(\d{1,9})" + rb"\s")


def read_depth(
    path: str | os.PathLike[str],
    *,
    scale: float | None = None,
    doubt: bool = True,
    max_megapixels: float = DEFAULT_MAX_MEGAPIXELS,
) -> Float[Tensor, "h w"]:
    """A depth map in metres, float32, 0 where unknown.

    - scale: metres a unit of the file; by default 0.001 for whole numbers and 1 for floating point.
    - doubt: warn of whole numbers that are surprisingly far as millimetres (TUM's have 5000 a
      metre).

    Raises InputError for a file that is no depth map (8 bits, several channels, another format), is
    damaged or too large, has no valid depth at all, whose floating point values can only be
    millimetres, or whose median is below 1 mm or above 10 km by the scale that is given.

    >>> depth = read_depth("reference.depth.png")
    >>> depth.shape, round(float(depth.median()), 1)
    (torch.Size([480, 640]), 3.7)
    """
    path = require_file(path)
    if scale is not None and not 0 < scale < float("inf"):
        raise InputError(f"the scale of '{path}' must be positive metres a unit, got {scale:g}")
    raw = _read_raw(path, max_megapixels)
    floating = raw.dtype.kind == "f"
    with np.errstate(over="ignore", invalid="ignore"):
        metres = raw.astype(np.float64) * (scale or (1.0 if floating else MILLIMETRE))
        metres = metres.astype(np.float32)
        valid = np.isfinite(metres) & (metres > 0)
    if not valid.any():
        raise InputError(f"'{path}' has no valid depth: all {raw.size} values are zero, negative or not finite")
    median = float(np.median(metres[valid]))
    if floating and scale is None and median > FARTHEST_MEDIAN:
        remedy = "if it is in millimetres, say scale=0.001 (--depth-scale 1000)"
        raise InputError(f"'{path}' has a median depth of {median:g} m: {remedy}")
    if not PLAUSIBLE_MEDIANS[0] <= median <= PLAUSIBLE_MEDIANS[1]:
        units = "" if scale is None else f" with {1 / scale:g} units a metre"
        remedy = "say how many units of the file are a metre (--depth-scale, 1000 for millimetres)"
        raise InputError(f"'{path}' has a median depth of {median:g} m{units}, which cannot be: {remedy}")
    if doubt and not floating and scale is None and median > FARTHEST_INDOORS:
        warnings.warn(
            f"'{path}' has a median depth of {median:.3g} m, read as millimetres: "
            f"if it has 5000 units a metre say --depth-scale 5000 ({median / 5:.3g} m)",
            stacklevel=2,
        )
    return torch.from_numpy(np.where(valid, metres, np.float32(0)))


def check_depth_covers(
    depth: Float[Tensor, "h w"], image_size: tuple[int, int], path: str | os.PathLike[str] = "depth map"
) -> None:
    """Refuse a depth map that cannot cover an image.

    - depth: of any resolution.
    - image_size: (width, height) of the image.
    - path: what errors call the map.

    Raises InputError for aspect ratios more than 2 % (and rounding) apart.

    >>> check_depth_covers(torch.ones(240, 320), (640, 480))  # covers it, so that nothing is said
    """
    h, w = depth.shape
    width, height = image_size
    ratio = (w * height) / (h * width)
    if same_aspect((w, h), image_size) or same_aspect(image_size, (w, h)):
        return
    if abs(ratio - 1) > ASPECT_TOLERANCE:
        raise InputError(
            f"'{path}' has {w}x{h} pixels, which is not the shape of the {width}x{height} photo: "
            "a depth map must cover the same field of view"
        )


def _read_raw(path: Path, max_megapixels: float) -> np.ndarray:
    """Numbers as in the file [h, w]: unsigned or signed whole numbers of at least 16 bits, or floating point."""
    try:
        with open(path, "rb") as file:
            magic = file.read(8)
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
    if magic.startswith(b"\x93NUMPY"):
        return _read_npy(path, max_megapixels)
    if magic.startswith(b"P5"):
        return _read_pgm(path, max_megapixels)
    if magic.startswith((b"\x89PNG", b"II*\0", b"MM\0*")):
        return _read_picture(path, max_megapixels)
    raise InputError(f"'{path}' is not a depth map that can be read ({_KINDS})")


def _read_picture(path: Path, max_megapixels: float) -> np.ndarray:
    with open_image(path, max_megapixels) as image:
        mode = image.mode
        if mode not in ("I", "F") and not mode.startswith("I;16"):
            kind = "8 bits" if mode in ("1", "L") else f"{len(image.getbands())} channels or a palette ({mode})"
            raise InputError(f"'{path}' is a picture with {kind}, not a depth map ({_KINDS})")
        try:
            return np.array(image)
        except DECODING_ERRORS as error:
            raise InputError(f"'{path}' is truncated or damaged: {' '.join(str(error).split())}") from error


def _read_pgm(path: Path, max_megapixels: float) -> np.ndarray:
    # not through Pillow, which stretches values to 65535 when the header's maximum is less
    data = read_bytes(path, MAX_PGM_BYTES)
    header = _PGM_HEADER.match(data[:4096])
    if header is None:
        raise InputError(f"'{path}' is a damaged PGM: its header cannot be read")
    width, height, maximum = (int(group) for group in header.groups())
    if not 256 <= maximum <= 65535:
        raise InputError(f"'{path}' is a PGM with a maximum of {maximum}; a depth map needs 16 bits (256 to 65535)")
    check_size(path, (width, height), max_megapixels)
    if len(data) - header.end() < 2 * width * height:
        have = len(data) - header.end()
        raise InputError(f"'{path}' is truncated: {have} of {2 * width * height} bytes of {width}x{height} pixels")
    return np.frombuffer(data, ">u2", width * height, header.end()).reshape(height, width)


def _read_npy(path: Path, max_megapixels: float) -> np.ndarray:
    try:
        # mapped, so that the size is known before anything is read; pickles could run code
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (*DECODING_ERRORS, tokenize.TokenError) as error:  # numpy reads headers as Python text
        raise InputError(f"'{path}' is not a usable .npy file: {' '.join(str(error).split())[:200]}") from error
    if array.ndim != 2:
        raise InputError(f"'{path}' has shape {list(array.shape)}; a depth map has [height, width]")
    if array.dtype.kind not in "fiu" or (array.dtype.kind != "f" and array.dtype.itemsize < 2):
        raise InputError(f"'{path}' holds {array.dtype}; a depth map is floating point metres or 16-bit millimetres")
    check_size(path, (array.shape[1], array.shape[0]), max_megapixels)
    return np.array(array)
