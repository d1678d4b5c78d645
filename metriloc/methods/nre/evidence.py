"""What loss maps say of positions and of poses, paper Eqs. (5)-(7)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.methods.nre.maps import GainMaps

_SCORE_CHUNK = 1 << 15


def gain_at(maps: GainMaps, uv: Float[Tensor, "N K 2"], inside: Bool[Tensor, "N K"]) -> Float[Tensor, "N K"]:
    """Gains of point n at K positions, bilinear.

    ``ln|Omega| - L_n(uv)`` with the loss maps of paper Eq. (7). 0 where a position is not
    ``inside`` the feature map, and in cells that are not stored. In the type of the maps.
    """
    # one map after the other, which keeps each in the cache while it is read
    if len(maps) == 0:
        return uv.new_zeros(inside.shape, dtype=maps.log_ratio.dtype)
    h, w = maps.log_ratio.shape[1:]
    scale = uv.new_tensor([2 / w, 2 / h])
    # ``align_corners=False`` counts from the corner of the first cell; its zeros outside are the cells not stored
    shift = (0.5 * scale - 1) if (w, h) == maps.size else ((0.5 - maps.origin) * scale - 1)[:, None]
    grid = torch.addcmul(shift, uv, scale)
    gain = maps.gain[:, None]
    values = F.grid_sample(gain, grid[:, :, None].to(gain.dtype), padding_mode="zeros", align_corners=False)
    return torch.where(inside, values[:, 0, :, 0], 0.0)


def score_poses(maps: GainMaps, xyz: Float[Tensor, "N 3"], camera: Camera, poses: Pose) -> Float[Tensor, "*k"]:
    """The NRE of poses, ``sum_n L_n(reprojection)``, paper Eq. (6) (Eq. (5) with the truncation taken cell by cell).

    - maps: of the points.
    - xyz: the points, [N, 3], world.
    - camera: of the feature map.
    - poses: ``cam_from_world``; points are projected in their type.

    A point behind the camera, beyond the fold of the distortion or outside the map costs ``ln|Omega|``; so does every point
    under a pose that is not finite.
    """
    flat = Pose(poses.R.reshape(-1, 3, 3), poses.t.reshape(-1, 3))
    xyz, camera = xyz.to(poses.dtype), camera.to(poses.dtype)
    step = max(1, _SCORE_CHUNK // max(len(xyz), 1))
    costs = [
        len(xyz) * maps.max_gain
        - _gain_by_point(maps, xyz, camera, flat[start : start + step]).sum(0, dtype=flat.dtype)
        for start in range(0, flat.shape[0], step)
    ]
    return torch.cat(costs).reshape(poses.shape) if costs else poses.t.new_zeros(poses.shape)


def pose_gain(maps: GainMaps, xyz: Float[Tensor, "N 3"], camera: Camera, pose: Pose) -> Float[Tensor, " N"]:
    """How much each point speaks for one pose, nats.

    0 (no better than an outlier) to ``ln|Omega|``.
    """
    return _gain_by_point(maps, xyz.to(pose.dtype), camera.to(pose.dtype), pose[None])[:, 0]


def _gain_by_point(maps: GainMaps, xyz: Tensor, camera: Camera, poses: Pose) -> Float[Tensor, "N K"]:
    # [N, K, 3] by one matrix product; Pose.transform would put the poses first
    p = (xyz @ poses.R.flatten(0, 1).mT).unflatten(1, (-1, 3)) + poses.t
    uv, seen = camera.project(p)
    return gain_at(maps, uv, seen)
