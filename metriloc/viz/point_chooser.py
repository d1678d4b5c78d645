"""The photo of a query with the points of the map under every stage, to switch stages and choose points in a browser.

The figure of NRE's example: maps of points, and where the truth, P3P, the coarse and the fine stage put them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from metriloc.page import embedded_json, escaped
from metriloc.types import PointMaps
from metriloc.viz.localized import LocalizedQuery, shown_points
from metriloc.viz.loss_maps import chosen_points, coarse_and_fine, point_tile, support_words
from metriloc.viz.marks import PICTURE_SIDE, Mark, Shape, marks_of, project, sized_photo
from metriloc.viz.markup import picture_uri

POINTS = 24
"""So many can be chosen; each of them carries its maps."""
_TILE = 300
_PATHS: dict[Shape, str] = {
    "ring": "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0",
    "dot": "M-.4 0a.4 .4 0 1 0 .8 0a.4 .4 0 1 0-.8 0",
    "square": "M-.7-.7h1.4v1.4h-1.4z",
    "cross": "M-.75-.75l1.5 1.5M-.75.75l1.5-1.5",
    "diamond": "M0-1l1 1l-1 1l-1-1z",
    "plus": "M-1 0h2M0-1v2",
}


def point_chooser(entry: LocalizedQuery, *, maps: bool = True) -> str:
    """The figure as HTML.

    Nothing where there is no stage or no point. maps: with those of each point (matplotlib).
    """
    marks = marks_of(entry.details.stages, entry.truth)
    coarse, fine = coarse_and_fine(entry.trace)
    chosen = chosen_points(coarse, fine, POINTS) if coarse is not None else None
    xyz = coarse.xyz[chosen] if coarse is not None and chosen is not None else shown_points(entry, POINTS)
    if not marks or not len(xyz):
        return ""
    photo, scale = sized_photo(entry.query, PICTURE_SIDE)
    places = np.stack([(project(entry.query.camera, m.cam_from_world, xyz) + 0.5) * scale - 0.5 for m in marks])
    words = _words(marks, places / scale, coarse, fine, [] if chosen is None else chosen.tolist())
    images = []
    if maps and coarse is not None and chosen is not None:
        small, small_scale = sized_photo(entry.query, _TILE, dim=0.45)
        for number, point in enumerate(chosen.tolist()):
            tile = point_tile(entry.query, coarse, fine, point, marks, small, small_scale)
            alt = f"maps of point {number + 1}"
            images.append(f'<img hidden data-point="{number}" src="{picture_uri(tile)}" alt="{alt}">')
    return _figure(marks, places, (photo.shape[1], photo.shape[0]), picture_uri(photo), words, images)


def _words(
    marks: Sequence[Mark],
    places: Float[np.ndarray, "k n 2"],
    coarse: PointMaps | None,
    fine: PointMaps | None,
    chosen: Sequence[int],
) -> list[str]:
    """What is told of each point: its support, and how far each stage puts it from the truth, or from the result."""
    goal = next((k for k, mark in enumerate(marks) if mark.label == "truth"), len(marks) - 1)
    told = []
    for number in range(places.shape[1]):
        words = f"Point {number + 1} of {places.shape[1]}."
        if coarse is not None and chosen:
            words += f" Support {support_words(coarse, fine, chosen[number])}."
        apart = np.linalg.norm(places[:, number] - places[goal, number], axis=-1)
        others = [k for k in range(len(marks)) if k != goal and np.isfinite(apart[k])]
        far = ", ".join(f"{marks[k].label} {apart[k]:.1f} px" for k in others)
        told.append(words + (f" From {marks[goal].label}: {far}." if far else ""))
    return told


def _figure(
    marks: Sequence[Mark],
    places: Float[np.ndarray, "k n 2"],
    size: tuple[int, int],
    photo: str,
    words: Sequence[str],
    images: Sequence[str],
) -> str:
    layers, boxes = [_ways(marks, places)], []
    for number, (mark, uv) in enumerate(zip(marks, places, strict=True)):
        color = f'style="color: rgb{mark.color}"'
        layers.append(f'<g data-stage="{number}" {color}>{_marks(mark, uv, max(size) / 110)}</g>')
        sign = f'<svg viewBox="-1.4 -1.4 2.8 2.8" {color}><path d="{_PATHS[mark.shape]}"/></svg>'
        boxes.append(f'<label><input type="checkbox" checked data-stage="{number}">{sign}{escaped(mark.label)}</label>')
    label = "points of the map in the photo, by stage"
    return (
        f'<figure class="chooser"><p class="switches">{"".join(boxes)}</p>'
        f'<div class="photo"><img src="{photo}" width="{size[0]}" height="{size[1]}" alt="the query">'
        f'<svg class="marks" viewBox="-0.5 -0.5 {size[0]} {size[1]}" tabindex="0" aria-label="{label}">'
        f"{''.join(layers)}</svg></div>"
        f'<p class="told" aria-live="polite">Click a point, or use the arrow keys.</p>{"".join(images)}'
        f'<script type="application/json">{embedded_json(list(words))}</script>'
        "<figcaption><b>Points, stage by stage.</b> Switch stages above; a chosen point shows its maps and how far each "
        "stage puts it.<noscript> Choosing needs JavaScript.</noscript></figcaption></figure>"
    )


def _marks(mark: Mark, uv: Float[np.ndarray, "n 2"], size: float) -> str:
    return "".join(
        f'<path data-point="{number}" transform="translate({x:.1f} {y:.1f}) scale({size:.1f})" d="{_PATHS[mark.shape]}"/>'
        for number, (x, y) in enumerate(uv)
        if np.isfinite(x) and np.isfinite(y)
    )


def _ways(marks: Sequence[Mark], places: Float[np.ndarray, "k n 2"]) -> str:
    """Thin lines from stage to stage."""
    stages = [uv for mark, uv in zip(marks, places, strict=True) if mark.label != "truth"]
    lines = [
        f'<line data-point="{number}" x1="{a[0]:.1f}" y1="{a[1]:.1f}" x2="{b[0]:.1f}" y2="{b[1]:.1f}"/>'
        for before, after in itertools.pairwise(stages)
        for number, (a, b) in enumerate(zip(before, after, strict=True))
        if np.isfinite([*a, *b]).all()
    ]
    return f'<g class="ways">{"".join(lines)}</g>'
