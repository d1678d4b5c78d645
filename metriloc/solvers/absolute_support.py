"""What speaks for a pose in a map: numbers that grow with true support and stay small for photos of other places.

Some matches always agree with some pose. So it is also asked what share of all they are, how much of the photo they
cover, whether neighbors keep their order, how well the ones that agree fix the position, and whether another pose
explains what is left over. Nothing here reads where the camera is or how far it is from a photo of the map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.geometry import Camera, J_transform, Pose
from metriloc.solvers.absolute import absolute_pose
from metriloc.solvers.support import coverage, kept_order

ABSOLUTE_RIVAL = "another pose explains the photo nearly as well (repeated structure?)"
"""What makes an estimate doubtful that has a rival."""
RIVAL_SHARE = 0.5
"""A second pose with this share of the support of the first explains the photo nearly as well."""
MAX_PRECISION = 1e4
_MIN_RIVAL = 20  # points below which no second pose is worth a word
_RIVAL_ITERATIONS, _RIVAL_POINTS = 1000, 300
_REACH, _NEAR = 2, 1.5  # cells around a projection that are looked at, and that a best cell may be off
_ROUNDING = 1 / math.sqrt(12)  # standard deviation of rounding, cells
_APART = 1e6  # pixels: photos laid beside each other so that neighbors are of one photo


@dataclass(frozen=True, eq=False)
class PointMatches:
    """Points of a map and where a query shows them. xyz: world; uv: pixels of the query; reference_uv: of the photo of
    the map that describes the point; reference: which one that is."""

    xyz: Float[Tensor, "N 3"]
    uv: Float[Tensor, "N 2"]
    reference_uv: Float[Tensor, "N 2"]
    reference: Int[Tensor, " N"]

    def __len__(self) -> int:
        return len(self.xyz)

    def __getitem__(self, index: Tensor) -> PointMatches:
        """Some of them."""
        return PointMatches(self.xyz[index], self.uv[index], self.reference_uv[index], self.reference[index])


def absolute_support(
    pose: Pose, matches: PointMatches, inliers: Bool[Tensor, " N"], camera: Camera, cell: float
) -> dict[str, float]:
    """Support of ``pose`` (cam_from_world) by the matches, of which ``inliers`` agree with it. cell: pixels between the
    positions that a match can have.

    inliers: how many; inlier_ratio: of all matches; coverage: share of 8 x 8 fields of the query that they lie in;
    order: see ``kept_order``, within each reference; precision: see ``position_precision``.
    """
    good = matches[inliers]
    beside = good.reference_uv.double() + _APART * good.reference[:, None]
    return {
        "inliers": float(len(good)),
        "inlier_ratio": len(good) / max(len(matches), 1),
        "coverage": coverage(good.uv, camera),
        "order": kept_order(beside, good.uv),
        "precision": position_precision(pose, good.xyz, good.uv, camera, cell),
    }


def median_depth(pose: Pose, xyz: Float[Tensor, "N 3"], camera: Camera) -> float:
    """Of the points in view of a pose, along the optical axis. NaN when none is."""
    local = pose.transform(xyz.to(pose.dtype))
    uv, seen = camera.to(pose.dtype).project(local)
    depths = local[seen & camera.to(pose.dtype).in_image(uv), 2]
    return float(depths.median()) if len(depths) else math.nan


def position_precision(
    pose: Pose, xyz: Float[Tensor, "N 3"], uv: Float[Tensor, "N 2"], camera: Camera, cell: float
) -> float:
    """Median depth of the points over the standard deviation of the position that their residuals let expect.

    To first order, as if the residuals were independent; their size is read off their median, but is at least that of
    rounding to cells, which a threshold on residuals would hide. 0 where the points do not
    fix a position, at most ``MAX_PRECISION``.
    """
    H, depth = normal_equations(pose, xyz, uv, camera, cell)
    return precision_from_normal(H, depth)


def pose_covariance(
    pose: Pose,
    xyz: Float[Tensor, "N 3"],
    uv: Float[Tensor, "N 2"],
    camera: Camera,
    cell: float,
    times: float = 1.0,
) -> Float[Tensor, "6 6"] | None:
    """Covariance of a pose by the residuals of points that agree with it; None where they do not fix it.

    Of ``delta = [t, w]`` in ``Pose.from_tangent(delta) @ pose``: translation (units of the map) and rotation (radians) in
    the axes of the camera. Gauss-Newton at the solution; the noise of a residual as in ``position_precision``.
    times: by how much standard deviations are larger because residuals are not independent.
    """
    H, _ = normal_equations(pose, xyz, uv, camera, cell)
    return covariance_from_normal(H / times**2)


def normal_equations(
    pose: Pose, xyz: Float[Tensor, "N 3"], uv: Float[Tensor, "N 2"], camera: Camera, cell: float
) -> tuple[Float[Tensor, "6 6"], float]:
    """``J^T J / noise^2`` over [t, w] of a left update of the pose, and the median depth; zeros below four points."""
    nothing = torch.zeros(6, 6, dtype=torch.float64)
    if len(xyz) < 4:
        return nothing, math.nan
    camera, pose = camera.to(torch.float64), pose.to(torch.float64)
    local = pose.transform(xyz.double())
    predicted, seen = camera.project(local)
    if not bool(seen.any()):
        return nothing, math.nan
    J_point, _ = camera.J_project(local)
    noise = max(float((predicted - uv.double()).norm(dim=-1)[seen].median()) / 1.18, cell * _ROUNDING)
    J = (J_point[seen] @ J_transform(local[seen])).flatten(0, 1)
    return J.mT @ J / noise**2, float(local[seen, 2].median())


def covariance_from_normal(H: Float[Tensor, "6 6"]) -> Float[Tensor, "6 6"] | None:
    """The inverse of normal equations, float64.

    None where they leave something free, or are not finite.
    """
    if not bool(torch.isfinite(H).all()):
        return None
    scale = H.diagonal().clamp(min=1e-300).rsqrt().double()
    values, axes = torch.linalg.eigh(scale[:, None] * H.double() * scale)
    if float(values[0]) < 1e-10 * float(values[-1]):
        return None
    inverse = (axes / values) @ axes.mT * scale[:, None] * scale
    return inverse if bool(torch.isfinite(inverse).all()) else None


def precision_from_normal(H: Float[Tensor, "6 6"], depth: float) -> float:
    """Depth over the standard deviation of the position, from normal equations over [t, w] in the camera's frame."""
    covariance = covariance_from_normal(H) if depth > 0 else None
    if covariance is None:
        return 0.0
    deviation = math.sqrt(max(float(covariance.diagonal()[:3].sum()), 0.0))
    value = depth / max(deviation, depth / MAX_PRECISION)
    return value if math.isfinite(value) else 0.0


