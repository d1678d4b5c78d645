"""SIFT through OpenCV, with root-SIFT descriptors (L1 normalised, square root), as Map-free's matching baselines have it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.local import LocalFeatures

MISSING_OPENCV = 'SIFT needs OpenCV: pip install "metriloc[sift]"'


@dataclass(frozen=True)
class SiftConfig:
    """Settings of SIFT keypoints."""

    max_keypoints: int = 2048
    """The best by response are kept."""
    contrast_threshold: float = 0.04
    """OpenCV's; weaker extrema are left out."""


class Sift:
    """Root-SIFT features of one photo at a time. Raises ImportError, with the pip command, without OpenCV."""

    name = "sift"

    def __init__(self, config: SiftConfig | None = None) -> None:
        try:
            import cv2
        except ImportError as error:
            raise ImportError(MISSING_OPENCV) from error
        self.config = config or SiftConfig()
        self._sift = cv2.SIFT_create(  # type: ignore[attr-defined]
            nfeatures=self.config.max_keypoints, contrastThreshold=self.config.contrast_threshold
        )

    def to(self, device: torch.device | str) -> Sift:
        """SIFT runs on the CPU whatever the device; returns self."""
        return self

    def __call__(self, image: Float[Tensor, "3 H W"]) -> LocalFeatures:
        """Features of a photo (RGB in 0..1, any size); an image without structure gives none."""
        weights = image.new_tensor([0.299, 0.587, 0.114])
        gray = ((image * weights[:, None, None]).sum(0) * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
        keypoints, descriptors = self._sift.detectAndCompute(gray, None)
        if descriptors is None:
            return LocalFeatures(torch.zeros(0, 2), torch.zeros(0, 128), torch.zeros(0))
        # a keypoint comes once for each of its orientations: descriptors differ, so both stay
        uv = torch.tensor([keypoint.pt for keypoint in keypoints], dtype=torch.float32)
        scores = torch.tensor([keypoint.response for keypoint in keypoints], dtype=torch.float32)
        values = torch.from_numpy(descriptors).float()
        root = (values / values.sum(-1, keepdim=True).clamp(min=1e-12)).sqrt()
        return LocalFeatures(uv, root, scores)
