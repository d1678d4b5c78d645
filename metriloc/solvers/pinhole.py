"""What poselib needs: points of a camera without distortion, and whether points lie on a line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera

_LINE_RATIO = 1e-3  # width over length of a point cloud that counts as a line


def pinhole_points(uv: Float[Tensor, "N 2"], camera: Camera) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Undistorted pixels [N, 2], which of them are usable [N], and poselib's camera for them."""
    double = camera.to(torch.float64)
    ray, valid = double.unproject(uv.double())
    straight, _ = replace(double, model="pinhole", distortion=double.f[:0]).project(ray)
    points = straight.detach().cpu().numpy()
    usable = valid.cpu().numpy() & np.isfinite(points).all(-1)
    width, height = (int(side) for side in double.size.tolist())
    params = [*double.f.tolist(), *double.c.tolist()]
    return points, usable, {"model": "PINHOLE", "width": width, "height": height, "params": params}


def collinear(xyz: np.ndarray) -> bool:
    """Whether points [n, 3] lie on one line, up to a thousandth of their extent; fewer than three always do."""
    if len(xyz) < 3:
        return True
    lengths = np.linalg.svd(xyz - xyz.mean(0), compute_uv=False)
    return bool(lengths[1] <= _LINE_RATIO * lengths[0])
