"""The floor of a map, and how high the cameras were held above it: with a known height, that is a scale."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.io.files import InputError
from metriloc.solvers.ground import GroundConfig, find_ground
from metriloc.solvers.scales import ScaleSource
from metriloc.types import SfmMap

HEIGHT_SIGMA = 0.08
"""Of people's heights of holding a camera, relative: 1.5 m, give or take a hand."""
_FLOOR = GroundConfig(max_tilt_deg=25.0)
"""Photos are rarely tilted more, on the mean."""


def height_reading(scene: SfmMap, metres: float, generator: torch.Generator | None = None) -> ScaleSource:
    """Scale from the height at which the cameras were held above the floor.

    Raises InputError for a height that is not positive, and where no floor is found.
    """
    require_height(metres)
    heights = heights_above_floor(scene, generator or torch.Generator().manual_seed(0))
    if heights is None:
        raise InputError("no floor is found below the cameras of the map, so their height tells no scale")
    middle = float(heights.quantile(0.5))
    spread = 1.4826 * float((heights - middle).abs().quantile(0.5)) / middle
    sigma = math.hypot(HEIGHT_SIGMA, spread / math.sqrt(len(heights)))
    said = f"{metres:g} m above the floor, within {100 * HEIGHT_SIGMA:.0f} %; heights scatter by {100 * spread:.2g} %"
    return ScaleSource("camera height", math.log(metres / middle), sigma, said=said)


def require_height(metres: float) -> None:
    """Raises InputError for a height at which nobody holds a camera."""
    if not 0.01 <= metres <= 1000:
        raise InputError(f"the height of the cameras must be 0.01 to 1000 metres, got {metres:g}")


def heights_above_floor(scene: SfmMap, generator: torch.Generator) -> Float[Tensor, " N"] | None:
    """Of the cameras, in units of the map, above the ground below all of them; None where none is seen. Down is as the
    photos are held, on the mean."""
    down = scene.cam_from_world.R[:, 1].double().mean(0)
    if float(down.norm()) < 0.5:
        return None  # the photos are held in all directions
    centers = scene.cam_from_world.center().double()
    middle = centers.mean(0)
    ground = find_ground(scene.xyz.double() - middle, down / down.norm(), generator, _FLOOR)
    if ground is None:
        return None
    heights = ground.height - (centers - middle) @ ground.normal.double()
    return heights if float(heights.min()) > 0 else None
