"""The user's own images as textures of synthetic scenes: a few of a folder, cut square and resized."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from metriloc.io.images import read_image

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
PER_SCENE = 6


def load_photos(folder: Path, side: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Up to six images of a folder, chosen by ``rng``, as [side,side,3], 0..1.

    Raises ValueError when the folder does not exist or holds no image; InputError (io) for a file that is no image.
    """
    names = _names(str(folder))
    chosen = rng.choice(len(names), min(len(names), PER_SCENE), replace=False)
    return tuple(_square(names[int(i)], side) for i in chosen)


@lru_cache(maxsize=8)
def _names(folder: str) -> tuple[str, ...]:
    path = Path(folder)
    if not path.is_dir():
        raise ValueError(f"the folder of photo textures does not exist: {folder}")
    names = tuple(str(p) for p in sorted(path.rglob("*")) if p.suffix.lower() in SUFFIXES)
    if not names:
        raise ValueError(f"the folder of photo textures has no image ({', '.join(SUFFIXES)}): {folder}")
    return names


@lru_cache(maxsize=256)
def _square(name: str, side: int) -> np.ndarray:
    """The middle square of an image at that size; read-only, because it is kept."""
    rgb = torch.as_tensor(read_image(name).rgb).permute(2, 0, 1)[None].float() / 255
    short = min(rgb.shape[-2:])
    top, left = (rgb.shape[-2] - short) // 2, (rgb.shape[-1] - short) // 2
    middle = rgb[..., top : top + short, left : left + short]
    small = torch.nn.functional.interpolate(middle, (side, side), mode="bilinear", antialias=True, align_corners=False)
    out = small[0].permute(1, 2, 0).contiguous().numpy()
    out.setflags(write=False)
    return out
