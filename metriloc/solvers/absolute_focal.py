"""Pose and focal length together from 2D-3D matches: P4Pf in LO-RANSAC by pycolmap, then refined with all that agree.

Photos are cut off the center and lenses bend: the refined fit is repeated with the principal point and one radial term
let go, which says how far the focal length may be off for that reason, and is the answer where it explains much more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, J_transform, Pose
from metriloc.solvers.pinhole import pinhole_points

MIN_INLIERS = 30
"""Fewer matches leave depth and focal length too free."""
MODEL_SIGMA = 0.01
"""Relative; no lens is quite what is assumed here."""
CENTER_SIGMA, RADIAL_SIGMA = 0.1, 0.1
"""How far principal points are from the middle, over the longer side, and radial distortion k1 from none."""
_CORRELATED = (
    2.0  # matches of neighbors err together: standard deviations are that many times those of independent ones
)
_LENS_GAIN = 100.0  # squared residuals over the noise that the lens must explain; whole photos have up to 80
_ITERATIONS = 40
_WIDER, _NARROWING = 3.0, 5.0  # a lens is looked for from farther: times the threshold, and iterations for one less
_RANGE = (0.2, 20.0)  # focal lengths over the longer side
_POSE, _FOCAL, _LENS = 6, 7, 10  # parameters: the pose, log f, the principal point, k1


@dataclass(frozen=True, eq=False)
class FocalFit:
    """pose: ``cam_from_world``, float64. camera: float64, with the focal length that was found; of model ``radtan``, with
    its principal point and k1, where the matches leave no doubt that the photo was cut off the center or is bent.
    sigma: relative standard deviation of the focal length. inliers: over the matches given.

    Of 154 photos of four places, whole (480 to 720 px), halved, of 256 px, cut off the center and distorted by k1 of -0.2
    and 0.1, whose sigma was at most 0.1, 96 % were within two sigmas of the truth and 99 % within three.
    """

    pose: Pose
    camera: Camera
    sigma: float
    inliers: Bool[Tensor, " N"]


@dataclass(frozen=True, eq=False)
class _Matches:
    """uv, xyz: float64; usable: which are finite; max_error_px: inlier threshold."""

    uv: Float[Tensor, "N 2"]
    xyz: Float[Tensor, "N 3"]
    usable: Bool[Tensor, " N"]
    max_error_px: float


@dataclass(frozen=True, eq=False)
class _Refined:
    """sigma: of log f, whatever principal point and k1 are. noise: pixels, of an axis. cost: truncated squares."""

    pose: Pose
    camera: Camera
    inliers: Bool[Tensor, " N"]
    sigma: float
    noise: float
    cost: float


def absolute_pose_and_focal(
    uv: Float[Tensor, "N 2"], xyz: Float[Tensor, "N 3"], camera: Camera, max_error_px: float = 6.0, seed: int = 0
) -> FocalFit | None:
    """``cam_from_world`` and the focal length from pixels and points of the world.

    camera: of which the focal lengths are only believed to be equal; the distortion of one that is not a pinhole is
    believed, too, and what is found is the pinhole part. None where fewer than 30 matches agree, where no focal length is
    found or it is absurd, and without pycolmap.
    """
    try:
        import pycolmap
    except ImportError:
        return None
    camera, xyz = camera.detach().to(torch.float64), xyz.detach().double()
    points, defined, _ = pinhole_points(uv.detach().double(), camera)
    uv, usable = torch.from_numpy(points), torch.from_numpy(defined) & torch.isfinite(xyz).all(-1)
    if int(usable.sum()) < MIN_INLIERS:
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
    pinhole = Camera(camera.size, torch.full_like(camera.f, focal), camera.c)
    return _best(Pose(matrix[:, :3], matrix[:, 3]), pinhole, _Matches(uv, xyz, usable, max_error_px))


def _best(pose: Pose, pinhole: Camera, matches: _Matches) -> FocalFit | None:
    """The refined pinhole or, where that explains much more, the refined lens."""
    plain = _refined(pose, replace(pinhole, model="radtan", distortion=pinhole.f.new_zeros(5)), matches, _FOCAL)
    lens = None if plain is None else _refined(plain.pose, plain.camera, matches, _LENS)
    if plain is None or lens is None:
        return None
    if plain.cost - lens.cost > _LENS_GAIN * lens.noise**2:
        return FocalFit(lens.pose, lens.camera, math.hypot(lens.sigma, MODEL_SIGMA), lens.inliers)
    apart = math.log(float(lens.camera.f.mean() / plain.camera.f.mean()))
    sigma = math.hypot(plain.sigma, MODEL_SIGMA, apart / 2)
    return FocalFit(plain.pose, replace(pinhole, f=plain.camera.f), sigma, plain.inliers)


def _refined(pose: Pose, camera: Camera, matches: _Matches, free: int) -> _Refined | None:
    """Gauss-Newton over the first ``free`` parameters, on what is within the threshold at each step."""
    center, longer = camera.c, float(camera.size.max())
    precision = camera.f.new_tensor([0.0] * _FOCAL + [(CENTER_SIGMA * longer) ** -2] * 2 + [RADIAL_SIGMA**-2])
    for iteration in range(_ITERATIONS):
        wider = max(1.0, _WIDER - iteration / _NARROWING) if free == _LENS else 1.0
        J, residual, inliers = _linearized(pose, camera, matches, wider * matches.max_error_px)
        if int(inliers.sum()) < MIN_INLIERS:
            return None
        # 1. the noise weighs the matches against what is known of lenses
        variance = max(float((residual**2).sum()) / (len(residual) - free), 1e-12)
        H = J.mT @ J / variance + precision.diag()
        if not bool(torch.isfinite(H).all()) or float(torch.linalg.cond(H[:_FOCAL, :_FOCAL])) > 1e16:
            return None
        off = torch.cat([camera.f.new_zeros(_FOCAL), camera.c - center, camera.distortion[:1]])
        gradient = J.mT @ residual / variance + precision * off
        # 2. the step
        step = torch.zeros_like(gradient)
        step[:free] = -torch.linalg.solve(H[:free, :free], gradient[:free])
        pose = Pose.from_tangent(step[:_POSE]) @ pose
        distortion = camera.distortion + step[9] * torch.eye(5, dtype=step.dtype)[0]
        camera = replace(camera, f=camera.f * step[_POSE].exp(), c=camera.c + step[_FOCAL:9], distortion=distortion)
        if wider == 1 and float(step.abs().max()) < 1e-9:
            break
    # 3. how exact it is, and what it leaves unexplained
    noise = math.sqrt(variance)
    spread = math.sqrt(max(float(torch.linalg.inv(H)[_POSE, _POSE]), 0.0))
    sigma = _CORRELATED * _cut_off(noise / matches.max_error_px) * spread
    _, residual, kept = _linearized(pose, camera, matches, matches.max_error_px)
    cost = float((residual**2).sum()) + int((~kept).sum()) * matches.max_error_px**2
    return _Refined(pose, camera, kept, sigma, noise, cost)


def _linearized(
    pose: Pose, camera: Camera, matches: _Matches, threshold: float
) -> tuple[Float[Tensor, "m 10"], Float[Tensor, " m"], Bool[Tensor, " N"]]:
    """Jacobian and residuals of the matches within a threshold, an axis of a match each, and which these are."""
    local = pose.transform(matches.xyz)
    J_uv, seen = camera.J_project(local)
    uv, _ = camera.project(local)
    inliers = matches.usable & seen & ((uv - matches.uv).norm(dim=-1) <= threshold)
    local, uv, J_uv = local[inliers], uv[inliers], J_uv[inliers]
    ray = local[:, :2] / local[:, 2:]
    J_radial = camera.f * (ray**2).sum(-1, keepdim=True) * ray
    J_center = torch.eye(2, dtype=uv.dtype).expand(len(uv), 2, 2)
    J = torch.cat([J_uv @ J_transform(local), (uv - camera.c)[..., None], J_center, J_radial[..., None]], -1)
    return J.flatten(0, 1), (uv - matches.uv[inliers]).flatten(), inliers


def _cut_off(share: float) -> float:
    """How many times larger standard deviations are because a threshold cuts off what is farther away.

    share: standard deviation of the residuals that are left, an axis, over the threshold: at most 0.5, which is what
    points anywhere have. For normal residuals of standard deviation s and a threshold r, with u = r^2 / 2 s^2, least
    squares on what is left has (1 - exp(-u)) / (1 - (1 + u) exp(-u)) times the standard deviation that it claims.
    """
    low, high = 1e-3, 1e3
    for _ in range(50):
        u = math.sqrt(low * high)
        left, kept = 1 - math.exp(-u), 1 - (1 + u) * math.exp(-u)
        if kept / (2 * u * left) > share**2:
            low = u
        else:
            high = u
    return left / kept
