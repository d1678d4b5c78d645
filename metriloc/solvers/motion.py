"""Motion between poses: how far a device's word of it may be wrong, as residuals between poses that are estimated.

Visual-inertial odometry is exact from photo to photo and drifts with the way. So it is not a pose of each photo, but a
motion between two that has a covariance: ``MotionEdges``. The same residuals hold a burst of frames in one shape
(``solvers.burst``) and a window of a trajectory together (``solvers.smoothing``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.bounds import require_within
from metriloc.geometry import Pose, skew, so3_log
from metriloc.solvers.robust import scaled_barron


@dataclass(frozen=True)
class DeviceDrift:
    """How the motion that a device tells errs; standard deviations.

    share: of the way, in metres a metre. degrees_a_metre: of the turn, a metre of the way. metres, degrees: what each
    motion errs by even without a way: shutters, time stamps.
    """

    share: float = 0.005
    degrees_a_metre: float = 0.1
    metres: float = 0.002
    degrees: float = 0.1

    def __post_init__(self) -> None:
        require_within(self, share=(1e-6, 1.0), degrees_a_metre=(1e-6, 90.0), metres=(1e-7, 10.0), degrees=(1e-6, 90.0))

    def sigmas(self, way: Float[Tensor, " E"]) -> Float[Tensor, "E 6"]:
        """Of a motion [t, w] over ``way`` metres: metres and radians."""
        t = (self.metres**2 + (self.share * way).square()).sqrt()
        w = (math.radians(self.degrees) ** 2 + (math.radians(self.degrees_a_metre) * way).square()).sqrt()
        return torch.cat([t[:, None].expand(-1, 3), w[:, None].expand(-1, 3)], -1)


@dataclass(frozen=True, eq=False)
class MotionEdges:
    """Motions between poses of one list. i, j: their numbers; j_from_i: the motion; sigma: of its error [t, w]."""

    i: Int[Tensor, " E"]
    j: Int[Tensor, " E"]
    j_from_i: Pose
    sigma: Float[Tensor, "E 6"]

    def __len__(self) -> int:
        return len(self.i)

    @classmethod
    def of_device(cls, cam_from_device: Pose, drift: DeviceDrift) -> MotionEdges:
        """From each pose of a device, in order of time, to the next."""
        poses = cam_from_device.to(torch.float64)
        i = torch.arange(len(poses.t) - 1)
        way = (poses[i + 1].center() - poses[i].center()).norm(dim=-1)
        return cls(i, i + 1, poses[i + 1] @ poses[i].inverse(), drift.sigmas(way))

    def residuals(self, poses: Pose) -> Float[Tensor, "E 6"]:
        """[t, w] by which the motion between two poses differs from the one that is told, in sigmas."""
        off = poses[self.j] @ poses[self.i].inverse() @ self.j_from_i.inverse()
        return torch.cat([off.t, so3_log(off.R)], -1) / self.sigma

    def jacobians(self, poses: Pose) -> tuple[Float[Tensor, "E 6 6"], Float[Tensor, "E 6 6"]]:
        """Of the residuals with respect to [t, w] of the left update of the poses ``i`` and of the poses ``j``.

        To first order in the residuals: a left update of ``j`` is the residual itself, one of ``i`` goes through the
        motion between them (its adjoint).
        """
        motion = poses[self.j] @ poses[self.i].inverse()
        adjoint = motion.t.new_zeros(len(self), 6, 6)
        adjoint[:, :3, :3] = adjoint[:, 3:, 3:] = motion.R
        adjoint[:, :3, 3:] = skew(motion.t) @ motion.R
        eye = torch.eye(6, dtype=motion.t.dtype).expand(len(self), 6, 6)
        return -adjoint / self.sigma[..., None], eye / self.sigma[..., None]

    def squares(self, poses: Pose) -> Float[Tensor, " E"]:
        """Squared residual of each edge, in sigmas."""
        return self.residuals(poses).square().sum(-1)


def robust_motion(squares: Float[Tensor, " E"], scale: float) -> tuple[Float[Tensor, " E"], Float[Tensor, " E"]]:
    """Cost and weight of each edge. Beyond ``scale`` sigmas it loses weight (Cauchy)."""
    value, weight, _ = scaled_barron(squares, 0.0, scale)
    return value, weight


def add_edges(
    H: Float[Tensor, "P P"], g: Float[Tensor, " P"], edges: MotionEdges, poses: Pose, weight: Float[Tensor, " E"]
) -> None:
    """Put the edges into normal equations of the left updates of all poses, in place."""
    residual, (J_i, J_j) = edges.residuals(poses), edges.jacobians(poses)
    blocks = H.view(len(poses.t), 6, len(poses.t), 6).permute(0, 2, 1, 3)
    gradient = g.view(len(poses.t), 6)
    for a, J_a in ((edges.i, J_i), (edges.j, J_j)):
        weighted = weight[:, None, None] * J_a.mT
        gradient.index_put_((a,), (weighted @ residual[..., None]).squeeze(-1), accumulate=True)
        for b, J_b in ((edges.i, J_i), (edges.j, J_j)):
            blocks.index_put_((a, b), weighted @ J_b, accumulate=True)
