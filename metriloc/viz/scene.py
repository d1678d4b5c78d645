"""What the 3D view of a report shows: two (or three) camera frusta and the inlier points, as plain numbers.

The world is the reference camera: OpenCV axes (x right, y down, z forward), metres; the viewer turns y up. Where a
method knows no metres the scene is scaled so that the distance between the cameras, the baseline, is 1.
Everything in a ``Scene`` is finite, so that it may go to JSON as it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View
from metriloc.viz.pictures import Rgb, rgb_from_image, shrink

THUMBNAIL_SIDE = 256
"""Pixels of the longer side of the photos on the frusta."""


@dataclass(frozen=True, eq=False)
class Frustum:
    """One camera: where it stood and the directions to its image corners, both in the frame of the reference camera.

    corners: top left, top right, bottom right, bottom left, at depth 1 of the camera itself (to be scaled), relative to
    ``center``. thumbnail: the photo, small, or None for an outline alone (the true pose). color: of a still picture, red,
    green, blue; None for that of the role.
    """

    role: Literal["reference", "query", "truth"]
    label: str
    center: Float[np.ndarray, "3"]
    corners: Float[np.ndarray, "4 3"]
    thumbnail: Rgb | None = None
    color: tuple[int, int, int] | None = None


@dataclass(frozen=True, eq=False)
class Scene:
    """Frusta (the reference first, then the query, then perhaps the truth), inlier points and the length unit.

    baseline: distance of reference and query camera, in metres if ``metric``, else 1. confidence: of the pose, 0..1, None
    where several or none are shown; probability: of the match behind each point.
    """

    frusta: tuple[Frustum, ...]
    points: Float[np.ndarray, "P 3"]
    colors: UInt8[np.ndarray, "P 3"]
    baseline: float
    metric: bool
    confidence: float | None = None
    probability: Float[np.ndarray, " P"] | None = None

    def to_json(self, images: Sequence[str | None]) -> dict[str, Any]:
        """For ``json.dumps``; ``images`` are the addresses (data URIs) of the frusta's thumbnails, in their order."""
        return {
            "metric": self.metric,
            "baseline": _rounded(self.baseline),
            "frusta": [
                {
                    "role": f.role,
                    "label": f.label,
                    "center": _rounded(f.center),
                    "corners": _rounded(f.corners),
                    "image": image,
                }
                for f, image in zip(self.frusta, images, strict=True)
            ],
            "points": _rounded(self.points),
            "colours": self.colors.tolist(),
        }


def build_scene(
    estimate: PoseEstimate,
    reference: View,
    query: View,
    true_query_from_reference: Pose | None = None,
    max_points: int = 2000,
) -> Scene | None:
    """The scene of one relative pose (batch shape ()), or None where there is no pose to show.

    Points are inlier matches: from the depth in the reference where it is known and the pose is metric, else
    triangulated; those behind a camera or not finite are left out, and of many an even selection is kept.
    The truth is shown as a third frustum (scaled to baseline 1 as well if the estimate has no metres).
    """
    if estimate.pose.shape != ():
        raise ValueError(f"build_scene takes one estimate, got batch shape {tuple(estimate.pose.shape)}")
    if not bool(estimate.success) or not bool(estimate.pose.is_finite()):
        return None
    details = estimate.details[0] if estimate.details else PairDetails(0.0, Correspondences.empty())
    query_from_reference, baseline = _scaled(estimate.pose, details.metric)
    frusta = [
        frustum_of("reference", "reference", Pose.identity(dtype=torch.float64), reference),
        frustum_of("query", "query", query_from_reference, query),
    ]
    if true_query_from_reference is not None and bool(true_query_from_reference.is_finite()):
        truth, _ = _scaled(true_query_from_reference, details.metric)
        frusta.append(frustum_of("truth", "true pose", truth, query, with_photo=False))
    points, colors, probability = inlier_points(details, query_from_reference, reference, query.camera, max_points)
    confidence = float(estimate.confidence)
    return Scene(tuple(frusta), points, colors, baseline, details.metric, confidence, probability)


