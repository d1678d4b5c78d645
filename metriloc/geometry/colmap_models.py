"""COLMAP's camera models: which are ours, and where each parameter stands."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry.distortion import Model

# COLMAP model -> (our model, index of each parameter: fx, fy, cx, cy, then the distortion; None for an absent one)
_COLMAP: dict[str, tuple[Model, tuple[int, int, int, int], tuple[int | None, ...], int]] = {
    "SIMPLE_PINHOLE": ("pinhole", (0, 0, 1, 2), (), 3),
    "PINHOLE": ("pinhole", (0, 1, 2, 3), (), 4),
    "SIMPLE_RADIAL": ("radtan", (0, 0, 1, 2), (3, None, None, None, None), 4),
    "RADIAL": ("radtan", (0, 0, 1, 2), (3, 4, None, None, None), 5),
    "OPENCV": ("radtan", (0, 1, 2, 3), (4, 5, 6, 7, None), 8),
    "FULL_OPENCV": ("radtan", (0, 1, 2, 3), (4, 5, 6, 7, 8), 12),
    "OPENCV_FISHEYE": ("fisheye", (0, 1, 2, 3), (4, 5, 6, 7), 8),
    "SIMPLE_FISHEYE": ("fisheye", (0, 0, 1, 2), (None, None, None, None), 3),
    "FISHEYE": ("fisheye", (0, 1, 2, 3), (None, None, None, None), 4),
    "SIMPLE_RADIAL_FISHEYE": ("fisheye", (0, 0, 1, 2), (3, None, None, None), 4),
    "RADIAL_FISHEYE": ("fisheye", (0, 0, 1, 2), (3, 4, None, None), 5),
}


@dataclass(frozen=True)
class ColmapCamera:
    """A camera in COLMAP's words. params: in the order of the model, the first pixel's centre at
    (0.5, 0.5).

    >>> metriloc.Camera.from_colmap(ColmapCamera("SIMPLE_PINHOLE", 640, 480, (500.0, 320.0, 240.0))).f
    tensor([500., 500.], dtype=torch.float64)
    """

    model: str
    width: int
    height: int
    params: tuple[float, ...]


def colmap_fields(camera: Any) -> tuple[str, int, int, Sequence[float]]:
    """Name, width, height and parameters of a dictionary or an object."""
    names = ("model", "width", "height", "params")
    entries: Mapping[str, Any]
    entries = camera if isinstance(camera, Mapping) else {n: getattr(camera, n) for n in names if hasattr(camera, n)}
    missing = [name for name in names if name not in entries]
    if missing:
        raise ValueError(f"a COLMAP camera needs {', '.join(names)}; {', '.join(missing)} is missing")
    model = entries["model"]
    # pycolmap's is an enumeration
    return str(getattr(model, "name", model)), int(entries["width"]), int(entries["height"]), entries["params"]


def colmap_parameters(
    name: str, params: Sequence[float]
) -> tuple[Model, Float[Tensor, "2"], Float[Tensor, "2"], Float[Tensor, " D"] | None]:
    """The numbers of a COLMAP camera in our terms. They are our model, focal lengths, principal point (first pixel's
    center at 0) and distortion, float64.

    Raises ValueError for a model that is not ours, another number of parameters, and a rational
    FULL_OPENCV.
    """
    if name not in _COLMAP:
        raise ValueError(f"COLMAP camera model {name!r} is not supported: one of {', '.join(_COLMAP)}")
    ours, (fx, fy, cx, cy), terms, count = _COLMAP[name]
    values = [float(p) for p in params]
    if len(values) != count:
        raise ValueError(f"COLMAP camera model {name} takes {count} parameters, got {len(values)}")
    if name == "FULL_OPENCV" and any(values[9:]):
        raise ValueError(f"FULL_OPENCV with k4, k5, k6 = {values[9:]} is not supported: only the polynomial part is")
    if not all(map(math.isfinite, values)) or min(values[fx], values[fy]) <= 0:
        raise ValueError(f"COLMAP camera {name} needs finite numbers and focal lengths above 0, got {values}")
    tensor = torch.tensor(values, dtype=torch.float64)
    distortion = torch.stack([tensor[i] if i is not None else tensor.new_zeros(()) for i in terms]) if terms else None
    return ours, tensor[[fx, fy]], tensor[[cx, cy]] - 0.5, distortion


def colmap_camera(
    model: Model,
    size: Float[Tensor, "2"],
    f: Float[Tensor, "2"],
    c: Float[Tensor, "2"],
    distortion: Float[Tensor, " D"],
) -> ColmapCamera:
    """The inverse of ``colmap_parameters``: PINHOLE, OPENCV (FULL_OPENCV with a k3) or
    OPENCV_FISHEYE."""
    width, height = (round(side) for side in size.tolist())
    terms = distortion.tolist()
    name = {"pinhole": "PINHOLE", "radtan": "OPENCV", "fisheye": "OPENCV_FISHEYE"}[model]
    if model == "radtan" and terms[4] == 0:
        terms = terms[:4]
    elif model == "radtan":
        name, terms = "FULL_OPENCV", [*terms, 0.0, 0.0, 0.0]
    return ColmapCamera(name, width, height, (*f.tolist(), *(value + 0.5 for value in c.tolist()), *terms))
