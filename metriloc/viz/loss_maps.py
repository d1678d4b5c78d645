"""Pictures of NRE's maps: the evidence of all points over the photo, and the maps of single points with every stage.

A loss map is ``ln|Omega|`` minus the gain, paper Eq. (7); what is drawn is the gain, so bright is where the loss is low
and black is where a point may as well be nowhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.geometry import Camera
from metriloc.types import PointMaps, Trace, View
from metriloc.viz.marks import PICTURE_SIDE, Drawing, Mark, legend, project, sized_photo
from metriloc.viz.pictures import BACKGROUND, TEXT, Rgb, color_map, font

_COLORS = "inferno"
_COLUMNS = 4
_GAP = 6


def evidence_picture(view: View, stage: PointMaps, side: int = PICTURE_SIDE) -> Rgb:
    """The sum of all points' gains over the photo. Where it shows what the references see."""
    photo, _ = sized_photo(view, side, dim=0.55)
    heat = on_photo(summed_gain(stage)[None], stage.camera, view.camera, photo.shape[:2])[0]
    shown = heat[heat > 0]
    top = float(np.quantile(shown, 0.995)) if shown.size else 1.0
    return _overlaid(photo, heat / max(top, 1e-12))


def summed_gain(maps: PointMaps, points: slice = slice(None)) -> Float[Tensor, "h w"]:
    """The values of points added up. The points are all or some; it goes cell by cell of the whole grid."""
    values, origin = maps.values[points], maps.origin[points]
    w, h = maps.size
    if len(values) == 0:
        return torch.zeros(h, w)
    rows, columns = values.shape[1:]
    y = origin[:, 1, None] + torch.arange(rows, device=origin.device)
    x = origin[:, 0, None] + torch.arange(columns, device=origin.device)
    cells = y[:, :, None] * w + x[:, None, :]
    total = torch.zeros(h * w, dtype=values.dtype, device=values.device)
    return total.index_add_(0, cells.flatten(), values.flatten()).reshape(h, w).cpu()


def on_photo(
    cells: Float[Tensor, "n h w"], map_camera: Camera, camera: Camera, shape: tuple[int, int]
) -> Float[np.ndarray, "n H W"]:
    """Values of a feature map on a picture of the photo. They are of cells of the whole map at the pixels of the
    picture, nearest cell; 0 outside.

    The two cameras see the same photo in pixels and in cells, which tells where the cells lie.
    """
    height, width = shape
    camera = camera.scale((width / float(camera.size[0]), height / float(camera.size[1])))
    ratio = (map_camera.f.cpu().double() / camera.f.cpu().double()).numpy()
    shift = map_camera.c.cpu().double().numpy() - camera.c.cpu().double().numpy() * ratio
    x = torch.from_numpy(np.arange(width) * ratio[0] + shift[0])
    y = torch.from_numpy(np.arange(height) * ratio[1] + shift[1])
    size = torch.tensor([cells.shape[2], cells.shape[1]])
    grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1)
    grid = ((2 * grid + 1) / size - 1).float()
    found = F.grid_sample(cells[None].float(), grid[None], "nearest", "zeros", align_corners=False)
    return found[0].numpy()


