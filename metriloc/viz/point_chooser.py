"""The photo of a query with the points of the map under every stage, to switch stages and choose points in a browser.

The figure of NRE's example: maps of points, and where the truth, P3P, the coarse and the fine stage put them.
"""

from __future__ import annotations

import numpy as np

from metriloc.viz.chooser import Panel, chooser_figure, words_of_points
from metriloc.viz.localized import LocalizedQuery, shown_points
from metriloc.viz.loss_maps import chosen_points, coarse_and_fine, point_tile, support_words
from metriloc.viz.marks import PICTURE_SIDE, marks_of, project, sized_photo
from metriloc.viz.markup import picture_uri

POINTS = 24
"""So many can be chosen; each of them carries its maps."""
_TILE = 300
_CAPTION = (
    "<b>Points, stage by stage.</b> Switch stages above; a chosen point shows its maps and how far each stage puts it."
)


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
    supports, images = [], []
    if coarse is not None and chosen is not None:
        supports = [f" Support {support_words(coarse, fine, point)}." for point in chosen.tolist()]
        small, small_scale = sized_photo(entry.query, _TILE, dim=0.45)
        for number, point in enumerate(chosen.tolist() if maps else []):
            tile = point_tile(entry.query, coarse, fine, point, marks, small, small_scale)
            alt = f"maps of point {number + 1}"
            images.append(f'<img hidden data-point="{number}" src="{picture_uri(tile)}" alt="{alt}">')
    panel = Panel("the query", marks, places, [("photo", photo)])
    return chooser_figure([panel], words_of_points(marks, places / scale, supports), _CAPTION, images)
