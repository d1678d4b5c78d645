"""Rigid poses. A pose maps points, ``X_b = R X_a + t``, and its variable is named ``b_from_a``; metres."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry.batch import batch_axis, stacked
from metriloc.geometry.checks import require_rotation, require_tensors
from metriloc.geometry.conventions import CONVENTIONS, convention_named
from metriloc.geometry.so3 import matrix_from_quaternion, quaternion_from_matrix, rotation_angle, so3_exp


@dataclass(frozen=True, eq=False)
class Pose:
    """A batch of rigid motions ``b_from_a``. Rotation ``R``, and translation ``t`` in metres.

    ``c_from_b @ b_from_a`` is ``c_from_a``, ``b_from_a * xyz_a`` is ``xyz_b``. ``R`` is taken as it is: nothing is
    normalized. Behaves as a tensor does in ``to``, ``cuda``, ``float``, indexing and ``torch.stack``.

    >>> b_from_a = Pose.from_aa(torch.zeros(3), torch.tensor([0.0, 0.0, 2.0]))
    >>> b_from_a * torch.tensor([[1.0, 0.0, 3.0]])
    tensor([[1., 0., 5.]])
    """

    R: Float[Tensor, "*b 3 3"]
    t: Float[Tensor, "*b 3"]

    def __post_init__(self) -> None:
        require_tensors("Pose", R=self.R, t=self.t)
        if self.R.shape[-2:] != (3, 3) or self.t.shape[-1:] != (3,) or self.R.shape[:-2] != self.t.shape[:-1]:
            raise ValueError(
                f"Pose needs R [*b, 3, 3] and t [*b, 3] of one batch shape, got {list(self.R.shape)} and {list(self.t.shape)}"
            )

    # -- construction ---------------------------------------------------------------------------------------------
    @classmethod
    def identity(
        cls, shape: Sequence[int] = (), dtype: torch.dtype | None = None, device: torch.device | str | None = None
    ) -> Pose:
        """The motion that moves nothing.

        - shape: batch shape.
        - dtype, device: as in torch.
        """
        R = torch.eye(3, dtype=dtype, device=device).expand(*shape, 3, 3)
        return cls(R, torch.zeros(*shape, 3, dtype=dtype, device=device))

    @classmethod
    def from_Rt(cls, R: Float[Tensor, "*b 3 3"] | np.ndarray, t: Float[Tensor, "*b 3"] | np.ndarray) -> Pose:
        """From rotation matrices and translations, tensors or numpy arrays.

        Raises ValueError for matrices that scale, shear or mirror; NaN, which failures carry, is let through.
        """
        R = torch.as_tensor(R)
        require_rotation(R)
        return cls(R, torch.as_tensor(t))

    @classmethod
    def from_aa(cls, w: Float[Tensor, "*b 3"] | np.ndarray, t: Float[Tensor, "*b 3"] | np.ndarray) -> Pose:
        """From rotation vectors, radians, and translations; tensors or numpy arrays."""
        return cls(so3_exp(torch.as_tensor(w)), torch.as_tensor(t))

    @classmethod
    def from_convention(cls, pose: Pose, name: str, *, keep_world: bool = False) -> Pose:
        """``cam_from_world`` of a camera pose as another program writes it. The inverse of ``to(name, keep_world=...)``.

        - pose: its numbers, in the direction of that program.
        - name, keep_world: one of ``CONVENTIONS``, and as in ``to``.

        >>> Pose.from_convention(Pose.from_matrix(torch.eye(4)), "arkit").angle()
        tensor(0.)
        """
        convention = convention_named(name)
        theirs = pose.inverse() if convention.camera_to_world else pose
        return theirs._with_axes(convention.matrix().mT, name, keep_world)

    @classmethod
    def from_matrix(cls, T: Float[Tensor, "*b 4 4"]) -> Pose:
        """From homogeneous matrices; the last row is not looked at. Raises ValueError as ``from_Rt``."""
        if T.shape[-2:] not in ((4, 4), (3, 4)):
            raise ValueError(f"T must have shape [*b, 4, 4], got {list(T.shape)}")
        require_rotation(T[..., :3, :3])
        return cls(T[..., :3, :3], T[..., :3, 3])

    @classmethod
    def from_quaternion(cls, q: Float[Tensor, "*b 4"], t: Float[Tensor, "*b 3"]) -> Pose:
        """From a quaternion (w, x, y, z) and a translation. It may have any length."""
        return cls(matrix_from_quaternion(q), t)

    @classmethod
    def from_tangent(cls, delta: Float[Tensor, "*b 6"]) -> Pose:
        """``(Exp(dw), dt)`` of ``delta = [dt, dw]``. The update that ``J_transform`` linearises (PixLoc; not SE(3)'s
        exp)."""
        if delta.shape[-1:] != (6,):
            raise ValueError(f"delta must have shape [*b, 6], got {list(delta.shape)}")
        return cls(so3_exp(delta[..., 3:]), delta[..., :3])

    @classmethod
    def stack(cls, poses: Sequence[Pose], dim: int = 0) -> Pose:
        """Poses of one batch shape, stacked as by ``torch.stack``. The new batch axis is at ``dim``."""
        dim = batch_axis(dim, poses[0].shape)
        return cls(torch.stack([p.R for p in poses], dim), torch.stack([p.t for p in poses], dim))

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """``torch.stack`` of poses; all other functions of torch are refused."""
        return stacked(cls, function, args, kwargs or {})

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

    def to(self, *args: Any, keep_world: bool = False, **kwargs: Any) -> Pose:
        """As ``Tensor.to``; or as another convention writes it, by its name.

        - args: device and dtype; or one name of ``CONVENTIONS`` (``"opengl"``, ``"arkit"``, ``"unity"``, ``"ros"``,
          ``"colmap"``, ``"nerfstudio"``, ``"opencv"``), alone.
        - keep_world: with a name, whether the world keeps its axes, as that of a map must. By default it takes those of
          the convention too, as the world of a relative pose does: it is the reference camera.

        What comes back holds the numbers of that convention, camera to world where it has them so;
        it is for that program, not for this library. Raises ValueError for an unknown name, and
        for ``keep_world`` with left-handed axes: then no rotation leads from the one to the other.

        >>> Pose.from_aa(torch.zeros(3), torch.tensor([1.0, 2.0, 3.0])).to("opengl").t
        tensor([ 1., -2., -3.])
        """
        name = args[0] if args else None
        if isinstance(name, str) and (name in CONVENTIONS or not _is_device(name)):
            if len(args) > 1 or kwargs:
                raise ValueError(f"to({name!r}) takes nothing else: move the pose first")
            return self._as_written(name, keep_world)
        if keep_world:
            raise ValueError("keep_world belongs to the name of a convention")
        return self._each(lambda x: x.to(*args, **kwargs))

    def cuda(self, device: torch.device | int | None = None) -> Pose:
        """On a GPU, as ``Tensor.cuda``."""
        return self._each(lambda x: x.cuda(device))

    def cpu(self) -> Pose:
        """On the CPU."""
        return self._each(lambda x: x.cpu())

    def float(self) -> Pose:
        """In float32."""
        return self._each(lambda x: x.float())

    def double(self) -> Pose:
        """In float64."""
        return self._each(lambda x: x.double())

    def _each(self, change: Callable[[Tensor], Tensor]) -> Pose:
        return Pose(change(self.R), change(self.t))

    def _as_written(self, name: str, keep_world: bool) -> Pose:
        convention = convention_named(name)
        theirs = self._with_axes(convention.matrix(), name, keep_world)
        return theirs.inverse() if convention.camera_to_world else theirs

    def _with_axes(self, axes: Tensor, name: str, keep_world: bool) -> Pose:
        """Points of the camera, and of the world unless it keeps its own, are ``axes @ X``."""
        axes = axes.to(self.R)
        if not keep_world:
            return Pose(axes @ self.R @ axes.mT, self.t @ axes.mT)
        if bool(torch.linalg.det(axes) < 0):
            raise ValueError(f"{name} is left-handed, so the world cannot keep its axes: leave out keep_world")
        return Pose(axes @ self.R, self.t @ axes.mT)

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

    def inv(self) -> Pose:
        """``a_from_b``: PixLoc's name of ``inverse``."""
        return self.inverse()

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

    def __mul__(self, xyz: Float[Tensor, "*b N 3"] | np.ndarray) -> Float[Tensor, "*b N 3"]:
        """``b_from_a * xyz_a -> xyz_b``: ``transform``, also of a numpy array."""
        if isinstance(xyz, np.ndarray):
            xyz = torch.from_numpy(xyz).to(self.t)
        return self.transform(xyz) if isinstance(xyz, Tensor) else NotImplemented

    # -- other forms ----------------------------------------------------------------------------------------------
    def matrix(self) -> Float[Tensor, "*b 4 4"]:
        """Homogeneous matrices."""
        top = torch.cat([self.R, self.t[..., None]], -1)
        last = self.t.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*self.shape, 1, 4)
        return torch.cat([top, last], -2)

    def to_dict(self, *, to_frame: str, from_frame: str, unit: str = "metre") -> dict[str, Any]:
        """One pose as plain numbers and words for JSON.

        - to_frame, from_frame: what the two frames are called.
        - unit: of the translation.
        """
        pose = self.detach().to("cpu", torch.float64)
        return {
            "maps": f"X[{to_frame}] = R X[{from_frame}] + t",
            "from_frame": from_frame,
            "to_frame": to_frame,
            "translation_unit": unit,
            "matrix": pose.matrix().tolist(),
            "quaternion_wxyz": pose.quaternion().tolist(),
            "translation": pose.t.tolist(),
        }

    def quaternion(self) -> Float[Tensor, "*b 4"]:
        """Unit quaternion (w, x, y, z), w >= 0."""
        return quaternion_from_matrix(self.R)

    def center(self) -> Float[Tensor, "*b 3"]:
        """Origin of frame b in frame a, ``-R^T t``. The camera center of a ``cam_from_world``."""
        return -(self.R.mT @ self.t[..., None]).squeeze(-1)

    def angle(self) -> Float[Tensor, "*b"]:
        """Rotation angle in radians, [0, pi]."""
        return rotation_angle(self.R)

    def distance(self) -> Float[Tensor, "*b"]:
        """``|t|``: the distance between the two origins, metres."""
        return self.t.norm(dim=-1)

    def angle_to(self, other: Pose) -> Float[Tensor, "*b"]:
        """Angle between two rotations in radians, 0..pi: the rotation error.

        Exact for tiny angles; the gradient at equal rotations is 0.

        >>> float(Pose.identity().angle_to(Pose.from_aa(torch.tensor([0.0, 0.5, 0.0]), torch.zeros(3))))
        0.5
        """
        return rotation_angle(self.R @ other.R.mT)

    def center_distance(self, other: Pose) -> Float[Tensor, "*b"]:
        """Distance of two camera centers of ``cam_from_world``, metres: the position error.

        The gradient at equal centers is 0.

        >>> float(Pose.identity().center_distance(Pose.from_aa(torch.zeros(3), torch.tensor([3.0, 0.0, 4.0]))))
        5.0
        """
        return (self.center() - other.center()).norm(dim=-1)

    def is_finite(self) -> Bool[Tensor, "*b"]:
        """Whether every number of the pose is finite."""
        return torch.isfinite(self.R).all(-1).all(-1) & torch.isfinite(self.t).all(-1)


def _is_device(name: str) -> bool:
    try:
        torch.device(name)
    except RuntimeError:
        return False
    return True
