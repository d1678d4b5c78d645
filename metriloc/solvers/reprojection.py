"""Polish: refine a metric relative pose by the two-way reprojection error, with depths as soft priors.

Kabsch trusts depths and pixels alike, but pixels are far more exact; that is why MicKey's rotations are coarse (the
paper names it as a limitation). Here each match is projected both ways. A point may slide along its own ray, which
costs as much as the depth is believed (log-normal), so wrong depths no longer bend the rotation.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, J_transform, Pose
from metriloc.solvers.least_squares import damped_step
from metriloc.solvers.robust import scaled_barron

_MIN_POINTS = 6
_MAX_DAMPING = 1e6


@dataclass(frozen=True)
class PolishConfig:
    """pixel_sigma: standard deviation of keypoint positions, pixels. log_depth_sigma: of the logarithm of a depth
    (0.15 = 15 %). robust_scale: residuals beyond this many sigmas lose weight (Cauchy). iterations: at most."""

    pixel_sigma: float = 2.0
    log_depth_sigma: float = 0.15
    robust_scale: float = 2.0
    iterations: int = 30

    def __post_init__(self) -> None:
        for name in ("pixel_sigma", "log_depth_sigma", "robust_scale", "iterations"):
            if not getattr(self, name) > 0:
                raise ValueError(f"PolishConfig.{name} must be positive, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Polished:
    """pose: refined ``1_from_0`` (the start where ``ok`` is False). cost_before, cost: robust cost, never larger after."""

    pose: Pose
    cost_before: float
    cost: float
    ok: bool


@dataclass(frozen=True, eq=False)
class _Direction:
    """Points of one image (unit-depth rays times measured depth) and where the other image sees them."""

    xyz: Float[Tensor, "N 3"]
    uv: Float[Tensor, "N 2"]
    camera: Camera
    forward: bool  # from image 0 into image 1, or back

    def move(self, pose: Pose, log_depth: Tensor) -> tuple[Tensor, Tensor]:
        """Points in the other camera and their derivative with respect to the log-depth."""
        scaled = self.xyz * log_depth.exp()[:, None]
        motion = pose if self.forward else pose.inverse()
        return motion.transform(scaled), scaled @ motion.R.mT


@torch.no_grad()
def polish(
    pose: Pose,
    uv0: Float[Tensor, "N 2"],
    depth0: Float[Tensor, " N"],
    uv1: Float[Tensor, "N 2"],
    depth1: Float[Tensor, " N"],
    cameras: tuple[Camera, Camera],
    config: PolishConfig | None = None,
) -> Polished:
    """Refine ``pose`` (1_from_0) on inlier matches; runs in float64, returns the type it was given.

    depth0, depth1: metres; a match whose depth is missing in an image (0, negative or NaN) is used in the other
    direction only. With fewer than six usable projections, or a start that is not finite, ``ok`` is False.
    """
    config = config or PolishConfig()
    double = pose.to(torch.float64)
    camera0, camera1 = (camera.to(torch.float64) for camera in cameras)
    directions = [
        _direction(uv0.double(), depth0.double(), uv1.double(), camera0, camera1, True),
        _direction(uv1.double(), depth1.double(), uv0.double(), camera1, camera0, False),
    ]
    if sum(len(d.xyz) for d in directions) < _MIN_POINTS or not bool(pose.is_finite()):
        return Polished(pose, float("nan"), float("nan"), False)
    state = double, [d.xyz.new_zeros(len(d.xyz)) for d in directions]
    before = cost = _cost(directions, *state, config)
    damping = 1e-4
    for _ in range(config.iterations):
        candidate = _step(directions, *state, damping, config)
        new_cost = _cost(directions, *candidate, config) if candidate is not None else float("inf")
        if candidate is not None and new_cost < cost:
            converged = cost - new_cost < 1e-9 * cost
            state, cost, damping = candidate, new_cost, max(damping / 10, 1e-9)
            if converged:
                break
        else:
            damping *= 10
            if damping > _MAX_DAMPING:
                break
    return Polished(state[0].to(pose.dtype), before, cost, True)


def _direction(uv: Tensor, depth: Tensor, other_uv: Tensor, camera: Camera, other: Camera, forward: bool) -> _Direction:
    ray, valid = camera.unproject(uv)
    usable = valid & torch.isfinite(depth) & (depth > 0) & torch.isfinite(other_uv).all(-1)
    return _Direction(ray[usable] * depth[usable, None], other_uv[usable], other, forward)


def _residuals(d: _Direction, moved: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel differences and whether the point is in front of the camera (points behind have no projection)."""
    uv, _ = d.camera.project(moved)
    return uv - d.uv, moved[:, 2] > 1e-3


