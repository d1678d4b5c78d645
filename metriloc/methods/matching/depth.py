"""Where a matching baseline gets its metres from: the photo's own depth map, a constant, or a method that predicts depth.

A depth source is a function of one photo that returns a depth map covering it (metres along z, 0 where unknown), or None.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from metriloc.methods.matching.depth_network import DepthNetwork
from metriloc.types import RelativePoseMethod, View

_STRIP = 1 << 20  # pixels
DepthSource = Callable[[View], "Tensor | None"]


@runtime_checkable
class SeeingSource(Protocol):
    """A depth source that may know more of a photo than its depth: the focal length."""

    def __call__(self, view: View) -> Tensor | None:
        """The depth alone."""
        ...

    def seen(self, view: View) -> View:
        """The photo with its depth and what else the source knows."""
        ...


def with_depth(source: DepthSource, view: View) -> View:
    """The photo with the depth of a source, and with its focal length where that is better than a guess."""
    if isinstance(source, SeeingSource):
        return source.seen(view)
    depth = source(view)
    return view if depth is view.depth else replace(view, depth=depth)


def depth_of_file(view: View) -> Tensor | None:
    """The depth map that came with the photo, if any."""
    return view.depth


def constant_depth(metres: float) -> DepthSource:
    """Every pixel at the same depth. Raises ValueError for a depth that is not positive and finite."""
    if not 0 < metres < float("inf"):
        raise ValueError(f"a constant depth must be a positive number of metres, got {metres}")

    def source(view: View) -> Tensor:
        return torch.full((view.image.shape[1], view.image.shape[2]), metres)

    return source


def depth_of_method(method: RelativePoseMethod) -> DepthSource:
    """The depth a method predicts for its cells, such as MicKey's, spread over the photo.

    The source returns None when the method predicts no depth.
    """

    def source(view: View) -> Tensor | None:
        features = method.extract(view)
        cells = features.depth_map()
        return None if cells is None else depth_from_cells(cells, features.cell, view.size)

    return source


def depth_of_network(network: DepthNetwork) -> DepthSource:
    """The depth that a network predicts, spread over the photo."""

    def source(view: View) -> Tensor:
        cells, _ = network.predict(view)
        cell = (view.size[0] / cells.shape[1], view.size[1] / cells.shape[0])
        return depth_from_cells(cells, cell, view.size)

    return source


def depth_from_cells(
    cells: Float[Tensor, "h w"], cell: tuple[float, float], size: tuple[int, int]
) -> Float[Tensor, "H W"]:
    """A depth map of the photo from cells of ``cell`` = (width, height) pixels that start at its corner, bilinear between
    their centres.

    Cells may end before the photo does (MicKey leaves out what is no whole cell); the last ones are repeated there.
    size: (w, h) of the photo.
    """
    h, w = cells.shape
    x = (torch.arange(size[0], dtype=torch.float32, device=cells.device) + 0.5) / cell[0] - 0.5
    y = (torch.arange(size[1], dtype=torch.float32, device=cells.device) + 0.5) / cell[1] - 0.5
    # cell -> -1..1 with cell centres at integers
    grid_x, grid_y = (2 * x + 1) / w - 1, (2 * y + 1) / h - 1
    full = cells.new_empty((size[1], size[0]), dtype=torch.float32)
    rows = max(1, _STRIP // size[0])  # places of all pixels at once would be twice the map
    for part, some in zip(full.split(rows), grid_y.split(rows), strict=True):
        grid = torch.stack(torch.meshgrid(grid_x, some, indexing="xy"), -1)
        part.copy_(
            F.grid_sample(cells[None, None].float(), grid[None], "bilinear", "border", align_corners=False)[0, 0]
        )
    return full
