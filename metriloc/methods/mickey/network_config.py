"""Shape and precision of MicKey's network (paper Sec. 3.2, Tables 4 and 5), as config.json holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch

from metriloc.backbones import DinoV2Config, EfficientNetLiteConfig
from metriloc.bounds import require_flags, require_within
from metriloc.methods.mickey.trunk import ATTENTION_HEADS

Precision = Literal["auto", "fp32", "fp16", "bf16"]
HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}


_MAX_WIDTH, _MAX_SIDE = 16_384, 8192


_RENAMED = {"normalise_descriptors": "normalize_descriptors", "pixel_centres": "pixel_centers"}
"""Names that older files of weights have."""


@dataclass(frozen=True)
class MicKeyConfig:
    """Shape of the network; defaults are the released models.

    Not in the paper, for compact models and off by default: ``longest_side``, ``log_depth``,
    ``canonical_focal``, ``pixel_centers``, ``depth_side``.
    """

    backbone: DinoV2Config | EfficientNetLiteConfig | None = DinoV2Config()  # noqa: RUF009 - frozen
    """Of DINOv2, or None when another backbone is handed in."""
    blocks: tuple[int, int, int, int] = (512, 256, 128, 64)
    """Channels of the four residual blocks; the third is the width of the attention and a multiple
    of 8. The descriptor head ends in ``descriptor_dim`` instead."""
    descriptor_dim: int = 128
    """Channels of a descriptor."""
    batch_norm: bool = True
    """Batch norms in the residual blocks."""
    position_encoding: bool = True
    """The attention of the heads is told where cells are."""
    descriptor_position_encoding: bool = True
    """That of the descriptor head is told, too."""
    use_softmax: bool = True
    """Spatial softmax of the scores (else a sigmoid each)."""
    max_depth: float | None = None
    """Metres for the sigmoid depth option; None for the unbounded linear depth."""
    normalize_descriptors: bool = True
    """Descriptors of unit length."""
    score_temperature: float = 100.0
    """Of the spatial softmax."""
    border: int = 3
    """Cells of zero score along the edge."""
    match_temperature: float = 0.1
    """Of the matcher: similarities are divided by it."""
    use_dustbin: bool = True
    """The matcher may leave keypoints without a partner."""
    train_backbone: bool = False
    """Let gradients into the backbone (published: frozen)."""
    precision: Precision = "auto"
    """Of the backbone; ``auto`` is fp16 on CUDA (fp32 when it is trained), else fp32."""
    longest_side: int | None = None
    """Pixels that photos are resized to before the backbone."""
    log_depth: bool = False
    """The depth head gives the logarithm of the depth."""
    canonical_focal: float | None = None
    """The depth head speaks for a camera of this focal length (pixels of the resized photo); metres
    are its depth times the photo's focal length over this one, so that a zoomed photo needs nothing
    new."""
    pixel_centers: bool = False
    """Keypoints count from the centre of the first pixel."""
    depth_side: int | None = None
    """Longest side of the photos of the depth head where it differs, in a pass of its own:
    keypoints gain from more pixels than a network was trained with, depths lose by them (their
    logarithms are interpolated; canonical_focal belongs to this size)."""

    def __post_init__(self) -> None:
        whole = all(type(width) is int and 1 <= width <= _MAX_WIDTH for width in self.blocks)
        if len(self.blocks) != 4 or not whole or self.blocks[2] % ATTENTION_HEADS:
            raise ValueError(
                f"blocks must be four widths of at most {_MAX_WIDTH}, the third a multiple of {ATTENTION_HEADS}, "
                f"got {self.blocks}"
            )
        positive = (1e-9, 1e9)
        require_within(self, descriptor_dim=(1, _MAX_WIDTH), longest_side=(1, _MAX_SIDE), depth_side=(1, _MAX_SIDE))
        require_within(self, max_depth=positive, score_temperature=positive, match_temperature=positive)
        require_within(self, canonical_focal=positive, border=(0, 1000))
        require_flags(self, "batch_norm", "position_encoding", "descriptor_position_encoding", "use_softmax")
        require_flags(self, "normalize_descriptors", "use_dustbin", "train_backbone", "log_depth", "pixel_centers")
        if self.log_depth and self.max_depth is not None:
            raise ValueError(f"MicKeyConfig.log_depth and max_depth {self.max_depth} exclude each other")
        if self.depth_side is not None and (self.longest_side is None or not self.log_depth):
            raise ValueError(f"MicKeyConfig.depth_side {self.depth_side} needs longest_side and log_depth")
        if self.precision not in get_args(Precision):
            raise ValueError(f"precision must be one of {', '.join(get_args(Precision))}, got {self.precision!r}")
        if self.train_backbone and self.precision in HALF:
            raise ValueError(f"a backbone that is trained needs precision 'fp32' or 'auto', got {self.precision!r}")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MicKeyConfig:
        """From ``dataclasses.asdict``, as config.json holds it. Raises ValueError for what does not belong there."""
        known = {_RENAMED.get(name, name): value for name, value in values.items()}
        try:
            if known.get("backbone") is not None:
                kind = EfficientNetLiteConfig if "variant" in known["backbone"] else DinoV2Config
                known["backbone"] = kind(**known["backbone"])
            if "blocks" in known:
                known["blocks"] = tuple(known["blocks"])
            return cls(**known)
        except TypeError as error:
            raise ValueError(f"not a MicKey network configuration: {error}") from error
