"""Points that several posed cameras see: where they are, how well the motion fixes them, and all of it refined together.

``refine_views`` is a small bundle adjustment: points are eliminated from the normal equations, what is left are the
poses. Motions between some of the cameras that are known up to a drift (``MotionEdges``) hold the size of the whole.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.bounds import require_within
from metriloc.geometry import MIN_DEPTH, Camera, J_transform, Pose
from metriloc.solvers.least_squares import damped_step, minimize
from metriloc.solvers.motion import MotionEdges, add_edges, robust_motion
from metriloc.solvers.reprojection import Eliminated, eliminate_points
from metriloc.solvers.robust import scaled_barron
from metriloc.solvers.tracks import Tracks

_BEHIND = 1e6  # squared residual, in sigmas, of a point behind a camera
_MIN_POINTS = 6


@dataclass(frozen=True)
class ViewsConfig:
    """Settings of the refinement of several views."""

    pixel_sigma: float = 1.0
    """Standard deviation of keypoint positions, pixels."""
    robust_scale: float = 1.0
    """Residuals of pixels and of motions beyond this many sigmas lose weight."""
    motion_scale: float = 3.0
    """Residuals of pixels and of motions beyond this many sigmas lose weight."""
    iterations: int = 20
    """So many at most."""
    converged: float = 1e-4
    """Relative decrease of the cost below which it ends (it is a squared sigma or so an observation)."""
    times: float = 2.0
    """By how much pixels leave poses less sure than if their residuals were independent; of the
    covariance alone."""

    def __post_init__(self) -> None:
        positive = (1e-9, 1e9)
        require_within(self, pixel_sigma=positive, robust_scale=positive, motion_scale=positive, times=positive)
        require_within(self, iterations=(1, 100_000), converged=(0.0, 1.0))


@dataclass(frozen=True, eq=False)
class RefinedViews:
    """cam_from_world: of all cameras.

    xyz: the points; pixels: reprojection errors, inf behind a camera, NaN where not seen.
    covariance: of the left updates [t, w] of all poses, the first of which is held; None where the
    photos and the motions do not fix them. ok: False where nothing was refined.
    """

    cam_from_world: Pose
    xyz: Float[Tensor, "P 3"]
    pixels: Float[Tensor, "P V"]
    covariance: Float[Tensor, "V6 V6"] | None
    ok: bool


@torch.no_grad()
def triangulate(
    tracks: Tracks, cameras: Sequence[Camera], cam_from_world: Pose
) -> tuple[Float[Tensor, "P 3"], Float[Tensor, " P"]]:
    """Points nearest to all rays that see them.

    And the largest angle between two of their rays, radians. Points that fewer than two cameras
    see, or that lie behind one of them, are NaN with angle 0. Float64.
    """
    poses = cam_from_world.to(torch.float64)
    rays = torch.stack([camera.to(torch.float64).unproject(tracks.uv[:, v])[0] for v, camera in enumerate(cameras)], 1)
    seen = tracks.seen & torch.isfinite(rays).all(-1)
    rays = torch.where(seen[..., None], torch.nn.functional.normalize(rays, dim=-1), 0.0)
    ways = torch.einsum("vji,pvj->pvi", poses.R, rays)
    across = torch.eye(3, dtype=rays.dtype) - ways[..., None] * ways[..., None, :]
    across = torch.where(seen[..., None, None], across, 0.0)
    A, b = across.sum(1), (across @ poses.center()[None, :, :, None]).sum(1)
    xyz = torch.linalg.solve_ex(A + 1e-12 * torch.eye(3, dtype=A.dtype), b)[0].squeeze(-1)
    depth = torch.einsum("vj,pj->pv", poses.R[:, 2], xyz) + poses.t[:, 2]
    good = ((depth > MIN_DEPTH) | ~seen).all(1) & (seen.sum(1) >= 2) & torch.isfinite(xyz).all(-1)
    cosine = torch.where(seen[:, :, None] & seen[:, None], ways @ ways.mT, 1.0)
    # of nearly parallel rays the cosine has lost its digits; what is below 1e-6 radians fixes no point anyway
    angle = torch.acos(cosine.clamp(-1, 1).amin((1, 2)))
    return torch.where(good[:, None], xyz, torch.nan), torch.where(good, angle, 0.0)


@torch.no_grad()
def refine_views(
    tracks: Tracks,
    cameras: Sequence[Camera],
    cam_from_world: Pose,
    xyz: Float[Tensor, "P 3"],
    edges: MotionEdges,
    config: ViewsConfig | None = None,
) -> RefinedViews:
    """Poses and points that explain pixels and motions best, by Levenberg-Marquardt.

    Float64, no gradients. The first pose stays where it is. Points are finite. A robust loss
    forgives a few wrong matches and motions. Needs six points, and at least one motion to fix the
    size.
    """
    problem = _Problem(tracks, tuple(camera.to(torch.float64) for camera in cameras), edges, config or ViewsConfig())
    state = _State(cam_from_world.to(torch.float64), xyz.double())
    if len(xyz) < _MIN_POINTS or not bool(state.poses.is_finite().all()) or not len(edges):
        return RefinedViews(state.poses, state.xyz, problem.pixels(state), None, False)
    asked = problem.config
    state, _, cost = minimize(state, problem.cost, problem.step, asked.iterations, asked.converged)
    ok = math.isfinite(cost) and bool(state.poses.is_finite().all())
    return RefinedViews(state.poses, state.xyz, problem.pixels(state), problem.covariance(state) if ok else None, ok)


@dataclass(frozen=True, eq=False)
class _State:
    poses: Pose
    xyz: Float[Tensor, "P 3"]


@dataclass(frozen=True, eq=False)
class _Problem:
    tracks: Tracks
    cameras: tuple[Camera, ...]
    edges: MotionEdges
    config: ViewsConfig

    def local(self, state: _State) -> Float[Tensor, "V P 3"]:
        """The points in the axes of each camera."""
        return state.xyz @ state.poses.R.mT + state.poses.t[:, None]

    def residuals(self, local: Tensor) -> Float[Tensor, "P V 2"]:
        """Pixels by which each projection is off, in sigmas."""
        seen = torch.stack([camera.project(xyz)[0] for camera, xyz in zip(self.cameras, local, strict=True)], 1)
        off = (seen - self.tracks.uv) / self.config.pixel_sigma
        return torch.where(self.tracks.seen[..., None], off, 0.0)

    def robust(self, residual: Tensor, local: Tensor) -> tuple[Tensor, Float[Tensor, "P V"]]:
        """Cost of each observation, and its weight."""
        in_front = local[..., 2].mT > MIN_DEPTH
        square = residual.square().sum(-1)
        square = torch.where(in_front | ~self.tracks.seen, square, torch.full_like(square, _BEHIND))
        value, weight, _ = scaled_barron(square, 0.0, self.config.robust_scale)
        return value, weight * (in_front & self.tracks.seen)

    def cost(self, state: _State) -> float:
        """Robust cost of pixels and motions."""
        local = self.local(state)
        pixels = self.robust(self.residuals(local), local)[0].sum()
        return float(pixels + robust_motion(self.edges.squares(state.poses), self.config.motion_scale)[0].sum())

    def system(self, state: _State, damping: float, times: float = 1.0) -> Eliminated:
        """Normal equations of the left updates of all poses. times: by which pixels are less sure."""
        local = self.local(state)
        residual = self.residuals(local)
        _, weight = self.robust(residual, local)
        points, views = weight.shape
        J = residual.new_zeros(points, views, 2, views, 6)
        J_point = residual.new_zeros(points, views, 2, 3)
        for v, camera in enumerate(self.cameras):
            J_uv = camera.J_project(local[v])[0] / self.config.pixel_sigma
            J[:, v, :, v] = J_uv @ J_transform(local[v])
            J_point[:, v] = J_uv @ state.poses.R[v]
        rows = 2 * views
        found = eliminate_points(
            residual.reshape(points, rows),
            (weight / times**2)[..., None].expand(-1, -1, 2).reshape(points, rows),
            J.reshape(points, rows, 6 * views),
            J_point.reshape(points, rows, 3),
            damping,
        )
        motion = robust_motion(self.edges.squares(state.poses), self.config.motion_scale)[1]
        add_edges(found.H, found.g, self.edges, state.poses, motion)
        return found

    def step(self, state: _State, damping: float) -> _State | None:
        """One damped step."""
        system = self.system(state, damping)
        step = damped_step(system.H[6:, 6:], system.g[6:], damping)
        if not bool(step.ok):
            return None
        delta = torch.cat([step.delta.new_zeros(6), step.delta])
        moved = system.to_points @ torch.cat([delta, delta.new_ones(1)])
        return _State(Pose.from_tangent(delta.view(-1, 6)) @ state.poses, state.xyz + moved)

    def pixels(self, state: _State) -> Float[Tensor, "P V"]:
        """Reprojection errors."""
        local = self.local(state)
        error = self.residuals(local).norm(dim=-1) * self.config.pixel_sigma
        error = torch.where(local[..., 2].mT > MIN_DEPTH, error, torch.inf)
        return torch.where(self.tracks.seen, error, torch.nan)

    def covariance(self, state: _State) -> Tensor | None:
        """Inverse of the normal equations."""
        H = self.system(state, 0.0, self.config.times).H
        nothing_known = H.diagonal() == 0  # of a camera that sees none of the points
        H = H + torch.diag_embed(nothing_known.to(H))
        factor, info = torch.linalg.cholesky_ex(H[6:, 6:])
        if int(info) != 0:
            return None
        whole = torch.zeros_like(H)
        whole[6:, 6:] = torch.cholesky_inverse(factor)
        return whole
