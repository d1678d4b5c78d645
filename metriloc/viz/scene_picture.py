"""The 3D view of a report as a still picture: both cameras with their photos, the points, and the true camera in green.

Drawn with Pillow alone, from where the viewer of the report looks first: behind both cameras, a little above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, UInt8

from metriloc.viz.eye import first_eye
from metriloc.viz.pictures import BACKGROUND, TEXT, Rgb, font
from metriloc.viz.scene import Frustum, Scene

_SUPERSAMPLING = 2
_COLORS = {
    "reference": (110, 168, 255),
    "query": (255, 138, 76),
    "truth": (76, 195, 138),
    "map": (110, 168, 255),
    "weak": (255, 107, 96),
}
_CONFIDENCE = ((235, 70, 60), (250, 205, 60), (90, 220, 110))
"""Of confidences 0, 0.5 and 1."""
_LOW, _HIGH = np.array((50, 70, 160)), np.array((250, 200, 60))
"""Of the lowest and the highest points."""
_GRID = (88, 93, 102)


def scene_picture(
    scene: Scene, size: tuple[int, int] = (960, 720), color: Literal["position", "confidence"] = "position"
) -> Rgb:
    """A scene seen from behind its cameras, as a still picture.

    - scene: of ``build_scene``; a frustum of the role ``truth`` is dashed and green.
    - size: width and height of the picture in pixels.
    - color: of the points: ``position`` is the cube of ``position_colors``; ``confidence`` runs from red (0) over yellow
      to green (1) with the confidence of the pose, brighter for the more probable matches (``confidence_colors``).

    Raises ValueError for another color, and for ``confidence`` of a scene that has none.

    >>> from metriloc.viz.scene import build_scene
    >>> from metriloc.evaluation.identity import IdentityPose
    >>> a, b = metriloc.load_view("reference.jpg"), metriloc.load_view("query.jpg")
    >>> scene_picture(build_scene(IdentityPose().relative_pose(a, b), a, b), (320, 240)).shape
    (240, 320, 3)
    """
    from PIL import Image, ImageDraw

    eye = _Eye.on(scene, (size[0] * _SUPERSAMPLING, size[1] * _SUPERSAMPLING))
    canvas = Image.new("RGB", eye.size, BACKGROUND)
    draw = ImageDraw.Draw(canvas)
    step = _draw_grid(draw, eye)
    # the painter's algorithm: what is far first
    order = sorted(
        (f for f in scene.frusta if f.role != "truth"),
        key=lambda f: -float(eye.look(f.center + 0.5 * eye.frustum * f.corners.mean(0))[2]),
    )
    points, (colors, meaning) = scene.points, _point_colors(scene, color)
    depth, high = eye.look(points)[:, 2], math.inf
    for frustum in order:
        far = float(eye.look(frustum.center + 0.5 * eye.frustum * frustum.corners.mean(0))[2])
        _draw_points(draw, eye, points, colors, (depth >= far) & (depth < high))
        _draw_frustum(canvas, draw, eye, frustum)
        high = far
    _draw_points(draw, eye, points, colors, depth < high)
    for frustum in scene.frusta:
        if frustum.role == "truth":
            _draw_frustum(canvas, draw, eye, frustum)  # an outline, which nothing may hide
    _draw_baseline(draw, eye, scene)
    picture = canvas.reduce(_SUPERSAMPLING)
    _write_names(picture, eye, scene, step, meaning)
    return np.asarray(picture)


def _point_colors(scene: Scene, color: str) -> tuple[UInt8[np.ndarray, "P 3"], str]:
    """Of each point, and what they mean in words."""
    if color == "position":
        return position_colors(scene.points), "points colored by position (x red, y green, z blue)"
    if color != "confidence" or scene.confidence is None or scene.probability is None:
        raise ValueError(f"color must be 'position', or 'confidence' of a scene that has one, got {color!r}")
    words = f"confidence of the pose {scene.confidence:.2f} (0 red, 1 green); brighter: more probable matches"
    return confidence_colors(scene.confidence, scene.probability), words


def position_colors(points: Float[np.ndarray, "P 3"]) -> UInt8[np.ndarray, "P 3"]:
    """Red, green and blue by x, y and z.

    Each runs over the middle 96 % of the points, from dim to bright.
    """
    if not len(points):
        return np.zeros((0, 3), np.uint8)
    low, high = np.percentile(points, (2, 98), axis=0)
    share = np.clip((points - low) / np.maximum(high - low, 1e-12), 0, 1)
    return np.round(70 + 185 * share).astype(np.uint8)


def confidence_colors(confidence: float, probability: Float[np.ndarray, " P"]) -> UInt8[np.ndarray, "P 3"]:
    """The colors of points by confidence and probability. One hue for all, red over yellow to green by the confidence
    0..1 of their pose; brightness by the rank of the probability of each match, from 45 % to all of it."""
    hue = sureness_colors(np.array([confidence]))
    order = np.sort(probability)
    rank = (np.searchsorted(order, probability, "left") + np.searchsorted(order, probability, "right") - 1) / 2
    share = 0.45 + 0.55 * (rank / max(len(order) - 1, 1))
    return np.round(share[:, None] * hue).astype(np.uint8)


def sureness_colors(share: Float[np.ndarray, " P"]) -> UInt8[np.ndarray, "P 3"]:
    """Red (0) over yellow (0.5) to green (1)."""
    return np.stack([np.interp(share, (0, 0.5, 1), channel) for channel in zip(*_CONFIDENCE, strict=True)], -1).astype(
        np.uint8
    )


def height_colors(points: Float[np.ndarray, "P 3"]) -> UInt8[np.ndarray, "P 3"]:
    """The colors of points by height, blue (low) to yellow (high). They run over the middle 96 % of the heights; y is
    down."""
    if not len(points):
        return np.zeros((0, 3), np.uint8)
    low, high = np.percentile(-points[:, 1], (2, 98))
    share = np.clip((-points[:, 1] - low) / max(high - low, 1e-12), 0, 1)[:, None]
    return np.round((1 - share) * _LOW + share * _HIGH).astype(np.uint8)


@dataclass(frozen=True, eq=False)
class _Eye:
    """Where the picture is taken from. axes: right, up and back as rows, in the frame of the scene (y down); frustum:
    how deep frusta are drawn; ground: the y of the grid; size: of the canvas."""

    target: np.ndarray
    axes: np.ndarray
    distance: float
    extent: float
    frustum: float
    ground: float
    size: tuple[int, int]

    @classmethod
    def on(cls, scene: Scene, size: tuple[int, int]) -> _Eye:
        """The eye from which every view of the scene begins."""
        eye = first_eye(scene)
        return cls(eye.target, eye.axes, 1.75 * eye.extent, eye.extent, eye.frustum, eye.ground, size)

    def look(self, points: np.ndarray) -> np.ndarray:
        """Points as right, up and distance before the eye."""
        seen = (points - self.target) @ self.axes.T
        return np.stack([seen[..., 0], seen[..., 1], self.distance - seen[..., 2]], -1)

    def screen(self, points: np.ndarray) -> np.ndarray:
        """Pixels of the canvas; NaN for what is behind the eye."""
        seen = self.look(points)
        width, height = self.size
        scale = 1.03 * min(height, 1.1 * width) / np.where(seen[..., 2] > 0.02 * self.distance, seen[..., 2], np.nan)
        return np.stack([width / 2 + seen[..., 0] * scale, height / 2 - seen[..., 1] * scale], -1)


def _line(draw: Any, eye: _Eye, a: np.ndarray, b: np.ndarray, color: tuple[int, int, int], width: float = 1.0) -> None:
    ends = eye.screen(np.stack([a, b]))
    if np.isfinite(ends).all() and np.abs(ends).max() < 1e5:
        draw.line([float(v) for v in ends.ravel()], fill=color, width=max(1, round(width * _SUPERSAMPLING)))


def _draw_grid(draw: Any, eye: _Eye) -> float:
    """Lines on the ground that fade out at the rim; returns the side of a square."""
    step = 10.0 ** round(math.log10(eye.distance / 9))
    cells = min(30, max(5, math.ceil(1.5 * eye.extent / step)))
    x0, z0 = np.round(eye.target[[0, 2]] / step)
    for i in range(-cells, cells + 1):
        for j in range(-cells, cells):
            share = max(0.0, 1 - math.hypot(i, j + 0.5) ** 2 / cells**2)
            color = tuple(round(b + share * (g - b)) for b, g in zip(BACKGROUND, _GRID, strict=True))
            for at in (lambda k, i=i: (x0 + i, z0 + k), lambda k, i=i: (x0 + k, z0 + i)):
                a, b = (np.array([x * step, eye.ground, z * step]) for x, z in (at(j), at(j + 1)))
                if share > 0:
                    _line(draw, eye, a, b, color)  # type: ignore[arg-type]
    return step


def _draw_points(draw: Any, eye: _Eye, points: np.ndarray, colors: np.ndarray, chosen: np.ndarray) -> None:
    radius = _SUPERSAMPLING * float(np.clip(50 / math.sqrt(len(points) + 1), 1.5, 3.5))
    places, depth = eye.screen(points), eye.look(points)[:, 2]
    for k in np.flatnonzero(chosen)[np.argsort(-depth[chosen])]:
        x, y = places[k]
        if math.isfinite(x) and abs(x) < 1e5 and abs(y) < 1e5:
            r = radius * min(2.0, max(0.7, eye.distance / depth[k]))
            draw.ellipse((x - r, y - r, x + r, y + r), fill=tuple(int(c) for c in colors[k]))


def _draw_frustum(canvas: Any, draw: Any, eye: _Eye, frustum: Frustum) -> None:
    from PIL import Image

    corners = frustum.center + eye.frustum * frustum.corners
    places = eye.screen(corners)
    if frustum.thumbnail is not None and np.isfinite(places).all():
        photo = Image.fromarray(frustum.thumbnail)
        low = np.clip(np.floor(places.min(0)), 0, eye.size).astype(int)
        high = np.clip(np.ceil(places.max(0)), 0, eye.size).astype(int)
        if (high > low).all():
            size = (int(high[0] - low[0]), int(high[1] - low[1]))
            warp = _perspective(places - low, photo.size)
            options = Image.Transform.PERSPECTIVE, warp, Image.Resampling.BICUBIC
            mask = Image.new("L", photo.size, 235).transform(size, *options)
            canvas.paste(photo.transform(size, *options), (int(low[0]), int(low[1])), mask)
    color = frustum.color or _COLORS[frustum.role]
    for k in range(4):
        for a, b in ((corners[k], corners[(k + 1) % 4]), (frustum.center, corners[k])):
            pieces = np.linspace(0, 1, 16) if frustum.role == "truth" else np.array([0.0, 1.0])
            for s, t in pieces.reshape(-1, 2):
                _line(draw, eye, a + s * (b - a), a + t * (b - a), color, 2.5)


def _perspective(places: Float[np.ndarray, "4 2"], size: tuple[int, int]) -> list[float]:
    """Pillow's eight numbers that take pixels of the canvas to those of a photo with these corners."""
    width, height = size
    rows, values = [], []
    for (x, y), (u, v) in zip(places, ((0, 0), (width, 0), (width, height), (0, height)), strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return [float(v) for v in np.linalg.lstsq(np.array(rows, float), np.array(values, float), rcond=None)[0]]


def _draw_baseline(draw: Any, eye: _Eye, scene: Scene) -> None:
    _line(draw, eye, scene.frusta[0].center, scene.frusta[1].center, TEXT, 2)


def _write_names(picture: Any, eye: _Eye, scene: Scene, step: float, meaning: str) -> None:
    """Names of the cameras, the length of the baseline and the side of the grid, with a dark rim to be legible."""
    from PIL import ImageDraw

    draw, size = ImageDraw.Draw(picture), max(11, round(picture.height / 40))
    taken: list[tuple[float, float, float, float]] = []

    def write(at: np.ndarray, text: str, color: tuple[int, int, int]) -> None:
        place = eye.screen(at) / _SUPERSAMPLING
        if not np.isfinite(place).all():
            return
        x, y = float(place[0]), float(place[1]) + 1.2 * size
        # below the names that stand there already
        while any(_overlap(draw.textbbox((x, y), text, font(size), anchor="mm"), other) for other in taken):
            y += size / 2
        taken.append(draw.textbbox((x, y), text, font(size), anchor="mm"))
        draw.text((x, y), text, color, font(size), anchor="mm", stroke_width=3, stroke_fill=BACKGROUND)

    for frustum in scene.frusta:
        write(frustum.center, frustum.label, frustum.color or _COLORS[frustum.role])
    length = f"{scene.baseline:.3g} m" if scene.metric else "baseline = 1 (no metres)"
    write((scene.frusta[0].center + scene.frusta[1].center) / 2, length, TEXT)
    words = f"grid {step:g} {'m' if scene.metric else 'x baseline'}; {meaning}"
    draw.text((10, picture.height - 1.2 * size), words, TEXT, font(max(10, size - 4)), anchor="lm")


def _overlap(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether two boxes (left, top, right, bottom) share pixels."""
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
