"""Pose and focal length together from 2D-3D matches: P4Pf in LO-RANSAC by pycolmap, then refined with all that agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, J_transform, Pose

MIN_INLIERS = 30
"""Fewer matches leave depth and focal length too free."""
MODEL_SIGMA = 0.01
"""Relative; a lens is neither free of distortion nor exactly centered, which is what is assumed here."""
_ITERATIONS = 20
_RANGE = (0.2, 20.0)  # focal lengths over the longer side


@dataclass(frozen=True, eq=False)
class FocalFit:
    """pose: ``cam_from_world``, float64. camera: float64, with the focal length that was found. sigma: relative standard
    deviation of that. inliers: over the matches given."""

    pose: Pose
    camera: Camera
    sigma: float
    inliers: Bool[Tensor, " N"]


def absolute_pose_and_focal(
    uv: Float[Tensor, "N 2"], xyz: Float[Tensor, "N 3"], camera: Camera, max_error_px: float = 6.0, seed: int = 0
) -> FocalFit | None:
    """``cam_from_world`` and the focal length from pixels and points of the world.

    camera: a pinhole camera, of which the focal lengths are only believed to be equal. None for another camera, where
    fewer than 30 matches agree, where no focal length is found or it is absurd, and without pycolmap.
    """
    try:
        import pycolmap
    except ImportError:
        return None
    camera, uv, xyz = camera.to(torch.float64), uv.double(), xyz.double()
    usable = torch.isfinite(uv).all(-1) & torch.isfinite(xyz).all(-1)
    if camera.model != "pinhole" or int(usable.sum()) < MIN_INLIERS:
        return None
    (width, height), (cx, cy) = camera.size.tolist(), (camera.c + 0.5).tolist()
    theirs = pycolmap.Camera(
        model="SIMPLE_PINHOLE", width=round(width), height=round(height), params=[float(camera.f.mean()), cx, cy]
    )
    options = pycolmap.AbsolutePoseEstimationOptions()
    options.estimate_focal_length = True
    options.ransac.max_error, options.ransac.random_seed = max_error_px, seed
    found = pycolmap.estimate_absolute_pose(uv[usable].numpy() + 0.5, xyz[usable].numpy(), theirs, options)
    focal = float(theirs.params[0])
    if found is None or not _RANGE[0] <= focal / max(width, height) <= _RANGE[1]:
        return None
    matrix = torch.from_numpy(found["cam_from_world"].matrix())
    start = FocalFit(
        Pose(matrix[:, :3], matrix[:, 3]), replace(camera, f=torch.full_like(camera.f, focal)), math.inf, usable
    )
    return _refined(start, uv, xyz, max_error_px)


def _refined(
    fit: FocalFit, uv: Float[Tensor, "N 2"], xyz: Float[Tensor, "N 3"], max_error_px: float
) -> FocalFit | None:
    """Gauss-Newton over pose and log focal length, on what is within the threshold at each step."""
    pose, camera, usable = fit.pose, fit.camera, fit.inliers
    for _ in range(_ITERATIONS):
        local = pose.transform(xyz)
        J_uv, in_front = camera.J_project(local)
        projected = local[:, :2] / local[:, 2:] * camera.f + camera.c
        inliers = usable & in_front & ((projected - uv).norm(dim=-1) <= max_error_px)
        if int(inliers.sum()) < MIN_INLIERS:
            return None
        J = torch.cat([J_uv @ J_transform(local), (projected - camera.c)[..., None]], -1)[inliers].flatten(0, 1)
        residual = (projected - uv)[inliers].flatten()
        H = J.mT @ J
        if not bool(torch.isfinite(H).all()) or float(torch.linalg.cond(H)) > 1e16:
            return None
        step = -torch.linalg.solve(H, J.mT @ residual)
        pose = Pose.from_tangent(step[:6]) @ pose
        camera = replace(camera, f=camera.f * step[6].exp())
        if float(step.abs().max()) < 1e-9:
            break
    variance = float((residual**2).sum()) / max(len(residual) - 7, 1) * float(torch.linalg.inv(H)[6, 6])
    return FocalFit(pose, camera, math.hypot(math.sqrt(max(variance, 0.0)), MODEL_SIGMA), inliers)
