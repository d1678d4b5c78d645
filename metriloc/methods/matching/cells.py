"""Points of a map and cells of a query: which are alike, and where references saw the points."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.backbones.local import DenseMap
from metriloc.geometry import Camera, Pose
from metriloc.io.reference_features import require_channels
from metriloc.solvers.absolute_support import ScoreMaps, some_in_view
from metriloc.types import SfmMap

_CHUNK = 1 << 25  # similarities in memory at once
_RIVAL_CELLS = 16_000


def similarities(
    pose: Pose, xyz: Float[Tensor, "n 3"], descriptors: Tensor, dense: DenseMap, camera: Camera
) -> ScoreMaps:
    """Of some of the points in view, to cells of the query that are made larger where there are very many."""
    index = some_in_view(pose, xyz, camera)
    dense = dense.pooled(max(1, math.ceil(math.sqrt(dense.size[0] * dense.size[1] / _RIVAL_CELLS))))
    scores = torch.einsum("nc,chw->nhw", descriptors[index.to(descriptors.device)], dense.descriptors)
    camera = camera.to(torch.float64)
    stride, origin, size = (camera.f.new_tensor(pair) for pair in (dense.stride, dense.origin, dense.size))
    cells = replace(camera, size=size.to(camera.size), f=camera.f / stride, c=(camera.c - origin) / stride)
    return ScoreMaps(scores, xyz[index], cells)


def first_sights(
    scene: SfmMap, references: Sequence[str], points: Int[Tensor, " n"]
) -> tuple[Float[Tensor, "n 2"], Int[Tensor, " n"]]:
    """Pixels of the first reference that sees each point, and which one that is (-1 where none does)."""
    uv, owner = torch.zeros(len(points), 2, dtype=scene.uv.dtype), torch.full((len(points),), -1)
    place = torch.full((len(scene.xyz),), -1)
    for number in reversed(range(len(references))):
        seen = scene.observations_of(scene.index(references[number]))
        place.fill_(-1)
        place[scene.point_index[seen]] = torch.arange(seen.start, seen.stop)
        here = place[points]
        uv[here >= 0], owner[here >= 0] = scene.uv[here[here >= 0]], number
    return uv, owner


def nearest_cells(
    descriptors: Float[Tensor, "n C"], dense: DenseMap
) -> tuple[Float[Tensor, "n 2"], Bool[Tensor, " n"]]:
    """The most similar cell (x, y) of each descriptor, and whether it chooses it back. Raises InputError for descriptors of
    another network."""
    require_channels(descriptors, dense)
    cells = dense.descriptors.flatten(1)
    w, _ = dense.size
    # the largest of each column is found without where it is, which would cost more than the product itself
    best = torch.full((cells.shape[1],), -2.0, device=cells.device)
    values, choices = [], []
    chunk = max(1, _CHUNK // cells.shape[1])
    for begin in range(0, len(descriptors), chunk):
        similarity = descriptors[begin : begin + chunk] @ cells
        value, index = similarity.max(1)
        values.append(value)
        choices.append(index)
        best = torch.maximum(best, similarity.amax(0))
    value, choice = torch.cat(values), torch.cat(choices)
    point = torch.arange(len(descriptors), device=cells.device)
    chosen_back = value == best[choice]
    # of points that are equally alike, the first
    owner = torch.full_like(best, len(descriptors), dtype=torch.long)
    owner.scatter_reduce_(0, choice[chosen_back], point[chosen_back], "amin")
    mutual = chosen_back & (owner[choice] == point)
    return torch.stack([choice % w, choice // w], -1).float().cpu(), mutual.cpu()
