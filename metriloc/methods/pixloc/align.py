"""The one Levenberg-Marquardt loop of PixLoc, for training and inference: a pose that aligns features at one level.

Damping is fixed, adaptive (accepted or rejected steps) or learned (one number a parameter). Everything is unrolled and
differentiable; an element of the batch that fails stays where it was and does not touch the others. The world is moved
to the first camera's centre before anything is rounded to float32: steps act on the left, so this changes no result.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.cost import (
    AlignmentProblem,
    CostConfig,
    Linearization,
    jacobi_scale,
    normal_equations,
)
from metriloc.solvers.least_squares import damped_step

_UP, _DOWN, _MIN_DAMPING = 10.0, 0.1, 1e-7


@dataclass(frozen=True, eq=False)
class Iteration:
    """What a log is told of an iteration. pose: after it, in the world; delta: the update, also when rejected; at: the
    linearisation the step came from; H: as solved, without damping; damping: None when it is not adaptive."""

    index: int
    init: Pose
    pose: Pose
    delta: Pose
    at: Linearization
    H: Float[Tensor, "B 6 6"]
    damping: Float[Tensor, " B"] | None = None
    accepted: Bool[Tensor, " B"] | None = None


@dataclass(frozen=True, eq=False)
class Alignment:
    """Where the loop ended, and how.

    pose: in the precision of the start; where it failed, where it was before that. failed: too few
    valid points, or no step could be computed. failed_at: the iteration, -1 where none did.
    """

    pose: Pose
    failed: Bool[Tensor, " B"]
    failed_at: Tensor
    iterations: int


def learned_damping(theta: Float[Tensor, "*b"], low: float = -6.0, high: float = 5.0) -> Float[Tensor, "*b"]:
    """Damping factors from free parameters, ``log10 lambda = low + sigmoid(theta) (high - low)``: PixLoc Eq. (7)."""
    return 10.0 ** (low + torch.sigmoid(theta) * (high - low))


def align(
    problem: AlignmentProblem,
    init: Pose,
    config: AlignConfig,
    damping: Float[Tensor, " 6"] | None = None,
    *,
    early_stop: bool = True,
    log: Callable[[Iteration], None] | None = None,
) -> Alignment:
    """Minimise the cost of one level from ``init`` [B], poses that map ``problem.xyz`` into the query cameras.

    Every iteration takes one damped step, ``-(H + lambda diag H)^-1 g``, PixLoc Eq. (4), and applies it to the pose from
    the left, Eq. (5).

    damping: of the six parameters [t, w], wanted by ``learned``. early_stop: False in training. log: called every
    iteration. Raises ValueError when damping is missing or shapes do not fit.
    """
    if config.damping == "learned" and (damping is None or damping.shape != (6,)):
        raise ValueError(f"learned damping needs a tensor [6], got {None if damping is None else list(damping.shape)}")
    if init.shape != problem.xyz.shape[:1]:
        raise ValueError(f"init must have shape {list(problem.xyz.shape[:1])}, got {list(init.shape)}")
    origin = init.center().detach()
    origin = torch.where(torch.isfinite(origin), origin, torch.zeros_like(origin))
    local = _recentered(problem, origin)
    state = _Loop(local, _shifted(init, origin, local.features.dtype), config, damping)
    iterations = 0
    for iterations in range(1, config.num_iters + 1):
        step = state.advance()
        if log is not None:
            log(_record(iterations - 1, state, step, init, origin))
        if early_stop and state.should_stop(iterations - 1, step):
            break
    end = _shifted(_sharpened(state.pose, init.dtype), -origin, init.dtype)
    unmoved = state.failed_at == 0
    pose = Pose(
        torch.where(unmoved[:, None, None], init.R, end.R.to(init.R)), torch.where(unmoved[:, None], init.t, end.t)
    )
    return Alignment(pose, state.failed_at >= 0, state.failed_at, iterations)


def evaluate(problem: AlignmentProblem, pose: Pose, config: CostConfig) -> Linearization:
    """The cost at a pose of the world, computed as ``align`` does. Around the camera's centre."""
    origin = pose.center().detach()
    local = _recentered(problem, origin)
    return config.linearize(local, _shifted(pose, origin, local.features.dtype))


def _recentered(problem: AlignmentProblem, origin: Tensor) -> AlignmentProblem:
    dtype = problem.features.dtype
    wide = torch.promote_types(problem.xyz.dtype, origin.dtype)
    xyz = problem.xyz.to(wide) - origin.to(wide)[:, None]
    return dataclasses.replace(problem, xyz=xyz.to(dtype), camera=problem.camera.to(dtype))


def _sharpened(pose: Pose, dtype: torch.dtype) -> Pose:
    """In a wider precision, with rotations that are rotations there: 1e-7 of a world's coordinates can be metres.

    Two steps of Newton and Schulz towards the closest rotation; unlike an SVD, smooth everywhere."""
    R = pose.R.to(dtype)
    if dtype != pose.dtype:
        for _ in range(2):
            R = 1.5 * R - 0.5 * R @ (R.mT @ R)
    return Pose(R, pose.t.to(dtype))


