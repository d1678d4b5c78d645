"""Refining poses on the loss maps: graduated non-convexity with reweighted least squares (GNC-IRLS), paper Eq. (9).

The maps are smoothed by a Gaussian that shrinks from step to step. Minus the smoothed cost of a point is the Gaussian
moment m0 of its gains around its reprojection, and a Gauss-Newton step needs but m0 and the first moment m1. A Gaussian
is separable and ends after four deviations, so both come from a small block of the map and two matrix products; all
points and all start poses go at once. The Jacobian holds every term of the distortion. The second moment shortens the
way: it tells how much stiffer than the cost the paper's reweighted least squares is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.bounds import require_all_within, require_within
from metriloc.geometry import Camera, J_transform, Pose
from metriloc.methods.nre.evidence import pose_gain
from metriloc.methods.nre.initialize import MIN_POINTS, check_inputs
from metriloc.methods.nre.maps import (
    GainMaps,
    blocks,
)
from metriloc.solvers.least_squares import damped_step, is_regular
from metriloc.types import FailureReason

_EARLY_REACH = 2.5  # the same for the sigmas that only lead to the last one: 4 % of the mass for a third of the cells
_REACH = 4.0  # deviations after which the Gaussian is 0: changes the cost by less than 1e-4 of itself
_MIN_DAMPING = 1e-4
_LEAST_STIFFNESS = 0.1
_PAPER = 100.0  # times the damping: how much of the paper's stiffness is put back, at most all


@dataclass(frozen=True)
class RefineConfig:
    """Settings of GNC-IRLS."""

    sigmas: tuple[float, ...] = (2.0, 1.0, 0.8, 0.6)
    """Deviations of the Gaussian in cells, one after the other, decreasing (published: from 2.0 to 0.6)."""
    damping: float = 1e-3
    """Marquardt's, at the start."""
    relative_gain: float = 1e-6
    """The last sigma is left when a step improves the cost by less than this share."""
    early_gain: float = 1e-4
    """The same for the other sigmas, which only lead to it."""
    max_tries: int = 6
    """Steps in a row that may fail."""
    max_steps: int = 50
    """Steps at one sigma."""

    def __post_init__(self) -> None:
        require_all_within(self, 1e-9, 1e9, "sigmas")
        if not self.sigmas:
            raise ValueError("RefineConfig.sigmas must not be empty")
        if any(a < b for a, b in zip(self.sigmas, self.sigmas[1:], strict=False)):
            raise ValueError(f"RefineConfig.sigmas must not increase, got {self.sigmas}")
        small = (1e-30, 1e9)
        require_within(self, damping=small, relative_gain=small, early_gain=small)
        require_within(self, max_tries=(1, 1000), max_steps=(1, 100_000))


@dataclass(frozen=True, eq=False)
class GncStep:
    """One evaluation. sigma: cells; costs: Eq. (9) of each start pose so far (those of one sigma are comparable)."""

    sigma: float
    costs: Float[Tensor, " K"]


@dataclass(frozen=True, eq=False)
class Refinement:
    """Refined poses.

    reason: None on success, else why ``pose`` may not be used. pose: the best, ``cam_from_world``, float64; it is the
    best seen also on failure, NaN when there is none. cost: its Eq. (9) at the last sigma, negative, lower is better.
    best: which start pose it came from. poses, costs: all of them. gain: how much each point speaks for ``pose``,
    nats, Eq. (7). information: the normal matrix at ``pose``, order [t, w] in the camera frame. steps: the evaluations.
    """

    reason: FailureReason | None
    pose: Pose
    cost: float
    best: int
    poses: Pose
    costs: Float[Tensor, " K"]
    gain: Float[Tensor, " N"]
    information: Float[Tensor, "6 6"]
    steps: tuple[GncStep, ...] = field(default=())

    @property
    def evaluations(self) -> int:
        """How often the cost was computed."""
        return len(self.steps)


