"""Keypoints of MicKey: maps of its heads on the grid of cells, and the keypoint of each cell (paper Eq. (12))."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metriloc.types import View


@dataclass(frozen=True, eq=False)
class KeypointMaps:
    """Head outputs on the grid. offset: in the cell, 0..1, (x, y); depth: metres, of either sign; score: sums to 1 an
    image (0 everywhere on a grid that is all border); descriptor: unit length."""

    offset: Float[Tensor, "B 2 h w"]
    depth: Float[Tensor, "B 1 h w"]
    score: Float[Tensor, "B 1 h w"]
    descriptor: Float[Tensor, "B C h w"]


@dataclass(frozen=True, eq=False)
class Keypoints:
    """One keypoint a cell, row by row. uv: pixels of the input photo; depth: metres, of either sign; grid: (h, w)."""

    uv: Float[Tensor, "B N 2"]
    depth: Float[Tensor, "B N"]
    score: Float[Tensor, "B N"]
    descriptor: Float[Tensor, "B N C"]
    grid: tuple[int, int]


def spatial_softmax(logits: Float[Tensor, "B 1 h w"], temperature: float, border: int) -> Float[Tensor, "B 1 h w"]:
    """Keypoint probabilities.

    Sum to 1 over the cells at least ``border`` away from the edge, 0 elsewhere (Sec. 3.1.1).
    Differs from the paper: a temperature of 100, and a border. The published code subtracts the
    mean before the exponential where this subtracts the maximum: the same quotient and gradient,
    without overflow. A grid that is all border gives zeros, so that no match can be drawn.
    """
    inner = interior(logits, border)
    probability = torch.softmax(inner.flatten(1) / temperature, 1).reshape(inner.shape)
    return pad_border(probability, logits, border)


def interior(grid: Tensor, border: int) -> Tensor:
    h, w = grid.shape[-2:]
    return grid[..., border : max(h - border, border), border : max(w - border, border)]


def pad_border(inner: Tensor, like: Tensor, border: int) -> Tensor:
    if inner.numel() == 0:  # all border; padding would make it too large
        return torch.zeros_like(like)
    return F.pad(inner, (border, border, border, border))


def keypoints(maps: KeypointMaps, stride: int) -> Keypoints:
    """Grid maps -> keypoints. ``uv = stride (offset + [column, row])``, paper Eq. (12).

    Pixels count from the corner of the first pixel here, half a pixel off the intrinsics; the released offsets were
    trained with that and absorb it.
    """
    h, w = maps.offset.shape[-2:]
    device = maps.offset.device
    rows, columns = torch.meshgrid(torch.arange(h, device=device), torch.arange(w, device=device), indexing="ij")
    uv = stride * (maps.offset + torch.stack([columns, rows]))
    return Keypoints(
        uv.flatten(2).mT, maps.depth.flatten(1), maps.score.flatten(1), maps.descriptor.flatten(2).mT, (h, w)
    )


@dataclass(frozen=True, eq=False)
class MicKeyFeatures:
    """What MicKey keeps of one photo.

    These are its keypoints, one a cell, the cell's size (width, height) in pixels of the photo, the
    seconds they took, and the name of the weights.
    """

    view: View
    keypoints: Keypoints
    cell: tuple[float, float]
    seconds: float
    weights_id: str = "mickey-unsaved"

    def score_map(self) -> Float[Tensor, "h w"]:
        """Keypoint probabilities on the grid."""
        return self.keypoints.score[0].reshape(self.keypoints.grid)

    def depth_map(self) -> Float[Tensor, "h w"]:
        """Predicted depth on the grid, metres.

        May be zero or negative where the network knows nothing.
        """
        return self.keypoints.depth[0].reshape(self.keypoints.grid)

    @property
    def depth_origin(self) -> str:
        """The weights that predict it."""
        return f"predicted by {self.weights_id}"
