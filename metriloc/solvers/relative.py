"""Relative pose from given matches, on poselib: essential matrix, PnP from a depth map, robust 3D-3D, scale from depth.

These are the peers that MicKey is compared with and what ``--method matching`` runs on. Lens distortion is taken out
first; poselib then sees pinhole cameras. All are deterministic by seed, and a failure says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, Pose, skew
from metriloc.solvers.consensus import draw_minimal_sets
from metriloc.solvers.procrustes import kabsch

Reason = Literal["too_few_matches", "degenerate", "non_finite"]


@dataclass(frozen=True, eq=False)
class RelativeFit:
    """pose: ``1_from_0``, None on failure. inliers: over the matches given. reason: None on success.

    metric: whether ``pose.t`` is in metres (else it has length 1).
    """

    pose: Pose | None
    inliers: Bool[Tensor, " N"]
    metric: bool
    reason: Reason | None = None


@dataclass(frozen=True)
class ScaleFit:
    """scale: metres a unit of the translation; spread: standard deviation of its logarithm over the supporting matches
    (1.4826 MAD); support: number of matches that agree within 25 %."""

    scale: float
    spread: float
    support: int


def essential_pose(
    uv0: Float[Tensor, "N 2"],
    uv1: Float[Tensor, "N 2"],
    cameras: tuple[Camera, Camera],
    max_error_px: float = 1.5,
    seed: int = 0,
) -> RelativeFit:
    """Rotation and direction (unit ``t``) by five-point LO-RANSAC on the essential matrix.

    Runs at half, once and twice ``max_error_px`` and keeps the pose with the best truncated quadratic score summed over
    thresholds: with few inliers the best pose of a single threshold is often an accident of that threshold.

    Needs five matches. A pair without parallax still gives its rotation; ask ``parallax_angles`` whether ``t`` means
    anything.
    """
    import poselib

    points0, usable0, camera0 = _pinhole(uv0, cameras[0])
    points1, usable1, camera1 = _pinhole(uv1, cameras[1])
    usable = usable0 & usable1
    reason = _too_few(usable, uv0, uv1, 5)
    if reason is not None:
        return _failure(len(uv0), reason, metric=False)
    best, best_score = _failure(len(uv0), "degenerate", metric=False), -1.0
    for factor in (0.5, 1.0, 2.0):
        options = {"max_epipolar_error": factor * max_error_px, "seed": seed}
        found, info = poselib.estimate_relative_pose(points0[usable], points1[usable], camera0, camera1, options)
        fit = _fit(found, info["inliers"], usable, uv0, 5, metric=False)
        score = -1.0 if fit.pose is None else _marginal_score(fit.pose, uv0, uv1, cameras, max_error_px)
        if score > best_score:
            best, best_score = fit, score
    return best


def _marginal_score(
    pose: Pose, uv0: Tensor, uv1: Tensor, cameras: tuple[Camera, Camera], max_error_px: float
) -> float:
    squared, in_front = sampson_errors(pose, uv0, uv1, cameras)
    thresholds = max_error_px * squared.new_tensor([0.5, 1.0, 2.0, 4.0])
    return float(((1 - squared[in_front, None] / thresholds**2).clamp(min=0)).sum())


def pnp_from_depth(
    uv0: Float[Tensor, "N 2"],
    depth0: Float[Tensor, " N"],
    uv1: Float[Tensor, "N 2"],
    cameras: tuple[Camera, Camera],
    max_error_px: float = 3.0,
    seed: int = 0,
) -> RelativeFit:
    """Metric pose by P3P LO-RANSAC on the points that ``depth0`` (metres, 0 where unknown) lifts from image 0."""
    import poselib

    ray, valid = cameras[0].to(torch.float64).unproject(uv0.double())
    xyz = (ray * depth0.double()[:, None]).cpu().numpy()
    points1, usable1, camera1 = _pinhole(uv1, cameras[1])
    usable = usable1 & (valid & torch.isfinite(depth0) & (depth0 > 0)).cpu().numpy() & np.isfinite(xyz).all(-1)
    reason = _too_few(usable, uv0, uv1, 4)
    if reason is not None:
        return _failure(len(uv0), reason, metric=True)
    found, info = poselib.estimate_absolute_pose(
        points1[usable], xyz[usable], camera1, {"max_reproj_error": max_error_px, "seed": seed}
    )
    return _fit(found, info["inliers"], usable, uv0, 4, metric=True)


def rigid_from_depths(
    uv0: Float[Tensor, "N 2"],
    depth0: Float[Tensor, " N"],
    uv1: Float[Tensor, "N 2"],
    depth1: Float[Tensor, " N"],
    cameras: tuple[Camera, Camera],
    relative_error: float = 0.1,
    seed: int = 0,
) -> RelativeFit:
    """Metric pose by robust alignment of both sets of lifted points; inliers lie within ``relative_error`` x depth.

    1,000 minimal sets of three, truncated quadratic score, refits on the inliers while they grow.
    """
    xyz = [_lift(uv, depth, camera) for uv, depth, camera in zip((uv0, uv1), (depth0, depth1), cameras, strict=True)]
    usable = torch.isfinite(xyz[0]).all(-1) & torch.isfinite(xyz[1]).all(-1)
    reason = _too_few(usable.cpu().numpy(), uv0, uv1, 3)
    if reason is not None:
        return _failure(len(uv0), reason, metric=True)
    x0, x1 = xyz[0][usable], xyz[1][usable]
    tolerance = relative_error * torch.maximum(x0[:, 2].abs(), x1[:, 2].abs())
    generator = torch.Generator(x0.device).manual_seed(seed)
    minimal = draw_minimal_sets(x0.new_ones(1, len(x0)), 1000, 3, generator)[0]
    fits = kabsch(x0[minimal], x1[minimal])

    def errors(pose: Pose) -> Tensor:
        return (pose.transform(x0) - x1).norm(dim=-1) / tolerance

    score = (1 - errors(fits.pose).square()).clamp(min=0).sum(-1)
    if not bool(fits.rank_ok.any()):
        return _failure(len(uv0), "degenerate", metric=True)
    pose = fits.pose[int(torch.where(fits.rank_ok, score, torch.full_like(score, -1.0)).argmax())]
    inlier = errors(pose) <= 1
    for _ in range(10):
        fit = kabsch(x0, x1, inlier.to(x0))
        grown = errors(fit.pose) <= 1
        if not bool(fit.rank_ok) or int(grown.sum()) < int(inlier.sum()):
            break
        pose, stop, inlier = fit.pose, bool((grown == inlier).all()), grown
        if stop:
            break
    mask = torch.zeros_like(usable)
    mask[usable] = inlier
    return RelativeFit(pose.to(uv0.dtype), mask, metric=True)


def scale_from_depth(
    pose: Pose, uv0: Float[Tensor, "N 2"], depth0: Float[Tensor, " N"], uv1: Float[Tensor, "N 2"],
    cameras: tuple[Camera, Camera],
) -> ScaleFit | None:
    """Metres a unit of ``pose.t``: robust mean of log(measured depth / triangulated depth) over the matches.

    Each match counts as its parallax (the triangulated depth of a distant point says little). None when no match has
    both a depth and a positive triangulated one.
    """
    double = pose.to(torch.float64)
    ray0, valid0 = cameras[0].to(torch.float64).unproject(uv0.double())
    ray1, valid1 = cameras[1].to(torch.float64).unproject(uv1.double())
    triangulated, sine = _depth_along(double, ray0, ray1)
    measured = depth0.double()
    good = valid0 & valid1 & torch.isfinite(measured) & (measured > 0) & (triangulated > 0) & torch.isfinite(triangulated)
    if not bool(good.any()):
        return None
    logs, weights = (measured[good] / triangulated[good]).log(), sine[good]
    centre = _weighted_median(logs, weights)
    spread = 1.4826 * _weighted_median((logs - centre).abs(), weights)
    near = (logs - centre).abs() <= max(2 * spread, 1e-3)
    mean = float((logs * weights)[near].sum() / weights[near].sum())
    support = int(((logs - mean).abs() < np.log(1.25)).sum())
    return ScaleFit(float(np.exp(mean)), float(spread), support)


def sampson_errors(
    pose: Pose, uv0: Float[Tensor, "N 2"], uv1: Float[Tensor, "N 2"], cameras: tuple[Camera, Camera]
) -> tuple[Float[Tensor, " N"], Bool[Tensor, " N"]]:
    """Squared Sampson error in undistorted pixels (float64), and whether the point lies in front of both cameras.

    The length of ``pose.t`` does not matter; without any translation the error is zero for all.
    """
    double = pose.to(torch.float64)
    ray0, valid0 = cameras[0].to(torch.float64).unproject(uv0.double())
    ray1, valid1 = cameras[1].to(torch.float64).unproject(uv1.double())
    unit = Pose(double.R, double.t / double.distance().clamp(min=1e-12))
    E = skew(unit.t) @ unit.R
    line1, line0 = ray0 @ E.mT, ray1 @ E
    # gradients with respect to pixels: lines of normalised points over the focal lengths
    f0, f1 = cameras[0].f.double(), cameras[1].f.double()
    gradient = (line1[:, :2] / f1).square().sum(-1) + (line0[:, :2] / f0).square().sum(-1)
    squared = (ray1 * line1).sum(-1).square() / gradient.clamp(min=1e-30)
    depth0, _ = _depth_along(unit, ray0, ray1)
    return squared, valid0 & valid1 & (depth0 > 0)


def parallax_angles(
    pose: Pose, uv0: Float[Tensor, "N 2"], uv1: Float[Tensor, "N 2"], cameras: tuple[Camera, Camera]
) -> Float[Tensor, " N"]:
    """Angle in radians between the two rays of each match once the rotation is taken out; 0 for a pure rotation."""
    ray0, _ = cameras[0].to(torch.float64).unproject(uv0.double())
    ray1, _ = cameras[1].to(torch.float64).unproject(uv1.double())
    turned = ray0 @ pose.R.to(torch.float64).mT
    cross = torch.linalg.cross(turned, ray1)
    return torch.atan2(cross.norm(dim=-1), (turned * ray1).sum(-1))


def _depth_along(pose: Pose, ray0: Tensor, ray1: Tensor) -> tuple[Tensor, Tensor]:
    """z-depth in camera 0 of the point where two rays pass closest (unit baseline), and the sine of their angle."""
    a, b = ray0 @ pose.R.mT, ray1
    # minimise |d0 a + t - d1 b|: two equations in d0, d1
    aa, bb, ab = (a * a).sum(-1), (b * b).sum(-1), (a * b).sum(-1)
    at, bt = a @ pose.t, b @ pose.t
    determinant = (aa * bb - ab * ab).clamp(min=1e-18)
    d0, d1 = (ab * bt - bb * at) / determinant, (aa * bt - ab * at) / determinant
    return torch.where(d1 > 0, d0, -d0.abs()), (determinant / (aa * bb)).sqrt()


def _weighted_median(values: Tensor, weights: Tensor) -> float:
    ordered, index = values.sort()
    cumulated = weights[index].cumsum(0)
    return float(ordered[int(torch.searchsorted(cumulated, 0.5 * cumulated[-1]))])


def _lift(uv: Tensor, depth: Tensor, camera: Camera) -> Tensor:
    ray, valid = camera.to(torch.float64).unproject(uv.double())
    good = valid & torch.isfinite(depth) & (depth > 0)
    return torch.where(good[:, None], ray * depth.double()[:, None], torch.full_like(ray, torch.nan))


def _pinhole(uv: Tensor, camera: Camera) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Undistorted pixels, which of them are usable, and poselib's camera for them."""
    double = camera.to(torch.float64)
    ray, valid = double.unproject(uv.double())
    straight, _ = replace(double, model="pinhole", distortion=double.f[:0]).project(ray)
    points = straight.cpu().numpy()
    usable = valid.cpu().numpy() & np.isfinite(points).all(-1)
    width, height = (int(side) for side in double.size.tolist())
    return points, usable, {
        "model": "PINHOLE",
        "width": width,
        "height": height,
        "params": [*double.f.tolist(), *double.c.tolist()],
    }


