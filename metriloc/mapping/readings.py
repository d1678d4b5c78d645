"""What tells how many metres a unit of a map is, each source with its standard deviation."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import sample_depth
from metriloc.io.arguments import require_metres
from metriloc.io.files import InputError
from metriloc.mapping.names import find_name, require_name
from metriloc.solvers.scales import ScaleSource
from metriloc.solvers.similarity import Similarity, robust_similarity
from metriloc.types import SfmMap

MIN_POINTS, MIN_PHOTOS = 20, 1
"""Points of a photo, and photos, without which depth says nothing."""
_MAP_SIGMA = 0.002
"""Relative error of lengths within a map, bent as it may be."""


def distance_reading(scene: SfmMap, first: str, second: str, metres: float, sigma_m: float = 0.01) -> ScaleSource:
    """A measured distance between the cameras of two photos. sigma_m: of the measurement, metres.

    Raises InputError for a photo that is not in the map, a length that is not positive, and cameras at one place.
    """
    require_metres(f"the distance of {first!r} and {second!r}", metres)
    first, second = require_name(scene.names, first), require_name(scene.names, second)
    a, b = scene.cam_from_world[scene.index(first)], scene.cam_from_world[scene.index(second)]
    length = float(a.center_distance(b))
    noise = math.hypot(_center_sigma(scene, first), _center_sigma(scene, second))
    if length <= 3 * noise:
        raise InputError(f"in the map, {first!r} and {second!r} were taken at one place: measure between others")
    sigma = math.hypot(sigma_m / metres, noise / length, _MAP_SIGMA)
    said = f"{metres:g} m between {first} and {second}"
    return ScaleSource(
        f"the distance of {first} and {second} ({metres:g} m)", math.log(metres / length), sigma, said=said
    )


def _center_sigma(scene: SfmMap, name: str) -> float:
    """About how far a camera's center may be off, in units of the map: a pixel's third at the median depth, shared by its
    points."""
    image = scene.index(name)
    depth, _ = _depths(scene, image)
    if not len(depth):
        return math.inf
    return 0.33 * float(depth.median()) / float(scene.cameras[image].f.mean()) / math.sqrt(len(depth) / 3)


def _depths(scene: SfmMap, image: int) -> tuple[Float[Tensor, " n"], Float[Tensor, "n 2"]]:
    """Of the points that an image observes, in units of the map, and the pixels."""
    seen = scene.observations_of(image)
    xyz = scene.cam_from_world[image].transform(scene.xyz[scene.point_index[seen]])
    front = xyz[:, 2] > 0
    return xyz[front, 2], scene.uv[seen][front]


@dataclass(frozen=True)
class Positions:
    """Where photos were taken. xyz: metres, in the order of names; sigma: of each coordinate. frame: what the axes are."""

    names: tuple[str, ...]
    xyz: Float[Tensor, "N 3"]
    sigma: Float[Tensor, " N"]
    what: str = "positions"
    frame: str = "that of the given positions"


def position_reading(scene: SfmMap, positions: Positions) -> tuple[ScaleSource, Similarity | None]:
    """Scale from positions of three cameras or more, and the similarity ``positions_from_map`` where they fix one: not in
    one line. Raises InputError where the map has too few of them, or they contradict it."""
    names = [find_name(scene.names, name) for name in positions.names]
    own = [n for n, name in enumerate(names) if name is not None]
    if len(own) < 3:
        raise InputError(
            f"the {positions.what} name {len(own)} photos of the map; three and more that are not in one line tell its scale"
        )
    centers = scene.cam_from_world.center()[[scene.index(str(names[n])) for n in own]]
    xyz, sigma = positions.xyz[own].double(), positions.sigma[own].double()
    found = robust_similarity(centers, xyz, sigma)
    if found is None:
        return _line_reading(centers, xyz, sigma, positions.what), None
    used = int(found.inliers.sum())
    said = f"{positions.what} of {used} of {len(own)} photos, {found.rms:.3g} m from the map (rms)"
    reading = ScaleSource(positions.what, math.log(found.scale), math.hypot(found.log_sigma, _MAP_SIGMA), said=said)
    return reading, found


def _line_reading(centers: Tensor, xyz: Tensor, sigma: Tensor, what: str) -> ScaleSource:
    """Cameras in one line fix no rotation about it, but their distances along it do tell the scale."""
    i, j = torch.triu_indices(len(xyz), len(xyz), 1)
    apart0, apart1 = (centers[i] - centers[j]).norm(dim=-1), (xyz[i] - xyz[j]).norm(dim=-1)
    exact = (sigma[i].square() + sigma[j].square()).sqrt()
    far = (apart1 > 3 * exact) & (apart0 > 0)
    if not bool(far.any()):
        raise InputError(f"the {what} lie closer together than they are exact: they tell no scale")
    ratios = (apart1[far] / apart0[far]).log()
    relative = (exact / apart1)[far]
    middle = float(ratios.quantile(0.5))
    agreeing = (ratios - middle).abs() <= 3 * relative + 3 * _MAP_SIGMA
    if 2 * int(agreeing.sum()) <= len(ratios):
        raise InputError(f"the {what} contradict the map: fewer than half of them agree with any scale of it")
    error = float(relative[agreeing].min())
    said = f"{what} of {len(xyz)} photos in one line"
    return ScaleSource(what, float(ratios[agreeing].mean()), math.hypot(error, _MAP_SIGMA), said=said)


def depth_reading(
    scene: SfmMap,
    depth_of: Callable[[int], Tensor | None],
    *,
    what: str,
    bias: float,
    kin: str = "",
    progress: Callable[[int, int], None] | None = None,
) -> ScaleSource | None:
    """Scale from depth maps.

    Of each photo the median of log(depth / depth in the map) over its points, and of those the
    median over photos. None where no photo has depth at enough points.

    depth_of: the depth map of an image as it is stored, metres along z, 0 where unknown. bias: what all photos err by
    together (standard deviation of the logarithm), which more photos do not lessen.
    """
    ratios: list[float] = []
    for image in range(len(scene)):
        own, uv = _depths(scene, image)
        depth = depth_of(image) if len(own) >= MIN_POINTS else None
        if depth is not None:
            size = (int(scene.cameras[image].size[0]), int(scene.cameras[image].size[1]))
            metres, known = sample_depth(depth.double(), uv, size)
            good = known & (metres > 0)
            if int(good.sum()) >= MIN_POINTS:
                ratios.append(float((metres[good] / own[good]).log().median()))
        if progress is not None:
            progress(image + 1, len(scene))
    if len(ratios) < MIN_PHOTOS:
        return None
    values = torch.tensor(ratios, dtype=torch.float64)
    middle = float(values.quantile(0.5))
    scatter = 1.4826 * float((values - middle).abs().quantile(0.5))
    sigma = math.hypot(bias, scatter / math.sqrt(len(values)), _MAP_SIGMA)
    said = f"{what} of {len(values)} photos, which scatter by {_percent(scatter)} and may err by {_percent(bias)} alike"
    return ScaleSource(what, middle, sigma, kin=kin, correlation=0.9 if kin else 0.0, said=said)


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
