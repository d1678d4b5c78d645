"""A burst of frames with device poses against one reference photo: metres from the device's motion alone.

1. Matches among the frames that agree with the device's motion are joined to tracks, and triangulated in metres.
2. The reference is placed among these points: by PnP, and by the essential matrix with one frame whose length the points
   give. Where few are seen by several frames, poselib's generalized relative pose takes all frames as one camera.
3. All of it is refined together: pixels, and the motions between frames with their drift.
4. A frame whose device pose or photo contradicts the others is found, named and left out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.solvers.absolute import absolute_pose
from metriloc.solvers.burst_fit import OF_REFERENCE, Burst, BurstConfig, refine_burst, support
from metriloc.solvers.burst_pairs import FreeMotions, agreeing_pairs
from metriloc.solvers.burst_starts import reference_starts
from metriloc.solvers.motion import DeviceDrift, MotionEdges
from metriloc.solvers.multi_view import RefinedViews, triangulate
from metriloc.solvers.tracks import PairMatches, Tracks, join_matches

__all__ = ["Burst", "BurstConfig", "BurstFit", "solve_burst"]

_FEW = "fewer than two frames agree with the motion of the device"
_INVERTED = ", but all with its inverse: its poses may be camera to world (cam_from_world is asked for)"
_MIN_ANGLE = math.radians(0.2)  # between rays: less fixes no point
_VIOLATED = 30.0  # squared sigmas of a motion of six numbers; chance exceeds it once in 25,000
_CALM = 3.0  # squared sigmas of the calmest of a few motions
_WORST = 100.0  # points that a motion that cannot be outweighs
_SUSPECTS = 3  # frames that are tried without
_WEAK = 0.4  # share of the points of the reference that agree, below which a frame is suspected


@dataclass(frozen=True, eq=False)
class BurstFit:
    """newest_from_reference: metres, float64, None where nothing was found, and ``said`` tells why. cam_from_device: of
    the frames and, last, the reference. log_sigma: of the logarithm of the distance of the newest frame, with the
    device's drift. covariance: of ``newest_from_reference`` ([t, w], left update). denied: frames whose device pose was
    not believed; strange: frames whose photo matches none of the others. tracks: points of the reference that frames see, of
    which ``points`` agree. moved: metres between the believed frames that are farthest apart."""

    newest_from_reference: Pose | None
    said: str = ""
    cam_from_device: Pose | None = None
    log_sigma: float = math.inf
    covariance: Float[Tensor, "6 6"] | None = None
    denied: tuple[int, ...] = ()
    strange: tuple[int, ...] = ()
    tracks: int = 0
    points: int = 0
    moved: float = 0.0


@torch.no_grad()
def solve_burst(
    burst: Burst,
    config: BurstConfig | None = None,
    *,
    denied: tuple[int, ...] = (),
    free_motions: FreeMotions | None = None,
    seed: int = 0,
) -> BurstFit:
    """Where the newest frame stood relative to the reference. In metres of the device's motion.

    A frame whose device pose is wrong is placed by its photo; one that the photos do not place is
    left out. Where the refined motions still contradict a device pose, the solution without it is
    taken if it is better.

    - denied: frames whose device pose is not to be believed.
    - free_motions: what is known of pairs already; filled.
    """
    config = config or BurstConfig()
    motions = FreeMotions() if free_motions is None else free_motions
    fit, strained = _solve(burst, config, denied, seed, motions)
    tried = [(fit, strained)]
    if burst.frames - len(fit.denied) - len(fit.strange) > 2:
        for suspect in _suspects(burst, fit, strained):
            # what only strains a motion is nearly right already
            start = fit.cam_from_device if fit.points >= _WEAK * fit.tracks else None
            tried.append(_solve(burst, config, (*fit.denied, suspect), seed, motions, start))
    found = [item for item in tried if item[0].newest_from_reference is not None]
    if not found:
        return fit
    # points speak for a solution, motions that contradict the photos against it
    return max(found, key=lambda item: item[0].points - sum(min(s, _WORST) for s in item[1].values()))[0]


def _suspects(burst: Burst, fit: BurstFit, strained: Mapping[tuple[int, int], float]) -> list[int]:
    """Frames without which all might fit, the worst first: at the motions that the photos contradict; and, where hardly
    any points agree, because one pose that is far off spoils them all, the ones farthest out."""
    worst = torch.zeros(burst.frames, dtype=torch.float64)
    # a device that errs more than it is said to errs in all its motions: then only what stands out is suspect
    usual = max(1.0, min(strained.values(), default=0.0) / _CALM)
    for (i, j), square in strained.items():
        if square > usual * _VIOLATED:
            worst[i] += square
            worst[j] += square
    if fit.points < _WEAK * fit.tracks:
        centers = burst.cam_from_device.center().double()
        worst = worst + (centers - centers.median(0).values).norm(dim=-1)
    worst[list({*fit.denied, *fit.strange})] = 0
    order = worst.argsort(descending=True)[:_SUSPECTS]
    return [int(frame) for frame in order if worst[frame] > 0]


def _solve(
    burst: Burst,
    config: BurstConfig,
    denied: tuple[int, ...],
    seed: int,
    motions: FreeMotions,
    start: Pose | None = None,
) -> tuple[BurstFit, dict[tuple[int, int], float]]:
    """A solution that does not believe some device poses, and how much each motion contradicts it, squared sigmas.

    start: poses of all cameras that are nearly right, where they are known.
    """
    among = {pair: uvs for pair, uvs in burst.matches.items() if burst.frames not in pair}
    limit = config.max_error_px * burst.pixel
    pairs = agreeing_pairs(among, burst.cameras, burst.cam_from_device, limit, denied, seed, motions)
    trusted = [f for f in range(burst.frames) if f not in pairs.denied and f not in pairs.strange]
    nothing = BurstFit(None, denied=pairs.denied, strange=pairs.strange)
    if len(trusted) < 2:
        return replace(nothing, said=_FEW + (_INVERTED if _are_inverted(burst, among, limit, seed) else "")), {}
    centers = burst.cam_from_device[torch.tensor(trusted)].center().double()
    nothing = replace(nothing, moved=float(torch.cdist(centers, centers).max()))
    to_reference = {
        pair: uvs for pair, uvs in burst.matches.items() if burst.frames in pair and not set(pair) & set(pairs.strange)
    }
    tracks = join_matches({**pairs.matches, **to_reference}, burst.frames + 1)
    of_reference = min(int(tracks.seen[:, -1].sum()), int(OF_REFERENCE * config.max_points))  # as many as are refined
    nothing = replace(nothing, tracks=of_reference)
    placed = (start, tracks) if start is not None else _place(burst, config, tracks, trusted, pairs.strange, seed)
    if placed is None:
        return replace(nothing, said="too few points of the reference are seen by frames that moved"), {}
    poses, points = placed
    edges = _edges(burst, trusted, config.drift)
    refined, used = refine_burst(burst, config, points, poses, edges, limit)
    if not refined.ok:
        return replace(nothing, said="the frames do not fix where the reference is"), {}
    return _conclude(nothing, burst, config, refined, used, edges, limit)


def _are_inverted(burst: Burst, among: PairMatches, limit: float, seed: int) -> bool:
    """Whether the photos follow the inverses of the device poses: the commonest way to hold them wrong."""
    flipped = agreeing_pairs(among, burst.cameras, burst.cam_from_device.inverse(), limit, (), seed)
    return bool(flipped.matches) and not flipped.denied and not flipped.strange


def _edges(burst: Burst, trusted: Sequence[int], drift: DeviceDrift) -> MotionEdges:
    """Motions from each trusted frame to the next."""
    number = torch.tensor(trusted)
    edges = MotionEdges.of_device(burst.cam_from_device[number], drift)
    return replace(edges, i=number[edges.i], j=number[edges.j])


def _place(
    burst: Burst,
    config: BurstConfig,
    tracks: Tracks,
    trusted: Sequence[int],
    strange: Sequence[int],
    seed: int,
) -> tuple[Pose, Tracks] | None:
    """Poses of all cameras to start from, and the tracks that they may see."""
    limit, frames = config.max_error_px * burst.pixel, burst.frames
    columns = torch.zeros(frames + 1, dtype=torch.bool)
    columns[torch.tensor(trusted)] = True
    reference = Pose.identity((1,), dtype=torch.float64)
    poses = _with_last(burst.cam_from_device.to(torch.float64), reference)
    xyz, angle = triangulate(Tracks(tracks.uv, tracks.seen & columns), burst.cameras, poses)
    fixed = torch.isfinite(xyz).all(-1) & (angle >= _MIN_ANGLE)
    for frame in (f for f in range(frames) if f not in trusted and f not in strange):
        seen = fixed & tracks.seen[:, frame]
        found = absolute_pose(tracks.uv[seen, frame], xyz[seen], burst.cameras[frame], 2 * limit, seed)
        if found.pose is None or int(found.inliers.sum()) < config.min_points:
            tracks = Tracks(tracks.uv, tracks.seen & (torch.arange(frames + 1) != frame))
        else:
            poses = _with(poses, frame, found.pose)
    starts = reference_starts(tracks, xyz, fixed, poses, burst.cameras, trusted, limit, seed)
    if not starts:
        return None
    best = max(starts, key=lambda pose: support(burst, tracks, _with(poses, frames, pose), limit))
    return _with(poses, frames, best), tracks


def _conclude(
    nothing: BurstFit,
    burst: Burst,
    config: BurstConfig,
    refined: RefinedViews,
    used: Tracks,
    edges: MotionEdges,
    limit: float,
) -> tuple[BurstFit, dict[tuple[int, int], float]]:
    poses, newest, reference = refined.cam_from_world, burst.frames - 1, burst.frames
    agreeing = used.seen[:, -1] & (refined.pixels.nan_to_num(nan=0.0).amax(1) <= limit)
    points = int(agreeing.sum())
    placed = int((used.seen[:, newest]).sum()) >= config.min_points or newest not in nothing.denied
    least = max(config.min_points, config.min_share * nothing.tracks)
    if points < least or newest in nothing.strange or not placed:
        said = "too few points of the reference agree with the frames"
        said = "the newest photo matches none of the frames before it" if newest in nothing.strange else said
        return replace(nothing, said=said, points=points), {}
    pose = poses[newest] @ poses[reference].inverse()
    spread = _relative_covariance(refined, newest, reference, pose)
    sigma = math.inf
    if spread is not None and float(pose.distance()) > 0:
        along = pose.t / pose.distance()
        alone = float((along @ spread[:3, :3] @ along).clamp(min=0).sqrt()) / float(pose.distance())
        sigma = math.hypot(alone, config.drift.share)  # the whole way may be too long or too short
    squares = edges.squares(poses)
    told = zip(edges.i.tolist(), edges.j.tolist(), squares.tolist(), strict=True)
    strained = {(i, j): square for i, j, square in told}
    fit = replace(nothing, newest_from_reference=pose, cam_from_device=poses, log_sigma=sigma, points=points)
    return replace(fit, covariance=spread), strained


def _relative_covariance(refined: RefinedViews, newest: int, reference: int, pose: Pose) -> Tensor | None:
    """Of ``newest_from_reference``, from that of all poses; None where they are not fixed."""
    if refined.covariance is None:
        return None
    edge = MotionEdges(
        torch.tensor([reference]), torch.tensor([newest]), pose[None], torch.ones(1, 6, dtype=torch.float64)
    )
    of_reference, of_newest = edge.jacobians(refined.cam_from_world)
    J = refined.covariance.new_zeros(6, len(refined.covariance))
    J[:, 6 * reference : 6 * reference + 6] = of_reference[0]
    J[:, 6 * newest : 6 * newest + 6] += of_newest[0]
    return J @ refined.covariance @ J.mT


def _with(poses: Pose, index: int, pose: Pose) -> Pose:
    """The list with another pose in one place."""
    R, t = poses.R.clone(), poses.t.clone()
    R[index], t[index] = pose.R.to(R), pose.t.to(t)
    return Pose(R, t)


def _with_last(poses: Pose, last: Pose) -> Pose:
    return Pose(torch.cat([poses.R, last.R]), torch.cat([poses.t, last.t]))
