"""What a 3D view shows, as plain numbers: cameras, points and lines; and the view of two photos.

Reports draw a ``Scene`` on a canvas, ``live`` sends it to a browser. Of two photos the world is the reference camera:
OpenCV axes (x right, y down, z forward), metres; the viewer turns y up. Where a method knows no metres the scene is scaled
so that the distance between the cameras, the baseline, is 1.
Everything in a ``Scene`` is finite, so that it may go to JSON as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View
from metriloc.viz.pictures import Picture, Rgb, rgb_from_image, shrink

THUMBNAIL_SIDE = 256
"""Pixels of the longer side of the photos on the frusta."""


Role = Literal["reference", "query", "truth", "map", "weak"]
"""What a camera is: of two photos, in a map, or in a map and tied to it by little."""


@dataclass(frozen=True, eq=False)
class Frustum:
    """One camera of a scene.

    Where it stood and the directions to its image corners, both in the frame of the scene. corners:
    top left, top right, bottom right, bottom left, at depth 1 of the camera itself (to be scaled),
    relative to ``center``. thumbnail: the photo, small, or None for an outline alone (the true
    pose). color: of a still picture, red, green, blue; None for that of the role. time: of a frame
    in a stream, None for what is always there. spread: covariance of the center. after_gap: whether
    the way from the frame before is not known. size: how large it is drawn, beside others. facts:
    names and what is to be told, in words. look: makes the pictures that whoever picks the camera
    wants to see, its photo and matches.

    >>> corners = np.array([[-1.0, -1, 1], [1, -1, 1], [1, 1, 1], [-1, 1, 1]])  # a field of view of 90 degrees
    >>> Frustum("query", "query", np.zeros(3), corners).size
    1.0
    """

    role: Role
    label: str
    center: Float[np.ndarray, "3"]
    corners: Float[np.ndarray, "4 3"]
    thumbnail: Rgb | None = None
    color: tuple[int, int, int] | None = None
    time: float | None = None
    spread: Float[np.ndarray, "3 3"] | None = None
    after_gap: bool = False
    size: float = 1.0
    facts: tuple[tuple[str, str], ...] = ()
    look: Callable[[], Sequence[Picture]] | None = None


@dataclass(frozen=True, eq=False)
class Link:
    """A line from one place to another. kind: how two photos of a map hold together, or how far a pose is from the truth.

    >>> Link(np.array([[0.0, 0, 0], [1, 0, 0]]), "tie").kind
    'tie'
    """

    ends: Float[np.ndarray, "2 3"]
    kind: Literal["tie", "weak", "off"]


@dataclass(frozen=True, eq=False)
class Way:
    """Where a camera went. Its places in order; NaN where they are not known.

    >>> Way("walk", np.array([[0.0, 0, 0], [0, 0, 1]]), (255, 138, 76)).label
    'walk'
    """

    label: str
    places: Float[np.ndarray, "n 3"]
    color: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class Scene:
    """What there is to see in 3D, of whatever draws it.

    Cameras, points, lines between them, and the length unit. The axes are x right, y down, z
    forward: of the reference camera, or of a map that was turned upright.

    frusta: of two photos the reference first, then the query, then perhaps the truth. baseline: distance of reference and
    query camera, in metres if ``metric``, else 1; 0 where there is no such pair. confidence: of the pose, 0..1, None
    where several or none are shown; probability: of the match behind each point, or what ``meaning`` says, 0..1. unit: of
    lengths, where they are neither metres nor baselines.

    >>> scene = Scene((), np.zeros((0, 3)), np.zeros((0, 3), np.uint8), baseline=0.6, metric=True)
    >>> scene.is_pair, scene.length_unit
    (False, 'm')
    """

    frusta: tuple[Frustum, ...]
    points: Float[np.ndarray, "P 3"]
    colors: UInt8[np.ndarray, "P 3"]
    baseline: float
    metric: bool
    confidence: float | None = None
    probability: Float[np.ndarray, " P"] | None = None
    meaning: str = "probability of the match"
    links: tuple[Link, ...] = ()
    ways: tuple[Way, ...] = ()
    unit: str = ""
    title: str = ""

    @property
    def is_pair(self) -> bool:
        """Whether it is about two cameras.

        That is the reference and the query, and what is between them.
        """
        return len(self.frusta) > 1 and self.frusta[0].role == "reference"

    @property
    def length_unit(self) -> str:
        """What stands after a length."""
        return self.unit or ("m" if self.metric else "× baseline")

    def to_json(self, images: Sequence[str | None]) -> dict[str, Any]:
        """For ``json.dumps``.

        ``images`` are the addresses (data URIs) of the frusta's thumbnails, in their order.
        """
        return {
            "metric": self.metric,
            "unit": self.length_unit,
            "pair": self.is_pair,
            "baseline": _rounded(self.baseline),
            "frusta": [
                {
                    "role": f.role,
                    "label": f.label,
                    "size": f.size,
                    "center": _rounded(f.center),
                    "corners": _rounded(f.corners),
                    "image": image,
                }
                for f, image in zip(self.frusta, images, strict=True)
            ],
            "links": [{"kind": link.kind, "ends": _rounded(link.ends)} for link in self.links],
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
    """The scene of one relative pose (batch shape ()). None where there is no pose to show.

    - estimate, reference, query: the pose and the photos.
    - true_query_from_reference: shown as a third frustum (scaled to baseline 1 as well if the estimate has no metres).
    - max_points: of many points an even selection is kept.

    Points are inlier matches: from the depth in the reference where it is known and the pose is metric, else triangulated;
    those behind a camera or not finite are left out.

    >>> from metriloc.evaluation.identity import IdentityPose
    >>> a, b = metriloc.load_view("reference.jpg"), metriloc.load_view("query.jpg")
    >>> [frustum.role for frustum in build_scene(IdentityPose().relative_pose(a, b), a, b).frusta]
    ['reference', 'query']
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
    """The inliers that can be placed.

    xyz in the reference frame and the pose's unit, RGB from the reference photo, and the
    probability of each.
    """
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
    """Midpoints of the shortest segments between two bundles of rays.

    - ray0, ray1: from their cameras' centres, each in the frame of its camera; they need no unit length.
    - cam1_from_cam0: where the second camera stands.

    They are in the frame of camera 0. Least squares over both lengths s, t of ``|s d0 - (c + t d1)|^2``, a 2x2 system. NaN
    where the rays are parallel or meet behind either camera.

    >>> ray0, ray1 = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[-0.5, 0.0, 1.0]])
    >>> triangulate(ray0, ray1, Pose.from_aa(torch.zeros(3), torch.tensor([-1.0, 0.0, 0.0])))
    tensor([[0., 0., 2.]])
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


def frustum_of(role: Role, label: str, cam_from_world: Pose, view: View, with_photo: bool = True) -> Frustum:
    """The camera of a photo at a pose."""
    photo = shrink(rgb_from_image(view.image), THUMBNAIL_SIDE) if with_photo else None
    return frustum_at(role, label, cam_from_world, view.camera, photo)


def frustum_at(role: Role, label: str, cam_from_world: Pose, camera: Camera, thumbnail: Rgb | None = None) -> Frustum:
    """A camera at a pose (float64), with the photo that is given."""
    camera = _to_double(camera)
    right, bottom = (camera.size - 0.5).tolist()
    corners = torch.tensor([[-0.5, -0.5], [right, -0.5], [right, bottom], [-0.5, bottom]], dtype=torch.float64)
    rays, valid = camera.unproject(corners)
    if not bool(valid.all()):
        # beyond where the distortion can be undone: the corners without distortion show the frustum well enough
        rays = torch.cat([(corners - camera.c) / camera.f, torch.ones(4, 1, dtype=torch.float64)], 1)
    world_from_cam = cam_from_world.inverse()
    return Frustum(role, label, world_from_cam.t.numpy(), (rays @ world_from_cam.R.mT).numpy(), thumbnail)


def _to_double(camera: Camera) -> Camera:
    return camera.to(device=torch.device("cpu"), dtype=torch.float64)


def _rounded(values: Any) -> Any:
    """Nested lists of five significant digits: a report has thousands of coordinates and no screen shows more."""
    if np.ndim(values) > 0:
        return [_rounded(v) for v in values]
    if not math.isfinite(values):
        raise ValueError(f"a scene must be finite, got {values}")
    return float(f"{float(values):.5g}")
