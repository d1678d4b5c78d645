"""What whoever picks a photo of a map wants to see: the points it sees, and those it shares with its best neighbor."""

from __future__ import annotations

import numpy as np
import torch

from metriloc.io import InputError
from metriloc.io.maps import load_map_view, pixels_in
from metriloc.types import Correspondences, SfmMap
from metriloc.viz.matches import match_picture
from metriloc.viz.pictures import Picture, Rgb, rgb_from_image, shrink
from metriloc.viz.seen_photos import missing

_SIDE, _POINTS, _LINES = 720, 600, 120
_FEW, _MANY = (235, 70, 60), (90, 220, 110)
"""Colors of points that two photos see, and eight or more."""


def look_at_photo(content: SfmMap, image: int) -> tuple[Picture, ...]:
    """The pictures of a photo of a map. It is shown with its points, and its matches with the photo it shares most
    with; nothing for one that cannot be read."""
    try:
        view = load_map_view(content, image)
    except InputError as error:
        return (missing(str(error)),)
    observed = content.observations_of(image)
    uv = pixels_in(view, content, image, content.uv[observed])
    seen_by = content.track_lengths()[content.point_index[observed]]
    note = f"{len(uv)} points of the map; green: many photos see it, red: two."
    shown = [Picture(content.names[image], _dotted(rgb_from_image(view.image), uv.numpy(), seen_by.numpy()), note)]
    others = content.covisible(image)
    if others:
        shown += _matches(content, image, others[0][0])
    return tuple(shown)


def _matches(content: SfmMap, image: int, other: int) -> list[Picture]:
    try:
        views = [load_map_view(content, n) for n in (image, other)]
    except InputError:
        return []
    points, rows = [], []
    for n in (image, other):
        seen = content.observations_of(n)
        points.append(content.point_index[seen])
        rows.append(seen.start)
    _, first, second = np.intersect1d(points[0].numpy(), points[1].numpy(), return_indices=True)
    uv = [
        pixels_in(view, content, n, content.uv[start + torch.from_numpy(index)])
        for view, n, start, index in zip(views, (image, other), rows, (first, second), strict=True)
    ]
    none = torch.full((len(first),), torch.nan)
    found = Correspondences(uv[0], uv[1], none, none, torch.ones(len(first)))
    drawn = match_picture(views[0].image, views[1].image, found, max_lines=_LINES, height=400, kind="shared")
    return [Picture(f"Shared with {content.names[other]}", shrink(drawn, 1000))]


def _dotted(photo: Rgb, uv: np.ndarray, seen_by: np.ndarray) -> Rgb:
    from PIL import Image, ImageDraw

    small = shrink(photo, _SIDE)
    scale = small.shape[1] / photo.shape[1]
    picture = Image.fromarray(small)
    draw = ImageDraw.Draw(picture)
    chosen = np.linspace(0, len(uv) - 1, min(_POINTS, len(uv))).round().astype(int)
    share = np.clip((seen_by - 2) / 6, 0, 1)[:, None]
    colors = np.round((1 - share) * _FEW + share * _MANY).astype(int)
    for (x, y), color in zip((uv[chosen] + 0.5) * scale - 0.5, colors[chosen], strict=True):
        draw.ellipse((x - 2.5, y - 2.5, x + 2.5, y + 2.5), fill=tuple(color.tolist()), outline=(0, 0, 0))
    return np.asarray(picture)
