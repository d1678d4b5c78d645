"""MicKey's network: a backbone and four heads with one trunk architecture, giving one metric keypoint a cell.

Paper Sec. 3.2 (architecture) and Eq. (12) (keypoint positions); where the published code differs from the paper, the
code is followed, because the released weights need it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from metriloc.backbones.dinov2 import DinoV2, DinoV2Config

Precision = Literal["auto", "fp32", "fp16", "bf16"]
_HALF = {"fp16": torch.float16, "bf16": torch.bfloat16}
_ATTENTION_EPS = 1e-6


class FeatureBackbone(Protocol):
    """Any network of photos: [B, 3, H, W] in 0..1 -> [B, channels, H // stride, W // stride]."""

    stride: int
    channels: int

    def __call__(self, image: Tensor) -> Tensor:
        """The feature map."""
        ...


@dataclass(frozen=True)
class MicKeyConfig:
    """Shape of the network; defaults are the released models.

    backbone: of DINOv2, or None when another backbone is handed in. blocks: channels of the four residual blocks.
    use_softmax: spatial softmax of the scores (else a sigmoid). max_depth: metres for the sigmoid depth option, None
    for the unbounded linear depth. score_temperature: of the spatial softmax. border: cells of zero score.
    train_backbone: let gradients into the backbone (published: frozen). precision: of the backbone; ``auto`` is fp16 on
    CUDA and fp32 elsewhere.
    """

    backbone: DinoV2Config | None = DinoV2Config()  # noqa: RUF009 - frozen
    blocks: tuple[int, int, int, int] = (512, 256, 128, 64)
    descriptor_dim: int = 128
    batch_norm: bool = True
    position_encoding: bool = True
    descriptor_position_encoding: bool = True
    use_softmax: bool = True
    max_depth: float | None = None
    normalise_descriptors: bool = True
    score_temperature: float = 100.0
    border: int = 3
    match_temperature: float = 0.1
    use_dustbin: bool = True
    train_backbone: bool = False
    precision: Precision = "auto"

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> MicKeyConfig:
        """From ``dataclasses.asdict``, as config.json holds it."""
        known = dict(values)
        if known.get("backbone") is not None:
            known["backbone"] = DinoV2Config(**known["backbone"])
        if "blocks" in known:
            known["blocks"] = tuple(known["blocks"])
        try:
            return cls(**known)
        except TypeError as error:
            raise ValueError(f"not a MicKey network configuration: {error}") from error


class KeypointMaps(NamedTuple):
    """Head outputs on the grid. offset: in the cell, 0..1, (x, y); depth: metres; score: sums to 1 an image."""

    offset: Float[Tensor, "B 2 h w"]
    depth: Float[Tensor, "B 1 h w"]
    score: Float[Tensor, "B 1 h w"]
    descriptor: Float[Tensor, "B C h w"]


class Keypoints(NamedTuple):
    """One keypoint a cell, row by row. uv: pixels of the input photo; depth: metres, of either sign."""

    uv: Float[Tensor, "B N 2"]
    depth: Float[Tensor, "B N"]
    score: Float[Tensor, "B N"]
    descriptor: Float[Tensor, "B N C"]
    grid: tuple[int, int]


class MicKeyNetwork(nn.Module):
    """Photos [B, 3, H, W], RGB in 0..1 without further normalisation -> ``KeypointMaps``.

    Any size is accepted; what does not fill a cell at the right and bottom is cropped away. The heads run in float32.
    """

    def __init__(self, config: MicKeyConfig, backbone: nn.Module | None = None) -> None:
        super().__init__()
        if backbone is None:
            if config.backbone is None:
                raise ValueError("MicKeyConfig.backbone is None: hand a backbone to MicKeyNetwork")
            backbone = DinoV2(config.backbone)
        self.config = config
        self.backbone = backbone
        channels: int = backbone.channels  # type: ignore[assignment]
        self.stride: int = backbone.stride  # type: ignore[assignment]
        last = config.blocks[3]
        self.offset_head = Head(config, channels, last, 2)
        self.depth_head = Head(config, channels, last, 1)
        self.score_head = Head(config, channels, last, 1)
        self.descriptor_head = Head(config, channels, config.descriptor_dim, None)
        # added to both softmaxes of the matcher: the chance that a keypoint has no partner
        self.dustbin = nn.Parameter(torch.ones(()))
        if not config.train_backbone:
            self.backbone.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> MicKeyNetwork:
        """As ``nn.Module.train``; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if not self.config.train_backbone:
            self.backbone.eval()
        return self

    def forward(self, image: Float[Tensor, "B 3 H W"]) -> KeypointMaps:
        return self.heads(self.features(image))

    def features(self, image: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
        """The backbone's feature map in float32, in the precision the configuration asks for."""
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"image must have shape [B, 3, H, W], got {list(image.shape)}")
        h, w = image.shape[-2] // self.stride, image.shape[-1] // self.stride
        if min(h, w) < 1:
            raise ValueError(f"an image of {image.shape[-1]}x{image.shape[-2]} pixels is smaller than a cell of {self.stride}")
        image = image[..., : h * self.stride, : w * self.stride]
        half = self._half(image.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.config.train_backbone):
            if half is None:
                return self.backbone(image).float()
            # weights are cast once and stay so (as the released models run), not at every call by autocast
            if next(self.backbone.parameters()).dtype != half:
                self.backbone.to(half)
            return self.backbone(image.to(half)).float()

    def heads(self, features: Float[Tensor, "B C h w"]) -> KeypointMaps:
        """The four heads on a feature map."""
        config = self.config
        depth = self.depth_head(features)
        if config.max_depth is not None:
            depth = config.max_depth * torch.sigmoid(depth)
        logits = self.score_head(features)
        score = (
            spatial_softmax(logits, config.score_temperature, config.border)
            if config.use_softmax
            else _without_border(torch.sigmoid(logits), config.border)
        )
        descriptor = self.descriptor_head(features)
        if config.normalise_descriptors:
            descriptor = descriptor / (descriptor.square().sum(1, keepdim=True) + 1e-10).sqrt()
        return KeypointMaps(torch.sigmoid(self.offset_head(features)), depth, score, descriptor)

    def _half(self, device: torch.device) -> torch.dtype | None:
        precision = self.config.precision
        if precision == "auto":
            return torch.float16 if device.type == "cuda" and not self.config.train_backbone else None
        if precision != "fp32" and device.type == "cpu":
            raise ValueError(f"precision {precision!r} on the CPU is not offered: it is tens of times slower than 'fp32'")
        return _HALF.get(precision)


