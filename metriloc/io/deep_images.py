"""Photos of more than eight bits: what their numbers mean, and gray of 16 bits brought to eight."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from metriloc.io.files import InputError

if TYPE_CHECKING:
    from PIL import Image

TWELVE_BITS = 4096
_MAX_SAMPLE_VALUE = 281


def has_16_bits(image: Image.Image) -> bool:
    """Whether values up to 65535 are stored. It is what the file says; to be asked before the image is loaded."""
    arguments = str([tile[3] for tile in getattr(image, "tile", [])])
    # a PGM or PPM with another maximum is stretched by Pillow as it is decoded
    return ";16" in arguments or (image.format == "PPM" and "65535" in arguments)


def stated_maximum(image: Image.Image) -> int | None:
    """MaxSampleValue of a TIFF. None when it is all that 16 bits can hold."""
    value = getattr(image, "tag_v2", {}).get(_MAX_SAMPLE_VALUE)
    largest = max(value) if isinstance(value, tuple) and value else value
    return largest if isinstance(largest, int) and 0 < largest < 65535 else None


def check_bits(path: Path | str, brightest: int) -> None:
    if 0 < brightest < TWELVE_BITS:
        raise InputError(
            f"'{path}' has 16 bits but no value above {brightest}, as from a 12-bit sensor, and would be nearly black: "
            "multiply its values to fill 16 bits (by 16 for 12), or save it with 8 bits"
        )


def gray_of_16_bits(wide: np.ndarray, path: Path | str, stated: int | None, deep: bool) -> np.ndarray:
    brightest = int(wide.max(initial=0))
    if stated is not None:
        if brightest > stated:
            raise InputError(f"'{path}' states a maximum of {stated} (MaxSampleValue) but has values up to {brightest}")
        wide = (wide.astype(np.uint64) * 65535 + stated // 2) // stated
    elif deep:
        check_bits(path, brightest)
    return ((wide + 128) // 257).astype(np.uint8)
