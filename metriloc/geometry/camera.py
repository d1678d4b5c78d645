"""Cameras: size, focal lengths, principal point and distortion of an image, and the projection with its Jacobian.

Pixels: the centre of the first pixel is (0, 0). Camera axes: x right, y down, z forward.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry.batch import batch_axis, stacked
from metriloc.geometry.checks import require_calibration, require_tensors
from metriloc.geometry.colmap_models import ColmapCamera, colmap_camera, colmap_fields, colmap_parameters
from metriloc.geometry.distortion import NUM_PARAMETERS, J_distort, Model, Validity, distort, undistort

MIN_DEPTH = 1e-3
"""Points nearer than this (metres), or behind the camera, are not visible; their depth is clamped to it (PixLoc)."""

Real = float
"""In annotations of ``Camera``, where ``Camera.float`` hides the type."""


@dataclass(frozen=True, eq=False)
class Camera:
    """A batch of cameras of one distortion model.

    size: (width, height) pixels; f, c: focal lengths and principal point, pixels; distortion: no
    parameters (``pinhole``), k1 k2 p1 p2 k3 (``radtan``) or k1..k4 (``fisheye``). Behaves as a
    tensor does in ``to``, ``cuda``, ``float``, indexing and ``torch.stack``.

    >>> camera = Camera.from_colmap({"model": "PINHOLE", "width": 640, "height": 480, "params": [500, 500, 320, 240]})
    >>> uv, seen = camera.project(torch.tensor([[0.0, 0.0, 2.0]], dtype=torch.float64))
    >>> uv
    tensor([[319.5000, 239.5000]], dtype=torch.float64)
    """

    size: Float[Tensor, "*b 2"]
    f: Float[Tensor, "*b 2"]
    c: Float[Tensor, "*b 2"]
    distortion: Float[Tensor, "*b D"] = None  # type: ignore[assignment] # filled below
    model: Model = "pinhole"

    def __post_init__(self) -> None:
        require_tensors("Camera", size=self.size, f=self.f, c=self.c)
        batch = self.size.shape[:-1]
        for name, value in (("size", self.size), ("f", self.f), ("c", self.c)):
            if value.ndim == 0 or value.shape != (*batch, 2):
                raise ValueError(
                    f"Camera.{name} must have shape [*b, 2], got {list(value.shape)} (size: {list(self.size.shape)})"
                )
        if self.model not in NUM_PARAMETERS:
            raise ValueError(f"unknown distortion model {self.model!r}: one of {', '.join(NUM_PARAMETERS)}")
        if self.distortion is None:
            object.__setattr__(self, "distortion", self.f.new_zeros(*batch, NUM_PARAMETERS[self.model]))
        if self.distortion.shape != (*batch, NUM_PARAMETERS[self.model]):
            raise ValueError(
                f"Camera.distortion of model {self.model!r} must have shape {[*batch, NUM_PARAMETERS[self.model]]}, "
                f"got {list(self.distortion.shape)}"
            )

    # -- construction ---------------------------------------------------------------------------------------------
    @classmethod
    def from_K(
        cls,
        K: Float[Tensor, "*b 3 3"],
        size: tuple[Real, Real] | Tensor,
        distortion: Float[Tensor, "*b D"] | None = None,
        model: Model = "pinhole",
    ) -> Camera:
        """From calibration matrices and the size of the image. Raises ValueError for matrices of no camera.

        - K, size: matrices without skew, and (width, height); pixels.
        - distortion, model: as in ``Camera``.
        """
        if K.shape[-2:] != (3, 3):
            raise ValueError(f"K must have shape [*b, 3, 3], got {list(K.shape)}")
        require_calibration(K)
        f = torch.stack([K[..., 0, 0], K[..., 1, 1]], -1)
        wh = torch.as_tensor(size, dtype=K.dtype, device=K.device).expand(f.shape)
        return cls(wh, f, K[..., :2, 2], distortion, model)  # type: ignore[arg-type]

    @classmethod
    def from_colmap(
        cls,
        model: str | Mapping[str, Any] | ColmapCamera,
        width: int | None = None,
        height: int | None = None,
        params: Sequence[Real] | None = None,
    ) -> Camera:
        """One camera from COLMAP's name, size and parameters, float64. Moves the center of the first pixel from 0.5 to
        0.

        - model: COLMAP's name, with the size and parameters after it; or alone, a dictionary with the entries
          ``model``, ``width``, ``height`` and ``params``, or an object with such fields (a camera of pycolmap).

        Raises ValueError for models other than pinhole, radtan and fisheye ones, such as FULL_OPENCV with a rational
        part (k4, k5, k6); a map has undistorted copies of their photos (``read_map``).
        """
        if not isinstance(model, str):
            model, width, height, params = colmap_fields(model)
        if width is None or height is None or params is None:
            raise ValueError(f"COLMAP camera {model} needs width, height and parameters")
        ours, f, c, distortion = colmap_parameters(model, params)
        return cls(f.new_tensor([width, height]), f, c, distortion, ours)  # type: ignore[arg-type]

    def to_colmap(self) -> ColmapCamera:
        """One camera as COLMAP writes it: the inverse of ``from_colmap``."""
        return colmap_camera(self.model, *(x.double() for x in (self.size, self.f, self.c, self.distortion)))

    @classmethod
    def from_fov(cls, size: tuple[int, int], horizontal: Real) -> Camera:
        """A pinhole camera from its horizontal field of view. Radians; square pixels (float32)."""
        if not 0 < horizontal < math.pi:
            raise ValueError(f"the field of view must be between 0 and pi radians, got {horizontal}")
        width, height = size
        f = 0.5 * width / math.tan(0.5 * horizontal)
        return cls(
            torch.tensor([float(width), float(height)]),
            torch.tensor([f, f]),
            torch.tensor([(width - 1) / 2, (height - 1) / 2]),
        )

    @classmethod
    def stack(cls, cameras: Sequence[Camera], dim: int = 0) -> Camera:
        """Cameras of one batch shape and model, as ``torch.stack``."""
        dim = batch_axis(dim, cameras[0].shape)
        models = {camera.model for camera in cameras}
        if len(models) != 1:
            raise ValueError(f"cameras of different models cannot be stacked: {', '.join(sorted(models))}")
        size, f, c, distortion = (
            torch.stack([getattr(camera, name) for camera in cameras], dim) for name in ("size", "f", "c", "distortion")
        )
        return cls(size, f, c, distortion, cameras[0].model)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """``torch.stack`` of cameras; all other functions of torch are refused."""
        return stacked(cls, function, args, kwargs or {})

    # -- batch ----------------------------------------------------------------------------------------------------
    @property
    def shape(self) -> torch.Size:
        """Batch shape."""
        return self.f.shape[:-1]

    @property
    def dtype(self) -> torch.dtype:
        """Floating point type."""
        return self.f.dtype

    @property
    def device(self) -> torch.device:
        """Where the numbers lie."""
        return self.f.device

    def detach(self) -> Camera:
        """Without gradients."""
        size, f, c, distortion = (x.detach() for x in (self.size, self.f, self.c, self.distortion))
        return replace(self, size=size, f=f, c=c, distortion=distortion)

    def to(self, *args: Any, **kwargs: Any) -> Camera:
        """As ``Tensor.to``."""
        return self._each(lambda x: x.to(*args, **kwargs))

    def cuda(self, device: torch.device | int | None = None) -> Camera:
        """On a GPU, as ``Tensor.cuda``."""
        return self._each(lambda x: x.cuda(device))

    def cpu(self) -> Camera:
        """On the CPU."""
        return self._each(lambda x: x.cpu())

    def float(self) -> Camera:
        """In float32."""
        return self._each(lambda x: x.float())

    def double(self) -> Camera:
        """In float64."""
        return self._each(lambda x: x.double())

    def __getitem__(self, index: Any) -> Camera:
        """Index the batch axes."""
        index = index if isinstance(index, tuple) else (index,)
        return self._each(lambda x: x[(*index, ..., slice(None))])

    def _each(self, change: Callable[[Tensor], Tensor]) -> Camera:
        return Camera(change(self.size), change(self.f), change(self.c), change(self.distortion), self.model)

    @property
    def K(self) -> Float[Tensor, "*b 3 3"]:
        """Calibration matrix of the pinhole part."""
        fx, fy = self.f.unbind(-1)
        cx, cy = self.c.unbind(-1)
        zero, one = torch.zeros_like(fx), torch.ones_like(fx)
        return torch.stack([fx, zero, cx, zero, fy, cy, zero, zero, one], -1).unflatten(-1, (3, 3))

    # -- change of image ------------------------------------------------------------------------------------------
    def scale(self, factor: Real | tuple[Real, Real] | Tensor) -> Camera:
        """The camera of the image resized by ``factor`` (or x, y). ``c' = s (c + 0.5) - 0.5``."""
        s = torch.as_tensor(factor, dtype=self.dtype, device=self.device)
        return replace(self, size=self.size * s, f=self.f * s, c=(self.c + 0.5) * s - 0.5)

    def crop(self, corner: tuple[Real, Real] | Tensor, size: tuple[Real, Real] | Tensor) -> Camera:
        """The camera of a window. size: (width, height); corner: its first pixel (left, top)."""
        left_top = torch.as_tensor(corner, dtype=self.dtype, device=self.device)
        wh = torch.as_tensor(size, dtype=self.dtype, device=self.device).expand(self.size.shape)
        return replace(self, size=wh, c=self.c - left_top)

    def turn(self, quarters: int) -> Camera:
        """The camera of the turned image. Quarter turns are against the clock (``numpy.rot90``)."""
        camera = self
        for _ in range(quarters % 4):
            distortion = camera.distortion
            if camera.model == "radtan":
                # u' = v, v' = -u; a fisheye is the same in all directions
                k1, k2, p1, p2, k3 = distortion.unbind(-1)
                distortion = torch.stack([k1, k2, -p2, p1, k3], -1)
            c = torch.stack([camera.c[..., 1], camera.size[..., 0] - 1 - camera.c[..., 0]], -1)
            camera = Camera(camera.size.flip(-1), camera.f.flip(-1), c, distortion, camera.model)
        return camera

    def in_image(self, uv: Float[Tensor, "*b N 2"]) -> Bool[Tensor, "*b N"]:
        """``0 <= uv <= size - 1`` in both axes."""
        return ((uv >= 0) & (uv <= self.size[..., None, :] - 1)).all(-1)

    # -- projection -----------------------------------------------------------------------------------------------
    def project(
        self, xyz: Float[Tensor, "*b N 3"], validity: Validity = "correct"
    ) -> tuple[Float[Tensor, "*b N 2"], Bool[Tensor, "*b N"]]:
        """Pixels of points, and which are seen (in front, inside the image)."""
        m, in_front = _perspective(xyz)
        if self.model == "pinhole":
            uv = m * self.f[..., None, :] + self.c[..., None, :]
            return uv, in_front & self.in_image(uv)
        distorted, inside = distort(m, self.distortion, self.model, validity)
        uv = distorted * self.f[..., None, :] + self.c[..., None, :]
        return uv, in_front & inside & self.in_image(uv)

    def J_project(self, xyz: Float[Tensor, "*b N 3"]) -> tuple[Float[Tensor, "*b N 2 3"], Bool[Tensor, "*b N"]]:
        """Derivative of the pixel by the point, and what is in front.

        ``diag(f) J_distort(m) [[1/z, 0, -x/z^2], [0, 1/z, -y/z^2]]``, with z clamped as in ``project``.
        """
        m, in_front = _perspective(xyz)
        inverse_z = 1 / xyz[..., 2].clamp(min=MIN_DEPTH)
        zero = torch.zeros_like(inverse_z)
        x, y = (-m * inverse_z[..., None]).unbind(-1)
        J = torch.stack([inverse_z, zero, x, zero, inverse_z, y], -1).unflatten(-1, (2, 3))
        if self.model != "pinhole":
            J = J_distort(m, self.distortion, self.model) @ J
        return self.f[..., None, :, None] * J, in_front

    def world2image(self, xyz: Float[Tensor, "*b N 3"]) -> tuple[Float[Tensor, "*b N 2"], Bool[Tensor, "*b N"]]:
        """PixLoc's name of ``project``. Points are in the *camera* frame, in spite of the name."""
        return self.project(xyz)

    def J_world2image(self, xyz: Float[Tensor, "*b N 3"]) -> tuple[Float[Tensor, "*b N 2 3"], Bool[Tensor, "*b N"]]:
        """PixLoc's name of ``J_project``."""
        return self.J_project(xyz)

    def unproject(self, uv: Float[Tensor, "*b N 2"]) -> tuple[Float[Tensor, "*b N 3"], Bool[Tensor, "*b N"]]:
        """Pixels -> points at depth 1 on their rays. Invalid where distortion has no inverse."""
        if uv.ndim < 2 or uv.shape[-1] != 2:
            raise ValueError(f"uv must have shape [*b, N, 2], got {list(uv.shape)}")
        distorted = (uv - self.c[..., None, :]) / self.f[..., None, :]
        m, valid = undistort(distorted, self.distortion, self.model)
        return torch.cat([m, torch.ones_like(m[..., :1])], -1), valid

    def lift(self, uv: Float[Tensor, "*b N 2"], depth: Float[Tensor, "*b N"]) -> Float[Tensor, "*b N 3"]:
        """Pixels and depths -> points in the camera frame.

        MicKey Eq. (1); lens distortion is taken out.

        - uv: pixels.
        - depth: along z, metres; its sign is kept, and where it is NaN the point is, too.

        A point is NaN where the distortion has no inverse; neither pixel nor depth has a gradient there.

        >>> Camera.from_fov((640, 480), 1.0).lift(torch.tensor([[319.5, 239.5]]), torch.tensor([2.0]))
        tensor([[0., 0., 2.]])
        """
        ray, valid = self.unproject(uv)
        xyz = depth[..., None] * ray
        return torch.where(valid[..., None], xyz, torch.full_like(xyz, torch.nan))


def _perspective(xyz: Tensor) -> tuple[Tensor, Tensor]:
    if xyz.ndim < 2 or xyz.shape[-1] != 3:
        raise ValueError(f"xyz must have shape [*b, N, 3], got {list(xyz.shape)}")
    z = xyz[..., 2]
    return xyz[..., :2] / z.clamp(min=MIN_DEPTH)[..., None], z > MIN_DEPTH
