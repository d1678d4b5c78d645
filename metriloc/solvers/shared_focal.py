"""Whether the matches of two photos speak for other focal lengths than the stated ones.

An epipolar geometry of two cameras that share a focal length fixes it, unless their axes meet at equal distances or are
parallel. So the pose and one factor of both focal lengths are fitted together, from several factors on, and the factor
comes with a standard deviation that is large where the photos do not tell.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.solvers.least_squares import damped_step, minimize
from metriloc.solvers.pinhole import pinhole_points
from metriloc.solvers.robust import cauchy
from metriloc.solvers.two_view import sampson_errors

MIN_MATCHES = 30
"""Fewer leave the focal length too free."""
_MOST_MATCHES = 400  # enough to tell, and quick
_STARTS = (0.5, 0.75, 1.0, 1.35, 2.0)
_SCALE = 1 / 3  # of the inlier threshold: residuals beyond it lose weight
_ITERATIONS, _HURRIED = 40, 500  # of the fit, and of the consensus that starts it
_FREE = 6  # rotation, direction, logarithm of the factor
_OTHERS = np.array([[0, 2, 1], [2, 1, 0], [1, 0, 2]])
_SIGNS = np.array([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]])
_TURNS = np.eye(3)[..., _OTHERS] * _SIGNS  # generators of rotations


@dataclass(frozen=True)
class FocalFactor:
    """log_factor: logarithm of the focal lengths that explain the matches best, over the stated ones. sigma: its standard
    deviation. gain: how much better they explain the matches, as squared standard deviations of the noise."""

    log_factor: float
    sigma: float
    gain: float


@torch.no_grad()
def shared_focal_factor(
    pose: Pose,
    uv0: Float[Tensor, "N 2"],
    uv1: Float[Tensor, "N 2"],
    cameras: tuple[Camera, Camera],
    max_error_px: float = 1.5,
    seed: int = 0,
) -> FocalFactor | None:
    """The factor of both focal lengths that fits the matches best, by Sampson errors and a Cauchy loss.

    pose: ``1_from_0`` of any length, found with the stated cameras. uv0, uv1: all matches, agreeing or not: those that
    a wrong camera cannot explain tell most. None where fewer than 30 matches agree with any epipolar geometry.
    """
    if float(pose.distance()) == 0:
        return None
    squared, _ = sampson_errors(pose, uv0, uv1, cameras)
    agreeing = _agreeing(uv0, uv1, cameras, (squared <= max_error_px**2).cpu().numpy(), max_error_px, seed)
    if agreeing is None:
        return None
    problem = EpipolarProblem(*agreeing, (max_error_px * _SCALE) ** 2)
    double = pose.detach().to(device="cpu", dtype=torch.float64)
    stated = EpipolarState(double.R, double.t / double.distance(), 0.0)
    fixed, _, base = minimize(stated, problem.cost, lambda s, d: problem.step(s, d, _FREE - 1), _ITERATIONS)
    best, least = fixed, base
    for factor in _STARTS:
        start = stated if factor == 1 else problem.started(math.log(factor), max_error_px, seed)
        if start is None:
            continue
        found, _, cost = minimize(start, problem.cost, lambda s, d: problem.step(s, d, _FREE), _ITERATIONS)
        if cost < least:
            best, least = found, cost
    sigma, variance = problem.uncertainty(best)
    return FocalFactor(best.log_factor, sigma, problem.squared_scale * (base - least) / variance)


@dataclass(frozen=True, eq=False)
class EpipolarState:
    """R, t: ``1_from_0``, t of length 1. log_factor: of the stated focal lengths."""

    R: Float[Tensor, "3 3"]
    t: Float[Tensor, " 3"]
    log_factor: float


@dataclass(frozen=True, eq=False)
class EpipolarProblem:
    """Signed Sampson errors of matches. x0, x1: normalized by the stated focal lengths ``f0``, ``f1``. squared_scale: of the
    loss, square pixels. Computed by numpy, whose calls cost less on a few hundred matches; in double precision."""

    x0: Float[Tensor, "n 2"]
    x1: Float[Tensor, "n 2"]
    f0: Float[Tensor, " 2"]
    f1: Float[Tensor, " 2"]
    squared_scale: float

    def errors(self, state: EpipolarState) -> Float[Tensor, " n"]:
        """Signed Sampson errors, pixels."""
        sides = _Sides(self, state)
        return torch.from_numpy(sides.error / sides.norm)

    def residual(self, state: EpipolarState) -> tuple[Tensor, Tensor]:
        """Signed Sampson errors in pixels [n], and their Jacobian [n, 6].

        Left rotation, direction, log of the factor.
        """
        s = _Sides(self, state)
        error = s.error / s.norm
        # 1. derivatives of the essential matrix [5, 3, 3]
        t = state.t.numpy()
        d_E = np.concatenate([_skew(t) @ _TURNS, _skew(across(state.t).numpy().T)]) @ state.R.numpy()
        # 2. of the error and of the gradient with respect to the pixels of photo 1 (a) and photo 0 (b)
        d_error = (s.ray1[:, :, None] * s.ray0[:, None]).reshape(-1, 9) @ d_E.reshape(5, 9).T
        d_a = (s.ray0 @ d_E[:, :2].reshape(10, 3).T).reshape(-1, 5, 2) * (s.shrink / s.f1)
        d_b = (s.ray1 @ d_E[:, :, :2].transpose(1, 0, 2).reshape(3, 10)).reshape(-1, 5, 2) * (s.shrink / s.f0)
        # 3. by the factor: rays are [shrink * x, 1]
        d_ray0, d_ray1 = (ray * (-1.0, -1.0, 0.0) for ray in (s.ray0, s.ray1))
        by_factor = ((d_ray1 @ s.E) * s.ray0).sum(-1) + (s.line0 * d_ray0).sum(-1)
        a_by_factor = (d_ray0 @ s.E.T)[:, :2] * (s.shrink / s.f1) - s.a
        b_by_factor = (d_ray1 @ s.E)[:, :2] * (s.shrink / s.f0) - s.b
        # 4. of the quotient
        d_error = np.concatenate([d_error, by_factor[:, None]], 1)
        d_a, d_b = np.concatenate([d_a, a_by_factor[:, None]], 1), np.concatenate([d_b, b_by_factor[:, None]], 1)
        d_norm = ((d_a * s.a[:, None]).sum(-1) + (d_b * s.b[:, None]).sum(-1)) / s.norm[:, None]
        J = (d_error - error[:, None] * d_norm) / s.norm[:, None]
        return torch.from_numpy(error), torch.from_numpy(J)

    def cost(self, state: EpipolarState) -> float:
        """Robust cost; infinite for an absurd focal length."""
        if abs(state.log_factor) > math.log(10):
            return float("inf")
        return float(cauchy(self.errors(state).square() / self.squared_scale).value.sum())

    def system(self, state: EpipolarState) -> tuple[Tensor, Tensor]:
        """Normal equations of the iteratively reweighted residuals, square pixels."""
        residual, J = self.residual(state)
        weight = cauchy(residual.square() / self.squared_scale).weight
        return J.mT @ (weight[:, None] * J), J.mT @ (weight * residual)

    def step(self, state: EpipolarState, damping: float, free: int) -> EpipolarState | None:
        """Where the first ``free`` parameters go from here."""
        H, g = self.system(state)
        step = damped_step(H[:free, :free], g[:free], damping)
        if not bool(step.ok):
            return None
        delta = torch.cat([step.delta, step.delta.new_zeros(_FREE - free)])
        t = state.t + across(state.t) @ delta[3:5]
        return EpipolarState(so3_exp(delta[:3]) @ state.R, t / t.norm(), state.log_factor + float(delta[5]))

    def started(self, log_factor: float, max_error_px: float, seed: int) -> EpipolarState | None:
        """The pose of a consensus with other focal lengths."""
        import poselib

        points = [(x * f).numpy() for x, f in ((self.x0, self.f0), (self.x1, self.f1))]
        cameras = [
            {"model": "PINHOLE", "width": 0, "height": 0, "params": [*(f * math.exp(log_factor)).tolist(), 0.0, 0.0]}
            for f in (self.f0, self.f1)
        ]
        options = {"max_epipolar_error": max_error_px, "seed": seed, "max_iterations": _HURRIED}
        found, _ = poselib.estimate_relative_pose(*points, *cameras, options)
        R, t = torch.from_numpy(np.array(found.R)), torch.from_numpy(np.array(found.t)).reshape(3)
        length = float(t.norm())
        return EpipolarState(R, t / length, log_factor) if length > 1e-9 and math.isfinite(length) else None

    def uncertainty(self, state: EpipolarState) -> tuple[float, float]:
        """Standard deviation of the logarithm of the factor, and the variance of the noise in square pixels."""
        residual = self.errors(state)
        weight = cauchy(residual.square() / self.squared_scale).weight
        variance = max(float((weight * residual.square()).sum() / (weight.sum() - _FREE).clamp(min=1)), 1e-12)
        inverse, info = torch.linalg.inv_ex(self.system(state)[0])
        along = float(inverse[-1, -1]) * variance
        return (math.sqrt(along) if int(info) == 0 and 0 < along < math.inf else math.inf), variance


class _Sides:
    """What errors and derivatives are made of. ray0, ray1 [n, 3]: of unit depth. line0 [n, 3]: epipolar lines in photo 0.
    error [n]: algebraic. a, b [n, 2]: its gradients in the pixels of photo 1 and 0. norm [n]: length of both."""

    def __init__(self, problem: EpipolarProblem, state: EpipolarState) -> None:
        self.f0, self.f1 = problem.f0.numpy(), problem.f1.numpy()
        self.shrink = math.exp(-state.log_factor)
        self.ray0, self.ray1 = (
            np.column_stack([self.shrink * x.numpy(), np.ones(len(x))]) for x in (problem.x0, problem.x1)
        )
        self.E = _skew(state.t.numpy()) @ state.R.numpy()
        self.line0 = self.ray1 @ self.E
        self.error = (self.line0 * self.ray0).sum(-1)
        self.a = (self.ray0 @ self.E.T)[:, :2] * (self.shrink / self.f1)
        self.b = self.line0[:, :2] * (self.shrink / self.f0)
        self.norm = np.sqrt(np.maximum((self.a**2).sum(-1) + (self.b**2).sum(-1), 1e-30))


def _skew(v: np.ndarray) -> np.ndarray:
    """``geometry.skew`` of arrays [..., 3]."""
    return np.asarray(v)[..., _OTHERS] * _SIGNS


def _agreeing(
    uv0: Tensor, uv1: Tensor, cameras: tuple[Camera, Camera], explained: np.ndarray, max_error_px: float, seed: int
) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
    """What is ``explained`` already or agrees with one fundamental matrix, lest either chooses its own witnesses:
    normalized points of both photos, and the focal lengths."""
    import poselib

    (points0, usable0, camera0), (points1, usable1, camera1) = (
        pinhole_points(uv.detach(), camera) for uv, camera in zip((uv0, uv1), cameras, strict=True)
    )
    usable = usable0 & usable1
    if int(usable.sum()) < MIN_MATCHES:
        return None
    options = {"max_epipolar_error": max_error_px, "seed": seed}
    _, info = poselib.estimate_fundamental(points0[usable], points1[usable], options)
    explained = explained[usable] | np.array(info["inliers"], dtype=bool)
    kept = np.flatnonzero(usable)[explained]
    if len(kept) < MIN_MATCHES:
        return None
    order = torch.randperm(len(kept), generator=torch.Generator().manual_seed(seed))[:_MOST_MATCHES].numpy()
    found = []
    for points, theirs in ((points0, camera0), (points1, camera1)):
        fx, fy, cx, cy = theirs["params"]
        f, c = torch.tensor([fx, fy], dtype=torch.float64), torch.tensor([cx, cy], dtype=torch.float64)
        found.append(((torch.from_numpy(points[kept[order]]) - c) / f, f))
    return found[0][0], found[1][0], found[0][1], found[1][1]


def across(t: Float[Tensor, " 3"]) -> Float[Tensor, "3 2"]:
    """Two unit vectors at right angles to ``t``."""
    return torch.linalg.svd(t[None], full_matrices=True).Vh[1:].mT
