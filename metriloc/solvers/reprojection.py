"""Polish: refine a metric relative pose by the reprojection error in both images, with their depths as soft priors.

Kabsch trusts depths and pixels alike, but pixels are far more exact; that is why MicKey's rotations are coarse (the
paper names it as a limitation). Here each match is one free point. Its residuals: the pixels where either image sees
it, and how far its depth in each camera is, as a ratio, from the depth measured there. So wrong depths no longer bend
the rotation, while their median still fixes the metres. The points are eliminated from the normal equations (a 3x3
Schur complement a match); what is left is a 6x6 system.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.bounds import require_within
from metriloc.geometry import MIN_DEPTH, Camera, J_transform, Pose
from metriloc.solvers.least_squares import damped_step, is_regular, minimize
from metriloc.solvers.robust import scaled_barron

_MIN_MATCHES = 4
_BEHIND = 1e6  # squared residual, in sigmas, of a point behind a camera: it must never pay to go there


@dataclass(frozen=True)
class PolishConfig:
    """Settings of the refinement by reprojection error."""

    pixel_sigma: float = 2.0
    """Standard deviation of keypoint positions, pixels."""
    log_depth_sigma: float = 0.15
    """Of the logarithm of a depth (0.15 = 15 %)."""
    robust_scale: float = 1.0
    """Residuals beyond this many sigmas lose weight (Cauchy)."""
    iterations: int = 30
    """So many at most."""

    def __post_init__(self) -> None:
        positive = (1e-9, 1e9)
        require_within(self, pixel_sigma=positive, log_depth_sigma=positive, robust_scale=positive)
        require_within(self, iterations=(1, 100_000))


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
    problem, xyz0 = _problem(start, (uv0, uv1), (depth0, depth1), cameras, config)
    if len(xyz0) < _MIN_MATCHES or not bool(start.is_finite()):
        return Polished(pose, float("nan"), float("nan"), False)
    refined, before, after = _minimize(problem, start, xyz0, config.iterations)
    if not _observable(problem, *refined):
        return Polished(pose, before, before, False)
    return Polished(refined[0].to(pose.dtype), before, after, True)


@dataclass(frozen=True, eq=False)
class _Problem:
    """The matches in use; pairs are (image 0, image 1). log_depth: measured, with 0 where ``has_depth`` is False."""

    uv: tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]
    cameras: tuple[Camera, Camera]
    log_depth: tuple[Float[Tensor, " N"], Float[Tensor, " N"]]
    has_depth: tuple[Bool[Tensor, " N"], Bool[Tensor, " N"]]
    config: PolishConfig

    def residuals(self, pose: Pose, xyz0: Tensor) -> tuple[Tensor, Tensor]:
        """Six residuals a match in sigmas: pixels 0 and 1 (two each), log-depths 0 and 1; the points in camera 1."""
        xyz1 = pose.transform(xyz0)
        parts = []
        for xyz, camera, uv in zip((xyz0, xyz1), self.cameras, self.uv, strict=True):
            parts.append((camera.project(xyz)[0] - uv) / self.config.pixel_sigma)
        for xyz, has, measured in zip((xyz0, xyz1), self.has_depth, self.log_depth, strict=True):
            ratio = xyz[:, 2].clamp(min=MIN_DEPTH).log() - measured
            parts.append(torch.where(has, ratio, torch.zeros_like(ratio))[:, None] / self.config.log_depth_sigma)
        return torch.cat(parts, -1), xyz1

    def robust(self, residual: Tensor, xyz0: Tensor, xyz1: Tensor) -> tuple[Tensor, Tensor]:
        """Total cost, and the weight of each residual. A match is one pixel error over both images."""
        in_front = (xyz0[:, 2] > MIN_DEPTH) & (xyz1[:, 2] > MIN_DEPTH)
        pixel = residual[:, :4].square().sum(-1)
        square = torch.stack([pixel, *residual[:, 4:].square().unbind(-1)], -1)
        square[:, 0] = torch.where(in_front, pixel, torch.full_like(pixel, _BEHIND))
        value, weight, _ = scaled_barron(square, 0.0, self.config.robust_scale)
        used = torch.stack([*[in_front] * 4, self.has_depth[0] & in_front, self.has_depth[1] & in_front], -1)
        return value.sum(), torch.cat([weight[:, :1].expand(-1, 4), weight[:, 1:]], -1) * used

    def jacobians(self, pose: Pose, xyz0: Tensor, xyz1: Tensor) -> tuple[Tensor, Tensor]:
        """Of the residuals: with respect to the left update [t, w] of the pose, and to the point in camera 0."""
        J_uv = [
            camera.J_project(xyz)[0] / self.config.pixel_sigma
            for xyz, camera in zip((xyz0, xyz1), self.cameras, strict=True)
        ]
        J_log = [xyz.new_zeros(len(xyz), 1, 3) for xyz in (xyz0, xyz1)]
        for J, xyz in zip(J_log, (xyz0, xyz1), strict=True):
            J[:, 0, 2] = 1 / (xyz[:, 2].clamp(min=MIN_DEPTH) * self.config.log_depth_sigma)
        in_camera1 = torch.cat([torch.zeros_like(J_uv[0]), J_uv[1], torch.zeros_like(J_log[0]), J_log[1]], -2)
        in_camera0 = torch.cat([J_uv[0], torch.zeros_like(J_uv[1]), J_log[0], torch.zeros_like(J_log[1])], -2)
        return in_camera1 @ J_transform(xyz1), in_camera0 + in_camera1 @ pose.R


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
    """The usable matches and the points (camera 0) to start from: on the ray of image 0, at its depth if it has one."""
    camera0, camera1 = (camera.to(torch.float64) for camera in cameras)
    uv0, uv1 = (uv.double() for uv in uvs)
    depth0, depth1 = (depth.double() for depth in depths)
    has0, has1 = (torch.isfinite(depth) & (depth > 0) for depth in (depth0, depth1))
    # without a depth of its own a point starts where image 1 sees it
    back = start.inverse().transform(camera1.lift(uv1, depth1))[:, 2]
    first = torch.where(has0, depth0, back)
    xyz0 = camera0.lift(uv0, first)
    usable = torch.isfinite(xyz0).all(-1) & torch.isfinite(uv0).all(-1) & torch.isfinite(uv1).all(-1)
    usable &= (has0 | has1) & (first > MIN_DEPTH)
    has0, has1 = has0[usable], has1[usable]
    logs = [
        torch.where(has, depth[usable].clamp(min=MIN_DEPTH).log(), torch.zeros_like(depth[usable]))
        for has, depth in ((has0, depth0), (has1, depth1))
    ]
    problem = _Problem((uv0[usable], uv1[usable]), (camera0, camera1), (logs[0], logs[1]), (has0, has1), config)
    return problem, xyz0[usable]


_State = tuple[Pose, Tensor]


def _minimize(problem: _Problem, pose: Pose, xyz0: Tensor, iterations: int) -> tuple[_State, float, float]:
    """Levenberg-Marquardt: the best state, the cost at the start and at the end."""
    return minimize(
        (pose, xyz0),
        lambda state: _cost(problem, *state),
        lambda state, damping: _step(problem, *state, damping),
        iterations,
    )


def _cost(problem: _Problem, pose: Pose, xyz0: Tensor) -> float:
    residual, xyz1 = problem.residuals(pose, xyz0)
    return float(problem.robust(residual, xyz0, xyz1)[0])


@dataclass(frozen=True, eq=False)
class Eliminated:
    """The normal equations ``H``, ``g`` of what all matches share once the points are eliminated, and what finds those
    again: ``to_points = -V^-1 [W^T, g_x]`` of each match."""

    H: Float[Tensor, "P P"]
    g: Float[Tensor, " P"]
    to_points: Float[Tensor, "N 3 P1"]


def eliminate_points(
    residual: Float[Tensor, "N r"],
    weight: Float[Tensor, "N r"],
    J: Float[Tensor, "N r P"],
    J_point: Float[Tensor, "N r 3"],
    damping: float,
) -> Eliminated:
    """Schur complement of weighted least squares with P shared parameters (``J``) and a free point a match."""
    shared = J.shape[-1]
    weighted = weight[..., None] * J
    V = (weight[..., None] * J_point).mT @ J_point
    diagonal = V.diagonal(dim1=-2, dim2=-1)
    V = V + torch.diag_embed(damping * diagonal + 1e-12 * diagonal.sum(-1, keepdim=True) + 1e-12)
    W = weighted.mT @ J_point
    g_point = (J_point.mT @ (weight * residual)[..., None]).squeeze(-1)
    to_points = -torch.linalg.solve_ex(V, torch.cat([W.mT, g_point[..., None]], -1))[0]
    H = torch.einsum("nri,nrj->ij", weighted, J) + (W @ to_points[..., :shared]).sum(0)
    g = torch.einsum("nri,nr->i", weighted, residual) + (W @ to_points[..., shared:]).sum(0).squeeze(-1)
    return Eliminated(H, g, to_points)


def _system(problem: _Problem, pose: Pose, xyz0: Tensor, damping: float) -> Eliminated:
    residual, xyz1 = problem.residuals(pose, xyz0)
    _, weight = problem.robust(residual, xyz0, xyz1)
    return eliminate_points(residual, weight, *problem.jacobians(pose, xyz0, xyz1), damping)


def _step(problem: _Problem, pose: Pose, xyz0: Tensor, damping: float) -> _State | None:
    system = _system(problem, pose, xyz0, damping)
    step = damped_step(system.H, system.g, damping)
    if not bool(step.ok):
        return None
    moved = system.to_points @ torch.cat([step.delta, step.delta.new_ones(1)])
    return Pose.from_tangent(step.delta) @ pose, xyz0 + moved


def _observable(problem: _Problem, pose: Pose, xyz0: Tensor) -> bool:
    """Whether the matches fix all six parameters."""
    return is_regular(_system(problem, pose, xyz0, 0.0).H)
