"""A burst as it is given, and the refinement of all that its photos and motions say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.bounds import require_within
from metriloc.geometry import Camera, Pose
from metriloc.solvers.motion import DeviceDrift, MotionEdges
from metriloc.solvers.multi_view import RefinedViews, ViewsConfig, refine_views, triangulate
from metriloc.solvers.tracks import PairMatches, Tracks

_WIDER = 4.0  # times the inlier threshold: points that the first refinement looks at
OF_REFERENCE = 0.8
"""Share of the points that are refined, for those that the reference sees."""


@dataclass(frozen=True)
class BurstConfig:
    """Settings of a burst."""

    max_error_px: float = 2.0
    """Inlier threshold of reprojection, pixels of a photo whose longer side has 640 (it grows with
    the photo)."""
    drift: DeviceDrift = field(default_factory=DeviceDrift)
    """Of the device."""
    max_points: int = 300
    """Points that are refined."""
    min_points: int = 12
    """Of the reference that must agree."""
    min_share: float = 0.25
    """Of all points that are tried, so many must agree: on training walks photos without a common view
    had 0.1 to 0.23, others 0.28 and more."""

    def __post_init__(self) -> None:
        require_within(
            self, max_error_px=(0.01, 1e3), max_points=(6, 1_000_000), min_points=(6, 1_000_000), min_share=(0.0, 1.0)
        )


@dataclass(frozen=True, eq=False)
class Burst:
    """F frames of a device, oldest first, and one reference.

    It is number F in ``cameras`` and ``matches``. cam_from_device: of the frames, metres. matches:
    of any pairs, the one of the reference with wrong ones left out as well as two photos allow.
    """

    cameras: tuple[Camera, ...]
    cam_from_device: Pose
    matches: PairMatches

    @property
    def frames(self) -> int:
        """How many."""
        return len(self.cam_from_device.t)

    @property
    def pixel(self) -> float:
        """What a pixel of a photo of 640 is here."""
        return max(float(camera.size.max()) for camera in self.cameras) / 640


def support(burst: Burst, tracks: Tracks, poses: Pose, limit: float) -> float:
    """How well the points of the reference fit all cameras.

    Truncated quadratic score, summed over thresholds.
    """
    chosen = tracks[tracks.seen[:, -1]]
    error = _pixels(chosen, burst.cameras, poses)
    worst = torch.where(chosen.seen, error, 0.0).amax(1)
    thresholds = limit * worst.new_tensor([1.0, 2.0, 4.0, 8.0])
    return float((1 - (worst[:, None] / thresholds).square()).clamp(min=0).sum())


def _pixels(tracks: Tracks, cameras: Sequence[Camera], poses: Pose) -> Float[Tensor, "P V"]:
    """Reprojection errors of triangulated points; inf where there is no point."""
    xyz, _ = triangulate(tracks, cameras, poses)
    local = xyz.nan_to_num() @ poses.R.mT + poses.t[:, None]
    seen = torch.stack([camera.to(torch.float64).project(x)[0] for camera, x in zip(cameras, local, strict=True)], 1)
    error = (seen - tracks.uv).norm(dim=-1)
    return torch.where(torch.isfinite(xyz).all(-1)[:, None], error, torch.inf)


def refine_burst(
    burst: Burst, config: BurstConfig, tracks: Tracks, poses: Pose, edges: MotionEdges, limit: float
) -> tuple[RefinedViews, Tracks]:
    """Refined twice: on what agrees about, then on what agrees.

    And the tracks of the second time.
    """
    settings = ViewsConfig(pixel_sigma=limit / 2)
    refined, used = RefinedViews(poses, torch.zeros(0, 3), torch.zeros(0, len(poses.t)), None, False), tracks
    for times in (_WIDER, 1.5):
        error = _pixels(tracks, burst.cameras, refined.cam_from_world)
        # a wrong observation costs itself, not its track
        seen = tracks.seen & (error <= times * limit)
        good = Tracks(tracks.uv, seen)
        good = _spread(good[seen.sum(1) >= 2], config.max_points)
        xyz, _ = triangulate(good, burst.cameras, refined.cam_from_world)
        finite = torch.isfinite(xyz).all(-1)
        used = good[finite]
        if int(used.seen[:, -1].sum()) < config.min_points:
            return replace(refined, ok=False), used
        refined = refine_views(used, burst.cameras, refined.cam_from_world, xyz[finite], edges, settings)
        if not refined.ok:
            break
    return refined, used


def _spread(tracks: Tracks, most: int) -> Tracks:
    """At most so many of them, evenly: those of the reference first."""
    first = _thinned(tracks.seen[:, -1], int(OF_REFERENCE * most))
    return tracks[torch.cat([first, _thinned(~tracks.seen[:, -1], most - len(first))])]


def _thinned(group: Tensor, most: int) -> Tensor:
    """Numbers of at most so many members of a group, evenly."""
    index = group.nonzero().squeeze(-1)
    return index if len(index) <= most else index[torch.linspace(0, len(index) - 1, most).round().long()]