@dataclass(frozen=True, eq=False)
class _State:
    """Poses with their cost, normal matrix and gradient at one sigma."""

    pose: Pose
    cost: Float[Tensor, " K"]
    H: Float[Tensor, "K 6 6"]
    g: Float[Tensor, "K 6"]
    excess: Float[Tensor, "K 6 6"]

    def __getitem__(self, index: Tensor) -> _State:
        return _State(self.pose[index], self.cost[index], self.H[index], self.g[index], self.excess[index])


@torch.no_grad()
def refine(
    maps: GainMaps, xyz: Float[Tensor, "N 3"], camera: Camera, start: Pose, config: RefineConfig | None = None
) -> Refinement:
    """Minimise the smoothed NRE, paper Eq. (9), from one start pose (batch shape ()) or several ([K]) at once.

    camera: of the feature map (``map_camera``). The best of the refined poses is the one of the lowest cost at the last
    sigma. Fails with ``too_few_points`` (fewer than 4 points, or in view), ``flat_maps`` (fewer than 4 maps say
    anything), ``non_finite`` (no finite start pose or fewer than 4 finite points), ``diverged`` (no map speaks for the
    poses reached), ``degenerate`` (the points that speak do not fix the pose). Raises ValueError when maps, points,
    camera and start do not belong together.
    """
    check_inputs(maps, xyz, camera)
    if len(start.shape) > 1 or start.shape == (0,):
        raise ValueError(f"start must be one pose or [K] poses, got batch shape {tuple(start.shape)}")
    config = config or RefineConfig()
    poses = Pose(start.R.reshape(-1, 3, 3), start.t.reshape(-1, 3)).to(torch.float64)
    camera, xyz = camera.to(torch.float64), xyz.to(torch.float64)
    finite = torch.isfinite(xyz).all(-1)
    usable = finite & maps.informative()
    if not bool(poses.is_finite().any()):
        return _failure("non_finite", poses, len(xyz))
    for reason, there in (("too_few_points", len(xyz)), ("non_finite", finite.sum()), ("flat_maps", usable.sum())):
        if int(there) < MIN_POINTS:
            return _failure(reason, poses, len(xyz))  # type: ignore[arg-type] # a literal of the tuple above
    everything = bool(usable.all())  # then there is nothing to copy
    state, steps = _anneal(
        maps if everything else maps[usable], xyz if everything else xyz[usable], camera, poses, config
    )
    return _conclude(maps, torch.where(usable[:, None], xyz, torch.nan), camera, state, steps)


def smoothed_moments(
    maps: GainMaps, uv: Float[Tensor, "*b N 2"], sigma: float, reach: float = _REACH
) -> tuple[Float[Tensor, "*b N"], Float[Tensor, "*b N 2"], Float[Tensor, "*b N 2 2"]]:
    """Gaussian moments of the gains around positions, paper Eq. (9): ``m0 = sum_q g(q) k(q - uv)``, and ``m1``, ``m2``
    with ``q - uv`` and its outer product as a further factor; k is the normalised Gaussian of deviation ``sigma`` cells.

    The smoothed cost of a point is ``-m0``, its gradient by the position ``-m1 / sigma^2`` and its second derivative
    ``m0 I / sigma^2 - m2 / sigma^4``. All 0 at NaN positions. reach: deviations after which the Gaussian is cut off.
    """
    known = torch.isfinite(uv).all(-1, keepdim=True)
    uv = torch.where(known, uv, torch.zeros_like(uv)).clamp(-1e6, 1e6)
    log_ratio, first = blocks(maps, uv.round().long(), math.ceil(reach * sigma))
    gain = log_ratio.clamp_(min=0)
    rows, columns = gain.shape[-2:]
    # offsets are small numbers: from here on the precision of the maps is enough
    start = (first - uv).to(gain)
    count = torch.arange(max(rows, columns), dtype=gain.dtype, device=uv.device)
    dx, dy = start[..., :1] + count[:columns], start[..., 1:] + count[:rows]
    a = torch.exp(-dx.square() / (2 * sigma**2)) * known
    b = torch.exp(-dy.square() / (2 * sigma**2)) / (2 * math.pi * sigma**2)
    powers_x = torch.stack([a, a * dx, a * dx.square()], -1)
    powers_y = torch.stack([b, b * dy, b * dy.square()], -2)
    sums = (powers_y @ (gain @ powers_x)).to(uv.dtype)  # [..., power of y, power of x]
    m2 = torch.stack([sums[..., 0, 2], sums[..., 1, 1], sums[..., 1, 1], sums[..., 2, 0]], -1).unflatten(-1, (2, 2))
    return sums[..., 0, 0], torch.stack([sums[..., 0, 1], sums[..., 1, 0]], -1), m2


