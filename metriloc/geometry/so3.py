"""Rotations: exponential and logarithm of SO(3), quaternions, angles.

All functions are batched over leading axes, differentiable, and safe at the singular points: the exponential and its
derivative at zero, the logarithm at zero and at half a turn. Quaternions are w, x, y, z.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def skew(v: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """The matrix with ``skew(v) @ x == cross(v, x)``.

    >>> skew(torch.tensor([1.0, 0.0, 0.0])) @ torch.tensor([0.0, 1.0, 0.0])
    tensor([0., 0., 1.])
    """
    _require_last(v, 3, "v")
    x, y, z = v.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def so3_exp(w: Float[Tensor, "*b 3"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrix of the rotation vector ``w`` (radians), by Rodrigues' formula.

    Series in place of ``sin(a)/a`` and ``(1-cos(a))/a^2`` near zero keep values and derivatives exact there.

    >>> so3_exp(torch.zeros(3))
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    _require_last(w, 3, "w")
    squared = (w * w).sum(-1)
    small = squared < 1e-4
    safe = torch.where(small, torch.ones_like(squared), squared)
    angle = safe.sqrt()
    half = torch.sin(angle / 2)
    a = torch.where(small, 1 - squared / 6 + squared**2 / 120 - squared**3 / 5040, torch.sin(angle) / angle)
    # 2 sin^2(a/2) instead of 1 - cos(a): no cancellation
    b = torch.where(small, 0.5 - squared / 24 + squared**2 / 720 - squared**3 / 40320, 2 * half * half / safe)
    W = skew(w)
    eye = torch.eye(3, dtype=w.dtype, device=w.device)
    return eye + a[..., None, None] * W + b[..., None, None] * (W @ W)


def so3_log(R: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3"]:
    """Rotation vector of ``R``, length in [0, pi].

    It goes through the quaternion: well conditioned at 0 and at pi.

    >>> so3_log(so3_exp(torch.tensor([0.1, 0.2, 0.3])))
    tensor([0.1000, 0.2000, 0.3000])
    """
    q = quaternion_from_matrix(R)
    w, v = q[..., 0], q[..., 1:]
    squared = (v * v).sum(-1)
    small = squared < 1e-12
    safe = torch.where(small, torch.ones_like(squared), squared)
    sine = safe.sqrt()
    # 2 atan2(s, w) / s tends to 2/w - 2 s^2/(3 w^3) as s -> 0
    w_safe = torch.where(small, w, torch.ones_like(w))
    factor = torch.where(small, 2 / w_safe - 2 * squared / (3 * w_safe**3), 2 * torch.atan2(sine, w) / sine)
    return factor[..., None] * v


def rotation_angle(R: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b"]:
    """Angle of a rotation in radians, [0, pi].

    Accurate for tiny angles and for half a turn (atan2, not acos).

    >>> rotation_angle(so3_exp(torch.tensor([0.0, 0.3, 0.0])))
    tensor(0.3000)
    """
    q = quaternion_from_matrix(R)
    squared = (q[..., 1:] ** 2).sum(-1)
    zero = squared == 0
    sine = torch.where(zero, torch.zeros_like(squared), torch.where(zero, torch.ones_like(squared), squared).sqrt())
    return 2 * torch.atan2(sine, q[..., 0])


def quaternion_from_matrix(R: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 4"]:
    """Unit quaternion (w, x, y, z) of a rotation matrix. It has w >= 0.

    Shepperd's method: of the four ways to read the quaternion, the one that divides by its largest component.

    >>> quaternion_from_matrix(torch.eye(3))
    tensor([1., 0., 0., 0.])
    """
    if R.shape[-2:] != (3, 3):
        raise ValueError(f"R must have shape [*b, 3, 3], got {list(R.shape)}")
    r00, r01, r02, r10, r11, r12, r20, r21, r22 = R.flatten(-2).unbind(-1)
    # 4 q q^T, whose rows are the quaternion scaled by 4 times one of its components
    rows = torch.stack(
        [
            torch.stack([1 + r00 + r11 + r22, r21 - r12, r02 - r20, r10 - r01], -1),
            torch.stack([r21 - r12, 1 + r00 - r11 - r22, r01 + r10, r02 + r20], -1),
            torch.stack([r02 - r20, r01 + r10, 1 - r00 + r11 - r22, r12 + r21], -1),
            torch.stack([r10 - r01, r02 + r20, r12 + r21, 1 - r00 - r11 + r22], -1),
        ],
        -2,
    )
    largest = rows.diagonal(dim1=-2, dim2=-1).argmax(-1)
    row = rows.gather(-2, largest[..., None, None].expand(*largest.shape, 1, 4)).squeeze(-2)
    q = row / row.norm(dim=-1, keepdim=True)
    return torch.where(q[..., :1] < 0, -q, q)


def matrix_from_quaternion(q: Float[Tensor, "*b 4"]) -> Float[Tensor, "*b 3 3"]:
    """Rotation matrix of a quaternion (w, x, y, z) of any length. A zero quaternion gives NaN.

    >>> matrix_from_quaternion(torch.tensor([0.0, 0.0, 0.0, 1.0]))  # half a turn about z
    tensor([[-1.,  0.,  0.],
            [ 0., -1.,  0.],
            [ 0.,  0.,  1.]])
    """
    _require_last(q, 4, "q")
    w, x, y, z = (q / q.norm(dim=-1, keepdim=True)).unbind(-1)
    return torch.stack(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y - w * z),
            2 * (x * z + w * y),
            2 * (x * y + w * z),
            1 - 2 * (x * x + z * z),
            2 * (y * z - w * x),
            2 * (x * z - w * y),
            2 * (y * z + w * x),
            1 - 2 * (x * x + y * y),
        ],
        -1,
    ).unflatten(-1, (3, 3))


def closest_rotation(M: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """The rotation nearest to ``M`` in the Frobenius norm.

    This is orthogonal Procrustes with determinant +1.

    >>> closest_rotation(torch.diag(torch.tensor([2.0, 1.0, 0.9])))
    tensor([[1., 0., 0.],
            [0., 1., 0.],
            [0., 0., 1.]])
    """
    if M.shape[-2:] != (3, 3):
        raise ValueError(f"M must have shape [*b, 3, 3], got {list(M.shape)}")
    U, _, Vt = torch.linalg.svd(M)
    sign = torch.sign(torch.linalg.det(U @ Vt))
    D = torch.stack([torch.ones_like(sign), torch.ones_like(sign), sign], -1)
    return (U * D[..., None, :]) @ Vt


def J_transform(xyz_out: Float[Tensor, "*b N 3"]) -> Float[Tensor, "*b N 3 6"]:
    """Derivative of transformed points with respect to the pose.

    The points are those of ``Pose.from_tangent(delta) @ pose``, at ``delta = 0``, order [t, w].
    ``xyz_out`` are the transformed points p: ``J = [I, -skew(p)]`` (PixLoc supplementary; left
    update).

    >>> about_x = torch.tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0])
    >>> J_transform(torch.tensor([[0.0, 0.0, 2.0]])) @ about_x  # what lies ahead moves up
    tensor([[ 0., -2.,  0.]])
    """
    if xyz_out.ndim < 2 or xyz_out.shape[-1] != 3:
        raise ValueError(f"xyz_out must have shape [*b, N, 3], got {list(xyz_out.shape)}")
    eye = torch.eye(3, dtype=xyz_out.dtype, device=xyz_out.device).expand(*xyz_out.shape, 3)
    return torch.cat([eye, -skew(xyz_out)], -1)


def _require_last(x: Tensor, size: int, name: str) -> None:
    if x.ndim == 0 or x.shape[-1] != size:
        raise ValueError(f"{name} must have shape [*b, {size}], got {list(x.shape)}")
