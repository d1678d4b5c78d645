"""Virtual correspondence reprojection error (VCRE): how far a pose error moves points in front of
a camera, in pixels.

The Map-free benchmark's measure and MicKey's training loss, paper Eq. (7), are the same mean over
the same points; they differ in where they clip and in how they meet depth zero.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose


def virtual_points(
    dtype: torch.dtype = torch.float64, device: torch.device | str | None = None
) -> Float[Tensor, "196 3"]:
    """The benchmark's points in front of a camera, metres. 1.8 x 0.9 x 1.8 between the outermost.

    7 x 4 x 7 of spacing 0.3, 1.8 to 3.6 m ahead; y slowest, z fastest (which matters for the last
    bits of a mean only).

    >>> virtual_points().shape
    torch.Size([196, 3])
    """
    steps = torch.arange(7, dtype=torch.float64)
    y, x, z = torch.meshgrid(0.3 * (steps[:4] - 1.5), 0.3 * (steps - 3), 0.3 * steps + 1.8, indexing="ij")
    return torch.stack([x, y, z], -1).reshape(-1, 3).to(device, dtype)


def virtual_shift(
    motion: Pose,
    camera: Camera,
    clip: float | Float[Tensor, "*b 2"] | None,
    *,
    smoothing: float = 0.0,
    min_abs_depth: float = 0.0,
) -> Float[Tensor, "*b"]:
    """How far ``motion`` moves the virtual points in the image, pixels.

    The mean of their distances before and after, MicKey Eq. (7) one way.

    - motion: of the camera frame, what is wrong with a pose; batch shapes broadcast with the
      camera's.
    - camera: sets the pixels, by its pinhole part.
    - clip: both coordinates of a projection are clipped to 0..clip: one number, or (width, height)
      of each camera; None for no clipping.
    - smoothing: squared pixels added inside the root, for a smooth loss at zero.
    - min_abs_depth: metres; a depth nearer to zero is replaced by it. With 0 a point at depth zero
      may give NaN.

    Points behind the camera are projected like all others, as published: the clipping bounds what
    they cost.

    >>> camera = Camera.from_fov((640, 480), 1.0)
    >>> virtual_shift(Pose.identity(), camera, clip=720.0)
    tensor(0.)
    """
    points = virtual_points(motion.dtype, motion.device)
    moved = _pixels(motion.transform(points), camera, clip, min_abs_depth)
    apart = moved - _pixels(points, camera, clip, min_abs_depth)
    if smoothing > 0:
        return (apart.square().sum(-1) + smoothing).sqrt().mean(-1)
    return apart.norm(dim=-1).mean(-1)


def _pixels(xyz: Tensor, camera: Camera, clip: float | Tensor | None, min_abs_depth: float) -> Tensor:
    z = xyz[..., 2:]
    if min_abs_depth > 0:
        z = torch.where(z.abs() < min_abs_depth, torch.full_like(z, min_abs_depth), z)
    uv = xyz[..., :2] / z * camera.f[..., None, :] + camera.c[..., None, :]
    if clip is None:
        return uv
    if isinstance(clip, Tensor):
        return torch.minimum(uv.clamp(min=0), clip[..., None, :])
    return uv.clamp(0, clip)
