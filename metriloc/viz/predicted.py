"""What a network predicts for a photo beside the photo itself: depth and keypoint scores, one strip."""

from __future__ import annotations

import numpy as np

from metriloc.types import PhotoFeatures
from metriloc.viz.overlays import depth_overlay, depth_picture, score_overlay
from metriloc.viz.pictures import BACKGROUND, Rgb, rgb_from_image, shrink

_SIDE = 640
"""Longest side of the photo in a strip, pixels."""


def drawn_depth(features: PhotoFeatures) -> Rgb | None:
    """The depth that a method has of a photo. It is its own or what came with the photo; None without any."""
    view, own = features.view, features.depth_map()
    if own is not None:
        return depth_overlay(own, features.cell, view.size)
    return None if view.depth is None else depth_picture(view.depth)


def drawn_scores(features: PhotoFeatures) -> Rgb:
    """The keypoint scores that a method gives a photo."""
    return score_overlay(features.view.image, features.score_map(), features.cell)


def predicted_strip(features: PhotoFeatures) -> Rgb:
    """The photo, its depth and its keypoint scores.

    They stand from left to right (project page of MicKey). Raises ValueError for features without
    depth.

    >>> features = metriloc.load("mickey").extract(metriloc.load_view("reference.jpg"))
    >>> predicted_strip(features).shape[0]  # the height of the photo
    480
    """
    depth = drawn_depth(features)
    if depth is None:
        raise ValueError(f"{features.view.name!r}: there is no depth of this photo")
    photo = shrink(rgb_from_image(features.view.image), _SIDE)
    return _joined([photo, depth, drawn_scores(features)])


def _joined(pictures: list[Rgb], gap: int = 6) -> Rgb:
    """Pictures side by side, brought to the height of the first."""
    from PIL import Image

    height, parts = pictures[0].shape[0], []
    for picture in pictures:
        width = max(1, round(picture.shape[1] * height / picture.shape[0]))
        if picture.shape[0] != height:
            picture = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))
        parts += [picture, np.full((height, gap, 3), BACKGROUND, np.uint8)]
    return np.concatenate(parts[:-1], 1)
