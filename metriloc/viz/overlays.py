"""Pictures of what a network saw in a photo: keypoint scores and depth maps, as uint8 RGB arrays [H, W, 3].

A network's map has one cell per block of pixels, from the top left corner; what is left over at the right and at the
bottom was never looked at. So a map is drawn over its cells' pixels and not stretched over the photo (the MicKey demo
does stretch it). ``cell`` is the (width, height) of a block in pixels of the photo; a network that looks
at a reduced photo has blocks of any size.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.viz.color_bars import color_bar, paint_scores
from metriloc.viz.pictures import Rgb, color_map

NO_DEPTH = 0.001
"""Depth below this (metres), NaN and infinity mean "unknown" and are drawn black."""
_PHOTO = 0.35
"""Share of the photo in a picture of scores."""


def score_overlay(
    image: Float[Tensor, "3 H W"], score: Float[Tensor, "h w"], cell: tuple[float, float], bar: bool = True
) -> Rgb:
    """The photo in grey under its keypoint scores.

    Violet is low, yellow is high, over the region they belong to.

    - image: the photo.
    - score: one a cell, from the top left corner. The colors run over the map's own range (``score_range``); where scores
      are not finite, and outside of their region, the photo is bare.
    - cell: pixels of the photo that a cell is wide and high.
    - bar: whether a bar at the right gives the range in numbers. Without it the picture has the size of the photo.

    Raises ValueError when map and photo do not fit.

    >>> score_overlay(torch.rand(3, 32, 40), torch.rand(4, 5), cell=(8, 8), bar=False).shape
    (32, 40, 3)
    """
    _require_map(score, "score", cell)
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image must have shape [3, H, W], got {list(image.shape)}")
    height, width = _region(score, cell)
    if height > image.shape[1] or width > image.shape[2]:
        raise ValueError(
            f"a {score.shape[1]}x{score.shape[0]} map with cells of {cell[0]:g}x{cell[1]:g} pixels covers "
            f"{width}x{height} pixels, more than the photo's {image.shape[2]}x{image.shape[1]}"
        )
    values = score.detach().float().cpu()
    finite = torch.isfinite(values)
    low, high = score_range(values[finite])
    span = max(high - low, 1e-30)
    share = _enlarge(torch.where(finite, ((values - low) / span).clamp(0, 1), 0.0), cell).numpy()
    colored = _enlarge(finite.float(), cell, "nearest-exact").numpy()[..., None] > 0
    gray = (255 * _luminance(image.detach().float().cpu()))[0].numpy()
    picture = np.repeat(gray[..., None], 3, 2)
    region = picture[:height, :width]
    region[:] = np.where(colored, _PHOTO * region + (1 - _PHOTO) * paint_scores(share), region)
    shown = np.round(picture.clip(0, 255)).astype(np.uint8)
    if not bar:
        return shown
    column = color_bar(len(shown), high, low, lambda v: paint_scores((v - low) / span), nothing="no scores")
    return np.concatenate([shown, column], 1)


def score_range(known: Float[Tensor, " n"]) -> tuple[float, float]:
    """The range the colors of scores run over.

    From the least to the 99th percentile, or to the largest where nearly all are equal; NaN without
    any. A few peaks would leave all else in one color.
    """
    if known.numel() == 0:
        return math.nan, math.nan
    low, high = float(known.min()), float(np.percentile(known.numpy(), 99))
    return low, (high if high > low else float(known.max()))


def depth_overlay(
    depth: Float[Tensor, "h w"],
    cell: tuple[float, float],
    size: tuple[int, int] | None = None,
    percentiles: tuple[float, float] = (2.0, 85.0),
    bar: bool = True,
) -> Rgb:
    """A network's depth map at the photo's resolution. Near is bright, unknown is black.

    - depth: metres.
    - cell: pixels of the photo that a cell is wide and high.
    - size: (width, height) of the photo; the picture is then padded with black to it, so that pixels correspond. Without it
      the picture covers the map's region alone.
    - percentiles: of the depths, the ends of the colors.
    - bar: whether the color bar stands right of that.

    >>> depth = torch.linspace(1, 5, 12).reshape(3, 4)
    >>> depth_overlay(depth, cell=(8, 8), size=(40, 30), bar=False).shape
    (30, 40, 3)
    """
    _require_map(depth, "depth", cell)
    cells = depth.detach().float().cpu()
    known = _known(cells)
    # weighted by validity, so that a hole does not pull its neighbours towards zero metres
    weight = _enlarge(known.float(), cell)
    values = _enlarge(torch.where(known, cells, 0.0), cell) / weight.clamp(min=1e-6)
    inside = _enlarge(known.float(), cell, "nearest-exact") > 0
    low, high = _depth_range(cells[known], percentiles)
    picture = _paint_depth(torch.where(inside, values, 0.0).numpy(), low, high)
    if size is not None:
        if size[0] < picture.shape[1] or size[1] < picture.shape[0]:
            raise ValueError(f"the photo's size {size} is smaller than the map's {picture.shape[1::-1]} pixels")
        picture = np.pad(picture, ((0, size[1] - picture.shape[0]), (0, size[0] - picture.shape[1]), (0, 0)))
    return np.concatenate([picture, _depth_bar(picture.shape[0], low, high)], 1) if bar else picture


def depth_picture(depth: Float[Tensor, "H W"], percentiles: tuple[float, float] = (2.0, 85.0), bar: bool = True) -> Rgb:
    """A depth map of any size as a picture.

    Near is bright, unknown is black. One pixel a cell.

    - depth: metres.
    - percentiles: of the depths, the ends of the colors.
    - bar: whether a color bar stands at the right.

    >>> depth_picture(torch.linspace(1, 5, 12).reshape(3, 4), bar=False).shape
    (3, 4, 3)
    """
    return depth_overlay(depth, (1, 1), None, percentiles, bar)


def _require_map(values: Tensor, name: str, cell: tuple[float, float]) -> None:
    if values.ndim != 2 or 0 in values.shape:
        raise ValueError(f"{name} must have shape [h, w], got {list(values.shape)}")
    if not min(cell) >= 1:
        raise ValueError(f"a cell must be at least 1 pixel wide and high, got {cell}")


def _region(values: Float[Tensor, "h w"], cell: tuple[float, float]) -> tuple[int, int]:
    """Height and width of the map in pixels of the photo."""
    return round(values.shape[0] * cell[1]), round(values.shape[1] * cell[0])


def _enlarge(values: Float[Tensor, "h w"], cell: tuple[float, float], mode: str = "bilinear") -> Float[Tensor, "H W"]:
    """With the centre of a cell on the centre of its block of pixels (hence align_corners=False)."""
    corners = False if mode == "bilinear" else None
    size = _region(values, cell)
    return torch.nn.functional.interpolate(values[None, None], size=size, mode=mode, align_corners=corners)[0, 0]


def _luminance(image: Float[Tensor, "3 H W"]) -> Float[Tensor, "1 H W"]:
    """ITU-R BT.601 luma, the grey of OpenCV and Pillow."""
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    return (torch.nan_to_num(image).clamp(0, 1) * weights).sum(0, keepdim=True)


def _known(depth: Float[Tensor, "h w"]) -> Bool[Tensor, "h w"]:
    return torch.isfinite(depth) & (depth >= NO_DEPTH)


def _depth_range(known: Float[Tensor, " n"], percentiles: tuple[float, float]) -> tuple[float, float]:
    if not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError(f"percentiles must satisfy 0 <= low < high <= 100, got {percentiles}")
    if known.numel() == 0:
        return math.nan, math.nan
    low, high = (float(v) for v in np.percentile(known.numpy(), percentiles))
    return low, max(high, low * (1 + 1e-6))


def _paint_depth(depth: Float[np.ndarray, "H W"], low: float, high: float) -> Rgb:
    # the darkest eighth of the map is left out: what is far must not look like the black of what is unknown
    colors = color_map("magma_r")(0.88 * np.clip((depth - low) / (high - low), 0, 1))
    return np.where((depth >= NO_DEPTH)[..., None], colors, np.uint8(0)).astype(np.uint8)


def _depth_bar(height: int, low: float, high: float) -> Rgb:
    """From ``low`` (top, near) to ``high`` metres (bottom, far)."""
    return color_bar(
        height, low, high, lambda v: _paint_depth(np.maximum(v, NO_DEPTH), low, high), unit=" m", nothing="no depth"
    )