def curvature(
    m0: Float[Tensor, "*b N"], m2: Float[Tensor, "*b N 2 2"], sigma: float
) -> tuple[Float[Tensor, "*b N 2 2"], Float[Tensor, "*b N 2 2"]]:
    """A positive definite stand-in A for the second derivative of the smoothed cost of points by their positions, and
    the ``excess`` by which the paper's reweighted least squares, ``m0 I / sigma^2``, is stiffer.

    Differs from the paper: it takes A + excess, whose steps always go down but are a third as long as they should when
    peaks are one cell wide. Here the excess ``m2 / sigma^4`` is left out, as far as a tenth of the stiffness remains in
    every direction; it comes back when a step fails.
    """
    half = m2.diagonal(dim1=-2, dim2=-1).sum(-1) / 2
    determinant = m2[..., 0, 0] * m2[..., 1, 1] - m2[..., 0, 1].square()
    spread = half + (half.square() - determinant).clamp(min=0).sqrt()  # larger eigenvalue
    share = ((1 - _LEAST_STIFFNESS) * m0 * sigma**2 / spread.clamp(min=1e-300)).clamp(max=1)
    eye = torch.eye(2, dtype=m0.dtype, device=m0.device)
    excess = share[..., None, None] * m2 / sigma**4
    return m0[..., None, None] / sigma**2 * eye - excess, excess


def evaluate(
    maps: GainMaps, xyz: Float[Tensor, "N 3"], camera: Camera, poses: Pose, sigma: float, reach: float = _REACH
) -> tuple[Float[Tensor, " K"], Float[Tensor, "K 6 6"], Float[Tensor, "K 6"], Float[Tensor, "K 6 6"]]:
    """Smoothed cost of poses, Eq. (9), its normal matrix, gradient, and excess, order [t, w].

    ``J^T A J`` with the ``curvature`` A of each point (with excess: of the paper's IRLS), and ``-J^T m1 / sigma^2``; the
    update is ``Pose.from_tangent(delta) @ pose``, a turn about the camera. Points behind the camera or beyond the fold
    of the distortion count nothing.
    """
    p = poses.transform(xyz)
    margin = math.ceil(reach * sigma) + 1.0
    # a point outside the map is still pulled by cells within the reach of the Gaussian
    around = camera.crop((-margin, -margin), camera.size + 2 * margin)
    uv, seen = around.project(p)
    m0, m1, m2 = smoothed_moments(maps, torch.where(seen[..., None], uv - margin, torch.nan), sigma, reach)
    J = camera.J_project(p)[0] @ J_transform(p)  # [K, N, 2, 6]
    # a point at the camera's centre has an infinite Jacobian; it has no weight, and must not become 0 * inf
    J = torch.where((m0 > 0)[..., None, None], J, 0.0)
    stiffness = torch.stack(curvature(m0, m2, sigma))  # [2, K, N, 2, 2]
    H, excess = J.flatten(-3, -2).mT @ (stiffness @ J).flatten(-3, -2)
    J = J.flatten(-3, -2)
    g = -(J.mT @ (m1 / sigma**2).flatten(-2)[..., None]).squeeze(-1)
    return -m0.sum(-1), H, g, excess