def point_pictures(
    view: View, coarse: PointMaps, fine: PointMaps | None, marks: Sequence[Mark], count: int = 12, side: int = 300
) -> Rgb:
    """For ``count`` points, from the best explained to the worst.

    The map over the whole photo and, of the fine stage, the window, both with the place of the
    point under every pose. The brightest is the certain map's gain.
    """
    from PIL import Image, ImageDraw

    chosen = chosen_points(coarse, fine, count)
    photo, scale = sized_photo(view, side, dim=0.45)
    height = photo.shape[0]
    tiles = []
    for number in chosen.tolist():
        joined = point_tile(view, coarse, fine, number, marks, photo, scale)
        picture = Image.fromarray(np.concatenate([joined, np.full((22, joined.shape[1], 3), BACKGROUND, np.uint8)], 0))
        words = f"point {int(coarse.index[number])}: support {support_words(coarse, fine, number)}"
        ImageDraw.Draw(picture).text((4, height + 11), words, fill=TEXT, font=font(13), anchor="lm")
        tiles.append(np.asarray(picture))
    grid = _grid(tiles, _COLUMNS if fine is None else _COLUMNS // 2 + 1)
    return np.concatenate([grid, legend(marks, grid.shape[1])], 0)


def point_tile(
    view: View,
    coarse: PointMaps,
    fine: PointMaps | None,
    number: int,
    marks: Sequence[Mark],
    photo: Rgb,
    scale: np.ndarray,
) -> Rgb:
    """The map of one point over a small photo. The point is told by its place in ``coarse``; its window is beside it,
    and all marks.

    - photo, scale: of ``sized_photo``.
    """
    height, xyz = photo.shape[0], coarse.xyz[number][None]
    at = [(project(view.camera, mark.cam_from_world, xyz)[0], mark) for mark in marks]
    whole = _whole(view, coarse, number, photo, scale, at)
    if fine is None:
        return whole
    place = (fine.index == coarse.index[number]).nonzero().squeeze(-1)
    empty = np.full((height, height, 3), BACKGROUND, np.uint8)
    window = _window(view, fine, int(place[0]), height, at) if len(place) else empty
    return np.concatenate([whole, _gap(height), window], 1)


def support_words(coarse: PointMaps, fine: PointMaps | None, number: int) -> str:
    """The support of a point in each stage that looked at it."""
    return ", ".join(f"{float(stage.support()[i]):.2f}" for stage, i in _places(coarse, fine, number))


def coarse_and_fine(trace: Trace) -> tuple[PointMaps | None, PointMaps | None]:
    """The last maps over the whole photo, and those in windows."""
    whole = [kept for kept in trace.maps if kept.whole]
    windows = [kept for kept in trace.maps if not kept.whole]
    return (whole[-1] if whole else None), (windows[-1] if windows else None)


def chosen_points(coarse: PointMaps, fine: PointMaps | None, count: int) -> Int[Tensor, " k"]:
    """Points evenly along the ranking by their support, the best first. Places in ``coarse``."""
    stage = coarse if fine is None or len(fine.index) < count else fine
    order = torch.nan_to_num(stage.gain).argsort(descending=True, stable=True)
    order = order[torch.linspace(0, len(order) - 1, min(count, len(order))).round().long()]
    if stage is coarse:
        return order
    place = {point: number for number, point in enumerate(coarse.index.tolist())}
    return torch.tensor([place[point] for point in stage.index[order].tolist() if point in place], dtype=torch.long)


def _places(coarse: PointMaps, fine: PointMaps | None, number: int) -> list[tuple[PointMaps, int]]:
    found = [(coarse, number)]
    if fine is not None:
        same = (fine.index == coarse.index[number]).nonzero().squeeze(-1)
        found += [(fine, int(same[0]))] if len(same) else []
    return found


def _whole(
    view: View, stage: PointMaps, number: int, photo: Rgb, scale: np.ndarray, at: Sequence[tuple[Any, Mark]]
) -> Rgb:
    values = summed_gain(stage, slice(number, number + 1))
    heat = on_photo(values[None], stage.camera, view.camera, photo.shape[:2])[0]
    with Drawing(_overlaid(photo, heat / stage.most)) as drawing:
        for uv, mark in at:
            drawing.mark((uv + 0.5) * scale - 0.5, mark.shape, mark.color, 4.0)
    return drawing.picture


def _window(view: View, stage: PointMaps, number: int, side: int, at: Sequence[tuple[Any, Mark]]) -> Rgb:
    """The window of one point, a cell many pixels wide, as large as a square of ``side``."""
    gain = stage.values[number].cpu().numpy()
    rows, columns = gain.shape
    zoom = side / max(rows, columns)
    y = np.minimum((np.arange(side) / zoom).astype(int), rows - 1)
    x = np.minimum((np.arange(side) / zoom).astype(int), columns - 1)
    inside = (np.arange(side) < rows * zoom)[:, None] & (np.arange(side) < columns * zoom)
    picture = np.where(inside[..., None], color_map(_COLORS)(gain[y][:, x] / stage.most), np.uint8(0))
    camera, origin = view.camera, stage.origin[number].cpu().numpy()
    ratio = (stage.camera.f.cpu().double() / camera.f.cpu().double()).numpy()
    shift = stage.camera.c.cpu().double().numpy() - camera.c.cpu().double().numpy() * ratio
    with Drawing(picture.astype(np.uint8)) as drawing:
        for uv, mark in at:
            cell = uv * ratio + shift - origin
            if np.isfinite(cell).all() and (cell > -0.5).all() and (cell < [columns - 0.5, rows - 0.5]).all():
                drawing.mark((cell + 0.5) * zoom - 0.5, mark.shape, mark.color, 8.0)
    return drawing.picture


def _overlaid(photo: Rgb, heat: Float[np.ndarray, "H W"]) -> Rgb:
    """Colours where there is heat (0..1), more of the photo where there is little."""
    value = np.clip(heat, 0, 1)
    alpha = np.clip(1.6 * value, 0, 0.85)[..., None]
    # the map's darkest colours would hide the photo
    colors = color_map(_COLORS)(0.25 + 0.75 * value)
    return np.round(photo * (1 - alpha) + colors * alpha).astype(np.uint8)


def _gap(height: int) -> Rgb:
    return np.full((height, _GAP // 2, 3), BACKGROUND, np.uint8)


def _grid(tiles: Sequence[Rgb], columns: int) -> Rgb:
    """Tiles of one size in rows."""
    if not tiles:
        return np.full((60, 400, 3), BACKGROUND, np.uint8)
    height, width = tiles[0].shape[:2]
    columns = min(columns, len(tiles))
    rows = -(-len(tiles) // columns)
    canvas = np.full((rows * (height + _GAP), columns * (width + _GAP), 3), BACKGROUND, np.uint8)
    for number, tile in enumerate(tiles):
        y, x = (number // columns) * (height + _GAP), (number % columns) * (width + _GAP)
        canvas[y : y + height, x : x + width] = tile
    return canvas
