"""The inlier match picture: two photos side by side, joined by a line for every match."""

from __future__ import annotations

import colorsys
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from torch import Tensor

from metriloc.types import Correspondences
from metriloc.viz.pictures import BACKGROUND, TEXT, Rgb, color_map, font, rgb_from_image

_SUPERSAMPLING = 3
_WIDEST = 4
"""A photo is drawn at most this many times as wide as ``height``; a longer strip is drawn less high."""


def match_picture(
    image0: Float[Tensor, "3 H0 W0"],
    image1: Float[Tensor, "3 H1 W1"],
    correspondences: Correspondences,
    max_lines: int = 200,
    color: Literal["position", "probability"] = "position",
    height: int = 720,
    kind: str = "inlier",
) -> Rgb:
    """Two photos side by side with a line for every match.

    Those are the most probable ``max_lines``; their count stands below. colour: ``position`` gives
    neighbours in the first photo one hue, so that a line that crosses its neighbours is seen at
    once; ``probability`` runs from dark to bright (viridis) up to the most probable match.

    - height: the photos are brought to the height of the taller one, at most this, and lower where
      one is a long strip.
    - kind: of the matches, for the caption. Matches that are not finite are neither drawn nor
      counted.

    >>> a, b = metriloc.load_view("reference.jpg"), metriloc.load_view("query.jpg")
    >>> match_picture(a.image, b.image, Correspondences.empty(), height=120).shape[2]
    3
    """
    from PIL import Image

    if max_lines < 0 or height < 1:
        raise ValueError(f"max_lines must be >= 0 and height >= 1, got {max_lines} and {height}")
    longest = max(image.shape[2] / image.shape[1] for image in (image0, image1))
    height = max(1, min(height, max(image0.shape[1], image1.shape[1]), int(_WIDEST * height / longest)))
    photos = [_to_height(image, height) for image in (image0, image1)]
    gap = max(4, height // 90)
    offset = photos[0].width + gap
    canvas = Image.new("RGBA", (offset + photos[1].width, height), (*BACKGROUND, 255))
    canvas.paste(photos[0], (0, 0))
    canvas.paste(photos[1], (offset, 0))

    uv0, uv1, probability, total = _most_probable(correspondences, max_lines)
    start = _on_canvas(uv0, image0, photos[0].size)
    end = _on_canvas(uv1, image1, photos[1].size) + np.array([offset, 0.0])
    colors = _line_colors(uv0, image0, probability, color)
    canvas.alpha_composite(_lines(start, end, colors, canvas.size))
    caption = f"{total} {kind} {'match' if total == 1 else 'matches'}"
    caption += f", the {len(start)} most probable drawn" if len(start) < total else ""
    return np.concatenate([np.asarray(canvas.convert("RGB")), _caption(caption, canvas.width, height)], 0)


def _lines(start: np.ndarray, end: np.ndarray, colors: list[tuple[int, int, int]], size: tuple[int, int]) -> Any:
    """A transparent layer with the lines and a dot at each end, drawn larger and reduced, which smooths the edges."""
    from PIL import Image, ImageDraw

    layer = Image.new("RGBA", (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING), (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    width = max(_SUPERSAMPLING, round(_SUPERSAMPLING * size[1] / 500))
    for a, b, rgb in zip(start, end, colors, strict=True):
        # pixel centres are at integers here and at halves in the enlarged drawing
        (x0, y0), (x1, y1) = (a + 0.5) * _SUPERSAMPLING - 0.5, (b + 0.5) * _SUPERSAMPLING - 0.5
        draw.line((x0, y0, x1, y1), fill=(*rgb, 200), width=width)
        for x, y in ((x0, y0), (x1, y1)):
            draw.ellipse((x - 2 * width, y - 2 * width, x + 2 * width, y + 2 * width), fill=(*rgb, 255))
    return layer.reduce(_SUPERSAMPLING)


def _caption(text: str, width: int, photo_height: int) -> Rgb:
    from PIL import Image, ImageDraw

    font_size = int(np.clip(photo_height / 26, 11, 28))
    picture = Image.new("RGB", (width, 2 * font_size), BACKGROUND)
    ImageDraw.Draw(picture).text((width / 2, font_size), text, fill=TEXT, font=font(font_size), anchor="mm")
    return np.asarray(picture)


def _to_height(image: Float[Tensor, "3 H W"], height: int) -> Any:
    from PIL import Image

    photo = Image.fromarray(rgb_from_image(image))
    if photo.height == height:
        return photo
    return photo.resize((max(1, round(photo.width * height / photo.height)), height), Image.Resampling.LANCZOS)


def _most_probable(correspondences: Correspondences, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """(uv0, uv1, probability, how many finite ones there were); the most probable last, to be drawn on top."""
    uv0, uv1 = (uv.detach().double().cpu().numpy() for uv in (correspondences.uv0, correspondences.uv1))
    probability = np.nan_to_num(correspondences.probability.detach().double().cpu().numpy(), nan=0.0)
    finite = np.flatnonzero(np.isfinite(uv0).all(-1) & np.isfinite(uv1).all(-1))
    chosen = finite[np.argsort(-probability[finite], kind="stable")[:count]][::-1]
    return uv0[chosen], uv1[chosen], probability[chosen], len(finite)


def _on_canvas(uv: np.ndarray, image: Tensor, size: tuple[int, int]) -> np.ndarray:
    """Pixels of the photo to pixels of its resized copy; centres are at integers, hence the halves."""
    factor = np.array([size[0] / image.shape[2], size[1] / image.shape[1]])
    return (uv + 0.5) * factor - 0.5


def _line_colors(
    uv: np.ndarray, image: Tensor, probability: np.ndarray, color: Literal["position", "probability"]
) -> list[tuple[int, int, int]]:
    if color == "probability":
        rgb = color_map("viridis")(probability / max(probability.max(initial=0.0), 1e-30))
        return [(int(r), int(g), int(b)) for r, g, b in rgb]
    if color != "position":
        raise ValueError(f"colour must be 'position' or 'probability', got {color!r}")
    # hue around the photo's centre, paler near it
    centered = 2 * (uv + 0.5) / np.array([image.shape[2], image.shape[1]]) - 1
    hue = np.arctan2(centered[:, 1], centered[:, 0]) / (2 * np.pi) % 1.0
    saturation = np.clip(0.45 + 0.55 * np.linalg.norm(centered, axis=1), 0, 1)
    colors = (colorsys.hsv_to_rgb(h, s, 1.0) for h, s in zip(hue, saturation, strict=True))
    return [(round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colors]
