"""Two views and a pose: epipolar errors, parallax, triangulated depths, and what they say about the translation.

The length of a translation comes from depths (``scale_from_depth``); its direction only from parallax, and
``translation_observable`` says whether there is any. All of it on undistorted rays, in float64.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, Pose, closest_rotation, skew

Cameras = tuple[Camera, Camera]

_LOG_DEPTH_SIGMA = 0.1  # how far a measured depth is trusted, against the pixel noise of a triangulated one
_PIXEL_SIGMA = 1.0
_MIN_SHIFT_PX = 1.0  # pixels by which a point moves when its depth doubles (about): less fixes no depth
_MIN_NOISE_PX = 0.1  # exact matches have no noise to compare a parallax with
_ROTATION_FITS = 10
_MIN_MOVED = 6
_PARALLAX = ((0.5, 3.3), (0.25, 7.0), (0.1, 16.0))
"""Share of the matches, and the sigmas that it must move; any of the three shows a parallax. Photos that were only turned
reach 2.8, 5.3 and 11: an essential matrix picks the matches whose errors lie along its lines, and few err far more than
most."""


@dataclass(frozen=True)
class ScaleFit:
    """The length of a translation, from depths.

    scale: metres a unit of the translation; spread: standard deviation of its logarithm over the
    matches that decide (1.4826 MAD); support: number of measured depths that agree within 25 %.
    """

    scale: float
    spread: float
    support: int


def scale_from_depth(
    pose: Pose,
    uv0: Float[Tensor, "N 2"],
    depth0: Float[Tensor, " N"],
    uv1: Float[Tensor, "N 2"],
    cameras: Cameras,
    depth1: Float[Tensor, " N"] | None = None,
) -> ScaleFit | None:
    """Metres a unit of ``pose.t``.

    It is a robust mean of log(measured depth / triangulated depth) over the matches. Each measurement weighs as the inverse
    variance of its logarithm, from pixel noise over parallax and depth noise: the triangulated depth of a distant point says
    little.

    - pose: ``1_from_0``.
    - uv0, uv1, cameras: matches in pixels, and the cameras of both photos.
    - depth0, depth1: metres in each camera, 0 or NaN where unknown.

    None when no match has a depth, lies in front of both cameras and has at least a pixel of parallax.
    """
    logs, weights = _log_ratios(pose, uv0, depth0, uv1, cameras)
    if depth1 is not None:
        logs1, weights1 = _log_ratios(pose.inverse(), uv1, depth1, uv0, cameras[::-1])
        logs, weights = torch.cat([logs, logs1]), torch.cat([weights, weights1])
    if len(logs) == 0:
        return None
    center = _weighted_median(logs, weights)
    spread = 1.4826 * _weighted_median((logs - center).abs(), weights)
    near = (logs - center).abs() <= max(2 * spread, 1e-3)
    mean = float((logs * weights)[near].sum() / weights[near].sum())
    support = int(((logs - mean).abs() < math.log(1.25)).sum())
    return ScaleFit(math.exp(mean), spread, support)


def translation_observable(pose: Pose, uv0: Float[Tensor, "N 2"], uv1: Float[Tensor, "N 2"], cameras: Cameras) -> bool:
    """Whether the direction of ``pose.t`` means anything.

    - pose: ``1_from_0``.
    - uv0, uv1, cameras: (inlier) matches in pixels, and the cameras of both photos.

    False when a rotation alone explains the matches. The noise is read off the epipolar errors, which a translation cannot
    hide. The best rotation alone, fitted robustly, must then leave a share of the matches (and six) many times that far from
    where they are: all of it little, or a near object much (``_PARALLAX``). Points far away or on a small baseline fail this
    as a pure rotation does.
    """
    squared, _ = sampson_errors(pose, uv0, uv1, cameras)
    errors = _rotation_only_errors(pose, uv0, uv1, cameras)
    finite = torch.isfinite(squared) & torch.isfinite(errors)
    if not bool(finite.any()):
        return False
    noise = max(1.4826 * float(squared[finite].median()) ** 0.5, _MIN_NOISE_PX)
    moved, count = errors[finite] / noise, int(finite.sum())
    return any(int((moved > sigmas).sum()) >= max(_MIN_MOVED, share * count) for share, sigmas in _PARALLAX)


def sampson_errors(
    pose: Pose, uv0: Float[Tensor, "N 2"], uv1: Float[Tensor, "N 2"], cameras: Cameras
) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
    """Squared Sampson error in undistorted pixels (float64).

    And whether the point lies in front of both cameras.

    - pose: ``1_from_0``; the length of ``t`` does not matter, without any translation the error is zero for all.
    - uv0, uv1, cameras: matches in pixels, and the cameras of both photos.
    """
    ray0, ray1, valid = _rays(uv0, uv1, cameras)
    double = pose.to(torch.float64)
    unit = Pose(double.R, double.t / double.distance().clamp(min=1e-12))
    E = skew(unit.t) @ unit.R
    line1, line0 = ray0 @ E.mT, ray1 @ E
    # gradients with respect to pixels: lines of normalised points over the focal lengths
    f0, f1 = cameras[0].f.double(), cameras[1].f.double()
    gradient = (line1[:, :2] / f1).square().sum(-1) + (line0[:, :2] / f0).square().sum(-1)
    squared = (ray1 * line1).sum(-1).square() / gradient.clamp(min=1e-30)
    return squared, valid & (triangulated_depth(unit, ray0, ray1) > 0)


def parallax_angles(
    pose: Pose, uv0: Float[Tensor, "N 2"], uv1: Float[Tensor, "N 2"], cameras: Cameras
) -> Float[Tensor, " N"]:
    """Angle in radians between the two rays of each match.

    The rotation is taken out before; 0 for a pure rotation.

    - pose: ``1_from_0``.
    - uv0, uv1, cameras: matches in pixels, and the cameras of both photos.
    """
    ray0, ray1, _ = _rays(uv0, uv1, cameras)
    turned = ray0 @ pose.R.to(torch.float64).mT
    cross = torch.linalg.cross(turned, ray1)
    return torch.atan2(cross.norm(dim=-1), (turned * ray1).sum(-1))


def triangulated_depth(
    pose: Pose, ray0: Float[Tensor, "N 3"], ray1: Float[Tensor, "N 3"]
) -> Float[Tensor, " N"]:  # fmt: skip
    """z in camera 0, in units of ``pose.t``, of the point where two unit-depth rays pass closest.

    Negative where that point lies behind either camera.
    """
    a, b = ray0 @ pose.R.mT, ray1
    # minimise |d0 a + t - d1 b|: two equations in d0, d1
    aa, bb, ab = (a * a).sum(-1), (b * b).sum(-1), (a * b).sum(-1)
    at, bt = a @ pose.t, b @ pose.t
    determinant = (aa * bb - ab * ab).clamp(min=1e-18)
    d0, d1 = (ab * bt - bb * at) / determinant, (aa * bt - ab * at) / determinant
    return torch.where(d1 > 0, d0, -d0.abs())


def _rays(uv0: Tensor, uv1: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor, Tensor]:
    ray0, valid0 = cameras[0].to(torch.float64).unproject(uv0.double())
    ray1, valid1 = cameras[1].to(torch.float64).unproject(uv1.double())
    return ray0, ray1, valid0 & valid1


def log_depths(
    pose: Pose, uv0: Tensor, depth0: Tensor, uv1: Tensor, cameras: Cameras, min_shift_px: float = _MIN_SHIFT_PX
) -> tuple[Float[Tensor, " M"], Float[Tensor, " M"], Float[Tensor, " M"]]:
    """Logarithms of measured and triangulated depth in the first camera, and the pixels that an e-fold moves.

    Only of matches that have a depth, lie in front of both cameras and move by ``min_shift_px`` at least; float64.
    """
    ray0, ray1, valid = _rays(uv0, uv1, cameras)
    double, measured = pose.to(torch.float64), depth0.double()
    depth = triangulated_depth(double, ray0, ray1)
    # what image 1 sees of a change of log-depth: the point moves along its ray from camera 0
    offset = depth[:, None] * ray0 @ double.R.mT
    J, _ = cameras[1].to(torch.float64).J_project(offset + double.t)
    shift = (J @ offset[..., None]).squeeze(-1).norm(dim=-1)
    good = valid & torch.isfinite(measured) & (measured > 0) & torch.isfinite(depth) & (depth > 0)
    good &= torch.isfinite(shift) & (shift >= min_shift_px)
    return measured[good].log(), depth[good].log(), shift[good]


def _log_ratios(pose: Pose, uv0: Tensor, depth0: Tensor, uv1: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Logarithms of measured over triangulated depth in the first camera, and their inverse variances."""
    measured, triangulated, shift = log_depths(pose, uv0, depth0, uv1, cameras)
    return measured - triangulated, 1 / (_LOG_DEPTH_SIGMA**2 + (_PIXEL_SIGMA / shift).square())


