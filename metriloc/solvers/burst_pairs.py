"""Which matches of the frames of a burst agree with the device's motion, and which device poses the photos deny."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.solvers.relative import essential_pose
from metriloc.solvers.tracks import PairMatches
from metriloc.solvers.two_view import sampson_errors

_WIDER = 2.0  # times the inlier threshold: the device's motion is no better than its drift
_NEAREST = 0.3  # metres: what is nearer moves more between two frames than is looked for
_ENOUGH = 15  # matches of a pair below which it says nothing
_DENIED = 0.6  # share of the matches of the best motion that the device's must explain
_PLAIN = 0.4  # share of all matches from which on no other motion is looked for
_ITERATIONS = 300

FreeMotions = dict[tuple[int, int], Tensor]
"""Which matches of a pair follow its best motion, whatever the device says."""


@dataclass(frozen=True, eq=False)
class AgreeingPairs:
    """matches: of the pairs that agree, wrong matches left out. denied: frames whose device pose the photos of most
    others contradict. strange: frames that match no other."""

    matches: PairMatches
    denied: tuple[int, ...]
    strange: tuple[int, ...]


def follows_motion(
    motion: Pose, uv_a: Tensor, uv_b: Tensor, cameras: tuple[Camera, Camera], max_error_px: float
) -> Bool[Tensor, " N"]:
    """Matches near their epipolar line under ``b_from_a``.

    And, as the line of a very short way means little, not farther from where the turn alone puts
    them than the way can move them.
    """
    squared, in_front = sampson_errors(motion, uv_a, uv_b, cameras)
    way = float(motion.distance())
    ray, valid = cameras[0].to(torch.float64).unproject(uv_a.double())
    turned, _ = cameras[1].to(torch.float64).project(ray @ motion.R.double().mT)
    off = (turned - uv_b.double()).norm(dim=-1)
    near = valid & (off <= max_error_px + float(cameras[1].f.max()) * way / _NEAREST)
    on_line = in_front & (squared <= max_error_px**2)
    return near & (on_line | (off <= max_error_px))


def agreeing_pairs(
    matches: PairMatches,
    cameras: Sequence[Camera],
    cam_from_device: Pose,
    max_error_px: float,
    known_denied: Sequence[int] = (),
    seed: int = 0,
    free_motions: FreeMotions | None = None,
) -> AgreeingPairs:
    """Look at the matches of each pair of frames (numbers into ``cam_from_device``) in the light of the device's motion.

    known_denied: frames whose device pose is not believed anyway. free_motions: which matches follow the best motion of a
    pair, filled where it is asked for. Where that explains far more matches than the device's, the pair contradicts the
    device; the frame with the most contradictions is denied, until none are left.
    """
    free_motions = {} if free_motions is None else free_motions
    frames = len(cam_from_device.t)
    poses, limit = cam_from_device.to(torch.float64), _WIDER * max_error_px
    kept: dict[tuple[int, int], tuple[Tensor, Tensor]] = {}
    against: set[tuple[int, int]] = set()
    for (a, b), (uv_a, uv_b) in matches.items():
        if len(uv_a) < _ENOUGH:
            continue
        pair = cameras[a], cameras[b]
        agree = follows_motion(poses[b] @ poses[a].inverse(), uv_a, uv_b, pair, limit)
        doubtful = a in known_denied or b in known_denied
        if doubtful or int(agree.sum()) < _PLAIN * len(uv_a):
            if (a, b) not in free_motions:
                free_motions[a, b] = essential_pose(uv_a, uv_b, pair, max_error_px, seed, _ITERATIONS).inliers
            best = int(free_motions[a, b].sum())
            if doubtful or int(agree.sum()) < _DENIED * best:
                if best < _ENOUGH:
                    continue
                agree = free_motions[a, b]
                against.add((a, b))
        if int(agree.sum()) >= _ENOUGH:
            kept[a, b] = uv_a[agree], uv_b[agree]
    denied = _most_contradicted(against, set(known_denied))
    paired = {frame for pair in kept for frame in pair}
    strange = tuple(frame for frame in range(frames) if frames > 1 and frame not in paired)
    return AgreeingPairs(kept, denied, strange)


def _most_contradicted(against: set[tuple[int, int]], denied: set[int]) -> tuple[int, ...]:
    """The fewest frames, about, that explain all contradictions."""
    denied = set(denied)
    while True:
        left = [pair for pair in against if not denied & set(pair)]
        if not left:
            return tuple(sorted(denied))
        times: dict[int, int] = {}
        for frame in (frame for pair in left for frame in pair):
            times[frame] = times.get(frame, 0) + 1
        # of two that contradict each other alone, the older one stays the anchor
        denied.add(max(times, key=lambda frame: (times[frame], frame)))