# -- another pose -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class ScoreMaps:
    """How well each cell of a query fits each of some points.

    Larger is better. camera: whose pixels are the cells.
    """

    scores: Float[Tensor, "N h w"]
    xyz: Float[Tensor, "N 3"]
    camera: Camera

    def __getitem__(self, index: Int[Tensor, " n"]) -> ScoreMaps:
        """Of some of the points."""
        return ScoreMaps(self.scores[index], self.xyz[index.to(self.xyz.device)], self.camera)

    def project(self, pose: Pose) -> tuple[Float[Tensor, "N 2"], Bool[Tensor, " N"]]:
        """Cells where a pose puts the points, and whether they are in view."""
        _, h, w = self.scores.shape
        uv, seen = self.camera.to(torch.float64).project(pose.to(torch.float64).transform(self.xyz.double()))
        inside = seen & ((uv >= -0.5) & (uv < uv.new_tensor([w, h]) - 0.5)).all(-1)
        return torch.where(inside[:, None], uv, torch.zeros_like(uv)), inside

    def around(self, uv: Float[Tensor, "N 2"], reach: int) -> Int[Tensor, "N K"]:
        """The cells within ``reach`` of positions, row by row, as places in a map; those of the border for those beyond."""
        _, h, w = self.scores.shape
        cell = uv.round().long().to(self.scores.device)
        steps = torch.arange(-reach, reach + 1, device=cell.device)
        x = (cell[:, 0, None, None] + steps[None, None, :]).clamp(0, w - 1)
        y = (cell[:, 1, None, None] + steps[None, :, None]).clamp(0, h - 1)
        return (y * w + x).flatten(1)

    def near(self, pose: Pose) -> Float[Tensor, " N"]:
        """The best score around where a pose puts each point. -inf out of view."""
        uv, inside = self.project(pose)
        best = self.scores.flatten(1).gather(1, self.around(uv, _REACH)).amax(1)
        return torch.where(inside.to(best.device), best, -torch.inf)


def has_other_pose(pose: Pose, maps: ScoreMaps, margin: float, seed: int = 0) -> bool:
    """Whether a differently placed pose explains at least half of the points that ``pose`` explains.

    A pose explains a point whose score near the projection is at most ``margin`` below its best anywhere. The second pose
    is looked for among the best cells elsewhere, and must put the points elsewhere. Repeated structure has one: a tile
    looks like the next tile.
    """
    if not len(maps.xyz):
        return False
    here = maps.near(pose)
    explained = (here >= maps.scores.flatten(1).amax(1) - margin).nonzero().squeeze(-1)
    if len(explained) < _MIN_RIVAL:
        return False
    maps, least = maps[explained], here[explained] - margin
    uv, _ = maps.project(pose)
    best, index = maps.scores.flatten(1).scatter(1, maps.around(uv, 2 * _REACH), -torch.inf).max(1)
    rest = (best >= least).nonzero().squeeze(-1)
    if len(rest) < _MIN_RIVAL:
        return False
    w = maps.scores.shape[2]
    elsewhere = torch.stack([index % w, index // w], -1)[rest].double().cpu()
    found = absolute_pose(elsewhere, maps.xyz[rest.cpu()], maps.camera, _NEAR, seed, _RIVAL_ITERATIONS)
    if found.pose is None:
        return False
    apart = (maps.project(found.pose)[0] - uv).abs().amax(-1) > 2 * _REACH
    return int(((maps.near(found.pose) >= least).cpu() & apart).sum()) >= RIVAL_SHARE * len(explained)


def some_in_view(pose: Pose, xyz: Float[Tensor, "N 3"], camera: Camera) -> Int[Tensor, " n"]:
    """Points that a pose sees, evenly chosen. Those that another pose is looked for with."""
    uv, seen = camera.to(torch.float64).project(pose.to(torch.float64).transform(xyz.double()))
    index = (seen & camera.to(torch.float64).in_image(uv)).nonzero().squeeze(-1)
    if len(index) <= _RIVAL_POINTS:
        return index
    return index[torch.linspace(0, len(index) - 1, _RIVAL_POINTS).round().long()]
