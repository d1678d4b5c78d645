"""Text files that hold one 4x4 matrix: camera-to-world poses (7-Scenes, ScanNet, RGB-D folders) and calibrations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose, closest_rotation
from metriloc.io import InputError, read_text
from metriloc.io.files import without_comment

ROTATION_TOLERANCE = 0.02
"""Largest entry of ``R R^T - 1`` that rounding in a file can explain; beyond it the matrix is no rotation."""


def parse_matrix(text: str, file: str) -> Float[Tensor, "r c"]:
    """Rows of numbers, float64; NaN and infinities are kept. Comments and blank rows are skipped.

    Raises InputError naming file and line for what is no number, for rows of different lengths and for no rows.
    """
    rows: list[list[float]] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = without_comment(line)
        if not line:
            continue
        try:
            row = [float(field) for field in line.replace(",", " ").split()]
        except ValueError:
            raise InputError(f"{file}:{number}: {line.strip()[:60]!r} is not a row of numbers") from None
        if rows and len(row) != len(rows[0]):
            raise InputError(f"{file}:{number}: {len(row)} numbers after rows of {len(rows[0])}")
        if len(rows) >= 4:
            raise InputError(f"{file}:{number}: more than four rows of numbers")
        rows.append(row)
    if not rows:
        raise InputError(f"'{file}' holds no matrix")
    return torch.tensor(rows, dtype=torch.float64)


def parse_camera_pose(text: str, file: str) -> Pose | None:
    """``cam_from_world`` of a 4x4 (or 3x4) **camera-to-world** matrix.

    None when it is not finite (tracking was lost). The rotation is projected on the rotations.
    Raises InputError for another shape or a matrix that is no rigid motion.
    """
    world_from_cam = rigid_pose(parse_matrix(text, file), file)
    return None if world_from_cam is None else world_from_cam.inverse()


def read_camera_pose(path: Path) -> Pose | None:
    """``parse_camera_pose`` of a file; InputError when it cannot be read."""
    return parse_camera_pose(read_text(path), str(path))


def rigid_pose(matrix: Float[Tensor, "r 4"], place: str) -> Pose | None:
    """The pose of a 4x4 or 3x4 matrix whose rotation part is one up to rounding; None when it is not finite.

    Raises InputError naming ``place`` for another shape, a last row other than 0 0 0 1, or no rotation.
    """
    if matrix.shape not in ((4, 4), (3, 4)):
        raise InputError(f"{place}: a pose is a 4x4 matrix, got {matrix.shape[0]}x{matrix.shape[1]} numbers")
    if not torch.isfinite(matrix).all():
        return None
    if matrix.shape[0] == 4 and not torch.allclose(matrix[3], matrix.new_tensor([0.0, 0.0, 0.0, 1.0]), atol=1e-6):
        raise InputError(f"{place}: the last row of a pose must be 0 0 0 1, got {matrix[3].tolist()}")
    R = matrix[:3, :3]
    error = float((R @ R.mT - torch.eye(3, dtype=R.dtype)).abs().max())
    if not error <= ROTATION_TOLERANCE or not float(torch.linalg.det(R)) > 0:
        raise InputError(f"{place}: the matrix is no rotation (R R^T is {error:.2g} from the identity, or R mirrors)")
    return Pose(closest_rotation(R), matrix[:3, 3])


def stack_poses(poses: list[Pose | None]) -> Pose:
    """One batch, float64; NaN where a pose is unknown."""
    nan = Pose(torch.full((3, 3), math.nan, dtype=torch.float64), torch.full((3,), math.nan, dtype=torch.float64))
    if not poses:
        return Pose.identity((0,), torch.float64)
    return Pose.stack([nan if pose is None else pose for pose in poses])


def pinhole(size: tuple[float, float], fxfycxcy: Sequence[float]) -> Camera:
    """One pinhole camera, float64. Size (width, height) and fx, fy, cx, cy in pixels."""
    f, c, wh = (torch.tensor(values, dtype=torch.float64) for values in (fxfycxcy[:2], fxfycxcy[2:4], size))
    return Camera(wh, f, c)