def _rotation_only_errors(pose: Pose, uv0: Tensor, uv1: Tensor, cameras: Cameras) -> Tensor:
    """Angle between each ray of image 1 and where the best rotation alone puts it, in pixels of the image centre."""
    ray0, ray1, valid = _rays(uv0, uv1, cameras)
    valid = valid & torch.isfinite(ray0).all(-1) & torch.isfinite(ray1).all(-1)
    unit0, unit1 = (torch.nn.functional.normalize(ray[valid], dim=-1) for ray in (ray0, ray1))
    f1, R = float(cameras[1].f.double().mean()), pose.R.to(torch.float64)
    errors = ray0.new_full((len(ray0),), torch.nan)
    for iteration in range(_ROTATION_FITS + 1):
        turned = unit0 @ R.mT
        errors[valid] = f1 * torch.atan2(torch.linalg.cross(turned, unit1).norm(dim=-1), (turned * unit1).sum(-1))
        if iteration == _ROTATION_FITS or len(unit0) < 2:
            break
        scale = errors[valid].median().clamp(min=_MIN_NOISE_PX)
        weight = 1 / (1 + (errors[valid] / scale).square())  # Cauchy
        R = closest_rotation((weight[:, None] * unit1).mT @ unit0)
    return errors


def _weighted_median(values: Tensor, weights: Tensor) -> float:
    ordered, index = values.sort()
    cumulated = weights[index].cumsum(0)
    return float(ordered[int(torch.searchsorted(cumulated, 0.5 * cumulated[-1]))])
