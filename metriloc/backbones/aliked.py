"""ALIKED local features through kornia's class (which needs no torchvision), with weights given as tensors.

ALIKED ("A Lighter Keypoint and Descriptor Extraction Network via Deformable Transformation", TIM 2023). Dense
descriptors are those of the network before its sparse head, at every pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
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

MODELS = ("aliked-n16", "aliked-n16rot", "aliked-n32", "aliked-t16")


@dataclass(frozen=True)
class AlikedConfig:
    """model: architecture of the weights. max_keypoints: the best by score are kept. detection_threshold: of the score
    map (0..1); 0 takes the best whatever their score, which rescues rooms with little texture. longest_side: larger
    photos are made smaller first; None takes them as they are."""

    model: str = "aliked-n16"
    max_keypoints: int = 2048
    detection_threshold: float = 0.0
    longest_side: int | None = 1024

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")


class Aliked:
    """ALIKED features of one photo at a time, sparse by calling it, dense (a descriptor a pixel) by ``dense``.

    weights: the released state dict. Raises ValueError when the weights do not fit and ImportError, with the pip
    command, without kornia.
    """

    name = "aliked"
    temperature = 0.01

    def __init__(self, weights: Mapping[str, Tensor], config: AlikedConfig | None = None) -> None:
        require_kornia("ALIKED")
        from kornia import feature

        self.config = config or AlikedConfig()
        self._model = feature.ALIKED(
            self.config.model,
            max_num_keypoints=self.config.max_keypoints,
            detection_threshold=self.config.detection_threshold,
        )
        derived = frozenset({"dkd.hw_grid"})
        load_exactly(self._model, dict(weights), f"ALIKED ({self.config.model})", may_miss=derived, may_add=derived)

    def to(self, device: torch.device | str) -> Aliked:
        """Move the weights; returns self."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "3 H W"]) -> LocalFeatures:
        """Features of a photo (RGB in 0..1, any size)."""
        working = self._resized(image)
        found = self._model(working)[0]
        uv = moved_to_photo(found.keypoints.to(working), working, image)
        return LocalFeatures(detached(uv), detached(found.descriptors), detached(found.keypoint_scores))

    @torch.no_grad()
    def dense(self, image: Float[Tensor, "3 H W"]) -> DenseMap:
        """A descriptor for every pixel of the photo (of the smaller one, if ``longest_side`` shrinks it)."""
        working = self._resized(image)
        features, _ = self._model.extract_dense_map(working)
        return DenseMap(detached(features[0]), *cells_on_photo(working, image, 1, 0))

    def _resized(self, image: Tensor) -> Tensor:
        image = image.to(next(self._model.parameters()).device)
        return resize_to_longer_side(image, self.config.longest_side)[None]