def inlier_points(
    details: PairDetails, query_from_reference: Pose, reference: View, query_camera: Camera, max_points: int = 2000
) -> tuple[Float[np.ndarray, "P 3"], UInt8[np.ndarray, "P 3"], Float[np.ndarray, " P"]]:
    """The inliers that can be placed: xyz in the reference frame and the pose's unit, RGB from the reference photo, and
    the probability of each."""
    inliers = details.inliers
    ray0, valid0 = _to_double(reference.camera).unproject(inliers.uv0.detach().cpu().double())
    ray1, valid1 = _to_double(query_camera).unproject(inliers.uv1.detach().cpu().double())
    xyz = triangulate(ray0, ray1, query_from_reference)
    usable = valid0 & valid1
    if details.metric:
        depth = inliers.depth0.detach().cpu().double()[:, None]
        measured = torch.isfinite(depth) & (depth > 0)
        xyz = torch.where(measured, ray0 * depth, xyz)
        usable = valid0 & (valid1 | measured[:, 0])
    in_query = query_from_reference.transform(xyz)
    kept = torch.isfinite(xyz).all(-1) & usable & (xyz[:, 2] > 0) & (in_query[:, 2] > 0)
    indices = torch.nonzero(kept)[:, 0]
    if len(indices) > max_points:
        indices = indices[torch.linspace(0, len(indices) - 1, max_points).round().long()]
    photo = rgb_from_image(reference.image)
    uv = inliers.uv0.detach().cpu()[indices].round().long().numpy()
    colors = photo[np.clip(uv[:, 1], 0, photo.shape[0] - 1), np.clip(uv[:, 0], 0, photo.shape[1] - 1)]
    return xyz[indices].numpy(), colors, inliers.probability.detach().cpu().double()[indices].numpy()


def triangulate(
    ray0: Float[Tensor, "*b N 3"], ray1: Float[Tensor, "*b N 3"], cam1_from_cam0: Pose
) -> Float[Tensor, "*b N 3"]:
    """Midpoints of the shortest segments between two bundles of rays, in the frame of camera 0.

    The rays start in their cameras' centres and need no unit length. Least squares over both lengths s, t of
    ``|s d0 - (c + t d1)|^2``, a 2x2 system. NaN where the rays are parallel or meet behind either camera.
    """
    if ray0.shape != ray1.shape or ray0.shape[-1] != 3:
        raise ValueError(f"rays must both have shape [*b, N, 3], got {list(ray0.shape)} and {list(ray1.shape)}")
    cam0_from_cam1 = cam1_from_cam0.inverse()
    direction0 = torch.nn.functional.normalize(ray0, dim=-1)
    direction1 = torch.nn.functional.normalize(ray1, dim=-1) @ cam0_from_cam1.R.mT
    center = cam0_from_cam1.t[..., None, :]
    cosine = (direction0 * direction1).sum(-1)
    # 1 - cosine^2 without its cancellation: the cross product of unit vectors
    determinant = torch.linalg.cross(direction0, direction1).square().sum(-1)
    along0, along1 = (direction0 * center).sum(-1), (direction1 * center).sum(-1)
    length0 = (along0 - cosine * along1) / determinant
    length1 = (cosine * along0 - along1) / determinant
    midpoint = (length0[..., None] * direction0 + center + length1[..., None] * direction1) / 2
    # below 1e-4 rad the distance is noise in any photo
    good = (length0 > 0) & (length1 > 0) & (determinant > 1e-8)
    return torch.where(good[..., None], midpoint, torch.nan)


def _scaled(query_from_reference: Pose, metric: bool) -> tuple[Pose, float]:
    """The pose in double precision on the CPU, and the baseline: as they are if metric, else scaled to length 1."""
    pose = Pose(query_from_reference.R.detach().cpu().double(), query_from_reference.t.detach().cpu().double())
    length = float(pose.distance())
    if metric:
        return pose, length
    return (Pose(pose.R, pose.t / length), 1.0) if length > 0 else (pose, 0.0)


def frustum_of(
    role: Literal["reference", "query", "truth"], label: str, cam_from_world: Pose, view: View, with_photo: bool = True
) -> Frustum:
    width, height = view.size
    left, top, right, bottom = -0.5, -0.5, width - 0.5, height - 0.5
    corners = torch.tensor([[left, top], [right, top], [right, bottom], [left, bottom]], dtype=torch.float64)
    camera = _to_double(view.camera)
    rays, valid = camera.unproject(corners)
    if not bool(valid.all()):
        # beyond where the distortion can be undone: the corners without distortion show the frustum well enough
        rays = torch.cat([(corners - camera.c) / camera.f, torch.ones(4, 1, dtype=torch.float64)], 1)
    world_from_cam = cam_from_world.inverse()
    return Frustum(
        role,
        label,
        world_from_cam.t.numpy(),
        (rays @ world_from_cam.R.mT).numpy(),
        shrink(rgb_from_image(view.image), THUMBNAIL_SIDE) if with_photo else None,
    )


def _to_double(camera: Camera) -> Camera:
    return camera.to(device=torch.device("cpu"), dtype=torch.float64)


def _rounded(values: Any) -> Any:
    """Nested lists of five significant digits: a report has thousands of coordinates and no screen shows more."""
    if np.ndim(values) > 0:
        return [_rounded(v) for v in values]
    if not math.isfinite(values):
        raise ValueError(f"a scene must be finite, got {values}")
    return float(f"{float(values):.5g}")
