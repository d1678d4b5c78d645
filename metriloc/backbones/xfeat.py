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

MISSING_KORNIA = 'XFeat needs kornia >= 0.9 (Python >= 3.11): pip install "metriloc[features]"'
MULTIPLE = 32  # the coarsest stride of XFeat's encoder


@dataclass(frozen=True, eq=False)
class LocalFeatures:
    """Keypoints of one photo. uv: pixels of the photo given; descriptors: unit length; scores: larger is surer."""

    uv: Float[Tensor, "N 2"]
    descriptors: Float[Tensor, "N C"]
    scores: Float[Tensor, " N"]

    def __len__(self) -> int:
        return self.uv.shape[0]


@dataclass(frozen=True)
class XFeatConfig:
    """max_keypoints: the best by score are kept. detection_threshold: of the keypoint heat map (0..1)."""

    max_keypoints: int = 4096
    detection_threshold: float = 0.05


class XFeat:
    """Sparse XFeat features of one photo at a time.

    weights: the state dict of the released ``xfeat.pt`` (128 tensors; names as released or prefixed ``net.``).
    Raises ValueError when the weights do not fit and ImportError, with the pip command, without kornia.
    """

    def __init__(self, weights: Mapping[str, Tensor], config: XFeatConfig | None = None) -> None:
        try:
            from kornia.feature import XFeat as KorniaXFeat
        except ImportError as error:
            raise ImportError(MISSING_KORNIA) from error
        config = config or XFeatConfig()
        self._model = KorniaXFeat(top_k=config.max_keypoints, detection_threshold=config.detection_threshold)
        try:
            self._model.net.load_state_dict({k.removeprefix("net."): v for k, v in weights.items()})
        except RuntimeError as error:
            raise ValueError(f"these are not XFeat weights: {str(error).splitlines()[-1].strip()}") from error
        self._model.eval()

    def to(self, device: torch.device | str) -> XFeat:
        """Move the weights; returns self."""
        self._model.to(device)
        return self

    @torch.no_grad()
    def __call__(self, image: Float[Tensor, "3 H W"]) -> LocalFeatures:
        """Features of a photo (RGB in 0..1, any size); an image without structure gives none."""
        image = image.to(next(self._model.parameters()).device)
        height, width = image.shape[1:]
        working = [max(MULTIPLE, round(side / MULTIPLE) * MULTIPLE) for side in (height, width)]
        resized = F.interpolate(image[None], size=working, mode="bilinear", align_corners=False, antialias=True)
        found = self._model.detectAndCompute(resized)[0]
        scale = image.new_tensor([width / working[1], height / working[0]])
        uv = (found["keypoints"].to(image) + 0.5) * scale - 0.5
        # inference tensors of kornia would poison autograd of the caller: hand out ordinary ones
        return LocalFeatures(uv.clone(), found["descriptors"].clone(), found["scores"].clone())
