"""Two photos and the points of one of them, under every stage of an alignment, to be looked into in a browser."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.page import escaped
from metriloc.types import DenseFeatures, Stage, View
from metriloc.viz.chooser import Panel, chooser_figure, words_of_points
from metriloc.viz.features import confidence_picture, level_picture, principal_colors
from metriloc.viz.marks import Mark, marks_of, project, sized_photo
from metriloc.viz.pictures import Rgb

Layers = list[tuple[str, Rgb]]
_SIDE = 640


def two_view_figure(
    reference: View,
    query: View,
    stages: Sequence[Stage],
    truth: Pose,
    xyz: Float[Tensor, "N 3"],
    seen: tuple[DenseFeatures, DenseFeatures] | None = None,
    title: str = "",
) -> str:
    """The figure of two views as HTML. Reference and query stand side by side; nothing for no points.

    - stages, truth: poses ``query_from_reference``.
    - xyz: points in the frame of the reference camera, metres.
    - seen: what the network made of both photos: their features, level by level, and what it trusts (matplotlib) can be
      shown in place of the photos.
    - title: text before the explanation.
    """
    if not len(xyz):
        return ""
    first = marks_of([Stage("points of the reference", Pose.identity(), float("nan"))])
    marks = marks_of(stages, truth)
    layers: tuple[Layers, Layers] = ([], []) if seen is None else _layers((reference, query), seen)
    panels = [
        _panel("the reference", reference, first, xyz, layers[0]),
        _panel("the query", query, marks, xyz, layers[1]),
    ]
    words = words_of_points(marks, np.stack([project(query.camera, mark.cam_from_world, xyz) for mark in marks]))
    caption = (
        f"<b>{escaped(title)}</b> Switch stages above, and what the photos show; a chosen point is marked in both photos, "
        "and told how far each stage puts it."
    )
    return chooser_figure(panels, words, caption)


def _panel(what: str, view: View, marks: Sequence[Mark], xyz: Float[Tensor, "N 3"], layers: Layers) -> Panel:
    photo, scale = sized_photo(view, _SIDE)
    places = [(project(view.camera, mark.cam_from_world, xyz) + 0.5) * scale - 0.5 for mark in marks]
    return Panel(what, marks, np.stack(places), [("photo", photo), *layers])


def _layers(views: tuple[View, View], seen: tuple[DenseFeatures, DenseFeatures]) -> tuple[Layers, Layers]:
    """Of each photo: its features by level, alike in one color in both, and what is trusted."""
    found: tuple[Layers, Layers] = ([], [])
    sizes = [sized_photo(view, _SIDE)[0].shape[:2] for view in views]
    for level, maps in enumerate(zip(*(photo.levels for photo in seen), strict=True)):
        for layers, colors, size in zip(found, principal_colors(maps), sizes, strict=True):
            layers.append((f"features of level {level}", level_picture(colors, size)))
    for layers, view, photo in zip(found, views, seen, strict=True):
        if photo.confidences:
            layers.append(("what is trusted", confidence_picture(view, photo.confidences, _SIDE)))
    return found
