"""The floor of a map, and how high the cameras were held above it: with a known height, that is a scale."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.io.files import InputError
from metriloc.mapping.readings import Reading
from metriloc.types import SfmMap

HEIGHT_SIGMA = 0.08
"""Of people's heights of holding a camera, relative: 1.5 m, give or take a hand."""
_TILT = math.cos(math.radians(25))  # photos are rarely tilted more, on the mean
_DRAWS = 500
_NEAR = 0.03  # of the height: how thick a floor is
_SHARE = 0.02  # of the points below the cameras that a floor must hold


def height_reading(scene: SfmMap, metres: float, generator: torch.Generator | None = None) -> Reading:
    """Scale from the height at which the cameras were held above the floor.

    Raises InputError for a height that is not positive, and where no floor is found.
    """
    if not 0.01 <= metres <= 1000:
        raise InputError(f"the height of the cameras must be 0.01 to 1000 metres, got {metres:g}")
    heights = heights_above_floor(scene, generator or torch.Generator().manual_seed(0))
    if heights is None:
        raise InputError("no floor is found below the cameras of the map, so their height tells no scale")
    middle = float(heights.quantile(0.5))
    spread = 1.4826 * float((heights - middle).abs().quantile(0.5)) / middle
    sigma = math.hypot(HEIGHT_SIGMA, spread / math.sqrt(len(heights)))
    said = f"{metres:g} m above the floor, within {100 * HEIGHT_SIGMA:.0f} %; heights scatter by {100 * spread:.2g} %"
    return Reading("camera height", math.log(metres / middle), sigma, said=said)


def heights_above_floor(scene: SfmMap, generator: torch.Generator) -> Float[Tensor, " N"] | None:
    """Of the cameras, in units of the map, above the level plane below all of them that holds the most points (RANSAC);
    None where there is none. Level: as the photos are held, on the mean."""
    down = scene.cam_from_world.R[:, 1].double().mean(0)
    if float(down.norm()) < 0.5:
        return None  # the photos are held in all directions
    down = down / down.norm()
    centers = scene.cam_from_world.center().double()
    below = (scene.xyz.double() - centers.mean(0)) @ down > 0
    points = scene.xyz[below].double()
    if len(points) < 50:
        return None
    best, agreeing = None, int(_SHARE * len(points)) + 3
    for _ in range(_DRAWS):
        a, b, c = points[torch.randperm(len(points), generator=generator)[:3]]
        normal = torch.linalg.cross(b - a, c - a)
        if float(normal.norm()) <= 0:
            continue
        normal = normal / normal.norm()
        normal = normal if float(normal @ down) > 0 else -normal
        heights = (a - centers) @ normal
        if float(normal @ down) < _TILT or float(heights.min()) <= 0:
            continue
        near = int(((points - a) @ normal).abs().lt(_NEAR * float(heights.median())).sum())
        if near > agreeing:
            best, agreeing = heights, near
    return best