class Head(nn.Module):
    """Res, Res, Res, self-attention, Res and, if ``outputs`` is given, a 1x1 convolution to the head's quantity.

    Without ``outputs`` (descriptors) the last block has no ReLU, so that descriptors may point anywhere.
    """

    def __init__(self, config: MicKeyConfig, channels: int, last: int, outputs: int | None) -> None:
        super().__init__()
        first, second, third, _ = config.blocks
        encode = config.position_encoding if outputs is not None else config.descriptor_position_encoding
        self.block1 = ResidualBlock(channels, first, config.batch_norm)
        self.block2 = ResidualBlock(first, second, config.batch_norm)
        self.block3 = ResidualBlock(second, third, config.batch_norm)
        self.attention = SelfAttention(third, encode)
        self.block4 = ResidualBlock(third, last, config.batch_norm, final_relu=outputs is not None)
        self.output = nn.Conv2d(last, outputs, 1, bias=False) if outputs is not None else nn.Identity()

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        x = self.block3(self.block2(self.block1(x)))
        return self.output(self.block4(self.attention(x)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm; 1x1 convolution on the shortcut where the width changes."""

    def __init__(self, channels_in: int, channels_out: int, batch_norm: bool, final_relu: bool = True) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels_out) if batch_norm else nn.Identity()
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out) if batch_norm else nn.Identity()
        same = channels_in == channels_out
        self.shortcut = nn.Identity() if same else nn.Conv2d(channels_in, channels_out, 1, bias=False)
        self.final_relu = final_relu

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y = y + self.shortcut(x)
        return F.relu(y) if self.final_relu else y


class SelfAttention(nn.Module):
    """Three layers of linear self-attention over all cells, after adding a sine position encoding."""

    def __init__(self, dim: int, encode: bool, num_layers: int = 3) -> None:
        super().__init__()
        self.encode = encode
        self.layers = nn.ModuleList(LinearAttentionLayer(dim) for _ in range(num_layers))

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C h w"]:
        grid = x.shape[-2:]
        if self.encode:
            x = x + sine_encoding(x.shape[1], grid[0], grid[1], x)
        tokens = x.flatten(2).mT
        for layer in self.layers:
            tokens = layer(tokens)
        return tokens.mT.unflatten(-1, grid)


class LinearAttentionLayer(nn.Module):
    """Linear attention (feature map elu + 1) with a message MLP, as in LoFTR; LayerNorm on the message, not on x."""

    def __init__(self, dim: int, num_heads: int = 8) -> None:
        super().__init__()
        if dim % num_heads:
            raise ValueError(f"the third entry of blocks, {dim}, must be a multiple of {num_heads} attention heads")
        self.num_heads = num_heads
        self.q = nn.Linear(dim, dim, bias=False)
        self.k = nn.Linear(dim, dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.merge = nn.Linear(dim, dim, bias=False)
        self.norm1 = nn.LayerNorm(dim)
        self.mlp1 = nn.Linear(2 * dim, 2 * dim, bias=False)
        self.mlp2 = nn.Linear(2 * dim, dim, bias=False)
        self.norm2 = nn.LayerNorm(dim)
        for matrix in (self.q, self.k, self.v, self.merge, self.mlp1, self.mlp2):
            nn.init.xavier_uniform_(matrix.weight)

    def forward(self, x: Float[Tensor, "B N C"]) -> Float[Tensor, "B N C"]:
        heads = (self.num_heads, -1)
        q = F.elu(self.q(x).unflatten(-1, heads)) + 1
        k = F.elu(self.k(x).unflatten(-1, heads)) + 1
        v = self.v(x).unflatten(-1, heads) / x.shape[1]  # divided by N here and multiplied below: no overflow in half
        kv = torch.einsum("bnhd,bnhe->bhde", k, v)
        z = 1 / (torch.einsum("bnhd,bhd->bnh", q, k.sum(1)) + _ATTENTION_EPS)
        message = torch.einsum("bnhd,bhde,bnh->bnhe", q, kv, z) * x.shape[1]
        message = self.norm1(self.merge(message.flatten(-2)))
        message = self.mlp2(F.relu(self.mlp1(torch.cat([x, message], -1))))
        return x + self.norm2(message)


def sine_encoding(dim: int, h: int, w: int, like: Tensor) -> Float[Tensor, "1 dim h w"]:
    """Sines and cosines of column and row, counted from 1, in groups of four channels; any grid size."""
    frequency = torch.exp(torch.arange(dim // 4, device=like.device) * (-2 * math.log(10000.0) / (dim // 2)))
    x = torch.arange(1, w + 1, device=like.device)[None, None, :] * frequency[:, None, None]
    y = torch.arange(1, h + 1, device=like.device)[None, :, None] * frequency[:, None, None]
    x, y = x.expand(-1, h, w), y.expand(-1, h, w)
    return torch.stack([x.sin(), x.cos(), y.sin(), y.cos()], 1).flatten(0, 1)[None].to(like.dtype)


def spatial_softmax(logits: Float[Tensor, "B 1 h w"], temperature: float, border: int) -> Float[Tensor, "B 1 h w"]:
    """Scores that sum to 1 over the cells at least ``border`` away from the edge; the others are 0.

    Differs from the paper: a temperature of 100 and a border. The published code subtracts the (detached) mean before
    the exponential; subtracting the maximum gives the same quotient and cannot overflow. A grid that is all border
    gives zeros.
    """
    # Same value and gradient as with the mean, because the shift cancels.
    shifted = (logits - logits.detach().amax((-2, -1), keepdim=True)) / temperature
    weight = _without_border(shifted.exp(), border)
    return weight / (weight.sum((-2, -1), keepdim=True) + 1e-16)


def _without_border(scores: Tensor, border: int) -> Tensor:
    h, w = scores.shape[-2:]
    inside = torch.zeros(h, w, dtype=torch.bool, device=scores.device)
    inside[border : max(h - border, 0), border : max(w - border, 0)] = True
    return scores * inside


def keypoints(maps: KeypointMaps, stride: int) -> Keypoints:
    """Grid maps -> keypoints: ``uv = stride (offset + [column, row])``, paper Eq. (12)."""
    h, w = maps.offset.shape[-2:]
    device = maps.offset.device
    rows, columns = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    uv = stride * (maps.offset + torch.stack([columns, rows]))
    return Keypoints(
        uv.flatten(2).mT, maps.depth.flatten(1), maps.score.flatten(1), maps.descriptor.flatten(2).mT, (h, w)
    )
