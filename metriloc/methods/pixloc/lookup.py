"""Features and their slopes at pixels of maps, read as whole rows (PixLoc paper, Eq. (3)).

Maps are laid out as rows of C numbers, one a pixel: value and slopes of a bilinear field are three weighted sums of 4, 8
and 8 rows, made without a copy by ``embedding_bag``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import sample

EPS = 1e-12  # shortest length that a feature is divided by
_ROWS = 20  # rows a point reads: 4 for the value, 8 for each slope


@dataclass(frozen=True, eq=False)
class FeatureTable:
    """Feature maps of B images laid out for lookups.

    rows: one a pixel, image by image, row by row. inverse_norm: what each row is to be multiplied with, None for
    nothing: normalised maps are never written. confidence: one a pixel, or None. size: (width, height) of the maps.
    """

    rows: Float[Tensor, "R C"]
    inverse_norm: Float[Tensor, " R"] | None
    confidence: Float[Tensor, " R"] | None
    size: tuple[int, int]

    @property
    def batch(self) -> int:
        """How many images."""
        return len(self.rows) // (self.size[0] * self.size[1])

    @classmethod
    def from_maps(
        cls,
        fmap: Float[Tensor, "*b C H W"],
        confidence: Float[Tensor, "*b 1 H W"] | None = None,
        normalize: bool = True,
    ) -> FeatureTable:
        """From channels-first maps; free of copies when their memory is channels-last.

        - fmap, confidence: [*b, C, H, W] and [*b, 1, H, W]; None for no confidence.
        - normalize: to unit length.

        Raises ValueError when the shapes do not fit.
        """
        if fmap.ndim < 3:
            raise ValueError(f"a feature map must have shape [*b, C, H, W], got {list(fmap.shape)}")
        channels, height, width = fmap.shape[-3:]
        if confidence is not None and confidence.shape != (*fmap.shape[:-3], 1, height, width):
            raise ValueError(
                f"confidences must have shape {[*fmap.shape[:-3], 1, height, width]}, got {list(confidence.shape)}"
            )
        rows = fmap.reshape(-1, channels, height, width).permute(0, 2, 3, 1).reshape(-1, channels)
        inverse = 1 / torch.linalg.vector_norm(rows, dim=-1).clamp(min=EPS) if normalize else None
        return cls(rows, inverse, None if confidence is None else confidence.reshape(-1), (width, height))


class Interpolation(Protocol):
    """How to look up. mode: interpolation; pad: margin of the map in cells beyond which nothing is valid."""

    @property
    def mode(self) -> Literal["linear", "cubic"]: ...

    @property
    def pad(self) -> int: ...


class Lookup(NamedTuple):
    """terms: value, d/dx and d/dy. confidence: None without. inside: at least ``pad`` cells from the edge."""

    terms: Float[Tensor, "B N 3 C"]
    confidence: Float[Tensor, "B N"] | None
    inside: Bool[Tensor, "B N"]


def look_up(table: FeatureTable, uv: Float[Tensor, "B N 2"], config: Interpolation) -> Lookup:
    """Features and their spatial derivatives at pixels of the maps.

    Zeros outside, as ``geometry.sample`` gives them. Differentiable with respect to maps,
    confidences and pixels.
    """
    if config.mode == "cubic":
        return _look_up_cubic(table, uv, config.pad)
    width, height = table.size
    limit = uv.new_tensor([width - 1 - config.pad, height - 1 - config.pad])
    inside = ((uv >= config.pad) & (uv <= limit)).all(-1)
    index, weights = _stencil(uv, table.size)
    confidence = None
    if table.confidence is not None:
        confidence = (table.confidence[index[..., :4]] * weights[..., :4]).sum(-1)
    if table.inverse_norm is not None:
        weights = weights * table.inverse_norm[index]
    count = index.shape[0] * index.shape[1]
    starts = torch.arange(0, count * _ROWS, _ROWS, device=uv.device)[:, None] + index.new_tensor([0, 4, 12])
    terms = F.embedding_bag(
        index.flatten(), table.rows, starts.flatten(), mode="sum", per_sample_weights=weights.flatten()
    )
    return Lookup(terms.view(*index.shape[:2], 3, table.rows.shape[1]), confidence, inside)


def _stencil(uv: Tensor, size: tuple[int, int]) -> tuple[Int[Tensor, "B N 20"], Float[Tensor, "B N 20"]]:
    """Rows of the table and their weights: 4 for the bilinear value, 8 and 8 for central differences of one pixel.

    The points stand last until the end, because short last axes make every operation slow."""

    def constants(values: list[list[float]]) -> Tensor:
        return uv.new_tensor(values)[..., None, None, None]

    sizes = uv.new_tensor(size)[:, None, None]
    points = uv.movedim(-1, 0).contiguous()  # [axis, B, N]
    corner = points.detach().floor()
    fraction = points - corner
    # NaN and far points must still give an index; everything outside weighs nothing
    place = torch.nan_to_num(corner) + constants([[-1.0], [0.0], [1.0], [2.0]])[:, 0]
    inside = torch.minimum(place.clamp(min=0), sizes - 1)
    exists = place == inside  # [4, axis, B, N]
    # of four neighbours along an axis, as functions of the fraction: in the value, and in the difference
    constant = constants([[0.0, 1.0, 0.0, 0.0], [-0.5, 0.0, 0.5, 0.0]])
    slope = constants([[0.0, -1.0, 1.0, 0.0], [0.5, -0.5, -0.5, 0.5]])
    kernels = (constant + fraction * slope) * exists  # [kind, 4, axis, B, N]
    (vx, vy), (sx, sy) = kernels[0, 1:3].unbind(1), kernels[1].unbind(1)
    weights = torch.cat([(rows[:, None] * columns).flatten(0, 1) for rows, columns in ((vy, vx), (vy, sx), (sy, vx))])
    x, y = inside.long().unbind(1)
    if len(uv) > 1:
        y = y + size[1] * torch.arange(len(uv), device=uv.device)[:, None]
    flat = y[:, None] * size[0] + x
    index = torch.cat([part.flatten(0, 1) for part in (flat[1:3, 1:3], flat[1:3], flat[:, 1:3])])
    return index.permute(1, 2, 0).contiguous(), weights.permute(1, 2, 0).contiguous()


def _look_up_cubic(table: FeatureTable, uv: Tensor, pad: int) -> Lookup:
    rows = table.rows if table.inverse_norm is None else table.rows * table.inverse_norm[:, None]
    width, height = table.size
    found = sample(rows.view(-1, height, width, rows.shape[-1]).permute(0, 3, 1, 2), uv, "cubic", pad, gradients=True)
    terms = torch.cat([found.values[..., None, :], found.gradients.mT], -2)
    confidence = None
    if table.confidence is not None:
        confidence = sample(table.confidence.view(-1, 1, height, width), uv, "cubic", pad).values[..., 0]
    return Lookup(terms, confidence, found.valid)