def _anneal(
    maps: GainMaps, xyz: Tensor, camera: Camera, poses: Pose, config: RefineConfig
) -> tuple[_State, list[GncStep]]:
    """All poses through all sigmas. The cost is computed anew whenever sigma changes."""
    steps: list[GncStep] = []
    nothing = poses.t.new_zeros(0)
    state = _State(poses, nothing, nothing, nothing, nothing)
    for number, sigma in enumerate(config.sigmas, 1):
        last = number == len(config.sigmas)
        enough = config.relative_gain if last else config.early_gain

        def look(poses: Pose, sigma: float = sigma, reach: float = _REACH if last else _EARLY_REACH) -> _State:
            return _State(poses, *evaluate(maps, xyz, camera, poses, sigma, reach))

        state = look(state.pose)
        costs = [state.cost]
        state = _descend(look, state, enough, config, costs)
        steps += [GncStep(sigma, cost) for cost in costs]
    return state, steps


def _descend(
    look: Callable[[Pose], _State], state: _State, enough: float, config: RefineConfig, costs: list[Tensor]
) -> _State:
    """Damped steps at one sigma, each pose with its own damping, until none can or need go on; ``costs`` is added to."""
    damping = torch.full_like(state.cost, config.damping)
    tries = torch.zeros_like(state.cost)
    active = state.cost < 0  # without support there is no way to go
    for _ in range(config.max_steps):
        index = active.nonzero().squeeze(-1)
        if len(index) == 0:
            break
        old = state[index]
        paper = (_PAPER * damping[index]).clamp(max=1)
        step = damped_step(old.H + paper[:, None, None] * old.excess, old.g, damping[index, None])
        new = look(Pose.from_tangent(step.delta) @ old.pose)
        better = step.ok & (new.cost < old.cost)
        state = _merge(state, index, new, better)
        costs.append(state.cost)
        damping[index] = torch.where(better, 0.1, 10.0).to(damping) * damping[index]
        damping.clamp_(min=_MIN_DAMPING)
        tries[index] = torch.where(better, 0.0, tries[index] + 1)
        # the step promised next to nothing: then it also does not matter that rounding let it fail
        promised = -0.5 * (old.g * step.delta).sum(-1)
        gained = torch.where(better, old.cost - new.cost, torch.where(step.ok, promised, torch.inf))
        active[index] = (gained > enough * old.cost.abs()) & (tries[index] < config.max_tries)
    return state


def _merge(state: _State, index: Tensor, new: _State, better: Tensor) -> _State:
    """The state with the better ones of the new poses in their places."""
    take, source = index[better], better.nonzero().squeeze(-1)

    def put(old: Tensor, fresh: Tensor) -> Tensor:
        return old.index_copy(0, take, fresh[source])

    pose = Pose(put(state.pose.R, new.pose.R), put(state.pose.t, new.pose.t))
    cost, H, g = put(state.cost, new.cost), put(state.H, new.H), put(state.g, new.g)
    return _State(pose, cost, H, g, put(state.excess, new.excess))


def _conclude(maps: GainMaps, xyz: Tensor, camera: Camera, state: _State, steps: list[GncStep]) -> Refinement:
    best = int(torch.nan_to_num(state.cost, nan=0.0).argmin())
    pose = state.pose[best]
    gain = pose_gain(maps, xyz, camera, pose)
    in_view = camera.project(pose.transform(xyz))[1].sum()
    reason: FailureReason | None = None
    if not bool(pose.is_finite()):
        reason = "non_finite"
    elif int(in_view) < MIN_POINTS:
        reason = "too_few_points"
    elif not float(state.cost[best]) < 0:
        reason = "diverged"
    elif not is_regular(state.H[best]):
        reason = "degenerate"
    return Refinement(
        reason, pose, float(state.cost[best]), best, state.pose, state.cost, gain, state.H[best], tuple(steps)
    )


def _failure(reason: FailureReason, poses: Pose, num_points: int) -> Refinement:
    nan = poses.t.new_full((3, 3), torch.nan)
    zero, costs = poses.t.new_zeros(num_points), poses.t.new_zeros(poses.shape)
    return Refinement(reason, Pose(nan, nan[0]), 0.0, 0, poses, costs, zero, poses.t.new_zeros(6, 6))
