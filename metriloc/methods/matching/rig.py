"""Several cameras that are fixed to each other, in a map: matching for each, and one pose for all (generalized P3P)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from typing import Any

import torch

from metriloc.calibration import judged
from metriloc.geometry import Pose
from metriloc.io import InputError, Photo, as_view
from metriloc.io.arguments import require_kind
from metriloc.methods.matching.localizer import TIMES, Matched, MatchingLocalizer
from metriloc.solvers.absolute_support import absolute_support
from metriloc.solvers.rig import RigFit, RigMatches, rig_covariance, rig_pose
from metriloc.types import LocalizationDetails, PoseEstimate, SfmMap, Stage, View


@dataclass(frozen=True, eq=False)
class RigCamera:
    """view: what it shows. cam_from_rig: where it is. references: names of images of the map that it is compared with."""

    view: View
    cam_from_rig: Pose
    references: Sequence[str]


@dataclass(frozen=True, eq=False)
class _Seen:
    camera: RigCamera
    matched: Matched
    used: tuple[str, ...]

    def rig_matches(self) -> RigMatches:
        found = self.matched.matches
        return RigMatches(found.uv, found.xyz, self.camera.view.camera, self.camera.cam_from_rig)


def localize_rig(method: MatchingLocalizer, cameras: Sequence[RigCamera], scene: SfmMap, seed: int = 0) -> PoseEstimate:
    """``rig_from_world``, batch shape ().

    The confidence is that of the camera which by itself speaks most for the pose, by the calibration of the method for
    single photos: several cameras are never less sure. Fails with ``no_reference`` where no camera has one, and with
    ``too_few_matches`` where fewer than ``min_inliers`` of all matches agree.
    """
    start, messages = time.perf_counter(), list[str]()
    seen = []
    for camera in cameras:
        points, descriptors, said, used = method.describe_points(scene, camera.references)
        messages += said
        if len(points):
            matched = method.match_points(camera.view, scene, camera.references, points, descriptors)
            seen.append(_Seen(camera, matched, tuple(used)))
    details = LocalizationDetails(tuple(name for s in seen for name in s.used), messages=tuple(messages))
    if not seen:
        return PoseEstimate.failure("no_reference", details)
    matches = [s.rig_matches() for s in seen]
    described = time.perf_counter()
    fit = rig_pose(matches, [method.threshold(s.camera.view) for s in seen], seed)
    inliers, count = sum(int(kept.sum()) for kept in fit.inliers), sum(len(m.uv) for m in matches)
    statistics = {"inliers": float(inliers), "inlier_ratio": inliers / max(count, 1), "cameras": float(len(seen))}
    timings = {"matching": described - start, "pose": time.perf_counter() - described}
    stages = () if fit.pose is None else (Stage("rig", fit.pose, -float(inliers), statistics["inlier_ratio"]),)
    details = replace(details, num_points=count, stages=stages, timings=timings, statistics=statistics)
    if fit.pose is None or inliers < method.config.min_inliers:
        return PoseEstimate.failure("too_few_matches", details)
    cells = [float(max(s.matched.dense.stride)) for s in seen]
    spread = rig_covariance(fit.pose, matches, fit.inliers, cells, TIMES)
    surest = max((_alone(method, s, fit, k) for k, s in enumerate(seen)), key=lambda e: float(e.confidence))
    if not bool(surest.success):
        return PoseEstimate.failure(surest.reason or "too_few_matches", details)
    return replace(surest, pose=fit.pose, localization=(details,), covariance=spread)


def _alone(method: MatchingLocalizer, seen: _Seen, fit: RigFit, number: int) -> PoseEstimate:
    """The pose as an estimate of one camera of the rig, judged by what that camera shows."""
    assert fit.pose is not None
    matches, kept, view = seen.matched.matches, fit.inliers[number], seen.camera.view
    pose = seen.camera.cam_from_rig.to(torch.float64) @ fit.pose
    count = int(kept.sum())
    statistics = absolute_support(pose, matches, kept, view.camera, max(seen.matched.dense.stride))
    details = LocalizationDetails(seen.used, len(matches), statistics=statistics, setup=method.setup)
    raw = PoseEstimate(pose, torch.tensor(True), torch.tensor(count / (count + 50.0)), (None,), localization=(details,))
    return judged(raw, method.calibrations, [view])


def rig_views(
    photos: Sequence[Photo], cam_from_rig: Sequence[Pose], K: Sequence[Any] | None, fov: float | None
) -> list[View]:
    """The photos of a rig. Raises InputError for what ``Localizer.localize_rig`` does not take."""
    if isinstance(photos, str | bytes | PathLike) or not len(photos) or len(photos) != len(cam_from_rig):
        raise InputError(f"a rig needs one cam_from_rig a photo, got {len(cam_from_rig)} poses of {len(photos)} photos")
    for pose in cam_from_rig:
        require_kind("cam_from_rig", pose, Pose, "Poses")
    views = [as_view(photo, K=K, fov=fov, name=f"camera {n}", warn_of_guess=False) for n, photo in enumerate(photos)]
    for view in views:
        if view.focal_is_guessed:
            raise InputError(
                f"the focal length of {view.name!r} is only a guess, and a rig needs known ones: give K or fov"
            )
    return views
