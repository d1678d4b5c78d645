"""Photos with points under every stage, to switch stages and choose points in a browser (``points.js``)."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from metriloc.page import embedded_json, escaped
from metriloc.viz.marks import Mark, Shape
from metriloc.viz.markup import picture_uri, script_of
from metriloc.viz.pictures import Rgb

_PATHS: dict[Shape, str] = {
    "ring": "M-1 0a1 1 0 1 0 2 0a1 1 0 1 0-2 0",
    "dot": "M-.4 0a.4 .4 0 1 0 .8 0a.4 .4 0 1 0-.8 0",
    "square": "M-.7-.7h1.4v1.4h-1.4z",
    "cross": "M-.75-.75l1.5 1.5M-.75.75l1.5-1.5",
    "diamond": "M0-1l1 1l-1 1l-1-1z",
    "plus": "M-1 0h2M0-1v2",
}


@dataclass(frozen=True, eq=False)
class Panel:
    """A photo with the same points under each of its marks.

    what: says what the photo is. places: in pixels of the pictures, NaN for points that are not seen. pictures: what may
    lie below the points, by its name, the photo first; all of one size.
    """

    what: str
    marks: Sequence[Mark]
    places: Float[np.ndarray, "k n 2"]
    pictures: Sequence[tuple[str, Rgb]]


def chooser_figure(panels: Sequence[Panel], words: Sequence[str], caption: str, images: Sequence[str] = ()) -> str:
    """The figure as HTML. words: told of each point; caption, images (shown with their ``data-point``): HTML already."""
    boxes, layers, first = [], [], 0
    for panel in panels:
        for number, mark in enumerate(panel.marks, first):
            sign = f'<svg viewBox="-1.4 -1.4 2.8 2.8" {_color(mark)}><path d="{_PATHS[mark.shape]}"/></svg>'
            box = f'<input type="checkbox" checked data-stage="{number}">'
            boxes.append(f"<label>{box}{sign}{escaped(mark.label)}</label>")
        layers.append(_photo(panel, first))
        first += len(panel.marks)
    photos = layers[0] if len(layers) == 1 else f'<div class="views">{"".join(layers)}</div>'
    return (
        f'<figure class="chooser"><p class="switches">{"".join(boxes)}{_choice(panels)}</p>{photos}'
        f'<p class="told" aria-live="polite">Click a point, or use the arrow keys.</p>{"".join(images)}'
        f'<script type="application/json">{embedded_json(list(words))}</script>'
        f"<figcaption>{caption}<noscript> Choosing needs JavaScript.</noscript></figcaption></figure>"
    )


def words_of_points(marks: Sequence[Mark], uv: Float[np.ndarray, "k n 2"], more: Sequence[str] = ()) -> list[str]:
    """What is told of each point, in words. It is how far each stage puts it from the truth, or from the result. uv:
    pixels of the photo."""
    goal = next((k for k, mark in enumerate(marks) if mark.label == "truth"), len(marks) - 1)
    told = []
    for number in range(uv.shape[1]):
        words = f"Point {number + 1} of {uv.shape[1]}.{more[number] if more else ''}"
        apart = np.linalg.norm(uv[:, number] - uv[goal, number], axis=-1)
        others = [k for k in range(len(marks)) if k != goal and np.isfinite(apart[k])]
        far = ", ".join(f"{marks[k].label} {apart[k]:.1f} px" for k in others)
        unseen = "" if np.isfinite(uv[goal, number]).all() else f" Not in the photo under {marks[goal].label}."
        told.append(words + unseen + (f" From {marks[goal].label}: {far}." if far else ""))
    return told


def chooser_script() -> str:
    """What moves these figures."""
    return script_of("points.js")


def _color(mark: Mark) -> str:
    return f'style="color: rgb{mark.color}"'


def _choice(panels: Sequence[Panel]) -> str:
    """What the photos may show instead of themselves; nothing where there is nothing else."""
    names = list(dict.fromkeys(name for panel in panels for name, _ in panel.pictures))
    if len(names) < 2:
        return ""
    options = "".join(f"<option>{escaped(name)}</option>" for name in names)
    return f'<label>shown: <select data-layers aria-label="what lies below the points">{options}</select></label>'


def _photo(panel: Panel, first: int) -> str:
    """first: number of the panel's first stage."""
    height, width = panel.pictures[0][1].shape[:2]
    below = "".join(
        f'<img src="{picture_uri(rgb)}" width="{width}" height="{height}" alt="{escaped(panel.what)}"'
        f' data-layer="{escaped(name)}"{" hidden" if number else ""}>'
        for number, (name, rgb) in enumerate(panel.pictures)
    )
    stages = [_ways(panel.marks, panel.places)]
    for number, (mark, uv) in enumerate(zip(panel.marks, panel.places, strict=True), first):
        stages.append(f'<g data-stage="{number}" {_color(mark)}>{_marks(mark, uv, max(width, height) / 110)}</g>')
    label = f"points in {escaped(panel.what)}, by stage"
    box = f"-0.5 -0.5 {width} {height}"
    svg = f'<svg class="marks" viewBox="{box}" tabindex="0" aria-label="{label}">{"".join(stages)}</svg>'
    return f'<div class="photo">{below}{svg}</div>'


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
