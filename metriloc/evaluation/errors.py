"""Errors of one pose against the truth: rotation, position, direction, and virtual correspondences (VCRE).

Everything is float64 and batched. Poses are ``cam_from_world``; for relative poses the world is the reference camera.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.solvers.vcre import virtual_shift

UPSTREAM_DEGREES = 114.59155902616465
"""2 * 180 / pi as the Map-free scorer writes it; exact equality with its numbers needs the same digits."""


def rotation_error_deg(estimated: Pose, true: Pose) -> Float[Tensor, "*b"]:
    """Angle between two rotations, degrees, 0..180; exact for small angles and at 180."""
    return torch.rad2deg(estimated.to(torch.float64).angle_to(true.to(torch.float64)))


def center_error(estimated: Pose, true: Pose) -> Float[Tensor, "*b"]:
    """Distance of the camera centers ``-R^T t``, metres: the translation error of Map-free and
    visual localisation."""
    return estimated.to(torch.float64).center_distance(true.to(torch.float64))


def translation_error(estimated: Pose, true: Pose) -> Float[Tensor, "*b"]:
    """Distance of the vectors t, metres: what ScanNet scripts and the NRE paper call translation error."""
    return (estimated.to(torch.float64).t - true.to(torch.float64).t).norm(dim=-1)


def direction_error_deg(
    estimated: Float[Tensor, "*b 3"], true: Float[Tensor, "*b 3"], *, folded: bool = False
) -> Float[Tensor, "*b"]:
    """Angle between two translations, degrees; 90 where one has no length, as the published ScanNet scripts have it.

    folded: ``min(a, 180 - a)`` as SuperGlue-style tables have it, which cannot tell forwards from backwards; metric
    evaluation must not fold.
    """
    a, b = estimated.double(), true.double()
    angle = torch.rad2deg(torch.atan2(torch.linalg.cross(a, b).norm(dim=-1), (a * b).sum(-1)))
    angle = torch.where((a.norm(dim=-1) > 0) & (b.norm(dim=-1) > 0), angle, 90.0)
    return torch.minimum(angle, 180 - angle) if folded else angle


def scale_ratio(estimated: Float[Tensor, "*b 3"], true: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b"]:
    """``max(|t|/|t'|, |t'|/|t|)``: 1 is perfect; infinite where one of them has no length."""
    a, b = estimated.double().norm(dim=-1), true.double().norm(dim=-1)
    return torch.maximum(a / b, b / a).nan_to_num(nan=math.inf, posinf=math.inf)


def quaternion_error_deg(
    estimated: Float[Tensor, "*b 4"], true: Float[Tensor, "*b 4"], *, clamp: bool
) -> Float[Tensor, "*b"]:
    """The Map-free scorer's rotation error: ``2 asin |vec(q^-1 q')|`` of normalised quaternions (w x y z), degrees.

    Without ``clamp`` rounding makes about a quarter of the errors at exactly 180 degrees NaN, as the published scorer
    has it.
    """
    p = true / true.norm(dim=-1, keepdim=True)
    q = estimated / estimated.norm(dim=-1, keepdim=True)
    vector = p[..., :1] * q[..., 1:] - q[..., :1] * p[..., 1:] - torch.linalg.cross(p[..., 1:], q[..., 1:])
    sine = vector.norm(dim=-1)
    return UPSTREAM_DEGREES * torch.asin(sine.clamp(max=1) if clamp else sine)


def vcre(estimated: Pose, true: Pose, K: Float[Tensor, "*b 3 3"], size: Float[Tensor, "*b 2"]) -> Float[Tensor, "*b"]:
    """Virtual correspondence reprojection error, pixels: where the pose error moves points seen by the query camera.

    Mean distance between ``clip(pi(v))`` and ``clip(pi(T' T^-1 v))`` over the ``virtual_points``,
    T the true and T' the estimated ``query_from_reference``. Both are clipped to [0, W] x [0, H],
    and points behind the camera are projected all the same, as the benchmark defines it. size: (w,
    h) of the image that K belongs to.
    """
    size = size.double()
    camera = Camera.from_K(K.double(), size)
    return virtual_shift(estimated.to(torch.float64) @ true.to(torch.float64).inverse(), camera, clip=size)
