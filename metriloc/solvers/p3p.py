"""The pose of a camera from three points and the rays to them (P3P), for thousands of triplets at once.

The three depths solve three quadrics. As in Lambda Twist (Persson and Nordberg, ECCV 2018), two combinations without a
constant term are cones; the pencil they span holds a cone that falls apart into two planes (a cubic says where), and
each plane cuts another cone in two rays of depths. Depths are polished by Newton's method on the quadrics themselves.
Everything is elementwise over the batch, in float64: 5,000 triplets take some milliseconds on one core.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose

_NEWTON = 3  # narrow triangles, seen from far away, need it
_RESIDUAL = 1e-9  # squared distances must fit this well, relative to the largest
_COLLINEAR = 1e-6  # smallest sine in the triangle of points
_PARALLEL = 1e-6  # smallest sine between two rays
_ROUNDING = 1e-8  # a discriminant this far below zero, relative to its terms, is a double root


@dataclass(frozen=True, eq=False)
class P3PSolutions:
    """Up to four poses a triplet. pose: ``camera_from_world`` [*b, 4], NaN where not ``valid``, in no special order; a
    double root may appear twice."""

    pose: Pose
    valid: Bool[Tensor, "*b 4"]


@torch.no_grad()
def p3p(rays: Float[Tensor, "*b 3 3"], xyz: Float[Tensor, "*b 3 3"]) -> P3PSolutions:
    """All poses with ``R xyz_i + t = depth_i * ray_i`` and every depth positive.

    rays: three directions in the camera frame (rows), of any length but zero. xyz: the points, world, any unit.
    Collinear or coincident points, parallel rays and anything not finite have no valid solution. Computed in float64
    and returned in the type of ``xyz``. Raises ValueError on shapes that do not fit.
    """
    if rays.shape != xyz.shape or rays.shape[-2:] != (3, 3):
        raise ValueError(f"rays and xyz must both have shape [*b, 3, 3], got {list(rays.shape)} and {list(xyz.shape)}")
    batch = xyz.shape[:-2]
    y, x = rays.reshape(-1, 3, 3).double(), xyz.reshape(-1, 3, 3).double()
    y = y / y.norm(dim=-1, keepdim=True)
    sides = torch.stack([x[:, 0] - x[:, 1], x[:, 0] - x[:, 2], x[:, 1] - x[:, 2]], 1)
    a = sides.square().sum(-1)
    scale = a.amax(-1, keepdim=True)
    a = a / scale  # the depths below are in units of the longest side
    b = torch.stack([(y[:, 0] * y[:, 1]).sum(-1), (y[:, 0] * y[:, 2]).sum(-1), (y[:, 1] * y[:, 2]).sum(-1)], -1)
    depths = _polish(_depths(a, b), a[:, None], b[:, None])
    residual = _residuals(depths, a[:, None], b[:, None]).abs().amax(-1)
    area = torch.linalg.cross(sides[:, 0], sides[:, 1]).norm(dim=-1)
    apart = torch.linalg.cross(y, y.roll(1, 1)).norm(dim=-1).amin(-1)
    usable = (area > _COLLINEAR * scale[:, 0]) & (apart > _PARALLEL)
    valid = (depths > 0).all(-1) & (residual < _RESIDUAL * (1 + depths.square().amax(-1))) & usable[:, None]
    pose = _align(x, y, depths * scale.sqrt()[:, None])
    valid = valid & pose.is_finite()
    # a position may be more than the type of the points can hold
    valid = valid & torch.isfinite(pose.t.to(xyz.dtype)).all(-1)
    R = torch.where(valid[..., None, None], pose.R, torch.nan).to(xyz.dtype)
    t = torch.where(valid[..., None], pose.t, torch.nan).to(xyz.dtype)
    return P3PSolutions(Pose(R.reshape(*batch, 4, 3, 3), t.reshape(*batch, 4, 3)), valid.reshape(*batch, 4))


def _depths(a: Float[Tensor, "B 3"], b: Float[Tensor, "B 3"]) -> Float[Tensor, "B 4 3"]:
    """Candidates for the depths, unpolished; NaN where a candidate is complex."""
    M12, M13, M23 = _quadrics(b)
    a12, a13, a23 = (s[:, None, None] for s in a.unbind(-1))
    D1, D2 = M12 * a23 - M23 * a12, M13 * a23 - M23 * a13
    # the cubic det(D1 + g D2) wants the larger determinant in front: its real root of interest is then of order one
    swap = (_det(D1).abs() > _det(D2).abs())[:, None, None]
    D1, D2 = torch.where(swap, D2, D1), torch.where(swap, D1, D2)
    first, second = _planes(D1 + _pencil_root(D1, D2)[:, None, None] * D2)
    total = (M12 + M13 + M23).unsqueeze(1)  # sum of the squared sides: fixes the length of the depths
    normals = torch.stack([first, second], 1)
    # both cones of the pencil meet the planes in the same rays: take the one that is farther from the degenerate one
    larger = (D1.square().sum((-1, -2)) > D2.square().sum((-1, -2)))[:, None, None]
    direction = _cut(normals, torch.where(larger, D1, D2).unsqueeze(1)).flatten(1, 2)
    direction = direction * direction.sum(-1, keepdim=True).sign()
    length = (direction * (total @ direction[..., None]).squeeze(-1)).sum(-1)
    return direction * (a.sum(-1)[:, None] / length).sqrt()[..., None]


def _quadrics(b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """M_ij with ``depths^T M_ij depths`` = squared distance of points i and j, from the cosines between the rays."""
    zero, one = torch.zeros_like(b[:, 0]), torch.ones_like(b[:, 0])
    b12, b13, b23 = b.unbind(-1)

    def symmetric(d1: Tensor, d2: Tensor, d3: Tensor, o12: Tensor, o13: Tensor, o23: Tensor) -> Tensor:
        return torch.stack([d1, o12, o13, o12, d2, o23, o13, o23, d3], -1).unflatten(-1, (3, 3))

    return (
        symmetric(one, one, zero, -b12, zero, zero),
        symmetric(one, zero, one, zero, -b13, zero),
        symmetric(zero, one, one, zero, zero, -b23),
    )


def _adjugate(M: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """Adjugate of a symmetric matrix."""
    r0, r1, r2 = M.unbind(-2)
    return torch.stack([torch.linalg.cross(r1, r2), torch.linalg.cross(r2, r0), torch.linalg.cross(r0, r1)], -2)


def _det(M: Tensor) -> Tensor:
    r0, r1, r2 = M.unbind(-2)
    return (r0 * torch.linalg.cross(r1, r2)).sum(-1)


def _pencil_root(D1: Tensor, D2: Tensor) -> Tensor:
    """A real g with ``det(D1 + g D2) = 0``: the root that stands farthest from the mean of the three."""
    c3, c0 = _det(D2), _det(D1)
    c2, c1 = (_adjugate(D2) * D1).sum((-1, -2)), (_adjugate(D1) * D2).sum((-1, -2))
    lead = torch.where(c3 == 0, torch.ones_like(c3), c3)  # then c0 is 0 as well, and 0 a root
    c2, c1, c0 = c2 / lead, c1 / lead, c0 / lead
    shift = c2 / 3
    p, q = c1 - c2 * shift, 2 * shift**3 - shift * c1 + c0  # t^3 + p t + q, g = t - shift
    discriminant = (q / 2).square() + (p / 3) ** 3
    # one real root: Cardano, adding numbers of one sign; the other cube root follows from the product -p / 3
    u = -q.sign() * (q.abs() / 2 + discriminant.clamp(min=0).sqrt()).pow(1 / 3)
    one = torch.where(u == 0, torch.zeros_like(u), u - p / (3 * torch.where(u == 0, torch.ones_like(u), u)))
    # three real roots: the one of largest size is on the far side of zero from q
    r = (-p.clamp(max=0) / 3).sqrt()
    cosine = (q.abs() / 2 / torch.where(r == 0, torch.ones_like(r), r) ** 3).clamp(max=1)
    three = torch.where(q > 0, -1.0, 1.0) * 2 * r * torch.cos(torch.acos(cosine) / 3)
    return torch.where(discriminant > 0, one, three) - shift


def _planes(D: Tensor) -> tuple[Tensor, Tensor]:
    """The two planes (normals) of a symmetric matrix of rank two, ``D ~ n1 n2^T + n2 n1^T``; NaN where complex.

    The normals' cross product spans the null space, which the adjugate gives: ``-adj D ~ p p^T``. Adding its skew matrix
    leaves the rank-one matrix ``n1 n2^T``, whose largest column and row are the normals.
    """
    B = -_adjugate(D)
    diagonal = B.diagonal(dim1=-2, dim2=-1)
    largest, index = diagonal.max(-1)
    limit = _ROUNDING * D.square().sum((-1, -2))
    root = torch.where(largest > -limit, largest, torch.nan).clamp(min=1e-300).sqrt()
    p = B.gather(-1, index[:, None, None].expand(-1, 3, 1)).squeeze(-1) / root[:, None]
    p = torch.where((largest > 0)[:, None], p, torch.where(root.isnan()[:, None], torch.nan, 0.0))
    zero = torch.zeros_like(p[:, 0])
    p0, p1, p2 = p.unbind(-1)
    outer = D + torch.stack([zero, -p2, p1, p2, zero, -p0, -p1, p0, zero], -1).unflatten(-1, (3, 3))
    flat = outer.flatten(1).abs().argmax(-1)
    row, column = torch.div(flat, 3, rounding_mode="floor"), flat % 3
    first = outer.gather(1, row[:, None, None].expand(-1, 1, 3)).squeeze(1)
    second = outer.gather(2, column[:, None, None].expand(-1, 3, 1)).squeeze(2)
    return first, second


def _cut(normal: Float[Tensor, "B 2 3"], D: Float[Tensor, "B 1 3 3"]) -> Float[Tensor, "B 2 2 3"]:
    """The two unit rays in which each plane meets the cone ``v^T D v = 0``; NaN where they are complex."""
    n = normal / normal.norm(dim=-1, keepdim=True)
    # an orthonormal basis of the plane, from the axis least along the normal
    axis = torch.zeros_like(n).scatter(-1, torch.nan_to_num(n).abs().argmin(-1, keepdim=True), 1.0)
    u = torch.linalg.cross(n, axis)
    u = u / u.norm(dim=-1, keepdim=True)
    v = torch.linalg.cross(n, u)
    Du, Dv = (D @ u[..., None]).squeeze(-1), (D @ v[..., None]).squeeze(-1)
    uu, uv, vv = (u * Du).sum(-1), (u * Dv).sum(-1), (v * Dv).sum(-1)
    discriminant = uv.square() - uu * vv
    limit = _ROUNDING * (uv.square() + (uu * vv).abs())
    root = torch.where(discriminant > -limit, discriminant.clamp(min=0), torch.nan).sqrt()
    # uu c^2 + 2 uv c s + vv s^2 = 0, without cancellation: (c, s) = (w, uu) and (vv, w)
    w = -(uv + torch.where(uv < 0, -1.0, 1.0) * root)
    rays = torch.stack(
        [w[..., None] * u + uu[..., None] * v, vv[..., None] * u + w[..., None] * v],
        -2,
    )
    return rays / rays.norm(dim=-1, keepdim=True)


def _residuals(depths: Tensor, a: Tensor, b: Tensor) -> Tensor:
    l1, l2, l3 = depths.unbind(-1)
    b12, b13, b23 = b.unbind(-1)
    squared = [
        l1 * l1 + l2 * l2 - 2 * b12 * l1 * l2,
        l1 * l1 + l3 * l3 - 2 * b13 * l1 * l3,
        l2 * l2 + l3 * l3 - 2 * b23 * l2 * l3,
    ]
    return torch.stack(squared, -1) - a


def _polish(depths: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Newton's method on the three squared distances; a step that makes the residual worse is not taken."""
    b12, b13, b23 = b.unbind(-1)
    residual = _residuals(depths, a, b)
    for _ in range(_NEWTON):
        l1, l2, l3 = depths.unbind(-1)
        r12, r13, r23 = (residual / 2).unbind(-1)
        # the Jacobian (halved) is [[A, B, 0], [C, 0, D], [0, E, F]]
        A, B, C, D, E, F = l1 - b12 * l2, l2 - b12 * l1, l1 - b13 * l3, l3 - b13 * l1, l2 - b23 * l3, l3 - b23 * l2
        determinant = -A * D * E - B * C * F
        s1 = -D * E * r12 - B * F * r13 + B * D * r23
        s2 = -C * F * r12 + A * F * r13 - A * D * r23
        s3 = C * E * r12 - A * E * r13 - B * C * r23
        trial = depths - torch.stack([s1, s2, s3], -1) / determinant[..., None]
        error = _residuals(trial, a, b)
        better = error.abs().amax(-1, keepdim=True) < residual.abs().amax(-1, keepdim=True)
        depths, residual = torch.where(better, trial, depths), torch.where(better, error, residual)
    return depths


def _align(x: Float[Tensor, "B 3 3"], rays: Float[Tensor, "B 3 3"], depths: Float[Tensor, "B 4 3"]) -> Pose:
    """The rigid motion of the triangle of points onto the triangle at these depths."""
    points = depths[..., None] * rays[:, None]
    R = _frame(points) @ _frame(x).mT[:, None]
    return Pose(R, points.mean(-2) - (R @ x.mean(-2)[:, None, :, None]).squeeze(-1))


def _frame(triangle: Float[Tensor, "*b 3 3"]) -> Float[Tensor, "*b 3 3"]:
    """A rotation whose columns follow the triangle's first side and its normal."""
    e1 = triangle[..., 1, :] - triangle[..., 0, :]
    normal = torch.linalg.cross(e1, triangle[..., 2, :] - triangle[..., 0, :])
    e1, normal = e1 / e1.norm(dim=-1, keepdim=True), normal / normal.norm(dim=-1, keepdim=True)
    return torch.stack([e1, torch.linalg.cross(normal, e1), normal], -1)