def _too_few(usable: np.ndarray, uv0: Tensor, uv1: Tensor, needed: int) -> Reason | None:
    if usable.sum() >= needed:
        return None
    finite = torch.isfinite(uv0).all(-1) & torch.isfinite(uv1).all(-1)
    return "non_finite" if int(finite.sum()) < needed <= len(finite) else "too_few_matches"


def _failure(count: int, reason: Reason, metric: bool) -> RelativeFit:
    return RelativeFit(None, torch.zeros(count, dtype=torch.bool), metric, reason)


def _fit(found: Any, inliers: list[bool], usable: np.ndarray, uv: Tensor, needed: int, metric: bool) -> RelativeFit:
    R, t = torch.from_numpy(np.array(found.R)), torch.from_numpy(np.array(found.t)).reshape(3)
    mask = torch.zeros(len(usable), dtype=torch.bool)
    mask[torch.from_numpy(usable)] = torch.tensor(inliers, dtype=torch.bool)
    pose = Pose(R, t)
    # poselib answers with the identity and no inliers when every minimal set was degenerate
    if int(mask.sum()) < needed or not bool(pose.is_finite()) or (not metric and float(pose.distance()) < 1e-9):
        return _failure(len(usable), "degenerate", metric)
    return RelativeFit(pose.to(device=uv.device, dtype=uv.dtype), mask.to(uv.device), metric)
