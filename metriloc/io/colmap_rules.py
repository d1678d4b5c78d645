"""What numbers of a COLMAP model may be: camera models, poses, pixels. COLMAP itself reads much that means nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

_UNIT = 1e-3
"""How far from 1 the length of a quaternion may be: more than any writer rounds away."""


@dataclass(frozen=True)
class CameraModel:
    """One of COLMAP's models. parameters: how many; focals: how many of them, the first ones, are focal lengths."""

    name: str
    parameters: int
    focals: int


MODELS: dict[int, CameraModel] = {
    0: CameraModel("SIMPLE_PINHOLE", 3, 1),
    1: CameraModel("PINHOLE", 4, 2),
    2: CameraModel("SIMPLE_RADIAL", 4, 1),
    3: CameraModel("RADIAL", 5, 1),
    4: CameraModel("OPENCV", 8, 2),
    5: CameraModel("OPENCV_FISHEYE", 8, 2),
    6: CameraModel("FULL_OPENCV", 12, 2),
    7: CameraModel("FOV", 5, 2),
    8: CameraModel("SIMPLE_RADIAL_FISHEYE", 4, 1),
    9: CameraModel("RADIAL_FISHEYE", 5, 1),
    10: CameraModel("THIN_PRISM_FISHEYE", 12, 2),
    11: CameraModel("RAD_TAN_THIN_PRISM_FISHEYE", 16, 2),
    12: CameraModel("SIMPLE_DIVISION", 4, 1),
    13: CameraModel("DIVISION", 5, 2),
    14: CameraModel("SIMPLE_FISHEYE", 3, 1),
    15: CameraModel("FISHEYE", 4, 2),
    16: CameraModel("EUCM", 6, 2),
    17: CameraModel("EQUIRECTANGULAR", 2, 0),
}
"""By COLMAP's numbers, of version 4.2."""
NAMED = {model.name: model for model in MODELS.values()}


def camera_fault(model: CameraModel, width: float, height: float, params: Sequence[float]) -> str | None:
    """What is wrong with a camera, in words; None for nothing."""
    if not (1 <= width < math.inf and 1 <= height < math.inf):
        return f"a camera of {width:g}x{height:g} pixels"
    if len(params) != model.parameters:
        return f"COLMAP camera model {model.name} takes {model.parameters} parameters, got {len(params)}"
    if not all(map(math.isfinite, params)):
        return f"a camera with parameters that are not finite: {' '.join(f'{p:g}' for p in params)}"
    focals = params[: model.focals]
    if not all(f > 0 for f in focals):
        return f"the focal length must be positive, got {' '.join(f'{f:g}' for f in focals)}"
    return None


def pose_fault(values: Sequence[float]) -> str | None:
    """What is wrong with a pose, in words. Its numbers are qw qx qy qz tx ty tz; None for nothing."""
    if len(values) != 7 or not all(map(math.isfinite, values)):
        return f"a pose that is not seven finite numbers: {' '.join(f'{v:g}' for v in values)}"
    norm = math.hypot(*values[:4])
    if abs(norm - 1) > _UNIT:
        quaternion = " ".join(f"{v:g}" for v in values[:4])
        return f"the quaternion {quaternion} has length {norm:.6g}, and a rotation has 1"
    return None
