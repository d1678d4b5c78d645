"""What speaks for a relative pose: numbers that grow with true support and stay small for photos of different places.

How many matches agree says little by itself: an essential matrix always finds some among thousands of wrong ones. So it
is also asked how much of the photo they cover, how far the points move apart (parallax), whether neighbors keep their
order, and whether another pose explains what is left over.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.solvers.relative import essential_pose
from metriloc.solvers.two_view import parallax_angles, sampson_errors

RIVAL = "another pose explains the photos nearly as well (repeated structure?)"
"""What makes an estimate doubtful that has a rival."""
RIVAL_SHARE = 0.5
"""A second pose with this share of the support of the first explains the photos nearly as well."""
_FIELDS = 8  # fields a side, over which coverage is counted
_NEIGHBORS = 6
_MAX_POINTS = 600  # whose neighbors are looked at
_MIN_SINE = 0.2  # of triangles whose turning sense is more than noise
_MAX_PARALLAX = 5.0  # degrees
_RIVAL_ITERATIONS = 1000
_MIN_RIVAL = 15  # matches below which no second pose is worth a word
_SAME_ROTATION, _SAME_DIRECTION = math.radians(5), math.radians(20)


def support_statistics(
    pose: Pose,
    uv0: Float[Tensor, "N 2"],
    uv1: Float[Tensor, "N 2"],
    inliers: Bool[Tensor, " N"],
    cameras: tuple[Camera, Camera],
) -> dict[str, float]:
    """Support of ``pose`` (1_from_0) by the matches, of which ``inliers`` agree with it.

    inliers: how many; inlier_ratio: of all matches; coverage: the smaller share of 8 x 8 fields of the two photos that
    they lie in; parallax_deg: median angle between their rays once the rotation is taken out, at most 5, because more
    tells nothing more; order: see ``kept_order``.
    """
    count = int(inliers.sum())
    agreeing0, agreeing1 = uv0[inliers], uv1[inliers]
    parallax = 0.0
    if count:
        parallax = math.degrees(float(parallax_angles(pose, agreeing0, agreeing1, cameras).median()))
    return {
        "inliers": float(count),
        "inlier_ratio": count / max(len(uv0), 1),
        "coverage": min(coverage(agreeing0, cameras[0]), coverage(agreeing1, cameras[1])),
        "parallax_deg": min(parallax, _MAX_PARALLAX) if math.isfinite(parallax) else 0.0,
        "order": kept_order(agreeing0, agreeing1),
    }


def kept_order(uv0: Float[Tensor, "N 2"], uv1: Float[Tensor, "N 2"]) -> float:
    """Share of small triangles of neighbors that turn the same way round in both photos, from 0 to 1.

    A surface seen twice from its front keeps the sense of rotation of nearby points; chance keeps half of them, and a
    mirrored photo none. Two made-up triangles, one of each kind, keep few points from saying much; 0.5 says nothing.
    """
    if len(uv0) > _MAX_POINTS:
        chosen = torch.linspace(0, len(uv0) - 1, _MAX_POINTS).round().long()
        uv0, uv1 = uv0[chosen], uv1[chosen]
    k = min(_NEIGHBORS, len(uv0) - 1)
    if k < 2:
        return 0.5
    points0, points1 = uv0.double(), uv1.double()
    near = torch.cdist(points0, points0).topk(k + 1, largest=False).indices[:, 1:]
    sense0, sense1 = (_sine(points, near) for points in (points0, points1))
    clear = (sense0.abs() > _MIN_SINE) & (sense1.abs() > _MIN_SINE)
    same = int((clear & (sense0 * sense1 > 0)).sum())
    return (same + 1) / (int(clear.sum()) + 2)


def has_rival(
    pose: Pose,
    uv0: Float[Tensor, "N 2"],
    uv1: Float[Tensor, "N 2"],
    inliers: Bool[Tensor, " N"],
    cameras: tuple[Camera, Camera],
    max_error_px: float,
    seed: int = 0,
) -> bool:
    """Whether a differently placed pose explains at least half as many matches as ``pose``, out of those it leaves over.

    Repeated structure does that: tiles match the next tile as well as themselves.
    """
    rest = ~inliers
    needed = max(RIVAL_SHARE * int(inliers.sum()), _MIN_RIVAL)
    if int(rest.sum()) < needed:
        return False
    fit = essential_pose(uv0[rest], uv1[rest], cameras, max_error_px, seed, _RIVAL_ITERATIONS)
    if fit.pose is None or _same(pose, fit.pose):
        return False
    squared, in_front = sampson_errors(fit.pose, uv0[rest], uv1[rest], cameras)
    return int((in_front & (squared <= max_error_px**2)).sum()) >= needed


def _same(a: Pose, b: Pose) -> bool:
    a, b = a.to(torch.float64), b.to(torch.float64)
    if float(a.angle_to(b)) > _SAME_ROTATION:
        return False
    cosine = float((a.t * b.t).sum() / (a.t.norm() * b.t.norm()).clamp(min=1e-12))
    return math.acos(max(-1.0, min(1.0, cosine))) <= _SAME_DIRECTION


def coverage(uv: Float[Tensor, "N 2"], camera: Camera) -> float:
    """Share of 8 x 8 fields of a photo in which pixels lie."""
    field = ((uv + 0.5) / camera.size.to(uv) * _FIELDS).long().clamp(0, _FIELDS - 1)
    return torch.unique(field[:, 1] * _FIELDS + field[:, 0]).numel() / _FIELDS**2


def _sine(points: Tensor, near: Tensor) -> Tensor:
    """Signed sine of the angle from each neighbor to the next, seen from the point itself."""
    arms = points[near] - points[:, None]
    first, second = arms, arms.roll(-1, dims=1)
    cross = first[..., 0] * second[..., 1] - first[..., 1] * second[..., 0]
    return cross / (first.norm(dim=-1) * second.norm(dim=-1)).clamp(min=1e-9)