def _shifted(pose: Pose, offset: Tensor, dtype: torch.dtype) -> Pose:
    """The same map from a frame whose origin lies at ``offset`` of the old one."""
    wide = torch.promote_types(pose.dtype, offset.dtype)
    R = pose.R.to(wide)
    return Pose(R.to(dtype), (pose.t.to(wide) + (R @ offset.to(wide)[..., None]).squeeze(-1)).to(dtype))


@dataclass(frozen=True, eq=False)
class _Step:
    delta: Tensor
    at: Linearization
    H: Tensor
    g: Tensor
    accepted: Tensor | None


class _Loop:
    """Pose, damping and failures between iterations."""

    def __init__(self, problem: AlignmentProblem, pose: Pose, config: AlignConfig, damping: Tensor | None) -> None:
        self.problem, self.pose, self.config = problem, pose, config
        batch, like = pose.shape[0], problem.features
        self.failed_at = torch.full((batch,), -1, device=like.device)
        self.scale: Tensor | None = None
        self.at: Linearization | None = None
        self.best: Tensor | None = None
        self.count = 0
        self.damping: Tensor | float = config.initial_damping
        if config.damping == "learned" and damping is not None:
            self.damping = damping.to(like)
        elif config.damping == "adaptive":
            self.damping = like.new_full((batch, 1), config.initial_damping)

    def advance(self) -> _Step:
        """One damped step, Eq. (4), and the update of the pose from the left, Eq. (5)."""
        at = self.at or self.config.cost.linearize(self.problem, self.pose)
        active = self._active(at.count() >= self.config.min_points)
        if self.config.jacobi_scaling and self.scale is None:
            self.scale = jacobi_scale(at)
        H, g = normal_equations(at, self.scale)
        rule = self.config.damping
        found = damped_step(H, g, rule(self.count, at, H) if callable(rule) else self.damping, active)
        active = self._active(found.ok)
        delta = found.delta if self.scale is None else found.delta * self.scale
        delta = torch.where(active[:, None], delta, torch.zeros_like(delta))
        trial = Pose.from_tangent(delta) @ self.pose
        accepted = None
        if self.config.damping == "adaptive":
            trial, accepted = self._choose(at, trial)
        self.pose = Pose(
            torch.where(active[:, None, None], trial.R, self.pose.R), torch.where(active[:, None], trial.t, self.pose.t)
        )
        self.count += 1
        return _Step(delta, at, H, g, accepted)

    def _active(self, ok: Tensor) -> Tensor:
        fails = ~ok & (self.failed_at < 0)
        self.failed_at = torch.where(fails, torch.full_like(self.failed_at, self.count), self.failed_at)
        return self.failed_at < 0

    def _choose(self, at: Linearization, trial: Pose) -> tuple[Pose, Tensor]:
        """Keep the trial where its mean cost, over the same points with the same weights, is lower."""
        there = self.config.cost.linearize(self.problem, trial)
        if self.config.published_acceptance:
            before = at.mean_cost() if self.best is None else self.best
            after = there.mean_cost(at.valid, weighted=False)
        else:
            before = at.mean_cost()
            after = dataclasses.replace(there, confidence=at.confidence).mean_cost(at.valid)
        accepted = after < before
        self.best = torch.where(accepted, after, before)
        self.damping = torch.as_tensor(self.damping)
        factor = torch.where(accepted, _DOWN, _UP)[:, None].to(self.damping)
        self.damping = (self.damping * factor).clamp(_MIN_DAMPING, self.config.max_damping)
        pose = Pose(
            torch.where(accepted[:, None, None], trial.R, self.pose.R),
            torch.where(accepted[:, None], trial.t, self.pose.t),
        )
        self.at = _select(accepted, there, at)
        return pose, accepted

    def should_stop(self, index: int, step: _Step) -> bool:
        """Whether every element is at rest, as seen by its gradient or its step; or no damping is left to try."""
        config = self.config
        if config.damping == "adaptive":
            if bool((torch.as_tensor(self.damping) >= config.max_damping).all()):
                return True
            if config.initial_damping == 0 and step.accepted is not None and not bool(step.accepted.any()):
                return True
        if index % config.stop_every:
            return False
        still = step.delta[:, :3].norm(dim=-1) < config.stop_translation
        still &= step.delta[:, 3:].norm(dim=-1) < math.radians(config.stop_rotation_deg)
        return bool((still | (step.g.norm(dim=-1) < config.stop_gradient)).all())


def _select(choice: Tensor, first: Linearization, second: Linearization) -> Linearization:
    def pick(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(choice.view(-1, *(1,) * (a.ndim - 1)), a, b)

    names = ("cost", "irls", "valid", "products", "slopes", "J_uv")
    confidence = None
    if first.confidence is not None and second.confidence is not None:
        confidence = pick(first.confidence, second.confidence)
    return Linearization(
        confidence=confidence, **{name: pick(getattr(first, name), getattr(second, name)) for name in names}
    )


def _record(index: int, state: _Loop, step: _Step, init: Pose, origin: Tensor) -> Iteration:
    damping = state.damping
    adaptive = isinstance(damping, Tensor) and damping.ndim == 2
    return Iteration(
        index=index,
        init=init,
        pose=_shifted(state.pose, -origin, init.dtype),
        delta=Pose.from_tangent(step.delta),
        at=step.at,
        H=step.H,
        damping=damping.squeeze(-1) if adaptive and isinstance(damping, Tensor) else None,
        accepted=step.accepted,
    )
