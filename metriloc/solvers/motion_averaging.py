"""Motion averaging: poses of several cameras from what pairs of them say, each with its uncertainty.

A pair knows its rotation and the direction of its way well, its length badly or not at all; so these three are residuals
of their own, whitened by their covariances, and directions from several cameras fix a position better than any length
does. Lengths from one source (the same network, say) err alike: one shared factor is estimated with the poses. A robust
loss forgives a motion that contradicts the others; ``consistency`` finds out before which ones do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose, skew, so3_log
from metriloc.solvers.least_squares import damped_step, is_regular, minimize
from metriloc.solvers.robust import scaled_barron
from metriloc.solvers.shared_focal import across

_ITERATIONS = 50
_SCALE = 4.0  # standard deviations of a whole motion beyond which it loses weight
_LOST = 1e-9  # metres: shorter ways have no direction
_PARALLEL = 1e-4  # squared sine of the angles between rays
_NO_SAY = 30.0  # standard deviation of the logarithm of a length that nothing is known of


@dataclass(frozen=True, eq=False)
class Motion:
    """What one pair says: ``pose`` is ``second_from_first``.

    first, second: numbers of the cameras. covariance: of rotation and direction, square radians, as
    ``relative_covariance`` has it. length_sigma: standard deviation of the logarithm of the length, inf for a direction
    only; shared: how much of that (0..1, of the variance) is one error of all motions.
    """

    first: int
    second: int
    pose: Pose
    covariance: Float[Tensor, "5 5"]
    length_sigma: float = math.inf
    shared: float = 0.0


@dataclass(frozen=True, eq=False)
class Averaged:
    """cam_from_world: of all cameras, float64. covariance: of each free camera, by its number, of ``delta = [t, w]`` in
    ``Pose.from_tangent(delta) @ pose``; None where the motions do not fix it. misfits: squared standard deviations that
    each motion is off, in rotation and direction; length_misfits: the same of the lengths. cost: robust."""

    cam_from_world: Pose
    covariance: Mapping[int, Float[Tensor, "6 6"]] | None
    misfits: tuple[float, ...]
    length_misfits: tuple[float, ...]
    cost: float


@torch.no_grad()
def average_motions(motions: Sequence[Motion], start: Pose, fixed: Bool[Tensor, " n"]) -> Averaged:
    """The poses that explain the motions best, by Levenberg-Marquardt and a Cauchy loss a motion.

    start: ``cam_from_world`` [n] to begin at. fixed: cameras that stay where they are, at least one. Raises ValueError
    without motions, and where no camera is fixed.
    """
    if not motions or not bool(fixed.any()):
        raise ValueError("averaging needs a motion, and a camera that stays where it is")
    problem = _Problem.of(motions, fixed)
    state, _, cost = minimize(_State(start.to(torch.float64), 0.0), problem.cost, problem.step, _ITERATIONS)
    residual = problem.residuals(state)
    five, length = residual[:, :5].square().sum(-1), residual[:, 5].square()
    return Averaged(state.poses, problem.covariance(state), tuple(five.tolist()), tuple(length.tolist()), cost)


def nearest_to_rays(origins: Float[Tensor, "n 3"], directions: Float[Tensor, "n 3"]) -> Float[Tensor, " 3"] | None:
    """The point with the least squared distance from all rays.

    None where they are next to parallel, or it is behind.
    """
    headed = directions / directions.norm(dim=-1, keepdim=True)
    across_all = torch.eye(3, dtype=headed.dtype) - headed[:, :, None] * headed[:, None, :]
    H = across_all.sum(0)
    if float(torch.linalg.eigvalsh(H)[0]) < _PARALLEL:
        return None
    point = torch.linalg.solve(H, (across_all @ origins[..., None]).sum(0)).squeeze(-1)
    return point if bool((((point - origins) * headed).sum(-1) > 0).all()) else None


@dataclass(frozen=True, eq=False)
class _State:
    """poses: of all cameras. log_shared: logarithm of the factor that all lengths are too long by."""

    poses: Pose
    log_shared: float


@dataclass(frozen=True, eq=False)
class _Problem:
    """Motions as parallel tensors. white: inverse square roots of the covariances; basis: across the directions;
    own_sigma, shared_sigma: of the logarithm of the lengths; place: of each free camera among the parameters."""

    first: Tensor
    second: Tensor
    measured: Pose
    basis: Float[Tensor, "m 3 2"]
    white: Float[Tensor, "m 5 5"]
    log_length: Float[Tensor, " m"]
    own_sigma: Float[Tensor, " m"]
    shared_sigma: Float[Tensor, " m"]
    free: tuple[int, ...]

    @classmethod
    def of(cls, motions: Sequence[Motion], fixed: Tensor) -> _Problem:
        measured = Pose.stack([m.pose.to("cpu", torch.float64) for m in motions])
        lengths = measured.distance().clamp(min=_LOST)
        sigmas = torch.tensor([min(m.length_sigma, _NO_SAY) for m in motions], dtype=torch.float64)
        shared = torch.tensor([m.shared for m in motions], dtype=torch.float64)
        factors = torch.linalg.cholesky(torch.stack([m.covariance.double() for m in motions]))
        eye = torch.eye(5, dtype=torch.float64).expand_as(factors)
        return cls(
            torch.tensor([m.first for m in motions]),
            torch.tensor([m.second for m in motions]),
            measured,
            torch.stack([across(t) for t in measured.t / lengths[:, None]]),
            torch.linalg.solve_triangular(factors, eye, upper=False),
            lengths.log(),
            (sigmas * (1 - shared).sqrt()).clamp(min=1e-6),
            sigmas * shared.sqrt(),
            tuple((~fixed).nonzero().flatten().tolist()),
        )

    @property
    def _scale(self) -> float:
        """Standard deviation of the shared factor: that of the surest length, which the others share."""
        known = self.shared_sigma[(self.shared_sigma > 0) & (self.shared_sigma < _NO_SAY / 2)]
        return float(known.min()) if len(known) else 0.0

    def residuals(self, state: _State) -> Float[Tensor, "m 6"]:
        """Rotation (3) and direction (2), whitened, and the logarithm of the length over its sigma."""
        return self._linearized(state)[0]

    def _linearized(self, state: _State) -> tuple[Float[Tensor, "m 6"], Float[Tensor, "m 6 13"]]:
        """The residuals; and what they change by for ``[t, w]`` of the first and of the second camera, and for the shared
        factor."""
        found = state.poses[self.second] @ state.poses[self.first].inverse()
        length = found.t.square().sum(-1).clamp(min=_LOST**2).sqrt()
        heading, wanted = found.t / length[:, None], self.measured.t / self.log_length.exp()[:, None]
        # 1. residuals; of the direction twice the tangent of half the angle: large for the opposite one
        turned = so3_log(found.R @ self.measured.R.mT)
        half = (1 + (heading * wanted).sum(-1)).clamp(min=1e-3) / 2
        aside = (self.basis.mT @ heading[..., None]).squeeze(-1) / half[:, None]
        has_shared = (self.shared_sigma > 0).to(length)
        longer = (length.log() - self.log_length + state.log_shared * has_shared) / self.own_sigma
        # 2. the relative pose moves by w = w1 - R w0 and t = t1 - R t0 - t x w1
        eye, zero = torch.eye(3, dtype=length.dtype).expand_as(found.R), torch.zeros_like(found.R)
        bent = skew(turned)
        d_w = (eye - bent / 2 + bent @ bent / 12) @ torch.cat([zero, -found.R, zero, eye], -1)
        d_t = torch.cat([-found.R, zero, eye, -skew(found.t)], -1)
        # 3. direction and length by the translation
        d_heading = (eye - heading[:, :, None] * heading[:, None, :]) @ d_t / length[:, None, None]
        d_half = (wanted[:, None, :] @ d_heading) / 2
        d_aside = (self.basis.mT @ d_heading - aside[..., None] * d_half) / half[:, None, None]
        d_longer = (heading[:, None, :] @ d_t) / (length * self.own_sigma)[:, None, None]
        five = (self.white @ torch.cat([turned, aside], -1)[..., None]).squeeze(-1)
        J = torch.cat([self.white @ torch.cat([d_w, d_aside], -2), d_longer], -2)
        d_shared = torch.zeros_like(J[..., :1])
        d_shared[:, 5, 0] = has_shared / self.own_sigma
        return torch.cat([five, longer[:, None]], -1), torch.cat([J, d_shared], -1)

    def cost(self, state: _State) -> float:
        value, _, _ = scaled_barron(self.residuals(state).square().sum(-1), 0.0, _SCALE)
        return float(value.sum()) + self._prior(state.log_shared)

    def _prior(self, log_shared: float) -> float:
        return (log_shared / self._scale) ** 2 if self._scale > 0 else log_shared**2

    def system(self, state: _State) -> tuple[Tensor, Tensor]:
        """Normal equations of the free cameras and the shared factor, which has a prior."""
        residual, local = self._linearized(state)
        place = {camera: 6 * k for k, camera in enumerate(self.free)}
        J = residual.new_zeros(len(residual), 6, 6 * len(self.free) + 1)
        J[..., -1] = local[..., -1]
        for row, ends in enumerate(zip(self.first.tolist(), self.second.tolist(), strict=True)):
            for side, camera in enumerate(ends):
                if camera in place:
                    J[row, :, place[camera] : place[camera] + 6] += local[row, :, 6 * side : 6 * side + 6]
        _, weight, _ = scaled_barron(residual.square().sum(-1), 0.0, _SCALE)
        weighted = weight[:, None, None] * J
        H = torch.einsum("mri,mrj->ij", weighted, J)
        g = torch.einsum("mri,mr->i", weighted, residual)
        stiff = self._scale**-2 if self._scale > 0 else 1.0
        H[-1, -1] += stiff
        g[-1] += stiff * state.log_shared
        return H, g

    def step(self, state: _State, damping: float) -> _State | None:
        """One damped step."""
        step = damped_step(*self.system(state), damping)
        if not bool(step.ok):
            return None
        index, moves = torch.tensor(self.free), step.delta[:-1].reshape(-1, 6)
        moved = Pose.from_tangent(moves) @ state.poses[index]
        R, t = state.poses.R.index_copy(0, index, moved.R), state.poses.t.index_copy(0, index, moved.t)
        return _State(Pose(R, t), state.log_shared + float(step.delta[-1]))

    def covariance(self, state: _State) -> dict[int, Tensor] | None:
        """Of each free camera; None where the motions do not fix all."""
        H, _ = self.system(state)
        if not is_regular(H):
            return None
        inverse = torch.linalg.inv(H)
        return {camera: inverse[6 * k : 6 * k + 6, 6 * k : 6 * k + 6] for k, camera in enumerate(self.free)}
