"""The pose of several cameras that are fixed to each other, from 2D-3D matches of all of them, on poselib."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.geometry.so3 import skew
from metriloc.solvers.absolute_support import covariance_from_normal, normal_equations
from metriloc.solvers.pinhole import collinear, pinhole_points

_NEEDED = 4


@dataclass(frozen=True, eq=False)
class RigMatches:
    """Of one camera. uv: pixels; xyz: points of the world; cam_from_rig: where the camera is on the rig."""

    uv: Float[Tensor, "N 2"]
    xyz: Float[Tensor, "N 3"]
    camera: Camera
    cam_from_rig: Pose


@dataclass(frozen=True, eq=False)
class RigFit:
    """pose: ``rig_from_world``, float64, None where too few matches agree. inliers: of each camera's matches."""

    pose: Pose | None
    inliers: tuple[Bool[Tensor, " N"], ...]


def rig_pose(cameras: Sequence[RigMatches], max_error_px: Sequence[float], seed: int = 0) -> RigFit:
    """Generalized P3P in LO-RANSAC, then least squares over all cameras.

    The same by seed, but for last bits. max_error_px: of each camera; poselib takes one threshold,
    so pixels of the others are scaled to the first's. Matches that are not finite are left out.
    """
    import poselib

    uv, xyz, places, models, usable = [], [], [], [], []
    for own, limit in zip(cameras, max_error_px, strict=True):
        points, good, pinhole = pinhole_points(own.uv, own.camera)
        world = own.xyz.detach().double().cpu().numpy()
        good = good & np.isfinite(world).all(-1)
        scale = max_error_px[0] / limit
        pinhole["params"] = [scale * value for value in pinhole["params"]]
        place = poselib.CameraPose()
        place.R, place.t = own.cam_from_rig.R.double().numpy(), own.cam_from_rig.t.double().numpy()
        uv.append(scale * points[good])
        xyz.append(world[good])
        places.append(place)
        models.append(pinhole)
        usable.append(torch.from_numpy(good))
    nothing = tuple(torch.zeros(len(good), dtype=torch.bool) for good in usable)
    if sum(map(len, xyz)) < _NEEDED:
        return RigFit(None, nothing)
    options = {"max_reproj_error": float(max_error_px[0]), "seed": seed}
    found, info = poselib.estimate_generalized_absolute_pose(uv, xyz, places, models, options, {})
    inliers = []
    for known, told in zip(usable, info["inliers"], strict=True):
        own_inliers = torch.zeros(len(known), dtype=torch.bool)
        own_inliers[known] = torch.tensor(told, dtype=torch.bool)
        inliers.append(own_inliers)
    pose = Pose(torch.from_numpy(np.array(found.R)), torch.from_numpy(np.array(found.t)).reshape(3))
    used = np.concatenate([own.xyz[kept].double().numpy() for own, kept in zip(cameras, inliers, strict=True)])
    if len(used) < _NEEDED or not bool(pose.is_finite()) or collinear(used):
        return RigFit(None, nothing)
    return RigFit(pose, tuple(inliers))


def rig_covariance(
    pose: Pose,
    cameras: Sequence[RigMatches],
    inliers: Sequence[Bool[Tensor, " N"]],
    cells: Sequence[float],
    times: float = 1.0,
) -> Float[Tensor, "6 6"] | None:
    """Covariance of ``rig_from_world`` by the residuals of all cameras.

    None where they do not fix it. Of ``delta = [t, w]`` in ``Pose.from_tangent(delta) @ pose``, in
    the axes of the rig. cells, times: as in ``absolute_support.pose_covariance``, cells one a
    camera.
    """
    total = torch.zeros(6, 6, dtype=torch.float64)
    for own, kept, cell in zip(cameras, inliers, cells, strict=True):
        place = own.cam_from_rig.to(torch.float64)
        H, _ = normal_equations(place @ pose, own.xyz[kept], own.uv[kept], own.camera, cell)
        # a small motion of the rig as one of the camera: w -> R w, t -> R t + t_c x R w
        adjoint = torch.zeros(6, 6, dtype=torch.float64)
        adjoint[:3, :3] = adjoint[3:, 3:] = place.R
        adjoint[:3, 3:] = skew(place.t) @ place.R
        total += adjoint.mT @ H @ adjoint
    return covariance_from_normal(total / times**2)
