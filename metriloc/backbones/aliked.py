"""ALIKED local features through kornia's class (which needs no torchvision), with weights given as tensors.

ALIKED ("A Lighter Keypoint and Descriptor Extraction Network via Deformable Transformation", TIM 2023). Dense
descriptors are those of the network before its sparse head, at every pixel.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.fixed import FixedNetwork, Look, NetworkRunner, identity_of
from metriloc.backbones.folding import fold_batch_norms
from metriloc.backbones.local import (
    DenseMap,
    LocalFeatures,
    cells_on_photo,
    detached,
    load_exactly,
    longer_side_size,
    moved_to_photo,
    require_kornia,
    resize_to_longer_side,
    resized_to,
)

_MULTIPLE = 32  # of the network, which pads to it
MODELS = ("aliked-n16", "aliked-n16rot", "aliked-n32", "aliked-t16")


@dataclass(frozen=True)
class AlikedConfig:
    """Settings of ALIKED keypoints."""

    model: str = "aliked-n16"
    """Architecture of the weights."""
    max_keypoints: int = 2048
    """The best by score are kept."""
    detection_threshold: float = 0.0
    """Of the score map (0..1); 0 takes the best whatever their score, which rescues rooms with
    little texture."""
    longest_side: int | None = 1024
    """Larger photos are made smaller first; None takes them as they are."""

    def __post_init__(self) -> None:
        if self.model not in MODELS:
            raise ValueError(f"model must be one of {', '.join(MODELS)}, got {self.model!r}")


class Aliked:
    """ALIKED features of one photo at a time. Sparse by calling it, dense (a descriptor a pixel) by ``dense``.

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
        self._weights = identity_of(self._model.state_dict(), self.config.model)
        fold_batch_norms(self._model)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._runner: NetworkRunner | None = None

    def fixed(self) -> FixedNetwork:
        """The network with dense descriptors and keypoint scores as outputs. It takes an image of whole multiples of 32
        pixels."""
        outputs = ("descriptors", "scores")
        return FixedNetwork("aliked", Look(self._model, _dense), outputs, _MULTIPLE, self._weights)

    def sizes_for(self, width: int, height: int) -> list[tuple[int, int]]:
        """The size that a photo is padded to. There is one (width, height) for a photo of this size."""
        return [_padded(*longer_side_size(width, height, self.config.longest_side))]

    def running_on(self, runner: NetworkRunner) -> Aliked:
        """A copy whose dense part another runtime runs.

        Keypoints are found and described in it as ever.
        """
        from kornia.feature.aliked.aliked import InputPadder

        other = copy(self)
        other._runner = runner
        other._model = copy(self._model)

        def extract_dense_map(image: Tensor) -> tuple[Tensor, Tensor]:
            padder = InputPadder(image.shape[-2], image.shape[-1], _MULTIPLE)
            features, scores = runner(padder.pad(image)).values()
            return padder.unpad(features), padder.unpad(scores)

        other._model.extract_dense_map = extract_dense_map  # type: ignore[method-assign]
        return other

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
        """A descriptor for every pixel of the photo. It is that of the smaller photo, if ``longest_side`` shrinks
        it."""
        working = self._resized(image)
        features, _ = self._model.extract_dense_map(working)
        return DenseMap(detached(features[0]), *cells_on_photo(working, image, 1, 0))

    def _resized(self, image: Tensor) -> Tensor:
        image = image.to(next(self._model.parameters()).device)
        working = resize_to_longer_side(image, self.config.longest_side)[None]
        if self._runner is None:
            return working
        padded = _padded(working.shape[-1], working.shape[-2])
        size = self._runner.size_for(*padded)
        return working if size == padded else resized_to(working, size)


def _padded(width: int, height: int) -> tuple[int, int]:
    return width + -width % _MULTIPLE, height + -height % _MULTIPLE


def _dense(network: Any, image: Tensor) -> tuple[Tensor, ...]:
    return tuple(network.extract_dense_map(image))
