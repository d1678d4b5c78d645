"""What a network made of photos: features as colours (joint principal components), and what it trusts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metriloc.types import DenseFeatures, View
from metriloc.viz.marks import PICTURE_SIDE, sized_photo
from metriloc.viz.pictures import BACKGROUND, Rgb, color_map

_FITTED = 20_000  # cells that the components are fitted to


def principal_colors(maps: Sequence[Float[Tensor, "C h w"]]) -> list[Rgb]:
    """Feature maps in color, by their three first principal components. These are of the L2-normalised features of all
    maps together, as red, green and blue.

    What is alike has one colour in all of them. The sign of a component is chosen so that its largest weight is positive.
    """
    unit = [F.normalize(m.detach().float().cpu(), dim=0) for m in maps]
    rows = torch.cat([m.flatten(1).mT for m in unit])
    fitted = rows[:: max(1, len(rows) // _FITTED)]
    mean = fitted.mean(0)
    _, _, directions = torch.linalg.svd(fitted - mean, full_matrices=False)
    directions = directions[:3]
    largest = directions.abs().argmax(1, keepdim=True)
    directions = directions * directions.gather(1, largest).sign()
    spread = (fitted - mean) @ directions.mT
    low, high = spread.quantile(0.02, 0), spread.quantile(0.98, 0)
    # a component that hardly varies is noise, which must not be stretched to full colours
    width = (high - low).clamp(min=max(1e-12, 1e-3 * float((high - low).max())))
    pictures = []
    for m in unit:
        values = ((m.flatten(1).mT - mean) @ directions.mT - low) / width
        rgb = F.pad(values, (0, 3 - values.shape[1])).clamp(0, 1).reshape(m.shape[1], m.shape[2], 3)
        pictures.append((255 * rgb).round().to(torch.uint8).numpy())
    return pictures


def level_picture(colors: Rgb, size: tuple[int, int]) -> Rgb:
    """A map of colors at the size of its photo. The size is (height, width); it is drawn cell by cell."""
    from PIL import Image

    return np.asarray(Image.fromarray(colors).resize(size[::-1], Image.Resampling.NEAREST))


def feature_picture(features: Sequence[DenseFeatures], width: int = PICTURE_SIDE // 3) -> Rgb:
    """A row a photo, a column a level."""
    colored = [principal_colors(level) for level in zip(*(photo.levels for photo in features), strict=True)]
    rows = []
    for number in range(len(features)):
        tiles = []
        for level in colored:
            picture = level[number]
            height = max(1, min(4 * width, round(width * picture.shape[0] / picture.shape[1])))
            tiles.append(level_picture(picture, (height, width)))
        height = max(tile.shape[0] for tile in tiles)
        rows.append(np.concatenate([_padded(tile, height) for tile in tiles], 1))
    return np.concatenate(rows, 0)


def confidence_picture(view: View, confidences: Sequence[Float[Tensor, "h w"]], side: int = PICTURE_SIDE) -> Rgb:
    """The confidence of a network over the photo. It is the geometric mean over the levels, from red (0) over yellow to
    green (the largest)."""
    photo, _ = sized_photo(view, side, dim=0.7)
    logs = [
        F.interpolate(
            c.detach().float().cpu()[None, None].clamp(min=1e-6).log(),
            size=photo.shape[:2],
            mode="bilinear",
            align_corners=False,
        )[0, 0]
        for c in confidences
    ]
    fused = torch.stack(logs).mean(0).exp()
    shown = (fused / fused.max().clamp(min=1e-12)).numpy()
    return np.round(0.45 * photo + 0.55 * color_map("RdYlGn")(shown)).astype(np.uint8)


def _padded(tile: Rgb, height: int) -> Rgb:
    """With a dark rim at the right and, where it is lower than its row, below."""
    filler = np.full((height, tile.shape[1] + 4, 3), BACKGROUND, np.uint8)
    filler[: tile.shape[0], : tile.shape[1]] = tile
    return filler