def _weights(pixel: Tensor, log_depth: Tensor, config: PolishConfig) -> tuple[Tensor, Tensor, Tensor]:
    """Robust cost a point, and the two weights in units of 1 / variance."""
    rho_p, w_p, _ = scaled_barron(pixel.square().sum(-1) / config.pixel_sigma**2, 0.0, config.robust_scale)
    rho_d, w_d, _ = scaled_barron((log_depth / config.log_depth_sigma).square(), 0.0, config.robust_scale)
    return rho_p + rho_d, w_p / config.pixel_sigma**2, w_d / config.log_depth_sigma**2


def _cost(directions: list[_Direction], pose: Pose, log_depths: list[Tensor], config: PolishConfig) -> float:
    total = 0.0
    for d, log_depth in zip(directions, log_depths, strict=True):
        pixel, in_front = _residuals(d, d.move(pose, log_depth)[0])
        rho, _, _ = _weights(pixel, log_depth, config)
        # a point behind the camera must never pay: it costs as much as one a thousand pixels off
        worst = scaled_barron(rho.new_tensor((1000 / config.pixel_sigma) ** 2), 0.0, config.robust_scale)[0]
        total += float(torch.where(in_front, rho, worst.expand_as(rho)).sum())
    return total


def _step(
    directions: list[_Direction], pose: Pose, log_depths: list[Tensor], damping: float, config: PolishConfig
) -> tuple[Pose, list[Tensor]] | None:
    """One Levenberg-Marquardt step; each log-depth is eliminated from the normal equations (1x1 Schur complements)."""
    H, g = pose.t.new_zeros(6, 6), pose.t.new_zeros(6)
    parts = []
    for d, log_depth in zip(directions, log_depths, strict=True):
        moved, J_log = d.move(pose, log_depth)
        pixel, in_front = _residuals(d, moved)
        _, w_pixel, w_depth = _weights(pixel, log_depth, config)
        w_pixel = w_pixel * in_front
        J_uv = d.camera.J_project(moved)[0]
        J_pose = J_uv @ _J_pose(d, pose, log_depth, moved)  # [N, 2, 6]
        J_depth = (J_uv @ J_log[..., None]).squeeze(-1)  # [N, 2]
        a = w_pixel * J_depth.square().sum(-1) + w_depth
        b = w_pixel[:, None] * torch.einsum("nij,ni->nj", J_pose, J_depth)
        g_depth = w_pixel * (J_depth * pixel).sum(-1) + w_depth * log_depth
        H += torch.einsum("n,nij,nik->jk", w_pixel, J_pose, J_pose) - torch.einsum("nj,nk,n->jk", b, b, 1 / a)
        g += torch.einsum("n,nij,ni->j", w_pixel, J_pose, pixel) - (b * (g_depth / a)[:, None]).sum(0)
        parts.append((a, b, g_depth))
    step = damped_step(H, g, damping)
    if not bool(step.ok):
        return None
    new_depths = [
        log_depth - (g_depth + b @ step.delta) / a for log_depth, (a, b, g_depth) in zip(log_depths, parts, strict=True)
    ]
    return Pose.from_tangent(step.delta) @ pose, new_depths


def _J_pose(d: _Direction, pose: Pose, log_depth: Tensor, moved: Tensor) -> Float[Tensor, "N 3 6"]:
    """Derivative of the moved points with respect to the left update of ``1_from_0``."""
    if d.forward:
        return J_transform(moved)
    # back: X0 = R^T (Exp(-dw) (X1 - dt) - t), so the derivative is -R^T [I, -skew(X1)]
    return -(pose.R.mT @ J_transform(d.xyz * log_depth.exp()[:, None]))
