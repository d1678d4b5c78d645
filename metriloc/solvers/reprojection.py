"""Polish: refine a metric relative pose by reprojection error, with the depths of both images as soft priors.

Kabsch trusts depths and pixels alike, but pixels are far more exact; that is why MicKey's rotations are coarse (the
paper names it as a limitation). Here each match is one point that slides along its ray in image 0. Its residuals: the
pixels where image 1 sees it, and how far its depth in each camera is, as a ratio, from the depth measured there. So
wrong depths no longer bend the rotation, while their median still fixes the metres. The depths are eliminated from the
normal equations (a 1x1 Schur complement a match); what is left is a 6x6 system.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import MIN_DEPTH, Camera, J_transform, Pose
from metriloc.solvers.least_squares import damped_step
from metriloc.solvers.robust import scaled_barron

_MIN_MATCHES = 4
_START_DAMPING, _MIN_DAMPING, _MAX_DAMPING = 1e-4, 1e-9, 1e6
_CONVERGED = 1e-7  # relative decrease of the cost
_BEHIND = 1e6  # squared residual, in sigmas, of a point behind camera 1: it must never pay to go there
_SINGULAR = 1e-10  # smallest eigenvalue of the system scaled to unit diagonal: collinear points give 1e-16


@dataclass(frozen=True)
class PolishConfig:
    """pixel_sigma: standard deviation of keypoint positions, pixels. log_depth_sigma: of the logarithm of a depth
    (0.15 = 15 %). robust_scale: residuals beyond this many sigmas lose weight (Cauchy). iterations: at most."""

    pixel_sigma: float = 2.0
    log_depth_sigma: float = 0.15
    robust_scale: float = 1.0
    iterations: int = 30

    def __post_init__(self) -> None:
        for name in ("pixel_sigma", "log_depth_sigma", "robust_scale", "iterations"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"PolishConfig.{name} must be a positive number, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Polished:
    """pose: refined ``1_from_0`` (the start where ``ok`` is False). cost_before, cost: robust cost, never larger after,
    NaN where there was nothing to do. ok: False with too few matches, collinear points or a start with NaN."""

    pose: Pose
    cost_before: float
    cost: float
    ok: bool


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
    """Refine ``pose`` (1_from_0) on inlier matches by Levenberg-Marquardt; float64 inside, no gradients.

    depth0, depth1: metres; a depth that is missing (0, negative, NaN) has no residual, and a match without both is not
    used. Needs four matches. The caller chooses the inliers; the robust loss forgives the few that slipped through.
    Raises ValueError on shapes that do not fit.
    """
    _check(pose, uv0, depth0, uv1, depth1)
    config = config or PolishConfig()
    start = pose.to(torch.float64)
    problem, log_depth = _problem(start, (uv0, uv1), (depth0, depth1), cameras, config)
    if len(log_depth) < _MIN_MATCHES or not bool(start.is_finite()):
        return Polished(pose, float("nan"), float("nan"), False)
    refined, before, after = _minimise(problem, start, log_depth, config.iterations)
    if not _observable(problem, *refined):
        return Polished(pose, before, before, False)
    return Polished(refined[0].to(pose.dtype), before, after, True)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The matches in use. ray: at unit depth, camera 0. sigma: pixels, of each match. log_depth: measured, 0 and 1."""

    ray: Float[Tensor, "N 3"]
    uv1: Float[Tensor, "N 2"]
    camera1: Camera
    sigma: Float[Tensor, " N"]
    log_depth: tuple[Float[Tensor, " N"], Float[Tensor, " N"]]
    has_depth: tuple[Bool[Tensor, " N"], Bool[Tensor, " N"]]
    log_depth_sigma: float
    robust_scale: float

    def residuals(self, pose: Pose, log_depth: Tensor) -> tuple[Tensor, Tensor]:
        """Four residuals a match in sigmas (pixels in image 1, log-depth 1, log-depth 0), the points in camera 1."""
        xyz1 = pose.transform(self.ray * log_depth.exp()[:, None])
        uv1, _ = self.camera1.project(xyz1)
        pixel = (uv1 - self.uv1) / self.sigma[:, None]
        log_z1 = xyz1[:, 2].clamp(min=MIN_DEPTH).log()
        depth = [
            torch.where(has, z - measured, torch.zeros_like(z)) / self.log_depth_sigma
            for has, z, measured in zip(self.has_depth[::-1], (log_z1, log_depth), self.log_depth[::-1], strict=True)
        ]
        return torch.cat([pixel, torch.stack(depth, -1)], -1), xyz1

    def robust(self, residual: Tensor, xyz1: Tensor) -> tuple[Tensor, Tensor]:
        """Total cost, and the weight of each residual."""
        in_front = xyz1[:, 2] > MIN_DEPTH
        square = torch.stack([residual[:, :2].square().sum(-1), *residual[:, 2:].square().unbind(-1)], -1)
        square[:, 0] = torch.where(in_front, square[:, 0], torch.full_like(square[:, 0], _BEHIND))
        value, weight, _ = scaled_barron(square, 0.0, self.robust_scale)
        weight = torch.cat([weight[:, :1], weight], -1)  # both pixel coordinates share one weight
        has1, has0 = self.has_depth[1] & in_front, self.has_depth[0]
        return value.sum(), weight * torch.stack([in_front, in_front, has1, has0], -1)

    def jacobians(self, pose: Pose, xyz1: Tensor) -> tuple[Tensor, Tensor]:
        """Of the residuals: with respect to the left update [t, w] of the pose, and to the log-depth in image 0."""
        J_point = torch.cat(
            [self.camera1.J_project(xyz1)[0] / self.sigma[:, None, None], xyz1.new_zeros(len(xyz1), 1, 3)], -2
        )
        J_point[:, 2, 2] = 1 / (xyz1[:, 2].clamp(min=MIN_DEPTH) * self.log_depth_sigma)
        # the point is R ray e^s + t, so it moves along itself, seen from where the ray starts
        J_pose, J_log = J_point @ J_transform(xyz1), (J_point @ (xyz1 - pose.t)[..., None]).squeeze(-1)
        own_depth = torch.full_like(J_log[:, :1], 1 / self.log_depth_sigma)
        return torch.cat([J_pose, torch.zeros_like(J_pose[:, :1])], 1), torch.cat([J_log, own_depth], -1)


