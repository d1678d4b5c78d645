"""DINOv2 vision transformers (ViT-S/B/L, patch 14, with and without registers), with the official parameter names.

Written from the DINOv2 paper and from MicKey's use of it: the feature map is the normalised patch tokens of the last
block. The position table is interpolated by the rule of the released models, which differs from transformers' rule at
every size but 518 x 518. Registers (Darcet et al., Vision Transformers Need Registers) are tokens without a place that
only take part in the attention; models with them interpolate their positions as transformers does.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.bounds import require_within

_LAYER_NORM_EPS = 1e-6
_OFFSET = 0.1  # of the released models, against rounding in the output size


@dataclass(frozen=True)
class DinoV2Config:
    """Shape of the transformer; the defaults are ViT-L/14, MicKey's backbone.

    >>> DinoV2Config(embed_dim=384, depth=12, num_heads=6).patch_size  # ViT-S/14
    14
    """

    embed_dim: int = 1024
    """Channels of a token."""
    depth: int = 24
    """Transformer blocks."""
    num_heads: int = 16
    """Heads of the attention of a block."""
    patch_size: int = 14
    """Side of a patch, pixels."""
    image_size: int = 518
    """Of the position table."""
    mlp_ratio: int = 4
    """Width of the hidden layer of a block over that of a token."""
    registers: int = 0
    """Number of register tokens, 4 in the released models that have any."""

    def __post_init__(self) -> None:
        require_within(self, embed_dim=(1, 16_384), depth=(1, 200), num_heads=(1, 1024))
        require_within(self, patch_size=(1, 1024), image_size=(1, 16_384), mlp_ratio=(1, 64))
        require_within(self, registers=(0, 1024))
        if self.embed_dim % self.num_heads:
            raise ValueError(f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}")


VIT_S = DinoV2Config(384, 12, 6)
VIT_B = DinoV2Config(768, 12, 12)
VIT_L = DinoV2Config(1024, 24, 16)
DINOV2: Mapping[str, DinoV2Config] = MappingProxyType(
    {
        f"dinov2_vit{letter}14{ending}": replace(shape, registers=registers)
        for letter, shape in (("s", VIT_S), ("b", VIT_B), ("l", VIT_L))
        for ending, registers in (("", 0), ("_reg", 4))
    }
)
"""The released models by their names, the giant left out."""


class DinoV2(nn.Module):
    """The vision transformer of DINOv2, as one feature map.

    Image [B, 3, H, W] -> [B, C, H // 14, W // 14]. Right and bottom remainders are cut away.
    Takes the image as it is: whoever wants ImageNet normalisation does it before (MicKey does not).
    Runs in the precision of its weights (cast the image alike). New weights are random.

    >>> network = DinoV2(DinoV2Config(embed_dim=16, depth=1, num_heads=2))
    >>> network(torch.zeros(1, 3, 28, 42)).shape
    torch.Size([1, 16, 2, 3])
    """

    def __init__(self, config: DinoV2Config = VIT_L) -> None:
        super().__init__()
        self.config = config
        self.stride = config.patch_size
        self.channels = config.embed_dim
        side = config.image_size // config.patch_size
        self.cls_token = nn.Parameter(torch.zeros(1, 1, config.embed_dim))
        self.pos_embed = nn.Parameter(
            nn.init.trunc_normal_(torch.empty(1, 1 + side * side, config.embed_dim), std=0.02)
        )
        # of the official weights; only pre-training uses it
        self.mask_token = nn.Parameter(torch.zeros(1, config.embed_dim))
        self.register_tokens = (
            nn.Parameter(nn.init.trunc_normal_(torch.empty(1, config.registers, config.embed_dim), std=0.02))
            if config.registers
            else None
        )
        self.patch_embed = PatchEmbedding(config)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.embed_dim, eps=_LAYER_NORM_EPS)
        self._grid: tuple[int, int] | None = None

    def for_grid(self, grid: tuple[int, int]) -> DinoV2:
        """A copy for images of this many patches (h, w) alone.

        Its positions are interpolated once; other weights are shared. It raises ValueError for
        images of another size.
        """
        other = copy.copy(self)
        with torch.no_grad():
            positions = nn.Parameter(self._positions(grid).clone(), requires_grad=False)
        other._parameters = {**self._parameters, "pos_embed": positions}
        other._grid = grid
        return other

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        h, w = image.shape[-2] // self.stride, image.shape[-1] // self.stride
        patches = self.tokens(image)[:, 1 + self.config.registers :]
        return patches.mT.unflatten(-1, (h, w))

    def tokens(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1+R+N C"]:
        """Normalised tokens of the last block. Class token, R registers, patches row by row."""
        x = self.embed(image)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def embed(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 1+R+N C"]:
        """Patch embeddings with positions added.

        The class token is in front, registers are between.
        """
        height, width = image.shape[-2:]
        h, w = height // self.stride, width // self.stride
        if min(h, w) < 1:
            raise ValueError(f"an image of {width}x{height} pixels is smaller than one patch of {self.stride} pixels")
        patches = self.patch_embed(image[..., : h * self.stride, : w * self.stride])
        x = torch.cat([self.cls_token.expand(len(image), -1, -1), patches], 1)
        x = x + self._positions((h, w)).to(x.dtype)
        if self.register_tokens is None:
            return x
        return torch.cat([x[:, :1], self.register_tokens.expand(len(x), -1, -1), x[:, 1:]], 1)

    def _positions(self, grid: tuple[int, int]) -> Float[Tensor, "1 1+N C"]:
        if self._grid is None:
            return interpolate_positions(self.pos_embed, grid, of_registers=self.register_tokens is not None)
        if self._grid != grid:
            raise ValueError(f"positions are those of a grid of {self._grid} patches (h, w), the image has {grid}")
        return self.pos_embed


class PatchEmbedding(nn.Module):
    """Non-overlapping patches -> tokens [B, N, C]."""

    def __init__(self, config: DinoV2Config) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, config.embed_dim, config.patch_size, stride=config.patch_size)

    def forward(self, image: Tensor) -> Tensor:
        return self.proj(image).flatten(2).mT


class LayerScale(nn.Module):
    """A learned factor a channel."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), 1e-5))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class Attention(nn.Module):
    """Multi-head self-attention. One linear layer gives queries, keys and values, in this order."""

    def __init__(self, config: DinoV2Config) -> None:
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.embed_dim, 3 * config.embed_dim)
        self.proj = nn.Linear(config.embed_dim, config.embed_dim)

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    """Two linear layers with GELU (erf) between."""

    def __init__(self, config: DinoV2Config) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.embed_dim, config.mlp_ratio * config.embed_dim)
        self.fc2 = nn.Linear(config.mlp_ratio * config.embed_dim, config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block with layer scale."""

    def __init__(self, config: DinoV2Config) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.embed_dim, eps=_LAYER_NORM_EPS)
        self.attn = Attention(config)
        self.ls1 = LayerScale(config.embed_dim)
        self.norm2 = nn.LayerNorm(config.embed_dim, eps=_LAYER_NORM_EPS)
        self.mlp = Mlp(config)
        self.ls2 = LayerScale(config.embed_dim)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


def interpolate_positions(
    table: Float[Tensor, "1 1+M C"], grid: tuple[int, int], of_registers: bool = False
) -> Float[Tensor, "1 1+N C"]:
    """The square position table at another grid (h, w), in float32. The class position stays as it is.

    Bicubic, no antialiasing, and called with scale factors ``(h + 0.1) / side``: torch then uses the factors, not the
    sizes, to map coordinates. This is the rule of the released models; transformers uses sizes, which moves features
    by up to 20 % of their spread at 714x532. A table of half precision is interpolated in float32 all the same.
    of_registers: the rule of the models with registers, sizes and antialiasing (as transformers runs them).
    """
    h, w = grid
    side = math.isqrt(table.shape[1] - 1)
    if (h, w) == (side, side):
        return table
    patches = table[:, 1:].float().mT.unflatten(-1, (side, side))
    if of_registers:
        resized = F.interpolate(patches, size=grid, mode="bicubic", align_corners=False, antialias=True)
    else:
        factors = ((h + _OFFSET) / side, (w + _OFFSET) / side)
        resized = F.interpolate(patches, scale_factor=factors, mode="bicubic", align_corners=False, antialias=False)
    if resized.shape[-2:] != (h, w):
        raise ValueError(f"the position table of side {side} cannot be interpolated to a {h}x{w} grid")
    return torch.cat([table[:, :1].float(), resized.flatten(2).mT], 1)


def dinov2_config_from_weights(state_dict: Mapping[str, Tensor], num_heads: int | None = None) -> DinoV2Config:
    """The shape that a state dict with official names was made for.

    num_heads: not visible in the weights; by default 64 channels a head for the published widths (S 384, B 768,
    L 1024). Raises ValueError for other widths without it, for missing entries, and for the giant's gated MLP, which
    this file does not implement.

    >>> tiny = DinoV2(DinoV2Config(embed_dim=16, depth=1, num_heads=2))
    >>> dinov2_config_from_weights(tiny.state_dict(), num_heads=2).depth
    1
    """
    gated = "blocks.0.mlp.w12.weight"
    if gated in state_dict:
        raise ValueError(f"DINOv2 weights with a gated MLP (ViT-g) are not supported: {gated!r} is present")
    try:
        embed_dim, positions = state_dict["cls_token"].shape[-1], state_dict["pos_embed"].shape[1] - 1
        patch_size = state_dict["patch_embed.proj.weight"].shape[-1]
        mlp_ratio = state_dict["blocks.0.mlp.fc1.weight"].shape[0] // embed_dim
    except KeyError as error:
        raise ValueError(f"not DINOv2 weights: {error.args[0]!r} is missing") from error
    side = math.isqrt(positions)
    if side * side != positions:
        raise ValueError(f"the position table must be square, got {positions} positions")
    if num_heads is None and embed_dim not in {shape.embed_dim for shape in (VIT_S, VIT_B, VIT_L)}:
        raise ValueError(f"num_heads must be given for DINOv2 weights of the unpublished width {embed_dim}")
    depth = len({key.split(".")[1] for key in state_dict if key.startswith("blocks.")})
    registers = state_dict["register_tokens"].shape[1] if "register_tokens" in state_dict else 0
    heads = num_heads or embed_dim // 64
    return DinoV2Config(embed_dim, depth, heads, patch_size, side * patch_size, mlp_ratio, registers)
