"""Learned damping factors as bars: how stiff PixLoc holds each of the six parameters at each level."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from metriloc.viz.pictures import BACKGROUND, TEXT, Rgb, font

PARAMETERS = ("tx", "ty", "tz", "rx", "ry", "rz")
_BAR, _GAP, _LEFT, _WIDTH = 18, 14, 150, 420


def damping_picture(levels: Sequence[tuple[str, Sequence[float]]], low: float, high: float) -> Rgb:
    """A picture of the damping of each level. It has a bar for each parameter of each level, its length the logarithm
    of the factor.

    - levels: name and six factors, positive, in the order [t, w].
    - low, high: log10 of the ends of the scale.

    Raises ValueError for factors that are not six positive numbers.
    """
    from PIL import Image, ImageDraw

    rows = [(name, parameter, value) for name, six in levels for parameter, value in zip(PARAMETERS, six, strict=True)]
    if not rows or any(not 0 < value < math.inf for _, _, value in rows):
        raise ValueError("damping factors are six positive numbers a level")
    height = len(rows) * _BAR + (len(levels) + 1) * _GAP
    picture = Image.fromarray(np.full((height, _LEFT + _WIDTH + 110, 3), BACKGROUND, np.uint8))
    draw, letters = ImageDraw.Draw(picture), font(13)
    for number, (name, parameter, value) in enumerate(rows):
        top = _GAP + number * _BAR + (number // len(PARAMETERS)) * _GAP
        share = min(max((math.log10(value) - low) / (high - low), 0.0), 1.0)
        end = _LEFT + round(share * _WIDTH)
        draw.text((8, top), f"{name}  {parameter}", fill=tuple(TEXT), font=letters)
        draw.rectangle((_LEFT, top + 2, max(end, _LEFT + 1), top + _BAR - 4), fill=(86, 156, 214))
        draw.text((end + 8, top), f"{value:.3g}", fill=tuple(TEXT), font=letters)
    return np.asarray(picture)
