"""LightGlue and LighterGlue through kornia's class, with weights given as tensors.

LightGlue ("Local Feature Matching at Light Speed", ICCV 2023) matches ALIKED, DISK or SIFT keypoints; LighterGlue is
its small version for XFeat. Released files name the layers of an older layout; kornia's names are made here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.backbones.local import LocalFeatures, load_exactly, require_kornia

_SMALL: dict[str, Any] = {
    "input_dim": 64,
    "descriptor_dim": 96,
    "n_layers": 6,
    "num_heads": 1,
    "depth_confidence": -1,
    "width_confidence": 0.95,
}
_LARGE: dict[str, Any] = {"input_dim": 128}
CHANNELS = {64: _SMALL, 128: _LARGE}
"""Descriptor channels -> layout: XFeat's LighterGlue, and LightGlue for ALIKED and DISK."""


class LightGlue:
    """Matches the keypoints of two photos.

    weights: a released state dict; the layout is inferred from it. min_score: matches below are left out. Raises
    ValueError when the weights do not fit and ImportError, with the pip command, without kornia.
    """

    def __init__(self, weights: Mapping[str, Tensor], min_score: float = 0.1) -> None:
        require_kornia("LightGlue")
        from kornia.feature import LightGlue as KorniaLightGlue

        tensors = _renamed(weights)
        projection = tensors.get("input_proj.weight")
        channels = 0 if projection is None else projection.shape[1]
        if channels not in CHANNELS:
            raise ValueError(
                f"these are not LightGlue weights: they take {channels} channels, not one of {list(CHANNELS)}"
            )
        self.channels = channels
        self._model = KorniaLightGlue(None, filter_threshold=min_score, **CHANNELS[channels])  # type: ignore[arg-type]
        surplus = frozenset(key for key in tensors if re.fullmatch(r"log_assignment\.\d+\.r", key))
        derived = frozenset({"confidence_thresholds"})
        load_exactly(self._model, tensors, "LightGlue", may_miss=derived, may_add=surplus | derived)

    def to(self, device: torch.device | str) -> LightGlue:
        """Move the weights; returns self."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def __call__(
        self, features0: LocalFeatures, features1: LocalFeatures, size0: tuple[int, int], size1: tuple[int, int]
    ) -> tuple[Int[Tensor, "M 2"], Float[Tensor, " M"]]:
        """Matched indices and scores (0..1); sizes: (w, h) of the photos, pixels. Raises ValueError for other channels."""
        if len(features0) == 0 or len(features1) == 0:
            return torch.zeros(0, 2, dtype=torch.long), torch.zeros(0)
        if features0.descriptors.shape[1] != self.channels:
            raise ValueError(f"descriptors have {features0.descriptors.shape[1]} channels, not {self.channels}")
        device = next(self._model.parameters()).device

        def data(features: LocalFeatures, size: tuple[int, int]) -> dict[str, Tensor]:
            return {
                "keypoints": features.uv[None].to(device),
                "descriptors": features.descriptors[None].to(device),
                "image_size": torch.tensor([size], device=device),
            }

        found = self._model({"image0": data(features0, size0), "image1": data(features1, size1)})
        return found["matches"][0].cpu(), found["scores"][0].cpu()


def _renamed(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    renamed = {}
    for key, value in weights.items():
        if key.startswith("extractor."):
            continue  # xfeat-lighterglue.pt carries XFeat as well
        name = key.removeprefix("matcher.")
        renamed[re.sub(r"^(self|cross)_attn\.(\d+)\.", r"transformers.\2.\1_attn.", name)] = value
    return renamed
