"""PixLoc's network: a U-Net with confidences on a VGG or ResNet (or features to compare it with), and the learned damping.

It maps photos, RGB in 0..1, to a ``FeaturePyramid``, finest level first. A level's map covers the first ``stride * w``
columns and ``stride * h`` rows of the photo: what does not fill a cell at the right and bottom is cropped away. Names of
tensors are those of the released checkpoints. (PixLoc paper, Eq. (6).)
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metriloc.backbones.folding import fold_batch_norms
from metriloc.backbones.resnet import ResNet, ResNetConfig
from metriloc.backbones.vgg import VGG, VGGConfig, normalize_imagenet
from metriloc.bounds import require_all_within, require_flags
from metriloc.methods.pixloc.align import learned_damping
from metriloc.methods.pixloc.light_encoder import LightEncoder, LightEncoderConfig
from metriloc.methods.pixloc.other_networks import GaussianConfig, GaussianPyramid, S2DNet, S2DNetConfig
from metriloc.methods.pixloc.pyramid import FeaturePyramid, check_image, with_tuples


class PyramidEncoder(Protocol):
    """What the U-Net stands on.

    Normalised photos -> maps at strides 1, 2, 4, ...; must also be an ``nn.Module``.
    """

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        ...

    def __call__(self, image: Float[Tensor, "B 3 H W"]) -> list[Tensor]:
        """The maps, finest first."""
        ...


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the U-Net; defaults are pixloc_megadepth. pixloc_cmu has ``encoder=VGG16``."""

    encoder: VGGConfig | ResNetConfig | LightEncoderConfig | None = field(default_factory=VGGConfig)
    """A VGG, a ResNet, the light one, or None when another is handed in."""
    decoder: tuple[int, ...] | None = (64, 64, 64, 32)
    """Widths from coarse to fine, or None for none."""
    levels: tuple[int, ...] = (0, 2, 4)
    """Log2 of the strides that are put out."""
    channels: tuple[int, ...] = (32, 128, 128)
    """Of the maps of each level."""
    batch_norm: bool = True
    """Batch norms in the decoder."""
    confidences: bool = True
    """Put out how far each cell can be trusted."""
    checkpointed: bool = False
    """Less memory in training, more time (of a ResNet in the decoder alone)."""
    freeze_batch_norm: bool = False
    """Keep its statistics in training."""

    def __post_init__(self) -> None:
        require_all_within(self, 0, 10, "levels")
        require_all_within(self, 1, 16_384, "channels", "decoder")
        require_flags(self, "batch_norm", "confidences", "checkpointed", "freeze_batch_norm")
        if not self.levels or len(self.levels) != len(self.channels) or list(self.levels) != sorted(set(self.levels)):
            raise ValueError(f"levels must increase, with one width each, got {self.levels} and {self.channels}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> UNetConfig:
        """From ``dataclasses.asdict``, as config.json holds it. Raises ValueError for what does not belong there."""
        try:
            known = with_tuples(values)
            if known.get("encoder") is not None:
                own = with_tuples(known["encoder"])
                kind = LightEncoderConfig if "first" in own else ResNetConfig if "layers" in own else VGGConfig
                known["encoder"] = kind(**own)
            return cls(**known)
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a PixLoc network configuration: {error}") from error


class _DecoderBlock(nn.Module):
    """Twice as large, the skip beside it, one convolution. ``layers``: convolution, norm (or nothing), ReLU."""

    def __init__(self, below: int, skip: int, width: int, batch_norm: bool) -> None:
        super().__init__()
        norm: list[nn.Module] = [nn.BatchNorm2d(width)] if batch_norm else []
        self.layers = nn.Sequential(nn.Conv2d(below + skip, width, 3, padding=1, bias=not batch_norm), *norm, nn.ReLU())

    def forward(self, below: Tensor, skip: Tensor, checkpointed: bool) -> Tensor:
        if checkpointed and torch.is_grad_enabled():
            # the norm stays outside: computed twice, it would count its statistics twice
            found = checkpoint(self._convolve, below, skip, use_reentrant=False)
        else:
            found = self._convolve(below, skip)
        return self.layers[1:](found)

    def _convolve(self, below: Tensor, skip: Tensor) -> Tensor:
        below = F.interpolate(below, scale_factor=2, mode="bilinear", align_corners=False)
        skip = skip[..., : below.shape[-2], : below.shape[-1]]
        return self.layers[0](torch.cat([below, skip], 1))


class UNet(nn.Module):
    """Photos -> ``FeaturePyramid`` through an encoder and a light decoder. New weights are random.

    encoder: in place of ``config.encoder``. Raises ValueError for configurations that fit together in no network.
    """

    def __init__(self, config: UNetConfig | None = None, encoder: PyramidEncoder | None = None) -> None:
        super().__init__()
        self.config = config = config or UNetConfig()
        if encoder is None:
            if config.encoder is None:
                raise ValueError("UNetConfig.encoder is None: hand an encoder to UNet")
            if isinstance(config.encoder, LightEncoderConfig):
                encoder = LightEncoder(config.encoder)
            elif isinstance(config.encoder, ResNetConfig):
                encoder = ResNet(config.encoder)
            else:
                encoder = VGG(config.encoder, config.checkpointed)
        if not isinstance(encoder, nn.Module):
            raise ValueError(f"an encoder must be an nn.Module, got {type(encoder).__name__}")
        depth = len(encoder.channels) - 1
        if config.decoder is not None and len(config.decoder) > depth:
            raise ValueError(f"{len(config.decoder)} decoder blocks do not fit {depth} poolings of the encoder")
        self.encoder = encoder
        widths = list(encoder.channels)
        blocks = []
        for number, width in enumerate(config.decoder or ()):
            stage = depth - 1 - number
            blocks.append(_DecoderBlock(widths[stage + 1], encoder.channels[stage], width, config.batch_norm))
            widths[stage] = width
        if config.decoder is not None:
            self.decoder = nn.ModuleList(blocks)
        if max(config.levels) > depth or (min(config.levels) < depth - len(blocks) and config.decoder is not None):
            raise ValueError(f"levels {config.levels} are not among those of {depth} poolings and their decoder")
        self.strides = tuple(2**level for level in config.levels)
        self.adaptation = nn.ModuleList(
            nn.Sequential(nn.Conv2d(widths[level], width, 1))
            for level, width in zip(config.levels, config.channels, strict=True)
        )
        if config.confidences:
            self.uncertainty = nn.ModuleList(nn.Sequential(nn.Conv2d(widths[level], 1, 1)) for level in config.levels)

    @property
    def smallest_side(self) -> int:
        """Of the coarsest cell."""
        return int(2 ** (len(self.encoder.channels) - 1))

    def train(self, mode: bool = True) -> UNet:
        """As ``nn.Module.train``; frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self.config.freeze_batch_norm:
            for module in self.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()
        return self

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> FeaturePyramid:
        """The maps of every level, and confidences.

        Raises ValueError for an image that is not [B, 3, H, W] of floats, or smaller than the
        coarsest cell.
        """
        check_image(image, self.smallest_side)
        maps = self.encoder(normalize_imagenet(image))
        depth = len(maps) - 1
        if self.config.decoder is not None:
            for number, block in enumerate(self.decoder):
                stage = depth - 1 - number
                if stage < min(self.config.levels):
                    break
                maps[stage] = block(maps[stage + 1], maps[stage], self.config.checkpointed)
        chosen = [maps[level] for level in self.config.levels]
        features = tuple(head(m) for head, m in zip(self.adaptation, chosen, strict=True))
        confidences = None
        if self.config.confidences:
            # Eq. (6): 1 / (1 + uncertainty), the uncertainty an exponential
            confidences = tuple(torch.sigmoid(-head(m)) for head, m in zip(self.uncertainty, chosen, strict=True))
        return FeaturePyramid(features, confidences)

    def fold_batch_norms(self) -> UNet:
        """A copy for inference whose norms are merged into the convolutions.

        It is in channels-last memory. The same maps up to rounding. Its state dict has other
        entries: save the original instead.
        """
        folded = copy.deepcopy(self).eval().requires_grad_(False)
        fold_batch_norms(folded)
        return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


class _Damping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.const = nn.Parameter(torch.zeros(6))


class LearnedDamping(nn.Module):
    """Damping factors of one level, in the order [t, w], as free parameters: ``10^(low + sigmoid(const)(high - low))``."""

    def __init__(self, low: float = -6.0, high: float = 5.0) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.dampingnet = _Damping()

    def forward(self) -> Float[Tensor, " 6"]:
        return learned_damping(self.dampingnet.const, self.low, self.high)


@dataclass(frozen=True)
class NetworkConfig:
    """Everything that is learned: features and damping."""

    extractor: UNetConfig | S2DNetConfig | GaussianConfig = field(default_factory=UNetConfig)
    """Shape of the U-Net, or of other features."""
    learned_damping: bool = True
    """Hold one ``LearnedDamping`` a level."""
    shared_damping: bool = False
    """One for all levels."""
    damping_range: tuple[float, float] = (-6.0, 5.0)
    """Log10 of the least and the largest factor."""

    def __post_init__(self) -> None:
        require_flags(self, "learned_damping", "shared_damping")
        require_all_within(self, -100.0, 100.0, "damping_range", most=2)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NetworkConfig:
        """From ``dataclasses.asdict``. Raises ValueError for what does not belong there."""
        known = dict(values)
        try:
            known["extractor"] = _extractor_config(known.get("extractor", {}))
            low, high = known.get("damping_range", (-6.0, 5.0))
            known["damping_range"] = (float(low), float(high))
            return cls(**known)
        except (TypeError, AttributeError, OverflowError) as error:
            raise ValueError(f"not a PixLoc network configuration: {error}") from error


def _extractor_config(values: Mapping[str, Any]) -> UNetConfig | S2DNetConfig | GaussianConfig:
    if "layers" in values:
        return S2DNetConfig(**with_tuples(values))
    return GaussianConfig(**with_tuples(values)) if "strides" in values else UNetConfig.from_dict(values)


def _make_extractor(
    config: UNetConfig | S2DNetConfig | GaussianConfig, encoder: PyramidEncoder | None
) -> UNet | S2DNet | GaussianPyramid:
    if isinstance(config, UNetConfig):
        return UNet(config, encoder)
    if encoder is not None:
        raise ValueError(f"{type(config).__name__} takes no encoder; only a U-Net does")
    return S2DNet(config) if isinstance(config, S2DNetConfig) else GaussianPyramid(config)


class PixLocNetwork(nn.Module):
    """Everything of PixLoc that is learned.

    That is the feature extractor and the damping factors, finest level first.
    """

    def __init__(self, config: NetworkConfig | None = None, encoder: PyramidEncoder | None = None) -> None:
        super().__init__()
        self.config = config = config or NetworkConfig()
        self.extractor = _make_extractor(config.extractor, encoder)
        count = 0 if not config.learned_damping else 1 if config.shared_damping else self.num_levels
        if config.shared_damping and count:
            self.optimizer: nn.Module = LearnedDamping(*config.damping_range)
        else:
            self.optimizer = nn.ModuleList(LearnedDamping(*config.damping_range) for _ in range(count))

    @property
    def num_levels(self) -> int:
        """Levels of the pyramid."""
        return len(self.extractor.strides)

    def damping(self, level: int) -> Float[Tensor, " 6"] | None:
        """Factors of a level (0 is the finest). None when they are not learned."""
        if isinstance(self.optimizer, LearnedDamping):
            return self.optimizer()
        if isinstance(self.optimizer, nn.ModuleList) and len(self.optimizer):
            return self.optimizer[level]()
        return None

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> FeaturePyramid:
        """The extractor's."""
        pyramid: FeaturePyramid = self.extractor(image)
        return pyramid
