"""Color scales with numbers: the colors of scores, and the bar at the right of a picture that says what they mean."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from jaxtyping import Float

from metriloc.viz.pictures import BACKGROUND, TEXT, Rgb, font

_SCORE_STOPS = np.array(
    [(22, 11, 57), (87, 15, 109), (152, 37, 102), (212, 72, 66), (245, 125, 21), (250, 193, 39), (252, 255, 164)], float
)
"""Dark violet over red to light yellow, evenly spaced: brighter all the way, also without seeing colors."""


def paint_scores(share: Float[np.ndarray, "H W"]) -> Rgb:
    """Shares 0..1 of a range as colors, violet over red to yellow. Needs no matplotlib."""
    place = np.clip(np.nan_to_num(share), 0, 1) * (len(_SCORE_STOPS) - 1)
    channels = [np.interp(place, np.arange(len(_SCORE_STOPS)), stops) for stops in _SCORE_STOPS.T]
    return np.round(np.stack(channels, -1)).astype(np.uint8)


def color_bar(
    height: int,
    low: float,
    high: float,
    paint: Callable[[np.ndarray], Rgb],
    *,
    unit: str = "",
    nothing: str = "nothing",
) -> Rgb:
    """A column of colors with their numbers. They are those of ``low`` (top) to ``high`` (bottom), which may be the
    smaller one.

    - paint: values, one a row, to colors.
    - unit: written behind each number.
    - nothing: what stands there when ``low`` is NaN.
    """
    from PIL import Image, ImageDraw

    font_size = int(np.clip(height / 24, 10, 28))
    width, strip, margin = 6 * font_size, font_size, min(font_size, height // 4)
    bar = np.full((height, width, 3), BACKGROUND, np.uint8)
    if math.isnan(low):
        picture = Image.fromarray(bar)
        ImageDraw.Draw(picture).text((font_size, height / 2), nothing, fill=TEXT, font=font(font_size), anchor="lm")
        return np.asarray(picture)
    ramp = np.linspace(low, high, max(height - 2 * margin, 1))
    bar[margin : margin + len(ramp), font_size // 2 : font_size // 2 + strip] = paint(ramp[:, None])
    picture = Image.fromarray(bar)
    draw = ImageDraw.Draw(picture)
    ticks = int(np.clip(len(ramp) // (3 * font_size) + 1, 2, 7))
    for position in np.linspace(0, len(ramp) - 1, ticks):
        text = f"{ramp[round(position)]:.{decimals_of(low, high, ticks)}f}{unit}"
        draw.text((font_size * 1.9, margin + position), text, fill=TEXT, font=font(font_size), anchor="lm")
    return np.asarray(picture)


def decimals_of(low: float, high: float, ticks: int) -> int:
    """Decimals that tell the numbers of a scale apart. They are ``ticks`` numbers between two ends; as far as four or
    five digits go."""
    step = abs(high - low) / (ticks - 1)
    wanted = 1 - math.floor(math.log10(step)) if step > 0 else 3
    return max(0, min(wanted, 5, 5 - len(str(int(max(abs(low), abs(high)))))))
