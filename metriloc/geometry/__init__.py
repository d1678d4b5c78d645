"""Poses, cameras and lookups: pure functions on tensors, batched, differentiable, on any device.

Conventions: ``docs/conventions.md``. Imports torch (and numpy) only.
"""

from metriloc.geometry.camera import MIN_DEPTH, Camera
from metriloc.geometry.colmap_models import ColmapCamera
from metriloc.geometry.conventions import CONVENTIONS, Convention
from metriloc.geometry.distortion import J_distort, Model, Validity, distort, undistort
from metriloc.geometry.pose import Pose
from metriloc.geometry.sampling import J_normalize, Sampled, sample, sample_depth
from metriloc.geometry.so3 import (
    J_transform,
    closest_rotation,
    matrix_from_quaternion,
    quaternion_from_matrix,
    rotation_angle,
    skew,
    so3_exp,
    so3_log,
)

__all__ = [
    "CONVENTIONS",
    "MIN_DEPTH",
    "Camera",
    "ColmapCamera",
    "Convention",
    "J_distort",
    "J_normalize",
    "J_transform",
    "Model",
    "Pose",
    "Sampled",
    "Validity",
    "closest_rotation",
    "distort",
    "matrix_from_quaternion",
    "quaternion_from_matrix",
    "rotation_angle",
    "sample",
    "sample_depth",
    "skew",
    "so3_exp",
    "so3_log",
    "undistort",
]
