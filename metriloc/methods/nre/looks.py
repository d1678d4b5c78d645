"""How the stages of NRE look at a query and its references: features of both at one apparent scale."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.backbones.local import DenseExtractor, DenseMap, descriptors_at
from metriloc.geometry import Camera, Pose
from metriloc.io.changed_views import resize_view
from metriloc.io.reference_features import Look as ReferenceLook
from metriloc.io.reference_features import ReferenceFeatures, require_channels
from metriloc.methods.nre.maps import map_camera
from metriloc.methods.nre.settings import StageConfig
from metriloc.types import SfmMap, View

_STEPS = 7


@dataclass(frozen=True, eq=False)
class Reference:
    """One photo of the map and the points it describes. image: its number; size: of the photo; camera, cam_from_world: of
    the map; rows: which of its observations; xyz: world; uv: pixels of the map's camera."""

    name: str
    image: int
    size: tuple[int, int]
    camera: Camera
    cam_from_world: Pose
    rows: Int[Tensor, " n"]
    index: Int[Tensor, " n"]
    xyz: Float[Tensor, "n 3"]
    uv: Float[Tensor, "n 2"]

    @classmethod
    def of(cls, scene: SfmMap, image: int, size: tuple[int, int], chosen: Int[Tensor, " n"]) -> Reference:
        """Of some of the observations of an image."""
        index = scene.point_index[chosen]
        rows = chosen - scene.observations_of(image).start
        camera, pose = scene.cameras[image], scene.cam_from_world[image]
        return cls(scene.names[image], image, size, camera, pose, rows, index, scene.xyz[index], scene.uv[chosen])


class StageLook:
    """How a stage looks at the photos of a query and its references, so that the scene appears at one scale."""

    def __init__(
        self, features: DenseExtractor, config: StageConfig, query: View, seen: list[Reference], scale: float
    ) -> None:
        """scale: how much larger the query shows the scene than the references, at equal longer sides."""
        self._features, self._config, self._seen = features, config, seen
        self.temperature = features.temperature if config.temperature is None else config.temperature
        largest = config.enlarge * max(query.size), config.enlarge * max(max(r.size) for r in seen)
        # as large as both may be, with sides in the ratio 1 : scale
        side = min(config.longest_side, largest[0], config.longest_side / scale, largest[1] / scale)
        # references are looked at in few sizes only, so that it need not be done anew for each query
        sides = reference_sides(config.longest_side)
        self._reference_side = min(sides, key=lambda one: abs(math.log(one / (side * scale))))
        self._query = _resized(query, min(config.longest_side, largest[0], self._reference_side / scale))

    def descriptors(self, scene: SfmMap, kept: ReferenceFeatures, weights_id: str) -> Float[Tensor, "N C"]:
        """Of the points, read in the references. Once the query's map was made."""
        parts = []
        for reference in self._seen:
            look = _reference_look(self._features, weights_id, self._config, reference.size, self._reference_side)
            parts.append(kept.descriptors(scene, reference.image, look)[reference.rows])
        found = torch.cat(parts).to(self._dense.descriptors)
        require_channels(found, self._dense)
        return found

    def query(self) -> DenseMap:
        """The dense features of the query."""
        self._dense = self._features.dense(self._query.image).pooled(self._config.pool)
        return self._dense

    def camera(self) -> Camera:
        """The camera whose pixels are the cells of ``query``'s map, once that was made."""
        return map_camera(self._query.camera.to("cpu"), self._dense.size, self._dense.stride, self._dense.origin)


def reference_sides(longest: int) -> tuple[float, ...]:
    """Longer sides at which references are looked at.

    From ``longest`` to a quarter of it, thirds of an octave apart, so that a scene appears at most
    12 % larger or smaller than in the query.
    """
    return tuple(longest / 2 ** (step / 3) for step in range(_STEPS))


def reference_looks(
    features: DenseExtractor, weights_id: str, config: StageConfig, size: tuple[int, int]
) -> list[ReferenceLook]:
    """All ways in which queries may ask for a reference of that size, each once."""
    sides = reference_sides(config.longest_side)
    looks = (_reference_look(features, weights_id, config, size, side) for side in sides)
    return list({look.what: look for look in looks}.values())


def _reference_look(
    features: DenseExtractor, weights_id: str, config: StageConfig, size: tuple[int, int], side: float
) -> ReferenceLook:
    """At a longer side, or at the largest that a reference of that size may have."""
    side = min(side, config.enlarge * max(size))

    def read(view: View, uv: Tensor) -> Tensor:
        small = _resized(view, side)
        dense = features.dense(small.image).pooled(config.pool)
        ratio = torch.tensor(small.size) / torch.tensor(view.size)
        cells = dense.to_cells((uv + 0.5) * ratio - 0.5)
        return descriptors_at(dense.descriptors, cells.to(dense.descriptors), normalize=dense.unit)

    # the coarse and the fine network may share a name, as the published ones do
    network = f"{features.name} {getattr(features, 'identity', '')} {getattr(features, 'config', '')}"
    return ReferenceLook(f"nre {network} {weights_id} {side:.3f} {config.pool}", read)


def sights(seen: list[Reference]) -> tuple[Tensor, Tensor]:
    """Where the points are in the references that describe them, and in which."""
    owner = [torch.full((len(reference.uv),), i) for i, reference in enumerate(seen)]
    return torch.cat([reference.uv for reference in seen]), torch.cat(owner)


def apparent_scale(query: View, seen: list[Reference], pose: Pose) -> float:
    """How much larger the query shows the points than the references do, when both photos have the same longer side;
    the median over the points, 1 where none is in front of the query."""
    ratios = []
    for reference in seen:
        z0 = reference.cam_from_world.transform(reference.xyz)[:, 2]
        z1 = pose.transform(reference.xyz)[:, 2]
        front = (z0 > 0) & (z1 > 0)
        f0 = float(reference.camera.f.mean()) / float(reference.camera.size.max())
        f1 = float(query.camera.f.mean()) / max(query.size)
        ratios.append((f1 / z1[front]) / (f0 / z0[front]))
    joined = torch.cat(ratios) if ratios else torch.zeros(0)
    return float(joined.median()) if len(joined) else 1.0


def _resized(view: View, side: float) -> View:
    """With its longer side as given; sides that differ by less than a pixel are left alone."""
    factor = side / max(view.size)
    size = tuple(max(32, round(length * factor)) for length in view.size)
    return view if size == view.size else resize_view(replace(view, depth=None), (size[0], size[1]))
