"""One fit of two photos: rotation, direction and length together, with the depths of both photos as soft priors.

Each match is one free point, seen in both photos. A depth map is right up to what the photo as a whole gets wrong, so
each photo has two unknowns of its own: how much too far its map is (``scale``), and how much more so for what is far
(``tilt``). Both have priors; the scales of two photos of one camera err alike, which their joint prior says. Depths
that are wrong thus bend neither rotation nor direction, and the length follows what both photos say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.bounds import require_within
from metriloc.geometry import MIN_DEPTH, Camera, J_transform, Pose
from metriloc.solvers.least_squares import damped_step, minimize
from metriloc.solvers.reprojection import Eliminated, eliminate_points
from metriloc.solvers.robust import cauchy, scaled_barron
from metriloc.solvers.two_view import triangulated_depth

_MIN_MATCHES = 6
_BEHIND = 1e6  # squared residual, in sigmas, of a point behind a camera
_MIN_SIGMA = 1e-3
_POSE, _PHOTO0, _PHOTO1 = slice(0, 6), slice(6, 8), slice(8, 10)


@dataclass(frozen=True)
class DepthError:
    """How depths of one kind err; standard deviations of their logarithm.

    scale: of a whole photo; correlation: of the scales of two photos of one place and camera. tilt: how much the error
    changes where the depth grows e-fold. shape: of one point, when scale and tilt are taken out. votes: how many points
    of a photo err independently of each other; more points are no more certain.
    """

    scale: float
    correlation: float
    tilt: float
    shape: float
    votes: float

    def __post_init__(self) -> None:
        positive = (1e-9, 1e9)
        require_within(self, scale=positive, tilt=positive, shape=positive, votes=positive, correlation=(-0.999, 0.999))


@dataclass(frozen=True)
class JointConfig:
    """Settings of the joint fit."""

    depth: DepthError
    """How the depths err."""
    pixel_sigma: float = 0.5
    """Standard deviation of keypoint positions, pixels."""
    robust_scale: float = 1.0
    """Residuals beyond this many sigmas lose weight."""
    iterations: int = 20
    """So many at most."""

    def __post_init__(self) -> None:
        require_within(self, pixel_sigma=(1e-9, 1e9), robust_scale=(1e-9, 1e9), iterations=(1, 100_000))


@dataclass(frozen=True)
class PhotoScale:
    """What the depths of one photo say.

    Metres a metre of the fitted pose, as a logarithm; its standard deviation; and how many depths
    had a say.
    """

    log_scale: float
    sigma: float
    count: int


@dataclass(frozen=True, eq=False)
class JointFit:
    """pose: ``1_from_0``, its length what both photos agree on. photos: what each says of the length, None for one
    without depths. open_sigma: of the logarithm of the length, what the pixels leave open when all depths are right;
    large without parallax. cost: robust, per match in use. ok: False where nothing was fitted; then pose is the start."""

    pose: Pose
    photos: tuple[PhotoScale | None, PhotoScale | None]
    open_sigma: float
    cost: float
    ok: bool


@torch.no_grad()
def joint_fit(
    start: Pose,
    uvs: tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]],
    depths: tuple[Float[Tensor, " N"], Float[Tensor, " N"]],
    cameras: tuple[Camera, Camera],
    config: JointConfig,
) -> JointFit:
    """Refine ``start`` (1_from_0, metres) by Levenberg-Marquardt; float64 inside, no gradients.

    depths: metres, 0 or NaN where unknown. The matches are inliers for the most part: a robust loss forgives a few that
    are not, and any number of wrong depths below half. A start without translation is as good as another. Needs six
    matches, one of them with a depth.
    """
    problem, xyz0 = _problem(start.to(torch.float64), uvs, depths, cameras, config)
    nothing = JointFit(start, (None, None), float("inf"), float("nan"), False)
    if len(xyz0) < _MIN_MATCHES or not bool(start.is_finite()) or not any(bool(has.any()) for has in problem.has_depth):
        return nothing
    state = _State(start.to(torch.float64), xyz0.new_zeros(4), xyz0)
    state, _, cost = minimize(state, problem.cost, problem.step, config.iterations)
    if not bool(state.pose.is_finite()) or not math.isfinite(cost):
        return nothing
    photos = problem.photo(state, 0), problem.photo(state, 1)
    return JointFit(state.pose.to(start.dtype), photos, problem.open_sigma(state), cost / len(xyz0), True)


@dataclass(frozen=True, eq=False)
class _State:
    """photos: scale and tilt of photo 0, then of photo 1. xyz0: the points, camera 0."""

    pose: Pose
    photos: Float[Tensor, " 4"]
    xyz0: Float[Tensor, "N 3"]


@dataclass(frozen=True, eq=False)
class _Problem:
    """The matches in use. log_depth: as the maps have it, 0 where ``has_depth`` is False; lever: the same less its mean,
    which the tilt multiplies. vote: what one depth of a photo counts. prior: inverse square root of the covariance of the
    four photo parameters."""

    uv: tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]
    cameras: tuple[Camera, Camera]
    log_depth: tuple[Float[Tensor, " N"], Float[Tensor, " N"]]
    has_depth: tuple[Bool[Tensor, " N"], Bool[Tensor, " N"]]
    lever: tuple[Float[Tensor, " N"], Float[Tensor, " N"]]
    vote: tuple[float, float]
    prior: Float[Tensor, "4 4"]
    config: JointConfig

    def residuals(self, state: _State) -> tuple[Tensor, Tensor]:
        """Six residuals a match in sigmas: pixels 0 and 1 (two each), log-depths 0 and 1; the points in camera 1.

        Of a log-depth: ``log z + scale + tilt * lever - log d``.
        """
        xyz1 = state.pose.transform(state.xyz0)
        parts = []
        for xyz, camera, uv in zip((state.xyz0, xyz1), self.cameras, self.uv, strict=True):
            parts.append((camera.project(xyz)[0] - uv) / self.config.pixel_sigma)
        for k, xyz in enumerate((state.xyz0, xyz1)):
            scale, tilt = state.photos[2 * k], state.photos[2 * k + 1]
            ratio = xyz[:, 2].clamp(min=MIN_DEPTH).log() + scale + tilt * self.lever[k] - self.log_depth[k]
            parts.append(torch.where(self.has_depth[k], ratio, 0.0)[:, None] / self.config.depth.shape)
        return torch.cat(parts, -1), xyz1

    def robust(self, residual: Tensor, xyz0: Tensor, xyz1: Tensor) -> tuple[Tensor, Tensor]:
        """Total cost of the matches, and the weight of each residual. A match is one pixel error over both photos."""
        in_front = (xyz0[:, 2] > MIN_DEPTH) & (xyz1[:, 2] > MIN_DEPTH)
        pixel = residual[:, :4].square().sum(-1)
        pixel = torch.where(in_front, pixel, torch.full_like(pixel, _BEHIND))
        value, weight, _ = scaled_barron(pixel, 0.0, self.config.robust_scale)
        total, weights = value.sum(), [(weight * in_front)[:, None].expand(-1, 4)]
        for k in (0, 1):
            value, weight, _ = cauchy(residual[:, 4 + k].square())
            total = total + self.vote[k] * value.sum()
            weights.append((self.vote[k] * weight * (self.has_depth[k] & in_front))[:, None])
        return total, torch.cat(weights, -1)

    def jacobians(self, state: _State, xyz1: Tensor) -> tuple[Tensor, Tensor]:
        """Of the residuals: with respect to [t, w] of the left update of the pose and the photo parameters; and to the
        point in camera 0."""
        xyzs, depth = (state.xyz0, xyz1), self.config.depth
        J_uv = [c.J_project(x)[0] / self.config.pixel_sigma for x, c in zip(xyzs, self.cameras, strict=True)]
        J_log = [xyz1.new_zeros(len(xyz1), 1, 3) for _ in xyzs]
        J_photo = xyz1.new_zeros(len(xyz1), 6, 4)
        for k, xyz in enumerate(xyzs):
            J_log[k][:, 0, 2] = 1 / (xyz[:, 2].clamp(min=MIN_DEPTH) * depth.shape)
            J_photo[:, 4 + k, 2 * k] = 1 / depth.shape
            J_photo[:, 4 + k, 2 * k + 1] = self.lever[k] / depth.shape
        in_camera1 = torch.cat([torch.zeros_like(J_uv[0]), J_uv[1], torch.zeros_like(J_log[0]), J_log[1]], -2)
        in_camera0 = torch.cat([J_uv[0], torch.zeros_like(J_uv[1]), J_log[0], torch.zeros_like(J_log[1])], -2)
        return torch.cat([in_camera1 @ J_transform(xyz1), J_photo], -1), in_camera0 + in_camera1 @ state.pose.R

    def cost(self, state: _State) -> float:
        """Robust cost of the matches, and of the priors."""
        residual, xyz1 = self.residuals(state)
        return float(self.robust(residual, state.xyz0, xyz1)[0] + (self.prior @ state.photos).square().sum())

    def system(self, state: _State, damping: float) -> Eliminated:
        """Normal equations of the pose and the photo parameters, with the priors of these."""
        residual, xyz1 = self.residuals(state)
        _, weight = self.robust(residual, state.xyz0, xyz1)
        found = eliminate_points(residual, weight, *self.jacobians(state, xyz1), damping)
        found.H[6:, 6:] += self.prior.mT @ self.prior
        found.g[6:] += self.prior.mT @ (self.prior @ state.photos)
        return found

    def step(self, state: _State, damping: float) -> _State | None:
        """One damped step."""
        system = self.system(state, damping)
        step = damped_step(system.H, system.g, damping)
        if not bool(step.ok):
            return None
        moved = system.to_points @ torch.cat([step.delta, step.delta.new_ones(1)])
        pose = Pose.from_tangent(step.delta[_POSE]) @ state.pose
        return _State(pose, state.photos + step.delta[6:], state.xyz0 + moved)

    def photo(self, state: _State, k: int) -> PhotoScale | None:
        """What the depths of photo ``k`` say of the length: its scale, as uncertain as the prior and the shape leave it."""
        has = self.has_depth[k]
        count = int(has.sum())
        if count == 0:
            return None
        residual = self.residuals(state)[0][has, 4 + k] * self.config.depth.shape
        spread = 1.4826 * float((residual - residual.median()).abs().median())
        shape = max(spread, _MIN_SIGMA) / math.sqrt(min(count, self.config.depth.votes))
        return PhotoScale(float(state.photos[2 * k]), math.hypot(self.config.depth.scale, shape), count)

    def open_sigma(self, state: _State) -> float:
        """Standard deviation of the logarithm of the length that is left when the photo parameters are known."""
        H, length = self.system(state, 0.0).H[_POSE, _POSE], float(state.pose.distance())
        factor, info = torch.linalg.cholesky_ex(H)
        if length == 0 or int(info) != 0:
            return float("inf")
        along = torch.cat([state.pose.t / length, state.pose.t.new_zeros(3)])
        return float((along @ torch.cholesky_solve(along[:, None], factor)).clamp(min=0).sqrt()) / length


def _problem(
    start: Pose, uvs: tuple[Tensor, Tensor], depths: tuple[Tensor, Tensor], cameras: tuple[Camera, Camera],
    config: JointConfig,
) -> tuple[_Problem, Tensor]:  # fmt: skip
    """The usable matches and the points (camera 0) to start from: where the start triangulates them, else at a depth."""
    camera0, camera1 = (camera.to(torch.float64) for camera in cameras)
    uv0, uv1 = (uv.double() for uv in uvs)
    (ray0, valid0), (ray1, valid1) = camera0.unproject(uv0), camera1.unproject(uv1)
    measured = [depth.double() for depth in depths]
    has = [torch.isfinite(depth) & (depth > 0) for depth in measured]
    first = _first_depths(start, (ray0, ray1), (measured[0], measured[1]), (has[0], has[1]))
    usable = valid0 & valid1 & torch.isfinite(uv0).all(-1) & torch.isfinite(uv1).all(-1)
    usable &= torch.isfinite(first) & (first > MIN_DEPTH)
    has = [h[usable] for h in has]
    logs = [torch.where(h, d[usable].clamp(min=MIN_DEPTH).log(), 0.0) for h, d in zip(has, measured, strict=True)]
    levers = [torch.where(h, log - log[h].mean(), 0.0) for h, log in zip(has, logs, strict=True)]
    votes = [min(1.0, config.depth.votes / max(int(h.sum()), 1)) for h in has]
    problem = _Problem(
        (uv0[usable], uv1[usable]),
        (camera0, camera1),
        (logs[0], logs[1]),
        (has[0], has[1]),
        (levers[0], levers[1]),
        (votes[0], votes[1]),
        _prior(config.depth),
        config,
    )
    return problem, ray0[usable] * first[usable, None]


def _first_depths(
    start: Pose, rays: tuple[Tensor, Tensor], depths: tuple[Tensor, Tensor], has: tuple[Tensor, Tensor]
) -> Tensor:
    """Depths in camera 0 to start from: what a map says, brought to camera 0; else triangulated."""
    back = start.inverse().transform(rays[1] * torch.nan_to_num(depths[1])[:, None])[:, 2]
    seen = torch.where(has[0], depths[0], torch.where(has[1], back, torch.nan))
    if float(start.distance()) == 0:
        return seen
    triangulated = triangulated_depth(start, rays[0], rays[1])
    return torch.where(torch.isfinite(seen), seen, triangulated)


def _prior(depth: DepthError) -> Tensor:
    """``C^-1/2`` of scale and tilt of both photos; only the scales are correlated."""
    covariance = torch.zeros(4, 4, dtype=torch.float64)
    covariance[0, 0] = covariance[2, 2] = depth.scale**2
    covariance[0, 2] = covariance[2, 0] = depth.correlation * depth.scale**2
    covariance[1, 1] = covariance[3, 3] = depth.tilt**2
    lower = torch.linalg.cholesky(covariance)
    return torch.linalg.solve_triangular(lower, torch.eye(4, dtype=torch.float64), upper=False)
