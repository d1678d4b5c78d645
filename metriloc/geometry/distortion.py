"""Lens distortion of normalised image points, with Jacobians, validity and the inverse.

Two models: ``radtan`` (k1, k2, p1, p2, k3: OpenCV's radial-tangential polynomial, COLMAP's SIMPLE_RADIAL, RADIAL, OPENCV)
and ``fisheye`` (k1..k4: COLMAP's OPENCV_FISHEYE). Both fold back on themselves beyond some radius; points beyond it are
not valid, because they would land on pixels that show something else.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Model = Literal["pinhole", "radtan", "fisheye"]
Validity = Literal["correct", "pixloc"]
NUM_PARAMETERS: dict[str, int] = {"pinhole": 0, "radtan": 5, "fisheye": 4}

_MAX_NEWTON = 30
_SMALL = 1e-6


def distort(
    m: Float[Tensor, "*b N 2"], parameters: Float[Tensor, "*b D"], model: Model, validity: Validity = "correct"
) -> tuple[Float[Tensor, "*b N 2"], Bool[Tensor, "*b N"]]:
    """Distort ideal normalised points.

    - m: (x/z, y/z).
    - parameters, model: of the lens, as in ``Camera``.
    - validity: ``correct``, or ``pixloc`` for the test of the published PixLoc, whose signs are wrong (comparisons only).

    Returns the distorted points, and whether they lie inside the one-to-one region.

    >>> k1 = torch.tensor([0.1, 0.0, 0.0, 0.0, 0.0])
    >>> distorted, inside = distort(torch.tensor([[0.5, 0.0]]), k1, "radtan")
    >>> distorted, bool(inside)
    (tensor([[0.5125, 0.0000]]), True)
    """
    if model == "pinhole":
        return m, torch.ones(m.shape[:-1], dtype=torch.bool, device=m.device)
    if model == "radtan":
        return _distort_radtan(m, parameters), _inside_radtan(m, parameters, validity)
    if model == "fisheye":
        return _distort_fisheye(m, parameters), _inside_fisheye(m, parameters)
    raise ValueError(f"unknown distortion model {model!r}: one of {', '.join(NUM_PARAMETERS)}")


def J_distort(m: Float[Tensor, "*b N 2"], parameters: Float[Tensor, "*b D"], model: Model) -> Float[Tensor, "*b N 2 2"]:
    """Derivative of the distorted point with respect to the ideal one. All terms are included.

    - m: ideal points (x/z, y/z).
    - parameters, model: of the lens, as in ``Camera``.

    >>> k1 = torch.tensor([0.1, 0.0, 0.0, 0.0, 0.0])
    >>> J_distort(torch.tensor([[0.5, 0.0]]), k1, "radtan")
    tensor([[[1.0750, 0.0000],
             [0.0000, 1.0250]]])
    """
    if model == "radtan":
        return _J_radtan(m, parameters)
    if model == "fisheye":
        return _J_fisheye(m, parameters)
    return torch.eye(2, dtype=m.dtype, device=m.device).expand(*m.shape, 2)


def undistort(
    distorted: Float[Tensor, "*b N 2"], parameters: Float[Tensor, "*b D"], model: Model
) -> tuple[Float[Tensor, "*b N 2"], Bool[Tensor, "*b N"]]:
    """Inverse of ``distort`` by Newton's method.

    - distorted: points (x/z, y/z) as the lens shows them.
    - parameters, model: of the lens, as in ``Camera``.

    Returns the ideal points, and whether they are valid: not where no ideal point inside the one-to-one region was found.
    Differentiable: the last step is taken outside ``no_grad`` with a fixed Jacobian, which by the implicit function theorem
    carries the exact first derivative with respect to points and parameters.

    >>> k1 = torch.tensor([0.1, 0.0, 0.0, 0.0, 0.0])
    >>> undistort(torch.tensor([[0.5125, 0.0]]), k1, "radtan")[0]
    tensor([[0.5000, 0.0000]])
    """
    if model == "pinhole":
        return distort(distorted, parameters, model)
    with torch.no_grad():
        m = _start(distorted, parameters, model)
        for _ in range(_MAX_NEWTON):
            residual = distort(m, parameters, model)[0] - distorted
            step = torch.linalg.solve_ex(_J_safe(m, parameters, model), residual[..., None])[0].squeeze(-1)
            # a step longer than the point itself has left the basin: shorten it
            limit = 0.5 * (1 + m.norm(dim=-1, keepdim=True))
            step = step * (limit / step.norm(dim=-1, keepdim=True).clamp(min=1e-30)).clamp(max=1)
            m = m - torch.nan_to_num(step)
        m = m.detach()
        J = _J_safe(m, parameters, model)
    again, inside = distort(m, parameters, model)
    solution = m - torch.linalg.solve_ex(J, (again - distorted)[..., None])[0].squeeze(-1)
    tolerance = 1e-9 if m.dtype == torch.float64 else 1e-5
    error = (distort(solution.detach(), parameters, model)[0] - distorted).norm(dim=-1)
    return solution, inside & (error < tolerance * (1 + distorted.norm(dim=-1)))


# -- radial-tangential ------------------------------------------------------------------------------------------------
def _columns(parameters: Tensor) -> tuple[Tensor, ...]:
    return tuple(p[..., None] for p in parameters.unbind(-1))  # one axis for the points


def _distort_radtan(m: Tensor, parameters: Tensor) -> Tensor:
    k1, k2, p1, p2, k3 = _columns(parameters)
    u, v = m.unbind(-1)
    r2 = u * u + v * v
    radial = r2 * (k1 + r2 * (k2 + r2 * k3))
    uv = u * v
    x = u + u * radial + 2 * p1 * uv + p2 * (r2 + 2 * u * u)
    y = v + v * radial + 2 * p2 * uv + p1 * (r2 + 2 * v * v)
    return torch.stack([x, y], -1)


def _J_radtan(m: Tensor, parameters: Tensor) -> Tensor:
    k1, k2, p1, p2, k3 = _columns(parameters)
    u, v = m.unbind(-1)
    r2 = u * u + v * v
    radial = 1 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2 * (k1 + r2 * (2 * k2 + 3 * r2 * k3))  # d(radial)/du = u * slope
    uv = u * v
    J00 = radial + u * u * slope + 2 * p1 * v + 6 * p2 * u
    J11 = radial + v * v * slope + 2 * p2 * u + 6 * p1 * v
    J01 = uv * slope + 2 * p1 * u + 2 * p2 * v
    return torch.stack([J00, J01, J01, J11], -1).unflatten(-1, (2, 2))


def _inside_radtan(m: Tensor, parameters: Tensor, validity: Validity) -> Tensor:
    r2 = (m * m).sum(-1)
    if validity == "pixloc":
        return r2 < _pixloc_limit(parameters)[..., None]
    k1, k2, _, _, k3 = parameters.unbind(-1)
    # the radial map r (1 + k1 r^2 + k2 r^4 + k3 r^6) turns back where its derivative first vanishes
    return r2 < smallest_positive_root(torch.stack([3 * k1, 5 * k2, 7 * k3], -1))[..., None]


def _pixloc_limit(parameters: Tensor) -> Tensor:
    """Squared radius beyond which the published PixLoc drops points (wrong signs and roots)."""
    k1, k2 = parameters[..., 0], parameters[..., 1]
    discriminant = 9 * k1 * k1 - 20 * k2
    two = k2 > 0
    limited = (two & (discriminant > 0)) | (~two & (k1 > 0))
    safe_k2 = torch.where(two, k2, torch.ones_like(k2))
    safe_k1 = torch.where(k1 == 0, torch.ones_like(k1), k1)
    limit = torch.where(
        two, ((discriminant.clamp(min=0).sqrt() - 3 * k1) / (10 * safe_k2)).abs(), (1 / (3 * safe_k1)).abs()
    )
    return torch.where(limited, limit, torch.full_like(limit, torch.inf))


# -- fisheye ----------------------------------------------------------------------------------------------------------
def _angles(m: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """r, theta = atan(r), and where r is so small that series must replace quotients."""
    r2 = (m * m).sum(-1)
    small = r2 < _SMALL**2
    r = torch.where(small, torch.ones_like(r2), r2).sqrt()
    return r, torch.atan(r), small


def _fisheye_scale(theta: Tensor, parameters: Tensor) -> tuple[Tensor, Tensor]:
    """theta_d and d theta_d / d theta."""
    k1, k2, k3, k4 = _columns(parameters)
    s = theta * theta
    value = theta * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4))))
    slope = 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))
    return value, slope


def _distort_fisheye(m: Tensor, parameters: Tensor) -> Tensor:
    r, theta, small = _angles(m)
    scale = torch.where(small, torch.ones_like(r), _fisheye_scale(theta, parameters)[0] / r)
    return m * scale[..., None]


def _J_fisheye(m: Tensor, parameters: Tensor) -> Tensor:
    r, theta, small = _angles(m)
    value, slope = _fisheye_scale(theta, parameters)
    scale = torch.where(small, torch.ones_like(r), value / r)
    # d(value/r)/dr / r, the weight of the outer product m m^T
    weight = torch.where(small, torch.zeros_like(r), (slope / (1 + r * r) - value / r) / (r * r))
    outer = m[..., :, None] * m[..., None, :]
    eye = torch.eye(2, dtype=m.dtype, device=m.device)
    return scale[..., None, None] * eye + weight[..., None, None] * outer


def _inside_fisheye(m: Tensor, parameters: Tensor) -> Tensor:
    k1, k2, k3, k4 = parameters.unbind(-1)
    limit = smallest_positive_root(torch.stack([3 * k1, 5 * k2, 7 * k3, 9 * k4], -1))
    theta = torch.atan(m.norm(dim=-1))
    return theta * theta < limit[..., None]


# -- shared -----------------------------------------------------------------------------------------------------------
def smallest_positive_root(coefficients: Float[Tensor, "*b n"]) -> Float[Tensor, "*b"]:
    """The smallest positive root of a polynomial. It is the smallest x > 0 with ``1 + c1 x + c2 x^2 + ... + cn x^n
    = 0``; infinity where there is none.

    Eigenvalues of the companion matrix of the reversed polynomial are 1/x, and that polynomial is monic whatever the
    coefficients are, so vanishing leading coefficients need no special case.
    """
    c = coefficients.detach().double()
    n = c.shape[-1]
    companion = torch.zeros(*c.shape[:-1], n, n, dtype=c.dtype, device=c.device)
    companion[..., 0, :] = -c
    if n > 1:
        companion[..., range(1, n), range(n - 1)] = 1.0
    inverse = torch.linalg.eigvals(torch.nan_to_num(companion))
    real = (inverse.imag.abs() < 1e-9 * (1 + inverse.abs())) & (inverse.real > 1e-12)
    largest = torch.where(real, inverse.real, torch.zeros_like(inverse.real)).amax(-1)
    root = torch.where(largest > 0, 1 / largest, torch.full_like(largest, torch.inf))
    return root.to(coefficients.dtype)


def _start(distorted: Tensor, parameters: Tensor, model: Model) -> Tensor:
    """Where Newton begins: the distorted point itself, pulled inside the one-to-one region."""
    if model == "fisheye":
        # theta_d is an angle: start at theta = theta_d, which lies within half a turn
        angle = distorted.norm(dim=-1, keepdim=True).clamp(max=1.4)
        return distorted * (torch.tan(angle) / angle.clamp(min=1e-12))
    k1, k2, _, _, k3 = parameters.unbind(-1)
    limit = smallest_positive_root(torch.stack([3 * k1, 5 * k2, 7 * k3], -1)).sqrt()[..., None, None]
    r = distorted.norm(dim=-1, keepdim=True)
    return distorted * (0.9 * limit / r.clamp(min=1e-12)).clamp(max=1)


def _J_safe(m: Tensor, parameters: Tensor, model: Model) -> Tensor:
    """The Jacobian, with a touch on the diagonal where it is singular, so that one bad point stops no batch."""
    J = J_distort(m, parameters, model)
    singular = torch.linalg.det(J).abs() < 1e-12
    return J + singular[..., None, None] * 1e-6 * torch.eye(2, dtype=m.dtype, device=m.device)
