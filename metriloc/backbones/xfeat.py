"""XFeat local features through kornia's class, with weights given as tensors.

XFeat ("Accelerated Features for Lightweight Image Matching", CVPR 2024, Apache-2.0) is the detector and descriptor that
metriloc uses when no metric network is at hand. kornia owns the architecture; this file owns the pixel convention:
kornia reports positions of the image it resized to multiples of 32, scaled about the corner of the first pixel instead
of about its centre, so the photo is resized here and the half pixel is put right.
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
    resize_to_multiple,
)

MULTIPLE = 32  # the coarsest stride of XFeat's encoder
_STRIDE = 8


@dataclass(frozen=True)
class XFeatConfig:
    """max_keypoints: the best by score are kept. detection_threshold: of the keypoint heat map (0..1). longest_side:
    larger photos are made smaller first; None takes them as they are."""

    max_keypoints: int = 4096
    detection_threshold: float = 0.05
    longest_side: int | None = None


class XFeat:
    """XFeat features of one photo at a time, sparse by calling it, dense (64 channels, stride 8) by ``dense``.

    weights: the state dict of the released ``xfeat.pt`` (128 tensors; names as released or prefixed ``net.``).
    Raises ValueError when the weights do not fit and ImportError, with the pip command, without kornia.
    """

    name = "xfeat"
    temperature = 0.02
    identity = ""
    """Of weights other than the released ones: tells networks of one name apart."""

    def __init__(self, weights: Mapping[str, Tensor], config: XFeatConfig | None = None) -> None:
        require_kornia("XFeat")
        from kornia.feature import XFeat as KorniaXFeat

        self.config = config or XFeatConfig()
        self._model = KorniaXFeat(top_k=self.config.max_keypoints, detection_threshold=self.config.detection_threshold)
        tensors = {k.removeprefix("net."): v for k, v in weights.items()}
        load_exactly(self._model.net, tensors, "XFeat", may_miss=frozenset(), may_add=frozenset())
        self._model.eval()

    def to(self, device: torch.device | str) -> XFeat:
        """Move the weights; returns self."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "3 H W"]) -> LocalFeatures:
        """Features of a photo (RGB in 0..1, any size); an image without structure gives none."""
        working = self._resized(image)
        found = self._model.detectAndCompute(working)[0]
        uv = moved_to_photo(found["keypoints"].to(working), working, image)
        return LocalFeatures(detached(uv), detached(found["descriptors"]), detached(found["scores"]))

    @torch.no_grad()
    def dense(self, image: Float[Tensor, "3 H W"]) -> DenseMap:
        """A descriptor for every 8 x 8 pixels of the photo."""
        working = self._resized(image)
        features = self._model.net(working)[0][0]
        stride, origin = cells_on_photo(working, image, _STRIDE, (_STRIDE - 1) / 2)
        return DenseMap(detached(F.normalize(features, dim=0)), stride, origin)

    def _resized(self, image: Tensor) -> Tensor:
        image = image.to(next(self._model.parameters()).device)
        return resize_to_multiple(resize_to_longer_side(image, self.config.longest_side), MULTIPLE)