def _check(pose: Pose, uv0: Tensor, depth0: Tensor, uv1: Tensor, depth1: Tensor) -> None:
    count = len(uv0)
    shapes = {"uv0": (count, 2), "depth0": (count,), "uv1": (count, 2), "depth1": (count,)}
    for (name, shape), value in zip(shapes.items(), (uv0, depth0, uv1, depth1), strict=True):
        if value.shape != shape:
            raise ValueError(f"{name} must have shape {list(shape)}, got {list(value.shape)}")
    if pose.shape != ():
        raise ValueError(f"polish takes one pose, got batch shape {tuple(pose.shape)}")


def _problem(
    start: Pose, uvs: tuple[Tensor, Tensor], depths: tuple[Tensor, Tensor], cameras: tuple[Camera, Camera],
    config: PolishConfig,
) -> tuple[_Problem, Tensor]:  # fmt: skip
    """The usable matches and the log-depths (camera 0) to start from."""
    camera0, camera1 = (camera.to(torch.float64) for camera in cameras)
    uv0, uv1 = (uv.double() for uv in uvs)
    depth0, depth1 = (depth.double() for depth in depths)
    (ray0, valid0), (ray1, _) = camera0.unproject(uv0), camera1.unproject(uv1)
    has0, has1 = (torch.isfinite(depth) & (depth > 0) for depth in (depth0, depth1))
    # without a depth of its own a point starts where image 1 sees it
    back = start.inverse().transform(ray1 * depth1[:, None])[:, 2]
    first = torch.where(has0, depth0, back)
    usable = valid0 & torch.isfinite(uv0).all(-1) & torch.isfinite(uv1).all(-1)
    usable &= (has0 | has1) & torch.isfinite(first) & (first > MIN_DEPTH)
    first, has0, has1 = first[usable], has0[usable], has1[usable]
    ray, log1 = ray0[usable], depth1[usable].clamp(min=MIN_DEPTH).log()
    # a pixel of noise in image 0 is about (f1 z0) / (f0 z1) pixels in image 1: both images are equally noisy
    z1 = start.transform(ray * first[:, None])[:, 2].clamp(min=MIN_DEPTH)
    magnification = (camera1.f.mean() / camera0.f.mean() * first / z1).clamp(0.25, 4)
    sigma = config.pixel_sigma * (1 + magnification.square()).sqrt()
    logs = (torch.where(has0, first.log(), torch.zeros_like(first)), torch.where(has1, log1, torch.zeros_like(log1)))
    problem = _Problem(
        ray, uv1[usable], camera1, sigma, logs, (has0, has1), config.log_depth_sigma, config.robust_scale
    )
    return problem, first.log()


