"""Where points of a map fall in a photo, stage by stage: shapes and colours of the marks, and the photo with them.

Each stage has its own shape as well as its own colour, so that the pictures can be read without seeing colours.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.types import Stage, View
from metriloc.viz.pictures import BACKGROUND, TEXT, Rgb, font, rgb_from_image

Shape = Literal["square", "cross", "diamond", "plus", "ring", "dot"]
Color = tuple[int, int, int]
PICTURE_SIDE = 1000
"""Longest side of the pictures, pixels."""
_SUPERSAMPLING = 2
_FIRST: tuple[Shape, Color] = ("square", (90, 170, 255))
_BETWEEN: tuple[tuple[Shape, Color], ...] = (("cross", (255, 150, 40)), ("diamond", (255, 225, 60)))
_LAST: tuple[Shape, Color] = ("plus", (255, 60, 60))
_TRUTH: tuple[Shape, Color] = ("ring", (70, 235, 110))
_KNOWN: dict[str, tuple[Shape, Color]] = {"init": _FIRST, "start": _FIRST, "p3p": _BETWEEN[0], "coarse": _BETWEEN[1]}


@dataclass(frozen=True, eq=False)
class Mark:
    """How the points under one pose are drawn."""

    label: str
    cam_from_world: Pose
    shape: Shape
    color: Color


def marks_of(stages: Sequence[Stage], truth: Pose | None = None) -> list[Mark]:
    """The marks of the stages and of the truth. There is one for each stage (of equal names the last one) and one for
    the truth, in the order they are drawn."""
    by_name = {stage.name: stage for stage in stages if bool(stage.cam_from_world.is_finite())}
    marks = []
    if truth is not None and bool(truth.is_finite()):
        marks.append(Mark("truth", truth.to("cpu", torch.float64), *_TRUTH))
    for place, (name, stage) in enumerate(by_name.items()):
        if place == len(by_name) - 1 and name not in ("init", "start"):
            style = _LAST
        else:
            style = _KNOWN.get(name, ("dot", _BETWEEN[place % 2][1]))
        marks.append(Mark(name, stage.cam_from_world.to("cpu", torch.float64), *style))
    return marks


def project(camera: Camera, cam_from_world: Pose, xyz: Float[Tensor, "N 3"]) -> Float[np.ndarray, "N 2"]:
    """Pixels of points; NaN where the camera does not see them."""
    camera = camera.to(device=torch.device("cpu"), dtype=torch.float64)
    uv, valid = camera.project(cam_from_world.to("cpu", torch.float64).transform(xyz.cpu().double()))
    return torch.where(valid[:, None], uv, torch.nan).numpy()


def marked_photo(view: View, marks: Sequence[Mark], xyz: Float[Tensor, "N 3"], side: int = PICTURE_SIDE) -> Rgb:
    """The photo with the points under each pose. It has a thin line from stage to stage, and a legend below."""
    photo, scale = sized_photo(view, side)
    places = [(project(view.camera, mark.cam_from_world, xyz) + 0.5) * scale - 0.5 for mark in marks]
    size = float(np.clip(side / 160, 3, 8))
    with Drawing(photo) as drawing:
        stages = [uv for mark, uv in zip(marks, places, strict=True) if mark.label != "truth"]
        for before, after in itertools.pairwise(stages):
            for a, b in zip(before, after, strict=True):
                drawing.line(a, b, (255, 255, 255, 150))
        for mark, uv in zip(marks, places, strict=True):
            for place in uv:
                drawing.mark(place, mark.shape, mark.color, size)
    return np.concatenate([drawing.picture, legend(marks, photo.shape[1])], 0)


def sized_photo(view: View, side: int, dim: float = 1.0) -> tuple[Rgb, Float[np.ndarray, "2"]]:
    """The photo reduced, and the factors that reduce it. Its longer side is at most ``side``, the factors are (x, y)
    from its pixels; dim: a grey, darker one."""
    from PIL import Image

    picture = Image.fromarray(rgb_from_image(view.image))
    factor = min(1.0, side / max(view.size))
    size = max(1, round(view.size[0] * factor)), max(1, round(view.size[1] * factor))
    if size != view.size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    rgb = np.asarray(picture)
    if dim < 1:
        gray = (rgb @ np.array([0.299, 0.587, 0.114]) * dim).astype(np.uint8)
        rgb = np.repeat(gray[..., None], 3, 2)
    return rgb, np.array([size[0] / view.size[0], size[1] / view.size[1]])


class Drawing:
    """Marks and lines on a picture, smoothed by drawing them larger.

    ``picture`` is there when the block ends.
    """

    def __init__(self, background: Rgb) -> None:
        from PIL import Image, ImageDraw

        self._image: Any = Image.fromarray(background).convert("RGBA")
        size = (self._image.width * _SUPERSAMPLING, self._image.height * _SUPERSAMPLING)
        self._layer: Any = Image.new("RGBA", size, (0, 0, 0, 0))
        self._draw: Any = ImageDraw.Draw(self._layer)
        self.picture: Rgb = background

    def __enter__(self) -> Drawing:
        return self

    def __exit__(self, *_: object) -> None:
        self._image.alpha_composite(self._layer.reduce(_SUPERSAMPLING))
        self.picture = np.asarray(self._image.convert("RGB"))

    def line(self, a: np.ndarray, b: np.ndarray, color: tuple[int, ...], width: float = 1.0) -> None:
        """Nothing where an end is not finite or far outside."""
        ends = (np.stack([a, b]) + 0.5) * _SUPERSAMPLING - 0.5
        if np.isfinite(ends).all() and np.abs(ends).max() < 1e5:
            self._draw.line([float(v) for v in ends.ravel()], fill=color, width=max(1, round(width * _SUPERSAMPLING)))

    def mark(self, place: np.ndarray, shape: Shape, color: Color, size: float) -> None:
        """Draw a shape with a dark rim. It is about ``size`` pixels in radius; the rim is so that it shows on any
        photo."""
        if not np.isfinite(place).all() or np.abs(place).max() > 1e5:
            return
        x, y = ((place + 0.5) * _SUPERSAMPLING - 0.5).tolist()
        radius, width = size * _SUPERSAMPLING, max(2, round(0.3 * size * _SUPERSAMPLING))
        for fill, more in (((0, 0, 0, 170), _SUPERSAMPLING), ((*color, 255), 0)):
            self._shape(x, y, radius + 0.3 * more, shape, fill, width + more)

    def _shape(self, x: float, y: float, r: float, shape: Shape, fill: tuple[int, ...], width: int) -> None:
        draw = self._draw
        if shape == "ring":
            draw.ellipse((x - r, y - r, x + r, y + r), outline=fill, width=width)
        elif shape == "dot":
            draw.ellipse((x - 0.5 * r, y - 0.5 * r, x + 0.5 * r, y + 0.5 * r), fill=fill)
        elif shape == "square":
            draw.rectangle((x - 0.7 * r, y - 0.7 * r, x + 0.7 * r, y + 0.7 * r), outline=fill, width=width)
        elif shape == "diamond":
            draw.line([(x, y - r), (x + r, y), (x, y + r), (x - r, y), (x, y - r)], fill=fill, width=width)
        elif shape == "plus":
            draw.line((x - r, y, x + r, y), fill=fill, width=width)
            draw.line((x, y - r, x, y + r), fill=fill, width=width)
        else:
            s = 0.75 * r
            draw.line((x - s, y - s, x + s, y + s), fill=fill, width=width)
            draw.line((x - s, y + s, x + s, y - s), fill=fill, width=width)


def legend(marks: Sequence[Mark], width: int) -> Rgb:
    """A strip that says which mark is which stage. A second row where one is too narrow."""
    from PIL import Image, ImageDraw

    size = int(np.clip(width / 55, 11, 18))
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    rows: list[list[tuple[Mark, float]]] = [[]]
    x = float(size)
    for mark in marks:
        step = 3.2 * size + measure.textlength(mark.label, font=font(size))
        if x + step > width and rows[-1]:
            rows.append([])
            x = float(size)
        rows[-1].append((mark, x))
        x += step
    strip = np.full((2 * size * len(rows), width, 3), BACKGROUND, np.uint8)
    with Drawing(strip) as drawing:
        for row, entries in enumerate(rows):
            for mark, x in entries:
                drawing.mark(np.array([x + size / 2, (2 * row + 1) * size]), mark.shape, mark.color, 0.45 * size)
    picture = Image.fromarray(drawing.picture)
    draw = ImageDraw.Draw(picture)
    for row, entries in enumerate(rows):
        for mark, x in entries:
            draw.text((x + 1.5 * size, (2 * row + 1) * size), mark.label, fill=TEXT, font=font(size), anchor="lm")
    return np.asarray(picture)
