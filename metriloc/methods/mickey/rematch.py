"""Refine a pose with all the matches it explains: guided matching after the probabilistic Procrustes.

Not in the MicKey paper. The Procrustes judges a match by the distance of two predicted points, of which nearly all is
error of depth; the photos know better. So the mutually most probable matches are taken again, their second keypoint is put
between the cells around it that look alike, those near their epipolar lines and with depths that do not contradict
each other are kept, and the pose is polished on them; a few times, because a better pose explains more matches. Where
depths are too poor for the Procrustes to come near the pose, the same is done from the essential matrix of the matches, with
the length of the translation from the depths; the start that explains the matches best wins.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.bounds import require_within
from metriloc.geometry import Camera, Pose
from metriloc.methods.mickey.keypoint_maps import Keypoints
from metriloc.methods.mickey.matching import MatchProbabilities
from metriloc.solvers.assignment import mutual_nearest
from metriloc.solvers.relative import essential_pose
from metriloc.solvers.reprojection import PolishConfig, polish
from metriloc.solvers.support import has_rival, support_statistics
from metriloc.solvers.two_view import sampson_errors, scale_from_depth

MIN_MATCHES = 8
_ITERATIONS = 3000
"""Of the search for an essential matrix: finds one among 30 % right matches, and is over in some 0.1 s on any."""
_Twice = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class RematchConfig:
    """Settings of guided matching."""

    rounds: int = 3
    """Of matching and polishing."""
    pixel_sigma: float = 2.0
    """Standard deviation of keypoint positions, pixels of the photo as the network sees it."""
    log_depth_sigma: float = 0.35
    """Of the logarithm of a depth."""
    max_epipolar: float = 2.5
    """Distance from the epipolar line, in pixel_sigma."""
    max_log_depth: float = 0.5
    """Difference of the logarithms of a match's depths."""
    max_shift: float = 0.3
    """Between a keypoint and where its partner falls by its depth, as a share of the longest side
    of the photo."""
    between_cells: float = 0.1
    """Temperature of the softmax over the 3 x 3 cells that place the second keypoint."""
    essential: bool = True
    """Start from the essential matrix of the matches, too."""

    def __post_init__(self) -> None:
        require_within(self, rounds=(1, 1000))
        for name in ("pixel_sigma", "log_depth_sigma", "max_epipolar", "max_log_depth", "max_shift", "between_cells"):
            if not 0 < getattr(self, name) < float("inf"):
                raise ValueError(f"RematchConfig.{name} must be a positive number, got {getattr(self, name)}")


@dataclass(frozen=True, eq=False)
class Rematched:
    """pose: refined ``1_from_0``, or the start where no round succeeded. index0, index1, probability: the matches of the
    last round that did, most probable first, else none. statistics: see ``support_statistics``, over all mutual matches.
    rival: whether a second pose explains them nearly as well."""

    pose: Pose
    index0: Int[Tensor, " M"]
    index1: Int[Tensor, " M"]
    probability: Float[Tensor, " M"]
    statistics: Mapping[str, float]
    rival: bool


def mutual_matches(matches: MatchProbabilities) -> tuple[Int[Tensor, " M"], Int[Tensor, " M"], Float[Tensor, " M"]]:
    """Keypoints that are each other's most probable partner, the most probable first, and their probabilities."""
    row, column = mutual_nearest(matches.values).unbind(-1)
    found = matches.values[row, column]
    order = found.argsort(descending=True, stable=True)
    return matches.index0[row[order]], matches.index1[column[order]], found[order]


def between_cells(
    first: Keypoints, second: Keypoints, index0: Int[Tensor, " M"], index1: Int[Tensor, " M"], temperature: float
) -> Float[Tensor, "M 2"]:
    """Where in the second photo the first keypoints fall.

    The mean of the partner and its neighbours on the grid, weighed by how much their descriptors
    look alike (softmax). A point between two cells looks a little like both.
    """
    h, w = second.grid
    offset = torch.arange(-1, 2, device=index1.device)
    row = torch.div(index1, w, rounding_mode="floor")[:, None] + offset.repeat_interleave(3)
    column = (index1 % w)[:, None] + offset.repeat(3)
    inside = (row >= 0) & (row < h) & (column >= 0) & (column < w)
    cell = row.clamp(0, h - 1) * w + column.clamp(0, w - 1)
    alike = torch.einsum("mc,mkc->mk", first.descriptor[0, index0], second.descriptor[0, cell])
    weight = torch.softmax((alike / temperature).where(inside, -torch.inf), -1)
    return (weight[..., None] * second.uv[0, cell]).sum(1)