_State = tuple[Pose, Tensor]


def _minimise(problem: _Problem, pose: Pose, log_depth: Tensor, iterations: int) -> tuple[_State, float, float]:
    """Levenberg-Marquardt: the best state, the cost at the start and at the end."""
    state = pose, log_depth
    before = cost = float(problem.robust(*problem.residuals(*state))[0])
    damping = _START_DAMPING
    for _ in range(iterations):
        candidate = _step(problem, *state, damping)
        new_cost = float(problem.robust(*problem.residuals(*candidate))[0]) if candidate is not None else float("inf")
        if candidate is not None and new_cost < cost:
            converged = cost - new_cost < _CONVERGED * cost
            state, cost, damping = candidate, new_cost, max(damping / 10, _MIN_DAMPING)
            if converged:
                break
        else:
            damping *= 10
            if damping > _MAX_DAMPING:
                break
    return state, before, cost


def _system(problem: _Problem, pose: Pose, log_depth: Tensor, damping: float) -> tuple[Tensor, ...]:
    """The 6x6 normal equations once the log-depths are eliminated, and what it takes to find those again."""
    residual, xyz1 = problem.residuals(pose, log_depth)
    _, weight = problem.robust(residual, xyz1)
    J_pose, J_log = problem.jacobians(pose, xyz1)
    weighted = weight[..., None] * J_pose
    curvature = ((weight * J_log.square()).sum(-1) * (1 + damping)).clamp(min=1e-12)
    mixed = (weighted * J_log[..., None]).sum(1)
    gradient = (weight * J_log * residual).sum(-1)
    H = torch.einsum("nri,nrj->ij", weighted, J_pose) - mixed.mT @ (mixed / curvature[:, None])
    g = torch.einsum("nri,nr->i", weighted, residual) - mixed.mT @ (gradient / curvature)
    return H, g, curvature, mixed, gradient


def _step(problem: _Problem, pose: Pose, log_depth: Tensor, damping: float) -> _State | None:
    H, g, curvature, mixed, gradient = _system(problem, pose, log_depth, damping)
    step = damped_step(H, g, damping)
    if not bool(step.ok):
        return None
    return Pose.from_tangent(step.delta) @ pose, log_depth - (gradient + mixed @ step.delta) / curvature


def _observable(problem: _Problem, pose: Pose, log_depth: Tensor) -> bool:
    """Whether the matches fix all six parameters."""
    H = _system(problem, pose, log_depth, 0.0)[0]
    scale = H.diagonal().clamp(min=1e-30).rsqrt()
    normalised = scale[:, None] * H * scale
    return bool(torch.isfinite(normalised).all()) and float(torch.linalg.eigvalsh(normalised)[0]) > _SINGULAR
