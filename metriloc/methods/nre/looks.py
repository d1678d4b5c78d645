"""How the stages of NRE look at a query and its references: features of both at one apparent scale."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.backbones.local import DenseExtractor, DenseMap, descriptors_at
from metriloc.geometry import Camera, Pose
from metriloc.io.view import resize_view
from metriloc.methods.nre.maps import map_camera
from metriloc.methods.nre.settings import StageConfig
from metriloc.types import View


@dataclass(frozen=True, eq=False)
class Reference:
    """One photo of the map and the points it describes. xyz: world; uv: pixels of the photo."""

    view: View
    index: Int[Tensor, " n"]
    xyz: Float[Tensor, "n 3"]
    uv: Float[Tensor, "n 2"]


class StageLook:
    """How a stage looks at the photos of a query and its references, so that the scene appears at one scale."""

    def __init__(
        self, features: DenseExtractor, config: StageConfig, query: View, seen: list[Reference], scale: float
    ) -> None:
        """scale: how much larger the query shows the scene than the references, at equal longer sides."""
        self._features, self._config, self._seen = features, config, seen
        self.temperature = features.temperature if config.temperature is None else config.temperature
        largest = config.enlarge * max(query.size), config.enlarge * max(max(r.view.size) for r in seen)
        # as large as both may be, with sides in the ratio 1 : scale
        side = min(config.longest_side, largest[0], config.longest_side / scale, largest[1] / scale)
        self._query = _resized(query, side)
        self._reference_side = side * scale

    def descriptors(self) -> Float[Tensor, "N C"]:
        """Of the points, read in the references."""
        parts = []
        for reference in self._seen:
            largest = self._config.enlarge * max(reference.view.size)
            view = _resized(reference.view, min(self._reference_side, largest))
            dense = self._features.dense(view.image).pooled(self._config.pool)
            ratio = torch.tensor(view.size) / torch.tensor(reference.view.size)
            cells = dense.to_cells((reference.uv + 0.5) * ratio - 0.5)
            parts.append(descriptors_at(dense.descriptors, cells.to(dense.descriptors), normalize=dense.unit))
        return torch.cat(parts)

    def query(self) -> DenseMap:
        """The dense features of the query."""
        self._dense = self._features.dense(self._query.image).pooled(self._config.pool)
        return self._dense

    def camera(self) -> Camera:
        """The camera whose pixels are the cells of ``query``'s map, once that was made."""
        return map_camera(self._query.camera.to("cpu"), self._dense.size, self._dense.stride, self._dense.origin)


def sights(seen: list[Reference]) -> tuple[Tensor, Tensor]:
    """Where the points are in the references that describe them, and in which."""
    owner = [torch.full((len(reference.uv),), i) for i, reference in enumerate(seen)]
    return torch.cat([reference.uv for reference in seen]), torch.cat(owner)


def apparent_scale(query: View, seen: list[Reference], pose: Pose) -> float:
    """How much larger the query shows the points than the references do, when both photos have the same longer side;
    the median over the points, 1 where none is in front of the query."""
    ratios = []
    for reference in seen:
        if reference.view.cam_from_world is None:
            continue
        z0 = reference.view.cam_from_world.transform(reference.xyz)[:, 2]
        z1 = pose.transform(reference.xyz)[:, 2]
        front = (z0 > 0) & (z1 > 0)
        f0 = float(reference.view.camera.f.mean()) / max(reference.view.size)
        f1 = float(query.camera.f.mean()) / max(query.size)
        ratios.append((f1 / z1[front]) / (f0 / z0[front]))
    joined = torch.cat(ratios) if ratios else torch.zeros(0)
    return float(joined.median()) if len(joined) else 1.0


def _resized(view: View, side: float) -> View:
    """With its longer side as given; sides that differ by less than a pixel are left alone."""
    factor = side / max(view.size)
    size = tuple(max(32, round(length * factor)) for length in view.size)
    return view if size == view.size else resize_view(replace(view, depth=None), (size[0], size[1]))
