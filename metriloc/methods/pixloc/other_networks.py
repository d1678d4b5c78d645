"""Features to compare PixLoc's with: S2DNet (Germain et al., 2020), and the photo itself as a Gaussian pyramid.

Both give the ``FeaturePyramid`` of the U-Net, without confidences. (Spec pixloc 8.3 and 8.4.)
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.backbones.vgg import normalize_imagenet
from metriloc.bounds import require_all_within, require_within
from metriloc.methods.pixloc.pyramid import FeaturePyramid, check_image

_VGG16_LAYERS = tuple(
    f"{kind}{block}_{conv}"
    for block, convs in enumerate((2, 2, 3, 3, 3), 1)
    for conv in range(1, convs + 1)
    for kind in ("conv", "relu")
)
_VGG16_WIDTHS = (64, 128, 256, 512, 512)


@dataclass(frozen=True)
class S2DNetConfig:
    """Shape of S2DNet."""

    layers: tuple[str, ...] = ("conv1_2", "conv3_3", "conv5_3")
    """Taps ``conv{block}_{n}`` or ``relu{block}_{n}`` of VGG-16, from fine to coarse."""
    channels: int = 128
    """Of each map."""
    hidden: int = 64
    """Of the layer before."""
    confidences: ClassVar[bool] = False
    """Maps that say how far features can be trusted."""

    def __post_init__(self) -> None:
        if not self.layers or any(layer not in _VGG16_LAYERS for layer in self.layers):
            raise ValueError(f"S2DNet layers must be among {', '.join(_VGG16_LAYERS)}, got {self.layers}")
        order = [_VGG16_LAYERS.index(layer) for layer in self.layers]
        if order != sorted(set(order)):
            raise ValueError(f"S2DNet layers must come from fine to coarse, got {self.layers}")
        require_within(self, channels=(1, 16_384), hidden=(1, 16_384))


class S2DNet(nn.Module):
    """Hypercolumn baseline (Germain et al., 2020).

    VGG-16 with a small head at each of some layers; no confidences. Every tap but the last is read
    after its ReLU, whatever its name says, because the released weights were trained so.
    """

    def __init__(self, config: S2DNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or S2DNetConfig()
        layers, channels, hidden = config.layers, config.channels, config.hidden
        order = [_VGG16_LAYERS.index(layer) for layer in layers]
        modules: list[nn.Module] = []
        before, places, block = 3, [], 1
        for name in _VGG16_LAYERS[: order[-1] + 1]:
            if int(name[4]) != block:
                block = int(name[4])
                modules.append(nn.MaxPool2d(2, 2))
            width = _VGG16_WIDTHS[block - 1]
            modules.append(nn.Conv2d(before, width, 3, padding=1) if name.startswith("conv") else nn.ReLU())
            before = width
            if name in layers:
                places.append(len(modules) - 1)
        self.encoder = nn.Sequential(*modules)
        self._taps = [
            place + (layer.startswith("conv") and layer != layers[-1])
            for place, layer in zip(places, layers, strict=True)
        ]
        self.strides = tuple(2 ** (int(layer[4]) - 1) for layer in layers)
        self.adaptation_layers = nn.ModuleDict(
            {
                f"adap_layer_{i}": nn.Sequential(
                    nn.Conv2d(_VGG16_WIDTHS[int(layer[4]) - 1], hidden, 1),
                    nn.ReLU(),
                    nn.Conv2d(hidden, channels, 5, padding=2),
                    nn.BatchNorm2d(channels),
                )
                for i, layer in enumerate(layers)
            }
        )

    @property
    def smallest_side(self) -> int:
        """Of the coarsest cell."""
        return self.strides[-1]

    def fold_batch_norms(self) -> S2DNet:
        """A copy for inference whose norms are merged into the convolutions.

        It is in channels-last memory.
        """
        folded = copy.deepcopy(self).eval().requires_grad_(False)
        for name, head in folded.adaptation_layers.items():
            first, relu, last, norm = head.children()
            fused = nn.utils.fusion.fuse_conv_bn_eval(last, norm).requires_grad_(False)  # type: ignore[arg-type, type-var]
            folded.adaptation_layers[name] = nn.Sequential(first, relu, fused)
        return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def load_imagenet(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from torchvision's VGG-16 (``features.{n}``).

        ValueError names the first tensor that is missing.
        """
        own = self.encoder.state_dict()
        missing = [key for key in own if f"features.{key}" not in tensors]
        if missing:
            raise ValueError(f"these are not weights of torchvision's VGG-16: 'features.{missing[0]}' is missing")
        self.encoder.load_state_dict({key: tensors[f"features.{key}"] for key in own})

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> FeaturePyramid:
        """The maps of every level.

        Raises ValueError for an image that is not [B, 3, H, W] of floats, or smaller than the
        coarsest cell.
        """
        check_image(image, self.smallest_side)
        current, taps = normalize_imagenet(image), []
        for place, module in enumerate(self.encoder):
            current = module(current)
            if place in self._taps:
                taps.append(current)
        return FeaturePyramid(
            tuple(head(tap) for head, tap in zip(self.adaptation_layers.values(), taps, strict=True)), None
        )


@dataclass(frozen=True)
class GaussianConfig:
    """The blurred photo itself as features."""

    strides: tuple[int, ...] = (1, 4, 16)
    """Of the levels, finest first; each is a multiple of the one before."""
    confidences: ClassVar[bool] = False
    """Maps that say how far features can be trusted."""

    def __post_init__(self) -> None:
        require_all_within(self, 1, 1024, "strides")
        strides = self.strides
        if not strides or any(b % a or b <= a for a, b in pairwise(strides)):
            raise ValueError(f"each stride must be a multiple of the one before, got {strides}")


class GaussianPyramid(nn.Module):
    """The photo itself, blurred and reduced: alignment of colours, without any learning.

    From one level to the next by a ratio s: Gaussian blur of sigma s, bilinear reduction by s.
    """

    def __init__(self, config: GaussianConfig | None = None) -> None:
        super().__init__()
        self.config = config or GaussianConfig()
        self.strides = self.config.strides

    @property
    def smallest_side(self) -> int:
        """Of the coarsest cell."""
        return self.strides[-1]

    def fold_batch_norms(self) -> GaussianPyramid:
        """Itself: there is nothing to fold."""
        return self

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> FeaturePyramid:
        """The blurred image of every level.

        Raises ValueError for an image that is not [B, 3, H, W] of floats, or smaller than the
        coarsest cell.
        """
        check_image(image, self.smallest_side)
        maps, stride = [], 1
        for target in self.strides:
            ratio = target // stride
            image = gaussian_blur(image, float(ratio))
            if ratio > 1:
                size = (image.shape[-2] // ratio, image.shape[-1] // ratio)
                image = F.interpolate(
                    image[..., : size[0] * ratio, : size[1] * ratio], size, mode="bilinear", align_corners=False
                )
            maps.append(image)
            stride = target
        return FeaturePyramid(tuple(maps), None)


def gaussian_blur(image: Float[Tensor, "B C H W"], sigma: float) -> Float[Tensor, "B C H W"]:
    """Blur with a kernel of ``2 ceil(3 sigma) + 1`` taps. The edge is repeated outside."""
    radius = math.ceil(3 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=image.dtype, device=image.device) / sigma) ** 2)
    taps = (taps / taps.sum()).expand(image.shape[1], 1, -1)
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    lines = F.conv2d(padded, taps[..., None, :], groups=image.shape[1])
    return F.conv2d(lines, taps[..., :, None], groups=image.shape[1])
