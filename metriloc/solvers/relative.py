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

from metriloc.geometry import Camera, Pose
from metriloc.solvers.absolute import absolute_pose
from metriloc.solvers.draws import draw_minimal_sets
from metriloc.solvers.pinhole import collinear, pinhole_points
from metriloc.solvers.procrustes import kabsch
from metriloc.solvers.two_view import (
    ScaleFit,
    parallax_angles,
    sampson_errors,
    scale_from_depth,
    translation_observable,
)

__all__ = [
    "Reason",
    "RelativeFit",
    "ScaleFit",
    "essential_pose",
    "marginal_score",
    "parallax_angles",
    "pnp_from_depth",
    "rigid_from_depths",
    "sampson_errors",
    "scale_from_depth",
    "translation_observable",
]

Reason = Literal["too_few_matches", "degenerate", "non_finite"]

_NUM_MINIMAL_SETS, _NUM_REFITS = 1000, 10
_LINE_PX = 0.5  # matches closer than this (root mean square) to one line in both images fix no essential matrix


@dataclass(frozen=True, eq=False)
class RelativeFit:
    """pose: ``1_from_0``, None on failure. inliers: over the matches given. reason: None on success.

    metric: whether ``pose.t`` is in metres (else it has length 1). t_observable: False when a rotation alone explains
    the inliers of an essential matrix, so that the direction of ``t`` means nothing.
    """

    pose: Pose | None
    inliers: Bool[Tensor, " N"]
    metric: bool
    reason: Reason | None = None
    t_observable: bool = True


def essential_pose(
    uv0: Float[Tensor, "N 2"],
    uv1: Float[Tensor, "N 2"],
    cameras: tuple[Camera, Camera],
    max_error_px: float = 1.5,
    seed: int = 0,
    max_iterations: int = 100_000,
) -> RelativeFit:
    """Rotation and direction (unit ``t``) by five-point LO-RANSAC on the essential matrix.

    Runs at half, once and twice ``max_error_px`` and keeps the pose with the best truncated quadratic score summed over
    thresholds: with few inliers the best pose of a single threshold is often an accident of that threshold.

    - uv0, uv1: matches, pixels.
    - cameras: of both photos.
    - max_error_px: of inliers.
    - seed: of the draws.
    - max_iterations: of each run; fewer end sooner on hopeless matches.

    Needs six matches (five leave up to ten poses). A pair without parallax still gives its rotation, with
    ``t_observable=False``. Fails with ``degenerate`` on matches along one line in both images.
    """
    import poselib

    _check_matches(uv0, uv1)
    points0, usable0, camera0 = pinhole_points(uv0, cameras[0])
    points1, usable1, camera1 = pinhole_points(uv1, cameras[1])
    usable = usable0 & usable1
    reason = _too_few(usable, uv0, uv1, 6)
    if reason is not None:
        return _failure(uv0, reason, metric=False)
    best, best_score = _failure(uv0, "degenerate", metric=False), -1.0
    for factor in (0.5, 1.0, 2.0):
        options = {"max_epipolar_error": factor * max_error_px, "seed": seed, "max_iterations": max_iterations}
        found, info = poselib.estimate_relative_pose(points0[usable], points1[usable], camera0, camera1, options)
        fit = _fit(found, info["inliers"], usable, uv0, 6, metric=False)
        score = -1.0 if fit.pose is None else marginal_score(fit.pose, uv0, uv1, cameras, max_error_px)
        if score > best_score:
            best, best_score = fit, score
    if best.pose is None:
        return best
    inlier = best.inliers[torch.from_numpy(usable).to(best.inliers.device)].cpu().numpy()
    if _off_line(points0[usable][inlier]) < _LINE_PX and _off_line(points1[usable][inlier]) < _LINE_PX:
        return _failure(uv0, "degenerate", metric=False)
    observable = translation_observable(best.pose, uv0[best.inliers], uv1[best.inliers], cameras)
    return replace(best, t_observable=observable)


def marginal_score(
    pose: Pose,
    uv0: Float[Tensor, "N 2"],
    uv1: Float[Tensor, "N 2"],
    cameras: tuple[Camera, Camera],
    max_error_px: float = 1.5,
) -> float:
    """Truncated quadratic score of epipolar errors, summed over four thresholds.

    It is what the matches say for any pose.

    - pose: ``1_from_0``.
    - uv0, uv1, cameras: matches in pixels, and the cameras of both photos.
    - max_error_px: half, once, twice and four times as much are the thresholds.
    """
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
    """Metric pose by P3P LO-RANSAC on lifted points.

    - uv0, uv1: matches, pixels.
    - depth0: metres, 0 where unknown; lifts them from image 0.
    - cameras: of both photos.
    - max_error_px: of inliers.
    - seed: of the draws.
    """
    _check_matches(uv0, uv1, depth0)
    xyz = _lifted(uv0, depth0, cameras[0])
    reason = _too_few((torch.isfinite(xyz).all(-1) & torch.isfinite(uv1).all(-1)).cpu().numpy(), uv0, uv1, 4)
    if reason is not None:
        return _failure(uv0, reason, metric=True)
    found = absolute_pose(uv1, xyz, cameras[1], max_error_px, seed)
    if found.pose is None:
        return _failure(uv0, found.reason or "degenerate", metric=True)
    return RelativeFit(found.pose.to(device=uv0.device, dtype=uv0.dtype), found.inliers, metric=True)


