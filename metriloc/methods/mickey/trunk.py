"""The trunk that MicKey's four heads share in kind: residual blocks around linear self-attention.

Paper Sec. 3.2 and Tables 4 and 5; the attention is that of LoFTR (linear attention with feature map elu + 1). Details
the paper leaves open follow the released weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

ATTENTION_HEADS = 8
_ATTENTION_EPS = 1e-6


class Trunk(nn.Module):
    """One head.

    Res, Res, Res, self-attention, Res and, if ``outputs`` is given, a 1x1 convolution to its
    quantity.

    Without ``outputs`` (descriptors) the last block has no ReLU, so that descriptors may point anywhere.
    Differs from the paper: 1x1 instead of 3x3 for the depth, as in the released weights.
    """

    def __init__(
        self,
        channels: int,
        blocks: tuple[int, int, int, int],
        outputs: int | None,
        batch_norm: bool = True,
        encode: bool = True,
    ) -> None:
        super().__init__()
        first, second, third, fourth = blocks
        self.block1 = ResidualBlock(channels, first, batch_norm)
        self.block2 = ResidualBlock(first, second, batch_norm)
        self.block3 = ResidualBlock(second, third, batch_norm)
        self.attention = SelfAttention(third, encode)
        self.block4 = ResidualBlock(third, fourth, batch_norm, final_relu=outputs is not None)
        self.output = nn.Conv2d(fourth, outputs, 1, bias=False) if outputs is not None else nn.Identity()

    def forward(self, x: Float[Tensor, "B C h w"]) -> Float[Tensor, "B D h w"]:
        x = self.block3(self.block2(self.block1(x)))
        return self.output(self.block4(self.attention(x)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm.

    1x1 convolution on the shortcut where the width changes.
    """

    bn1: nn.Module
    bn2: nn.Module

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

    def __init__(self, dim: int, num_heads: int = ATTENTION_HEADS) -> None:
        super().__init__()
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
    """Sines and cosines of column and row, counted from 1, in groups of four channels; any grid size.

    dim: a multiple of 4. like: gives device and precision.
    """

    def counted(first: int, last: int) -> Tensor:  # made where it is needed: a copy to a GPU would wait for it
        return torch.arange(first, last, device=like.device).to(like.dtype)

    frequency = torch.exp(counted(0, dim // 4) * (-2 * math.log(10000.0) / (dim // 2)))[:, None, None]
    x = counted(1, w + 1)[None, None, :] * frequency
    y = counted(1, h + 1)[None, :, None] * frequency
    parts = (x.sin(), x.cos(), y.sin(), y.cos())
    return torch.stack([part.expand(-1, h, w) for part in parts], 1).flatten(0, 1)[None]
