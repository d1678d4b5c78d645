"""Pictures in memory: uint8 RGB arrays [H, W, 3], from photos, to PNG and JPEG; the colours and font of all of them.

Pillow and matplotlib are imported when a picture is made, not before.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

Rgb: TypeAlias = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture that is shown.

    It has a title, the pixels, and perhaps a sentence that explains them. plot: it is drawn dark on
    white, and turned round where the page is dark.

    >>> Picture("Query", np.zeros((480, 640, 3), np.uint8), note="as it was taken").title
    'Query'
    """

    title: str
    rgb: Rgb
    note: str = ""
    plot: bool = False


BACKGROUND, TEXT = (24, 24, 24), (230, 230, 230)
"""Colours of captions and colour bars."""


def encode_png(picture: Rgb) -> bytes:
    """The picture as a PNG file in memory (lossless).

    >>> encode_png(np.zeros((48, 64, 3), np.uint8))[1:4]
    b'PNG'
    """
    return _encode(picture, format="PNG")


def encode_jpeg(picture: Rgb, quality: int = 88) -> bytes:
    """The picture as a JPEG file in memory; quality 1..95.

    >>> encode_jpeg(np.zeros((48, 64, 3), np.uint8), quality=90)[:2]  # how a JPEG begins
    b'\\xff\\xd8'
    """
    return _encode(picture, format="JPEG", quality=quality)


def shrink(picture: Rgb, longest_side: int) -> Rgb:
    """The picture reduced, if it must be.

    Then its longer side has at most ``longest_side`` pixels.

    >>> shrink(np.zeros((480, 640, 3), np.uint8), 320).shape
    (240, 320, 3)
    """
    from PIL import Image

    height, width = _require_picture(picture).shape[:2]
    factor = longest_side / max(height, width)
    if factor >= 1:
        return picture
    size = max(1, round(width * factor)), max(1, round(height * factor))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def rgb_from_image(image: Float[Tensor, "3 H W"]) -> Rgb:
    """A photo with values in 0..1 as a uint8 array. What is not finite becomes black."""
    values = torch.nan_to_num(image.detach().float().cpu(), nan=0.0, posinf=1.0, neginf=0.0)
    return (255 * values.clamp(0, 1)).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def color_map(name: str) -> Any:
    """A matplotlib colour map. A function of values, clipped to 0..1, that returns uint8 RGB.

    Raises ImportError, with the command to run, where matplotlib is missing.
    """
    try:
        from matplotlib import colormaps
    except ImportError as error:
        raise ImportError('pictures need matplotlib for their colours: pip install "metriloc[viz]"') from error
    return lambda values: colormaps[name](np.clip(values, 0.0, 1.0), bytes=True)[..., :3]


def font(size: int) -> Any:
    """Pillow's own font, so that pictures look the same on every machine."""
    from PIL import ImageFont

    return ImageFont.load_default(size)


def _require_picture(picture: np.ndarray) -> np.ndarray:
    if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
        raise ValueError(f"a picture must be uint8 [H, W, 3], got {picture.dtype} {list(picture.shape)}")
    return picture


def _encode(picture: Rgb, **options: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(_require_picture(picture)).save(file, **options)
    return file.getvalue()