@torch.no_grad()
def rematch(
    pose: Pose,
    keypoints: tuple[Keypoints, Keypoints],
    matches: MatchProbabilities,
    cameras: tuple[Camera, Camera],
    pixel: float,
    config: RematchConfig,
) -> Rematched:
    """Match again under ``pose`` (1_from_0) and polish it on what agrees.

    keypoints: of one pair (their first batch entries), in pixels of the photos. pixel: size in those of one pixel of the
    photo as the network sees it. A round with fewer than ``MIN_MATCHES`` matches, or whose polish finds nothing
    observable, ends the refinement and changes nothing; a start that has no round that succeeds is not taken.
    """
    index0, index1, probability = mutual_matches(matches)
    first, second = keypoints
    uv = first.uv[0, index0], between_cells(first, second, index0, index1, config.between_cells)
    depth = first.depth[0, index0], second.depth[0, index1]
    settings = PolishConfig(config.pixel_sigma * pixel, config.log_depth_sigma)
    starts = [pose]
    if config.essential and len(index0) >= MIN_MATCHES:
        starts += _essential_starts(uv, depth, cameras, settings.pixel_sigma)
    ends = [_refined(start, uv, depth, cameras, settings, config) for start in starts]
    pose, agreeing, _ = max(ends, key=lambda end: end[2])
    statistics = support_statistics(pose, *uv, agreeing, cameras)
    rival = has_rival(pose, *uv, agreeing, cameras, settings.pixel_sigma)
    return Rematched(pose, index0[agreeing], index1[agreeing], probability[agreeing], statistics, rival)


def _refined(
    pose: Pose, uv: _Twice, depth: _Twice, cameras: tuple[Camera, Camera], settings: PolishConfig, config: RematchConfig
) -> tuple[Pose, Bool[Tensor, " M"], float]:
    """The pose after the rounds, the matches of the last, and how well it explains them: the sum over what agrees of one
    minus the squared epipolar error over its limit; 0 where no round succeeded."""
    agreeing, support = torch.zeros(len(uv[0]), dtype=torch.bool, device=uv[0].device), 0.0
    for _ in range(config.rounds):
        found, _ = _agreeing(pose, uv, depth, cameras, settings.pixel_sigma, config)
        if int(found.sum()) < MIN_MATCHES:
            break
        refined = polish(pose, uv[0][found], depth[0][found], uv[1][found], depth[1][found], cameras, settings)
        if not refined.ok:
            break
        pose, agreeing = refined.pose, found
        now, share = _agreeing(pose, uv, depth, cameras, settings.pixel_sigma, config)
        support = float((1 - share)[now].sum())
    return pose, agreeing, support


def _essential_starts(uv: _Twice, depth: _Twice, cameras: tuple[Camera, Camera], sigma: float) -> list[Pose]:
    """Poses with the rotation of the essential matrix: one with its direction and the length that the depths give it, one
    with the translation that the depths alone say, for photos taken from nearly the same place."""
    fit = essential_pose(*uv, cameras, sigma, max_iterations=_ITERATIONS)
    if fit.pose is None:
        return []
    (uv0, uv1), (depth0, depth1) = ([side[fit.inliers] for side in both] for both in (uv, depth))
    moved = cameras[1].lift(uv1, depth1) - cameras[0].lift(uv0, depth0) @ fit.pose.R.mT
    starts = [Pose(fit.pose.R, moved.nanmedian(0).values)]
    scale = scale_from_depth(fit.pose, uv0, depth0, uv1, cameras, depth1)
    if scale is not None:
        starts.append(Pose(fit.pose.R, fit.pose.t * scale.scale))
    return [start for start in starts if bool(start.is_finite())]


def _agreeing(
    pose: Pose,
    uv: tuple[Float[Tensor, "M 2"], Float[Tensor, "M 2"]],
    depth: tuple[Float[Tensor, " M"], Float[Tensor, " M"]],
    cameras: tuple[Camera, Camera],
    sigma: float,
    config: RematchConfig,
) -> tuple[Bool[Tensor, " M"], Float[Tensor, " M"]]:
    """Which matches a pose explains, and their squared epipolar errors over the limit.

    Whether a point lies in front is asked of its predicted depth: the triangulated one of a far point is noise.
    """
    squared, _ = sampson_errors(pose, *uv, cameras)
    xyz = pose.transform(cameras[0].lift(uv[0], depth[0]).to(pose.t))
    projected, inside = cameras[1].project(xyz.to(uv[0]))
    ratio = xyz[:, 2].clamp(min=1e-6).log() - depth[1].clamp(min=1e-6).log().to(xyz)
    shift = (projected - uv[1]).norm(dim=-1)
    longest = float(cameras[1].size.max())
    in_front = inside & (depth[0] > 0) & (depth[1] > 0)
    share = squared / (config.max_epipolar * sigma) ** 2
    return in_front & (share < 1) & (shift < config.max_shift * longest) & (ratio.abs() < config.max_log_depth), share
