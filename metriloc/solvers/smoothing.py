"""The last poses of a trajectory made one: what photos say of each, and what a device says of the motions between them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose, so3_log
from metriloc.solvers.least_squares import damped_step, minimize
from metriloc.solvers.motion import MotionEdges, add_edges, robust_motion

_PLACED_SCALE = 2.0  # sigmas beyond which a measured pose loses weight
_MOTION_SCALES = (
    1e3,
    3.0,
)  # beyond which a motion does: first all are believed, so that a pose far off cannot break them
_ITERATIONS = 15


@dataclass(frozen=True, eq=False)
class Smoothed:
    """poses: float64. covariance: of the left update [t, w] of the last one. squares: of the measured poses, by how much
    they are off, squared sigmas; 0 where nothing was measured. ok: False where nothing could be done; then poses are the
    start."""

    poses: Pose
    covariance: Float[Tensor, "6 6"] | None
    squares: Float[Tensor, " N"]
    ok: bool


@torch.no_grad()
def smooth_poses(
    start: Pose,
    measured: Pose,
    covariances: Float[Tensor, "N 6 6"],
    has: Bool[Tensor, " N"],
    edges: MotionEdges,
) -> Smoothed:
    """The most likely poses.

    A robust pose graph with measured poses where ``has``, and motions between them.

    - start, measured: N poses, ``cam_from_world``; measured ones may be anything where not ``has``.
    - covariances: of the left updates of the measured ones.

    Measured poses that contradict the others, and motions that do, lose their weight.
    """
    roots = _roots(covariances.double(), has)
    problems = [_Graph(measured.to(torch.float64), roots, has, edges, scale) for scale in _MOTION_SCALES]
    poses = start.to(torch.float64)
    if not bool(has.any()) or not bool(poses.is_finite().all()):
        return Smoothed(poses, None, torch.zeros(len(has), dtype=torch.float64), False)
    for problem in problems:
        poses, _, _ = minimize(poses, problem.cost, problem.step, _ITERATIONS)
    H, _ = problem.system(poses)
    factor, info = torch.linalg.cholesky_ex(H)
    covariance = torch.cholesky_inverse(factor)[-6:, -6:] if int(info) == 0 else None
    return Smoothed(poses, covariance, problem.off(poses).square().sum(-1), True)


def _roots(covariances: Tensor, has: Tensor) -> Float[Tensor, "N 6 6"]:
    """Square roots of the inverses; 0 where nothing was measured."""
    eye = torch.eye(6, dtype=covariances.dtype).expand_as(covariances)
    safe = torch.where(has[:, None, None], covariances, eye)
    lower = torch.linalg.cholesky(safe)
    roots = torch.linalg.solve_triangular(lower, eye, upper=False)
    return torch.where(has[:, None, None], roots, 0.0)


@dataclass(frozen=True, eq=False)
class _Graph:
    measured: Pose
    roots: Float[Tensor, "N 6 6"]
    has: Bool[Tensor, " N"]
    edges: MotionEdges
    motion_scale: float

    def off(self, poses: Pose) -> Float[Tensor, "N 6"]:
        """How far each pose is from the measured one, in sigmas."""
        off = poses @ self.measured.inverse()
        raw = torch.cat([off.t, so3_log(off.R)], -1)
        return torch.where(self.has[:, None], (self.roots @ raw[..., None]).squeeze(-1), 0.0)

    def cost(self, poses: Pose) -> float:
        """Robust cost of measured poses and motions."""
        placed = robust_motion(self.off(poses).square().sum(-1), _PLACED_SCALE)[0].sum()
        return float(placed + robust_motion(self.edges.squares(poses), self.motion_scale)[0].sum())

    def system(self, poses: Pose) -> tuple[Tensor, Tensor]:
        """Normal equations of the left updates."""
        count = len(self.has)
        residual = self.off(poses)
        weight = robust_motion(residual.square().sum(-1), _PLACED_SCALE)[1]
        H = residual.new_zeros(6 * count, 6 * count)
        blocks = H.view(count, 6, count, 6)
        each = torch.arange(count)
        blocks[each, :, each] = weight[:, None, None] * (self.roots.mT @ self.roots)
        g = (weight[:, None] * (self.roots.mT @ residual[..., None]).squeeze(-1)).reshape(-1)
        add_edges(H, g, self.edges, poses, robust_motion(self.edges.squares(poses), self.motion_scale)[1])
        return H, g

    def step(self, poses: Pose, damping: float) -> Pose | None:
        """One damped step."""
        step = damped_step(*self.system(poses), damping)
        return Pose.from_tangent(step.delta.view(-1, 6)) @ poses if bool(step.ok) else None
