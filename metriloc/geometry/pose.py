"""Rigid poses. A pose maps points, ``X_b = R X_a + t``, and its variable is named ``b_from_a``; metres."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry.so3 import matrix_from_quaternion, quaternion_from_matrix, rotation_angle, skew, so3_exp


@dataclass(frozen=True, eq=False)
class Pose:
    """A batch of rigid motions ``b_from_a``: rotation ``R`` and translation ``t`` in metres.

    ``c_from_b @ b_from_a`` is ``c_from_a``. ``R`` is taken as it is: nothing is normalised.
    """

    R: Float[Tensor, "*b 3 3"]
    t: Float[Tensor, "*b 3"]

    def __post_init__(self) -> None:
        if self.R.shape[-2:] != (3, 3) or self.t.shape[-1:] != (3,) or self.R.shape[:-2] != self.t.shape[:-1]:
            raise ValueError(
                f"Pose needs R [*b, 3, 3] and t [*b, 3] of one batch shape, got {list(self.R.shape)} and {list(self.t.shape)}"
            )

    # -- construction ---------------------------------------------------------------------------------------------
    @classmethod
    def identity(
        cls, shape: Sequence[int] = (), dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Pose:
        """The motion that moves nothing."""
        R = torch.eye(3, dtype=dtype, device=device).expand(*shape, 3, 3)
        return cls(R, torch.zeros(*shape, 3, dtype=dtype, device=device))

    @classmethod
    def from_matrix(cls, T: Float[Tensor, "*b 4 4"]) -> Pose:
        """From homogeneous matrices; the last row is not looked at."""
        if T.shape[-2:] not in ((4, 4), (3, 4)):
            raise ValueError(f"T must have shape [*b, 4, 4], got {list(T.shape)}")
        return cls(T[..., :3, :3], T[..., :3, 3])

    @classmethod
    def from_quaternion(cls, q: Float[Tensor, "*b 4"], t: Float[Tensor, "*b 3"]) -> Pose:
        """From a quaternion (w, x, y, z) of any length and a translation."""
        return cls(matrix_from_quaternion(q), t)

    @classmethod
    def from_tangent(cls, delta: Float[Tensor, "*b 6"]) -> Pose:
        """``(Exp(dw), dt)`` of ``delta = [dt, dw]``: the update that ``J_transform`` linearises (PixLoc; not SE(3)'s exp)."""
        if delta.shape[-1:] != (6,):
            raise ValueError(f"delta must have shape [*b, 6], got {list(delta.shape)}")
        return cls(so3_exp(delta[..., 3:]), delta[..., :3])

    @classmethod
    def stack(cls, poses: Sequence[Pose], dim: int = 0) -> Pose:
        """Poses of one batch shape -> a new batch axis at ``dim`` (0 or positive)."""
        return cls(torch.stack([p.R for p in poses], dim), torch.stack([p.t for p in poses], dim))

    # -- batch ----------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> torch.Size:
        """Batch shape."""
        return self.t.shape[:-1]

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type."""
        return self.t.dtype

    @property
    def device(self) -> torch.device:
        """Where the numbers lie."""
        return self.t.device

    def to(self, *args: Any, **kwargs: Any) -> Pose:
        """As ``Tensor.to``."""
        return Pose(self.R.to(*args, **kwargs), self.t.to(*args, **kwargs))

    def detach(self) -> Pose:
        """Without gradients."""
        return Pose(self.R.detach(), self.t.detach())

    def __getitem__(self, index: Any) -> Pose:
        """Index the batch axes."""
        index = index if isinstance(index, tuple) else (index,)
        return Pose(self.R[(*index, ..., slice(None), slice(None))], self.t[(*index, ..., slice(None))])

    # -- algebra --------------------------------------------------------------------------------------------------
    def inverse(self) -> Pose:
        """``a_from_b``."""
        Rt = self.R.mT
        return Pose(Rt, -(Rt @ self.t[..., None]).squeeze(-1))

    def __matmul__(self, other: Pose) -> Pose:
        """``c_from_b @ b_from_a -> c_from_a``; batch shapes broadcast."""
        R = self.R @ other.R
        t = (self.R @ other.t[..., None]).squeeze(-1) + self.t
        return Pose(R.expand(*t.shape[:-1], 3, 3), t)

    def transform(self, xyz: Float[Tensor, "*b N 3"]) -> Float[Tensor, "*b N 3"]:
        """Points in frame a -> the same points in frame b."""
        if xyz.ndim < 2 or xyz.shape[-1] != 3:
            raise ValueError(f"xyz must have shape [*b, N, 3], got {list(xyz.shape)}")
        return xyz @ self.R.mT + self.t[..., None, :]

    # -- other forms ----------------------------------------------------------------------------------------------
    def matrix(self) -> Float[Tensor, "*b 4 4"]:
        """Homogeneous matrices."""
        top = torch.cat([self.R, self.t[..., None]], -1)
        last = self.t.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*self.shape, 1, 4)
        return torch.cat([top, last], -2)

    def quaternion(self) -> Float[Tensor, "*b 4"]:
        """Unit quaternion (w, x, y, z), w >= 0."""
        return quaternion_from_matrix(self.R)

    def center(self) -> Float[Tensor, "*b 3"]:
        """Origin of frame b in frame a, ``-R^T t``: the camera centre of a ``cam_from_world``."""
        return -(self.R.mT @ self.t[..., None]).squeeze(-1)

    def angle(self) -> Float[Tensor, "*b"]:
        """Rotation angle in radians, [0, pi]."""
        return rotation_angle(self.R)

    def distance(self) -> Float[Tensor, "*b"]:
        """``|t|``: the distance between the two origins, metres."""
        return self.t.norm(dim=-1)

    def is_finite(self) -> Bool[Tensor, "*b"]:
        """Whether every number of the pose is finite."""
        return torch.isfinite(self.R).all(-1).all(-1) & torch.isfinite(self.t).all(-1)


def J_transform(xyz_out: Float[Tensor, "*b N 3"]) -> Float[Tensor, "*b N 3 6"]:
    """Derivative of ``Pose.from_tangent(delta) @ pose`` applied to points, at ``delta = 0``, order [t, w].

    ``xyz_out`` are the transformed points p: ``J = [I, -skew(p)]`` (PixLoc supplementary; left update).
    """
    if xyz_out.ndim < 2 or xyz_out.shape[-1] != 3:
        raise ValueError(f"xyz_out must have shape [*b, N, 3], got {list(xyz_out.shape)}")
    eye = torch.eye(3, dtype=xyz_out.dtype, device=xyz_out.device).expand(*xyz_out.shape, 3)
    return torch.cat([eye, -skew(xyz_out)], -1)
