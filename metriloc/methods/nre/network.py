"""The two dense feature networks of NRE, in the shape of Inception-v3 (Szegedy et al., CVPR 2016).

Coarse: stride 16, 1280 channels; fine: stride 2, 288 channels. Features are not of unit length: the scale of the last
batch norm plays the temperature. All strided layers are 3x3 with padding 1, so cell i looks at pixel ``stride * i`` and
a map has ``ceil(size / stride)`` cells. Names and shapes are those of the published weights (462 and 162 tensors).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from metriloc.bounds import require_flags

Level = Literal["coarse", "fine"]
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class NRENetworkConfig:
    """Shape of the published network."""

    level: Level = "coarse"
    """Which of the two networks."""
    no_maxpool: bool = False
    """The coarse one without its second pooling (stride 8)."""

    def __post_init__(self) -> None:
        require_flags(self, "no_maxpool")
        if self.level not in get_args(Level):
            raise ValueError(f"level must be one of {', '.join(get_args(Level))}, got {self.level!r}")
        if self.no_maxpool and self.level == "fine":
            raise ValueError("no_maxpool belongs to the coarse network; the fine one has no pooling to leave out")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NRENetworkConfig:
        """From ``dataclasses.asdict``, as config.json holds it. Raises ValueError for what does not belong there."""
        try:
            return cls(**values)
        except TypeError as error:
            raise ValueError(f"not an NRE network configuration: {error}") from error

    @property
    def stride(self) -> int:
        """Pixels from one cell to the next."""
        return 2 if self.level == "fine" else (8 if self.no_maxpool else 16)

    @property
    def channels(self) -> int:
        """Length of a descriptor."""
        return 288 if self.level == "fine" else 1280


class NRENetwork(nn.Module):
    """Dense features of photos (paper Sec. 4).

    Photos [B, 3, H, W], RGB in 0..1 -> features [B, C, ceil(H / stride), ceil(W / stride)]. Cell
    (x, y) describes pixel (stride x, stride y). ``fold()`` gives a faster copy for inference.
    """

    def __init__(self, config: NRENetworkConfig | None = None) -> None:
        super().__init__()
        self.config = config or NRENetworkConfig()
        self.cnn = nn.Sequential(*(_fine() if self.config.level == "fine" else _coarse(self.config.no_maxpool)))

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """Raises ValueError for anything but [B, 3, H, W]."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"image must have shape [B, 3, H, W], got {list(image.shape)}")
        mean, std = (image.new_tensor(v)[:, None, None] for v in (IMAGENET_MEAN, IMAGENET_STD))
        normalized = (image - mean) / std
        if not self.training:
            normalized = normalized.contiguous(memory_format=torch.channels_last)
        features: Tensor = self.cnn(normalized)
        return features

    def fold(self) -> NRENetwork:
        """A copy for inference without batch norms.

        Each is part of its convolution; the same features up to rounding. It has other tensors than
        the published weights, so it is not for saving.
        """
        folded = copy.deepcopy(self).eval()
        for module in folded.modules():
            if isinstance(module, ConvBN):
                module.conv = fuse_conv_bn_eval(module.conv, module.bn)
                module.bn = nn.Identity()  # type: ignore[assignment]
        last = len(folded.cnn) - 1
        folded.cnn[last - 1] = fuse_conv_bn_eval(folded.cnn[last - 1], folded.cnn[last])  # type: ignore[type-var,arg-type]
        folded.cnn[last] = nn.Identity()
        folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return folded


class ConvBN(nn.Module):
    """Convolution without bias, batch norm, ReLU."""

    def __init__(self, inp: int, out: int, kernel: int | tuple[int, int], stride: int = 1) -> None:
        super().__init__()
        padding: Any = tuple(k // 2 for k in kernel) if isinstance(kernel, tuple) else kernel // 2
        self.conv = nn.Conv2d(inp, out, kernel, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, out, H', W']."""
        return F.relu(self.bn(self.conv(x)))


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1)


class BlockA(nn.Module):
    """Inception block: 1x1, 5x5, two 3x3, pooled; stride 1."""

    def __init__(self, inp: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = ConvBN(inp, 64, 1)
        self.branch5x5_1 = ConvBN(inp, 48, 1)
        self.branch5x5_2 = ConvBN(48, 64, 5)
        self.branch3x3dbl_1 = ConvBN(inp, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3)
        self.branch_pool = ConvBN(inp, pooled, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, 224 + pooled, H, W]."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, three, self.branch_pool(_average(x))], 1)


class BlockB(nn.Module):
    """Inception block of stride 2: 3x3, two 3x3, max pool."""

    def __init__(self, inp: int) -> None:
        super().__init__()
        self.branch3x3 = ConvBN(inp, 384, 3, 2)
        self.branch3x3dbl_1 = ConvBN(inp, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, 480 + in, H / 2, W / 2]."""
        three = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), three, F.max_pool2d(x, 3, 2, 1)], 1)


class BlockC(nn.Module):
    """Inception block with 7-tap rows and columns; stride 1."""

    def __init__(self, inp: int, width: int) -> None:
        super().__init__()
        row, column = (1, 7), (7, 1)
        self.branch1x1 = ConvBN(inp, 192, 1)
        self.branch7x7_1 = ConvBN(inp, width, 1)
        self.branch7x7_2 = ConvBN(width, width, row)
        self.branch7x7_3 = ConvBN(width, 192, column)
        self.branch7x7dbl_1 = ConvBN(inp, width, 1)
        self.branch7x7dbl_2 = ConvBN(width, width, column)
        self.branch7x7dbl_3 = ConvBN(width, width, row)
        self.branch7x7dbl_4 = ConvBN(width, width, column)
        self.branch7x7dbl_5 = ConvBN(width, 192, row)
        self.branch_pool = ConvBN(inp, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, 768, H, W]."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(_average(x))], 1)


class BlockD(nn.Module):
    """Inception's second reduction block, here with stride 1.

    3x3, 7-tap and 3x3, the input itself.
    """

    def __init__(self, inp: int) -> None:
        super().__init__()
        self.branch3x3_1 = ConvBN(inp, 192, 1)
        self.branch3x3_2 = ConvBN(192, 320, 3)
        self.branch7x7x3_1 = ConvBN(inp, 192, 1)
        self.branch7x7x3_2 = ConvBN(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvBN(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvBN(192, 192, 3)

    def forward(self, x: Tensor) -> Tensor:
        """[B, in, H, W] -> [B, 512 + in, H, W]."""
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat([self.branch3x3_2(self.branch3x3_1(x)), seven, x], 1)


def _pool() -> nn.Module:
    return nn.MaxPool2d(3, 2, 1)


def _head(channels: int) -> list[nn.Module]:
    return [nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels)]


def _stem() -> list[nn.Module]:
    return [ConvBN(3, 32, 3, 2), ConvBN(32, 32, 3), ConvBN(32, 64, 3)]


def _mixed5() -> list[nn.Module]:
    return [BlockA(192, 32), BlockA(256, 64), BlockA(288, 64)]


def _fine() -> list[nn.Module]:
    return [*_stem(), ConvBN(64, 80, 3), ConvBN(80, 192, 3), *_mixed5(), *_head(288)]


def _coarse(no_maxpool: bool) -> list[nn.Module]:
    second = [] if no_maxpool else [_pool()]
    mixed6 = [BlockB(288), *(BlockC(768, width) for width in (128, 160, 160, 192))]
    middle = [_pool(), ConvBN(64, 80, 1), ConvBN(80, 192, 3), *second]
    return [*_stem(), *middle, *_mixed5(), *mixed6, BlockD(768), *_head(1280)]
