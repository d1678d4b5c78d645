"""ResNet (He et al., 2016) up to stride 16, as an encoder of PixLoc's U-Net.

Names of tensors are torchvision's (``conv1``, ``bn1``, ``layer1.0.conv1``, ...), so that its ImageNet files load as they
are; ``layer4`` and the classifier are left out. Photos come normalised: ``metriloc.backbones.vgg.normalize_imagenet``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

Layers = Literal[18, 34, 50, 101]
_BLOCKS: Mapping[int, tuple[int, int, int]] = {18: (2, 2, 2), 34: (3, 4, 6), 50: (3, 4, 6), 101: (3, 4, 23)}
"""Residual blocks of layer1, layer2 and layer3."""
_WIDTHS = (64, 128, 256)
_STRIDE = 16


@dataclass(frozen=True)
class ResNetConfig:
    """Shape of the encoder."""

    layers: Layers = 50
    """Of the whole ResNet: 18, 34, 50 or 101."""

    def __post_init__(self) -> None:
        if self.layers not in get_args(Layers):
            raise ValueError(f"ResNetConfig.layers must be one of {', '.join(map(str, _BLOCKS))}, got {self.layers!r}")

    @property
    def bottleneck(self) -> bool:
        """Whether blocks are three convolutions. They have four times as many channels in the end."""
        return self.layers >= 50


class ResNet(nn.Module):
    """A photo as maps at strides 1, 2, 4, 8 and 16. Photos are [B, 3, H, W], and the first map is the photo itself (a
    ``PyramidEncoder``).

    Columns and rows that do not fill a cell of the coarsest map are cut away at the right and bottom. Differs from the
    published code: ``channels`` are also right for ResNet-18 and 34.
    """

    def __init__(self, config: ResNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ResNetConfig()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        grown, before, layers = (4 if config.bottleneck else 1), 64, []
        for number, (count, width) in enumerate(zip(_BLOCKS[config.layers], _WIDTHS, strict=True)):
            blocks = []
            for block in range(count):
                stride = 2 if number and not block else 1
                blocks.append(_Block(before, width, width * grown, stride, config.bottleneck))
                before = width * grown
            layers.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = layers
        self.channels = (3, 64, *(width * grown for width in _WIDTHS))

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        height, width = (side - side % _STRIDE for side in image.shape[-2:])
        image = image[..., :height, :width]
        maps = [image, self.relu(self.bn1(self.conv1(image)))]
        maps.append(self.layer1(self.maxpool(maps[-1])))
        maps.append(self.layer2(maps[-1]))
        maps.append(self.layer3(maps[-1]))
        return maps


class _Block(nn.Module):
    """Two 3x3 convolutions, or 1x1, 3x3, 1x1 (bottleneck), beside a shortcut; the 3x3 has the stride."""

    def __init__(self, before: int, width: int, after: int, stride: int, bottleneck: bool) -> None:
        super().__init__()
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        widths = (before, *(width,) * (len(kernels) - 1), after)
        strided = kernels.index(3)
        for number, kernel in enumerate(kernels):
            step = stride if number == strided else 1
            layer = nn.Conv2d(widths[number], widths[number + 1], kernel, step, kernel // 2, bias=False)
            self.add_module(f"conv{number + 1}", layer)
            self.add_module(f"bn{number + 1}", nn.BatchNorm2d(widths[number + 1]))
        self.count = len(kernels)
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for number in range(1, self.count + 1):
            out = self.get_submodule(f"bn{number}")(self.get_submodule(f"conv{number}")(out))
            if number < self.count:
                out = torch.relu(out)
        return torch.relu(out + (x if self.downsample is None else self.downsample(x)))


def is_resnet(tensors: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of a ResNet."""
    return "layer1.0.conv1.weight" in tensors


def resnet_config_from_weights(tensors: Mapping[str, Tensor]) -> ResNetConfig:
    """The shape that tensors were made for. Raises ValueError for blocks of none that we know."""
    found = tuple(
        len({key.split(".")[1] for key in tensors if key.startswith(f"layer{number}.")}) for number in (1, 2, 3)
    )
    bottleneck = "layer1.0.conv3.weight" in tensors
    for layers, blocks in _BLOCKS.items():
        config = ResNetConfig(layers)  # type: ignore[arg-type] # a key of the table
        if blocks == found and config.bottleneck == bottleneck:
            return config
    raise ValueError(f"these are not weights of a ResNet-18, 34, 50 or 101: their layers have {found} blocks")


def load_imagenet(network: ResNet, tensors: Mapping[str, Tensor]) -> None:
    """Put torchvision's ImageNet weights into an encoder.

    Layer4 and the classifier are passed over. Raises ValueError naming the first tensor that is
    missing or of another shape.
    """
    own = network.state_dict()
    for key, value in own.items():
        if key not in tensors or tensors[key].shape != value.shape:
            layers = network.config.layers
            raise ValueError(
                f"these are not weights of torchvision's ResNet-{layers}: {key!r} is missing or of another shape"
            )
    network.load_state_dict({key: tensors[key] for key in own})
