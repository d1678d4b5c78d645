"""A first pose from the maps alone: P3P on sampled triplets of best cells, scored by the maps, paper Sec. 3 and Eq. (8).

Triplets are drawn from the points whose maps are surest, the peakier the likelier and never one point twice; all their
poses are scored by the NRE, Eq. (6), first on a share of the points and then, the best of them, on all. Several poses
that differ are returned, the best first, for the refinement to choose from. No inlier threshold anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.bounds import require_within
from metriloc.geometry import Camera, Pose
from metriloc.methods.nre.evidence import score_poses
from metriloc.methods.nre.maps import (
    GainMaps,
)
from metriloc.solvers.p3p import p3p
from metriloc.types import FailureReason

MIN_POINTS = 4  # three leave up to four poses
_LEAST_WEIGHT = 1e-3  # the flattest map has weight 0; it stays drawable so that three points always are
_RUNG = 4
_COMPARED = 64  # points that tell whether two poses differ


@dataclass(frozen=True)
class InitializeConfig:
    """Settings of the sampling."""

    num_samples: int = 5000
    """Triplets at most."""
    patience: int = 2000
    """Stop after this many triplets without a better pose."""
    batch: int = 1000
    """Triplets at once, between two looks at the best cost."""
    share: float = 0.25
    """Of the informative points, the surest first, that triplets are drawn from."""
    min_pool: int = 50
    """That share is at least so many points."""
    first_points: int = 64
    """So many points score every pose; the best quarter is scored by four times as many, and so on to all."""
    num_poses: int = 4
    """How many poses are returned."""
    distinct: float = 1.0
    """Cells by which the median reprojections of two returned poses must differ."""

    def __post_init__(self) -> None:
        require_within(self, num_samples=(1, 10_000_000), patience=(1, 10_000_000), batch=(1, 100_000))
        require_within(self, min_pool=(1, 1_000_000), first_points=(1, 1_000_000), num_poses=(1, 1000))
        require_within(self, share=(1e-9, 1.0), distinct=(0.0, 1e9))


@dataclass(frozen=True, eq=False)
class Initialization:
    """Poses found by sampling, the best first.

    reason: None on success; else why there is none, and ``poses`` is empty. poses: ``cam_from_world`` [K], float64.
    costs: their NRE, Eq. (6), over the informative points. num_samples: triplets that were drawn.
    """

    reason: FailureReason | None
    poses: Pose
    costs: Float[Tensor, " K"]
    num_samples: int = 0

    @classmethod
    def failure(cls, reason: FailureReason, num_samples: int = 0) -> Initialization:
        """No pose."""
        empty = Pose(torch.zeros(0, 3, 3, dtype=torch.float64), torch.zeros(0, 3, dtype=torch.float64))
        return cls(reason, empty, torch.zeros(0, dtype=torch.float64), num_samples)


@torch.no_grad()
def initialize(
    maps: GainMaps,
    xyz: Float[Tensor, "N 3"],
    camera: Camera,
    generator: torch.Generator,
    config: InitializeConfig | None = None,
) -> Initialization:
    """``cam_from_world`` poses that explain the maps, by P3P on triplets of their best cells.

    maps: coarse maps of the points ``xyz`` (world). camera: of the feature map (``map_camera``). generator: on the CPU,
    the only source of chance. Points that are not finite and flat maps are left out. Fails with ``too_few_points``
    (fewer than 4 points), ``non_finite`` or ``flat_maps`` (fewer than 4 usable), ``degenerate`` (no triplet has a pose).
    Raises ValueError when maps, points and camera do not belong together.
    """
    check_inputs(maps, xyz, camera)
    config, camera = config or InitializeConfig(), camera.to(torch.float64)
    if len(xyz) < MIN_POINTS:
        return Initialization.failure("too_few_points")
    if int(torch.isfinite(xyz).all(-1).sum()) < MIN_POINTS:
        return Initialization.failure("non_finite")
    use, rays = usable_points(maps, xyz, camera)
    if len(use) < MIN_POINTS:
        return Initialization.failure("flat_maps")
    # the surest points come first, so that slices of them draw triplets and score
    pool = max(MIN_POINTS, min(config.min_pool, len(use)), int(len(use) * config.share))
    order = rank(maps[use])
    order = torch.cat([_shuffled(order[:pool], generator), _shuffled(order[pool:], generator)])
    return _search(maps[use[order]], xyz[use[order]].to(torch.float64), camera, rays[order], pool, generator, config)


def usable_points(
    maps: GainMaps, xyz: Float[Tensor, "N 3"], camera: Camera
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 3"]]:
    """Which points are finite, with maps that say something, and the rays of their best cells."""
    use = (torch.isfinite(xyz).all(-1) & maps.informative()).nonzero().squeeze(-1)
    rays, known = camera.unproject(maps.peak_uv[use].to(camera.f))
    return use[known], rays[known]


def _shuffled(index: Tensor, generator: torch.Generator) -> Tensor:
    return index[torch.randperm(len(index), generator=generator).to(index.device)]


def check_inputs(maps: GainMaps, xyz: Tensor, camera: Camera) -> None:
    """Raises ValueError when maps, points and camera do not belong together."""
    if xyz.shape != (len(maps), 3):
        raise ValueError(f"xyz must have shape [{len(maps)}, 3] as there are {len(maps)} maps, got {list(xyz.shape)}")
    if camera.shape != () or [round(float(side)) for side in camera.size] != list(maps.size):
        raise ValueError(
            f"the camera must be that of the feature map of {maps.size[0]}x{maps.size[1]} cells (map_camera), "
            f"got {camera.size.tolist()}"
        )


def rank(maps: GainMaps) -> Int[Tensor, " N"]:
    """Points from the surest map to the least sure, by the probability of the best cell."""
    return maps.peak.argsort(descending=True, stable=True)


def sampling_weights(entropy: Float[Tensor, " N"]) -> Float[Tensor, " N"]:
    """How likely a point is drawn.

    0 for the flattest map to about 1 for the peakiest, linear in the entropy (MSAC-P3P of the
    published code). All 0 when all entropies are equal.
    """
    sureness = -entropy.double()
    low = sureness.min()
    return (sureness - low) / (sureness.max() - low + 1e-6)


def draw_triplets(weights: Float[Tensor, " N"], num: int, generator: torch.Generator) -> Int[Tensor, "num 3"]:
    """Triplets of different points, one after the other in proportion to ``weights`` (N of at least 3; weights below
    1e-3 of the largest count as that, so that a third point always can be drawn)."""
    if len(weights) < 3:
        raise ValueError(f"a triplet needs three points, got {len(weights)}")
    w = weights.double().cpu()
    w = w.clamp(min=max(_LEAST_WEIGHT * float(w.max()), 1e-300))
    end = w.cumsum(0)
    u = torch.rand(num, 3, generator=generator, dtype=torch.float64)
    # a point that was drawn is cut out of the line on which its weight is an interval; what is beyond moves up
    first = torch.searchsorted(end, u[:, 0] * end[-1], right=True).clamp(max=len(w) - 1)
    w0, low0 = w[first], end[first] - w[first]
    at = u[:, 1] * (end[-1] - w0)
    second = torch.searchsorted(end, torch.where(at >= low0, at + w0, at), right=True).clamp(max=len(w) - 1)
    w1, low1 = w[second], end[second] - w[second]
    at = u[:, 2] * (end[-1] - w0 - w1)
    swap = low1 < low0
    near, far = torch.where(swap, low1, low0), torch.where(swap, low0, low1)
    at = torch.where(at >= near, at + torch.where(swap, w1, w0), at)
    at = torch.where(at >= far, at + torch.where(swap, w0, w1), at)
    third = torch.searchsorted(end, at, right=True).clamp(max=len(w) - 1)
    return torch.stack([first, second, third], -1)


def solve_triplets(
    triplets: Int[Tensor, "S 3"], rays: Float[Tensor, "N 3"], xyz: Float[Tensor, "N 3"]
) -> tuple[Pose, Int[Tensor, " K"]]:
    """``pose = P3P(u_n, argmin_p L_n)`` of triplets of points, paper Eq. (8).

    All poses and the triplets they are of.
    """
    solutions = p3p(rays[triplets], xyz[triplets])
    owner = solutions.valid.nonzero()[:, 0]
    return Pose(solutions.pose.R[solutions.valid], solutions.pose.t[solutions.valid]), owner


def _search(
    maps: GainMaps,
    xyz: Tensor,
    camera: Camera,
    rays: Tensor,
    pool: int,
    generator: torch.Generator,
    config: InitializeConfig,
) -> Initialization:
    weights = sampling_weights(maps.entropy[:pool])
    score = _Tournament(maps, xyz, camera, config)
    best, stale, drawn = torch.inf, 0, 0
    poses, costs = [], []
    while drawn < config.num_samples and stale < config.patience:
        batch = min(config.batch, config.num_samples - drawn)
        found, _ = solve_triplets(draw_triplets(weights, batch, generator).to(xyz.device), rays, xyz)
        drawn, stale = drawn + batch, stale + batch
        if found.shape[0] == 0:
            continue
        winners, cost = score(found)
        poses.append(winners)
        costs.append(cost)
        if float(cost.min()) < best:
            best, stale = float(cost.min()), 0
    if not poses:
        return Initialization.failure("degenerate", drawn)
    order = torch.cat(costs).argsort(stable=True)
    found = Pose(torch.cat([p.R for p in poses])[order], torch.cat([p.t for p in poses])[order])
    found = found[distinct_poses(found, xyz, camera, config.num_poses, config.distinct)]
    cost = score_poses(maps, xyz, camera, found)
    order = cost.argsort(stable=True)
    return Initialization(None, found[order], cost[order], drawn)


class _Tournament:
    """Scores poses by Eq. (6) on a few points, the best quarter of them on four times as many, and so on to all.

    In single precision: ranking needs no more, and it is twice as fast.
    """

    def __init__(self, maps: GainMaps, xyz: Tensor, camera: Camera, config: InitializeConfig) -> None:
        self.camera, self.xyz, self.least = camera.to(torch.float32), xyz.float(), config.num_poses
        counts = [config.first_points]
        while counts[-1] < len(xyz):
            counts.append(_RUNG * counts[-1])
        self.rungs = [maps[torch.arange(min(count, len(xyz)), device=xyz.device)] for count in counts[:-1]] + [maps]

    def __call__(self, poses: Pose) -> tuple[Pose, Float[Tensor, " k"]]:
        """The poses that came to the last round, and their costs over all points."""
        for number, maps in enumerate(self.rungs):
            cost = score_poses(maps, self.xyz[: len(maps)], self.camera, poses.to(torch.float32))
            if number < len(self.rungs) - 1:
                few = min(len(cost), max(self.least, len(cost) // _RUNG))
                poses = poses[cost.topk(few, largest=False).indices]
        return poses, cost


def distinct_poses(
    poses: Pose, xyz: Float[Tensor, "N 3"], camera: Camera, count: int, distance: float
) -> Int[Tensor, " k"]:
    """The first poses, ``count`` at most, of which no two move the points by less than ``distance`` cells in the median."""
    few = xyz[:: max(1, len(xyz) // _COMPARED)]
    uv, seen = camera.project(poses.transform(few))
    left = torch.ones(poses.shape[0], dtype=torch.bool, device=xyz.device)
    chosen: list[int] = []
    while len(chosen) < count and bool(left.any()):
        pick = int(left.to(torch.uint8).argmax())
        chosen.append(pick)
        left &= _median_distance(uv[pick], seen[pick], uv) >= max(distance, 1e-12)
        left[pick] = False
    return torch.tensor(chosen, device=xyz.device)


def _median_distance(uv: Tensor, seen: Bool[Tensor, " N"], others: Tensor) -> Float[Tensor, " K"]:
    if not bool(seen.any()):
        return torch.full((others.shape[0],), torch.inf, dtype=others.dtype, device=others.device)
    return (others[:, seen] - uv[seen]).norm(dim=-1).median(-1).values
