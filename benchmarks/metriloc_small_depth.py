"""Depth of metriloc-small against the sparse maps of the places, and what else the maps know of the pairs."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.evaluation.depth import top_half
from metriloc.evaluation.report import Table, number
from metriloc.geometry import sample_depth
from metriloc.io.maps import read_map
from metriloc.methods.matching.depth import depth_from_cells
from metriloc.types import SfmMap

NEAR_PX = 4.0
"""A keypoint has a true depth when a point of the map was seen this near to it."""


class PlaceMap:
    """The sparse map of a place: what points its photos see, and how far they are."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def scene(self) -> SfmMap:
        """Read when first asked for."""
        return read_map(self.folder / "sparse", self.folder)

    @cached_property
    def _images(self) -> dict[bytes, int]:
        # the benchmark's photos are byte-identical copies of the place's frames: content says which is which
        return {_digest(self.folder / name): i for i, name in enumerate(self.scene.names)}

    def image_of(self, photo: Path) -> int:
        """Which image of the map has this content."""
        return self._images[_digest(photo)]

    def seen(self, photo: Path) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
        """Where points of the map were seen in a photo, pixels, and their depth, metres."""
        image = self.image_of(photo)
        rows = self.scene.observations_of(image)
        xyz = self.scene.cam_from_world[image].transform(self.scene.xyz[self.scene.point_index[rows]])
        ahead = xyz[:, 2] > 0
        return self.scene.uv[rows][ahead].float(), xyz[ahead, 2].float()

    def shared(self, photo0: Path, photo1: Path) -> float:
        """Share of the points seen in one photo that lie within the frame of the other, mean of both directions."""
        images = [self.image_of(photo) for photo in (photo0, photo1)]
        shares = []
        for one, other in (images, images[::-1]):
            world = self.scene.xyz[self.scene.point_index[self.scene.observations_of(one)]]
            camera = self.scene.cameras[other]
            uv, valid = camera.project(self.scene.cam_from_world[other].transform(world))
            shares.append(float((valid & camera.in_image(uv)).double().mean()))
        return sum(shares) / 2


def _digest(photo: Path) -> bytes:
    return hashlib.blake2b(photo.read_bytes()).digest()


# -- depth ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class PhotoDepth:
    """Predicted and true depth of one photo, metres: where the map's points were seen, and at keypoints near them."""

    at_points: tuple[Tensor, Tensor]
    at_keypoints: tuple[Tensor, Tensor]


def photo_depth(features: object, uv: Float[Tensor, "n 2"], depth: Float[Tensor, " n"]) -> PhotoDepth:
    """features: of MicKey. uv, depth: of the map's points in the photo. Keypoints: the better half by score."""
    size = features.view.size  # type: ignore[attr-defined]
    spread = depth_from_cells(features.depth_map(), features.cell, size)  # type: ignore[attr-defined]
    predicted, known = sample_depth(spread, uv, size)
    keypoints = features.keypoints  # type: ignore[attr-defined]
    best = top_half(keypoints.score[0])
    distance, nearest = torch.cdist(keypoints.uv[0, best], uv).min(1)
    near = distance < NEAR_PX
    return PhotoDepth((predicted[known], depth[known]), (keypoints.depth[0, best][near], depth[nearest[near]]))


def depth_table(photos: Mapping[str, Sequence[PhotoDepth]]) -> Table:
    """Mean absolute log error of each place beside the place's best constant depth, in parts.

    scale: of the median of a photo; shape: what is left when each photo's median is taken out. Means over photos.
    """
    rows = [
        [
            "place",
            "at",
            "photos",
            "points",
            "error",
            "shape",
            "scale",
            "constant: error",
            "shape",
            "scale",
            "too far by",
        ]
    ]
    for place, found in photos.items():
        for title, pick in (("map points", "at_points"), ("keypoints", "at_keypoints")):
            pairs = [getattr(photo, pick) for photo in found]
            pairs = [(p.clamp(min=1e-3).log(), t.log()) for p, t in pairs if len(t) >= 5]
            if not pairs:
                continue
            constant = torch.cat([t for _, t in pairs]).median()
            ours = _parts([p - t for p, t in pairs])
            flat = _parts([constant - t for _, t in pairs])
            bias = math.exp(float(torch.cat([p - t for p, t in pairs]).median()))
            count = sum(len(t) for _, t in pairs)
            rows.append(
                [place, title, str(len(pairs)), str(count), *(f"{v:.3f}" for v in (*ours, *flat)), f"{number(bias)}x"]
            )
    return rows


def _parts(ratios: Sequence[Tensor]) -> tuple[float, float, float]:
    error = [float(r.abs().mean()) for r in ratios]
    shape = [float((r - r.median()).abs().mean()) for r in ratios]
    scale = [float(r.median().abs()) for r in ratios]
    return float(np.mean(error)), float(np.mean(shape)), float(np.mean(scale))
