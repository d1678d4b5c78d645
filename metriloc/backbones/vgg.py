"""VGG (Simonyan and Zisserman, 2015) cut into blocks at its poolings, without its classifier: PixLoc's encoder.

Block 0 keeps the resolution, every further block halves it first. Names of tensors are those of the released PixLoc
checkpoints: ``{block}.{place in the block}``. Widths and depths are free, so that a light encoder is the same class.
Photos come normalised: ``normalize_imagenet``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metriloc.bounds import require_all_within, require_flags

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class VGGConfig:
    """Shape of the encoder."""

    convs: tuple[int, ...] = (2, 2, 4, 4, 4)
    """3x3 convolutions of each block."""
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of each block."""
    average_pooling: bool = False
    """Average in place of maximum pooling."""

    def __post_init__(self) -> None:
        require_all_within(self, 1, 100, "convs", most=10)
        require_all_within(self, 1, 16_384, "widths", most=10)
        require_flags(self, "average_pooling")
        if not self.convs or len(self.convs) != len(self.widths):
            raise ValueError(f"VGGConfig needs one positive width a block, got {self.convs} and {self.widths}")


VGG16 = VGGConfig(convs=(2, 2, 3, 3, 3))
VGG19 = VGGConfig(convs=(2, 2, 4, 4, 4))


class VGG(nn.ModuleList):
    """Blocks of a VGG.

    Photos [B, 3, H, W] -> one map a block, at strides 1, 2, 4, ... (floor of the side each time).
    checkpointed: forget the maps inside the blocks in training and compute them again for the
    gradient.
    """

    def __init__(self, config: VGGConfig = VGG19, checkpointed: bool = False) -> None:
        blocks, channels = [], 3
        for number, (convs, width) in enumerate(zip(config.convs, config.widths, strict=True)):
            layers: list[nn.Module] = [_pooling(config.average_pooling)] if number else []
            for _ in range(convs):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
            blocks.append(nn.Sequential(*layers))
        super().__init__(blocks)
        self.config = config
        self.channels = config.widths
        self.checkpointed = checkpointed

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        maps: list[Tensor] = []
        for block in self:
            if self.checkpointed and torch.is_grad_enabled():
                image = checkpoint(block, image, use_reentrant=False)
            else:
                image = block(image)
            maps.append(image)
        return maps


def _pooling(average: bool) -> nn.Module:
    return nn.AvgPool2d(2, 2, count_include_pad=False) if average else nn.MaxPool2d(2, 2)


def normalize_imagenet(image: Float[Tensor, "*b 3 H W"]) -> Float[Tensor, "*b 3 H W"]:
    """RGB in 0..1 -> zero mean and unit deviation over ImageNet."""
    mean, std = image.new_tensor(IMAGENET_MEAN), image.new_tensor(IMAGENET_STD)
    return (image - mean[:, None, None]) / std[:, None, None]


def vgg_config_from_weights(tensors: Mapping[str, Tensor], average_pooling: bool = False) -> VGGConfig:
    """The shape that tensors named ``{block}.{place}.weight`` were made for.

    Pooling shows in no tensor. Raises ValueError when there are none, or blocks are missing.
    """
    widths: dict[int, list[int]] = {}
    for key, value in tensors.items():
        block, _, rest = key.partition(".")
        if rest.endswith("weight") and block.isdigit():
            widths.setdefault(int(block), []).append(value.shape[0])
    if sorted(widths) != list(range(len(widths))) or not widths:
        raise ValueError(f"these are not VGG weights: their blocks are {sorted(widths)}")
    blocks = [widths[block] for block in sorted(widths)]
    return VGGConfig(tuple(len(block) for block in blocks), tuple(block[0] for block in blocks), average_pooling)


def vgg_from_torchvision(tensors: Mapping[str, Tensor], config: VGGConfig) -> dict[str, Tensor]:
    """ImageNet weights under torchvision's names (``features.{n}.weight``) -> ours.

    The classifier is left out. Raises ValueError naming the first tensor that is missing.
    """
    ours, place = {}, 0
    for block, convs in enumerate(config.convs):
        place += 1 if block else 0  # the pooling
        for conv in range(convs):
            for kind in ("weight", "bias"):
                theirs = f"features.{place}.{kind}"
                if theirs not in tensors:
                    raise ValueError(f"these are not VGG weights of torchvision: {theirs!r} is missing")
                ours[f"{block}.{2 * conv + (1 if block else 0)}.{kind}"] = tensors[theirs]
            place += 2
    return ours