def rigid_from_depths(
    uv0: Float[Tensor, "N 2"],
    depth0: Float[Tensor, " N"],
    uv1: Float[Tensor, "N 2"],
    depth1: Float[Tensor, " N"],
    cameras: tuple[Camera, Camera],
    relative_error: float = 0.1,
    seed: int = 0,
) -> RelativeFit:
    """Metric pose by robust alignment of both sets of lifted points.

    1,000 minimal sets of three, truncated quadratic score, refits on the inliers while they grow. poselib has no such
    solver: this is our own.

    - uv0, uv1: matches, pixels; three with both depths are needed.
    - depth0, depth1: metres, 0 where unknown.
    - cameras: of both photos.
    - relative_error: inliers lie within so much of their depth.
    - seed: of the draws.

    Fails with ``degenerate`` when the inliers lie on one line.
    """
    _check_matches(uv0, uv1, depth0, depth1)
    xyz = [_lifted(uv, depth, camera) for uv, depth, camera in zip((uv0, uv1), (depth0, depth1), cameras, strict=True)]
    usable = torch.isfinite(xyz[0]).all(-1) & torch.isfinite(xyz[1]).all(-1)
    reason = _too_few(usable.cpu().numpy(), uv0, uv1, 3)
    if reason is not None:
        return _failure(uv0, reason, metric=True)
    x0, x1 = xyz[0][usable], xyz[1][usable]
    tolerance = relative_error * torch.maximum(x0[:, 2], x1[:, 2])
    found = _align(x0, x1, tolerance, torch.Generator(x0.device).manual_seed(seed))
    if found is None or collinear(x0[found[1]].cpu().numpy()):
        return _failure(uv0, "degenerate", metric=True)
    mask = torch.zeros_like(usable)
    mask[usable] = found[1]
    return RelativeFit(found[0].to(uv0.dtype), mask, metric=True)


def _align(x0: Tensor, x1: Tensor, tolerance: Tensor, generator: torch.Generator) -> tuple[Pose, Tensor] | None:
    """Consensus of rigid motions: the pose and its inliers, None when no minimal set fixes a rotation."""

    def errors(pose: Pose) -> Tensor:
        return (pose.transform(x0) - x1).norm(dim=-1) / tolerance

    minimal = draw_minimal_sets(x0.new_ones(1, len(x0)), _NUM_MINIMAL_SETS, 3, generator)[0]
    fits = kabsch(x0[minimal], x1[minimal])
    if not bool(fits.rank_ok.any()):
        return None
    score = (1 - errors(fits.pose).square()).clamp(min=0).sum(-1)
    pose = fits.pose[int(torch.where(fits.rank_ok, score, torch.full_like(score, -1.0)).argmax())]
    inlier = errors(pose) <= 1
    for _ in range(_NUM_REFITS):
        fit = kabsch(x0, x1, inlier.to(x0))
        grown = errors(fit.pose) <= 1
        if not bool(fit.rank_ok) or int(grown.sum()) < int(inlier.sum()):
            break
        pose, stop, inlier = fit.pose, bool((grown == inlier).all()), grown
        if stop:
            break
    return pose, inlier


def _check_matches(uv0: Tensor, uv1: Tensor, *depths: Tensor) -> None:
    for name, uv in (("uv0", uv0), ("uv1", uv1)):
        if uv.shape != (len(uv0), 2):
            raise ValueError(f"{name} must have shape [{len(uv0)}, 2], got {list(uv.shape)}")
    for depth in depths:
        if depth.shape != (len(uv0),):
            raise ValueError(f"a depth must have shape [{len(uv0)}], got {list(depth.shape)}")


def _off_line(points: np.ndarray) -> float:
    """Root mean square distance of points to the line that fits them best."""
    if len(points) < 2:
        return 0.0
    return float(np.linalg.svd(points - points.mean(0), compute_uv=False)[1]) / len(points) ** 0.5


def _lifted(uv: Tensor, depth: Tensor, camera: Camera) -> Tensor:
    """Points in float64, NaN without a positive depth."""
    known = torch.isfinite(depth) & (depth > 0)
    return camera.to(torch.float64).lift(uv.double(), depth.double().where(known, torch.nan))


def _too_few(usable: np.ndarray, uv0: Tensor, uv1: Tensor, needed: int) -> Reason | None:
    if usable.sum() >= needed:
        return None
    finite = torch.isfinite(uv0).all(-1) & torch.isfinite(uv1).all(-1)
    return "non_finite" if int(finite.sum()) < needed <= len(finite) else "too_few_matches"


def _failure(uv: Tensor, reason: Reason, metric: bool) -> RelativeFit:
    return RelativeFit(None, torch.zeros(len(uv), dtype=torch.bool, device=uv.device), metric, reason)


def _fit(found: Any, inliers: list[bool], usable: np.ndarray, uv: Tensor, needed: int, metric: bool) -> RelativeFit:
    R, t = torch.from_numpy(np.array(found.R)), torch.from_numpy(np.array(found.t)).reshape(3)
    mask = torch.zeros(len(usable), dtype=torch.bool)
    mask[torch.from_numpy(usable)] = torch.tensor(inliers, dtype=torch.bool)
    pose = Pose(R, t)
    # poselib answers with the identity and no inliers when every minimal set was degenerate
    if int(mask.sum()) < needed or not bool(pose.is_finite()) or (not metric and float(pose.distance()) < 1e-9):
        return _failure(uv, "degenerate", metric)
    if not metric:  # poselib's refinement leaves the length of t free, a few parts in ten thousand
        pose = Pose(R, t / t.norm())
    return RelativeFit(pose.to(device=uv.device, dtype=uv.dtype), mask.to(uv.device), metric)
