"""DISK local features through kornia's class, with weights given as tensors.

DISK ("Learning local features with policy gradient", NeurIPS 2020).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.local import (
    DenseMap,
    LocalFeatures,
    cells_on_photo,
    detached,
    load_exactly,
    moved_to_photo,
    require_kornia,
    resize_to_longer_side,
)

_MULTIPLE = 16  # of the U-Net; the photo is padded at the bottom and right


@dataclass(frozen=True)
class DiskConfig:
    """Settings of DISK keypoints."""

    max_keypoints: int = 2048
    """The best by score are kept."""
    longest_side: int | None = 1024
    """Larger photos are made smaller first; None takes them as they are."""
    dense_stride: int = 1
    """Dense descriptors are averaged over so many pixels, 1 or 2."""


class Disk:
    """DISK features of one photo at a time. Sparse by calling it, dense (128 channels) by ``dense``.

    weights: the released state dict, bare or under ``extractor``. Raises ValueError when the weights do not fit and
    ImportError, with the pip command, without kornia.
    """

    name = "disk"
    temperature = 0.02

    def __init__(self, weights: Mapping[str, Tensor], config: DiskConfig | None = None) -> None:
        require_kornia("DISK")
        from kornia import feature

        self.config = config or DiskConfig()
        self._model = feature.DISK()
        load_exactly(self._model, dict(weights), "DISK", may_miss=frozenset(), may_add=frozenset())

    def to(self, device: torch.device | str) -> Disk:
        """Move the weights; returns self."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "3 H W"]) -> LocalFeatures:
        """Features of a photo (RGB in 0..1, any size)."""
        working = self._resized(image)
        found = self._model(working, n=self.config.max_keypoints, pad_if_not_divisible=True)[0]
        uv = moved_to_photo(found.keypoints.to(working), working, image)
        return LocalFeatures(detached(uv), detached(found.descriptors), detached(found.detection_scores))

    @torch.no_grad()
    def dense(self, image: Float[Tensor, "3 H W"]) -> DenseMap:
        """A descriptor for every ``dense_stride`` pixels of the photo. It is that of the smaller photo, if
        ``longest_side`` shrinks it."""
        working = self._resized(image)
        height, width = working.shape[2:]
        padded = F.pad(working, (0, -width % _MULTIPLE, 0, -height % _MULTIPLE))
        _, descriptors = self._model.heatmap_and_dense_descriptors(padded)
        descriptors = F.normalize(descriptors[0, :, :height, :width], dim=0)
        full = DenseMap(descriptors, *cells_on_photo(working, image, 1, 0))
        pooled = full.pooled(self.config.dense_stride)
        return DenseMap(detached(pooled.descriptors), pooled.stride, pooled.origin)

    def _resized(self, image: Tensor) -> Tensor:
        image = image.to(next(self._model.parameters()).device)
        return resize_to_longer_side(image, self.config.longest_side)[None]
