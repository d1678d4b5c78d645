"""Published networks, one file each.

A dense backbone is any ``nn.Module`` with ``stride`` and ``channels`` that maps photos to feature maps
(``FeatureBackbone``); MicKey takes any of them in place of DINOv2. Constructors never download weights.
"""

from __future__ import annotations

from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from metriloc.backbones.dinov2 import (
    DINOV2,
    VIT_B,
    VIT_L,
    VIT_S,
    DinoV2,
    DinoV2Config,
    dinov2_config_from_weights,
)
from metriloc.backbones.dinov2_names import dinov2_from_transformers, dinov2_weights
from metriloc.backbones.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig


class FeatureBackbone(Protocol):
    """A network that turns photos into one feature map.

    Photos [B, 3, H, W], RGB in 0..1 -> features [B, channels, H // stride, W // stride]. stride:
    pixels a cell, in both directions. channels: features a cell. Must also be an ``nn.Module``.

    >>> backbone: FeatureBackbone = EfficientNetLite(EfficientNetLiteConfig(stride=16))
    >>> backbone.stride, backbone.channels
    (16, 64)
    """

    stride: int
    channels: int

    def __call__(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The feature map. The image is a whole number of cells wide and high."""
        ...


__all__ = [
    "DINOV2",
    "DinoV2",
    "DinoV2Config",
    "EfficientNetLite",
    "EfficientNetLiteConfig",
    "FeatureBackbone",
    "VIT_B",
    "VIT_L",
    "VIT_S",
    "dinov2_config_from_weights",
    "dinov2_from_transformers",
    "dinov2_weights",
]
