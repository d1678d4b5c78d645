"""How far a trajectory is from the true one: ATE and RPE (Sturm et al. 2012), frames found, time to find back.

Both trajectories are ``cam_from_world`` over time. Alignment moves the estimate onto the truth: not at all (poses in a map
have its world), by a rigid motion, or by a similarity (Umeyama 1991). Numbers are those of evo for the same alignment.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from metriloc.geometry import Pose, closest_rotation
from metriloc.io import InputError
from metriloc.io.trajectories import Trajectory
from metriloc.solvers.procrustes import kabsch
from metriloc.solvers.similarity import fit_similarity

Alignment = Literal["none", "se3", "sim3"]
DeltaUnit = Literal["frames", "metres"]


@dataclass(frozen=True)
class Spread:
    """Of errors: root of the mean square, mean, median, standard deviation, least and most; NaN throughout for none."""

    rmse: float
    mean: float
    median: float
    std: float
    min: float
    max: float

    @classmethod
    def of(cls, errors: Float[ndarray, " n"]) -> Spread:
        """Of any number of errors."""
        if not len(errors):
            return cls(*6 * [math.nan])
        numbers = (
            np.sqrt(np.mean(errors**2)),
            errors.mean(),
            np.median(errors),
            errors.std(),
            errors.min(),
            errors.max(),
        )
        return cls(*map(float, numbers))


@dataclass(frozen=True, eq=False)
class TrajectoryScore:
    """Errors of the poses that belong together.

    - times: of the truth, seconds.
    - center_m, rotation_deg: of each pose, after alignment (ATE).
    - step_m, step_deg: of each motion over the delta (RPE).
    - scale: of the alignment; 1 without one.
    - found, total: frames with a pose, and of all; of the truth's poses where the frames are not known.
    - lost: stretches without a pose, as (seconds, frames).
    """

    times: Float[ndarray, " n"]
    center_m: Float[ndarray, " n"]
    rotation_deg: Float[ndarray, " n"]
    step_m: Float[ndarray, " k"]
    step_deg: Float[ndarray, " k"]
    scale: float
    found: int
    total: int
    lost: tuple[tuple[float, int], ...] = ()

    @property
    def found_percent(self) -> float:
        """Per cent of the frames that have a pose."""
        return 100 * self.found / self.total if self.total else math.nan

    def as_dict(self) -> dict[str, object]:
        """Plain numbers for JSON; NaN becomes None."""

        def plain(spread: Spread) -> dict[str, float | None]:
            return {name: value if math.isfinite(value) else None for name, value in vars(spread).items()}

        seconds = [length for length, _ in self.lost]
        return {
            "ate_position": plain(Spread.of(self.center_m)),
            "ate_deg": plain(Spread.of(self.rotation_deg)),
            "rpe_position": plain(Spread.of(self.step_m)),
            "rpe_deg": plain(Spread.of(self.step_deg)),
            "scale": self.scale,
            "compared": len(self.times),
            "frames": self.total,
            "found": self.found,
            "found_percent": self.found_percent if math.isfinite(self.found_percent) else None,
            "lost": [{"seconds": length, "frames": frames} for length, frames in self.lost],
            "seconds_to_find_back": {
                "median": float(np.median(seconds)) if seconds else None,
                "max": max(seconds) if seconds else None,
            },
        }


def score_trajectory(
    estimate: Trajectory,
    truth: Trajectory,
    *,
    align: Alignment = "none",
    max_difference: float = 0.01,
    delta: float = 1,
    delta_unit: DeltaUnit = "frames",
    frames: Sequence[float] = (),
) -> TrajectoryScore:
    """Compare two trajectories.

    - estimate, truth: ``cam_from_world`` over time.
    - align: how the estimate is moved onto the truth first.
    - max_difference: seconds between two poses that belong together, at most; each is used once, the nearest first.
    - delta, delta_unit: over how many poses, or metres of true way, motions are compared.
    - frames: times of all frames of the estimate, also of those without a pose; none where they are not known.

    Raises InputError where no pose belongs to another, for a delta that cannot be, and for positions that fix no
    alignment (fewer than three, or in one line).
    """
    if not (0 < delta < math.inf) or (delta_unit == "frames" and delta != int(delta)):
        raise InputError(f"--delta {delta:g} {delta_unit}: a positive number, of frames a whole one")
    pairs = associate(estimate.stamps, truth.stamps, max_difference)
    if not pairs:
        raise InputError(
            f"no pose of the estimate ({_span(estimate)}) is within {max_difference:g} s of one of the truth ({_span(truth)})"
        )
    ours, theirs = ([i for i, _ in pairs], [j for _, j in pairs])
    true = _orthonormal(truth.poses[theirs].inverse())
    found, scale = aligned(_orthonormal(estimate.poses[ours].inverse()), true, align)
    steps = step_pairs(true, delta, delta_unit)
    moved = [_relative(poses, steps) for poses in (true, found)]
    off = moved[0].inverse() @ moved[1]
    asked = list(frames) or list(truth.stamps)
    known = set(estimate.stamps)
    have = {i for i, time in enumerate(frames) if time in known} if frames else set(theirs)
    return TrajectoryScore(
        np.array([truth.stamps[j] for j in theirs]),
        (found.t - true.t).norm(dim=-1).numpy(),
        np.degrees((true.inverse() @ found).angle().numpy()),
        off.t.norm(dim=-1).numpy(),
        np.degrees(off.angle().numpy()),
        scale,
        len(have),
        len(asked),
        lost_stretches(asked, have),
    )


def associate(a: Sequence[float], b: Sequence[float], max_difference: float) -> list[tuple[int, int]]:
    """Pairs of places in two ascending lists of times, the nearest first taken; in the order of ``b``.

    Each time is in one pair at most.
    """
    candidates = []
    start = 0
    for i, time in enumerate(a):
        while start < len(b) and b[start] < time - max_difference:
            start += 1
        j = start
        while j < len(b) and b[j] <= time + max_difference:
            candidates.append((abs(b[j] - time), i, j))
            j += 1
    taken_a: set[int] = set()
    taken_b: set[int] = set()
    found = []
    for _, i, j in sorted(candidates):
        if i not in taken_a and j not in taken_b:
            taken_a.add(i)
            taken_b.add(j)
            found.append((i, j))
    return sorted(found, key=lambda pair: pair[1])


def aligned(estimate: Pose, truth: Pose, how: Alignment) -> tuple[Pose, float]:
    """``world_from_cam`` of the estimate moved onto the truth, and the scale that did it.

    Raises InputError where the positions fix no alignment.
    """
    if how == "none":
        return estimate, 1.0
    if how == "sim3":
        similarity = fit_similarity(estimate.t, truth.t)
        if similarity is not None:
            R, t, scale = similarity.R, similarity.t, similarity.scale
            return Pose(R @ estimate.R, scale * estimate.t @ R.mT + t), scale
    elif len(estimate.t) >= 3:
        fit = kabsch(estimate.t, truth.t)
        if bool(fit.rank_ok):
            return fit.pose @ estimate, 1.0
    raise InputError(f"--align {how}: {len(estimate.t)} positions that lie in one line fix none; give --align none")


def step_pairs(truth: Pose, delta: float, unit: DeltaUnit) -> list[tuple[int, int]]:
    """Poses (from, to) between which motions are compared, one after another: as evo does without ``--all_pairs``."""
    count = truth.shape[0]
    if unit == "frames":
        places = list(range(0, count, int(delta)))
    else:
        way = np.concatenate([[0.0], np.cumsum((truth.t[1:] - truth.t[:-1]).norm(dim=-1).numpy())])
        places = [0]
        for i in range(1, count):
            if way[i] - way[places[-1]] >= delta:
                places.append(i)
    return list(itertools.pairwise(places))


def lost_stretches(stamps: Sequence[float], found: set[int]) -> tuple[tuple[float, int], ...]:
    """How long it took to find back each time the camera was lost: seconds from the first frame without a pose to the next
    with one, and frames without. A stretch at the end, after which nothing was found, is none."""
    lost: list[tuple[float, int]] = []
    began: int | None = None
    for i, time in enumerate(stamps):
        if i not in found:
            began = i if began is None else began
        elif began is not None:
            lost.append((time - stamps[began], i - began))
            began = None
    return tuple(lost)


def scored_rows(score: TrajectoryScore, unit: str = "m") -> list[list[str]]:
    """The table for a person. unit: of the lengths."""
    named: Mapping[str, tuple[ndarray, str]] = {
        f"ATE, position ({unit})": (score.center_m, ".4f"),
        "ATE, rotation (deg)": (score.rotation_deg, ".3f"),
        f"RPE, position ({unit})": (score.step_m, ".4f"),
        "RPE, rotation (deg)": (score.step_deg, ".3f"),
    }
    rows = [["", "rmse", "mean", "median", "std", "max"]]
    for name, (errors, form) in named.items():
        spread = Spread.of(errors)
        numbers = (spread.rmse, spread.mean, spread.median, spread.std, spread.max)
        rows.append([name, *(format(value, form) if math.isfinite(value) else "-" for value in numbers)])
    return rows


def _orthonormal(poses: Pose) -> Pose:
    # files have few digits; angles of products of many poses would show it
    return Pose(closest_rotation(poses.R.double()), poses.t.double())


def _relative(poses: Pose, pairs: Sequence[tuple[int, int]]) -> Pose:
    return poses[[i for i, _ in pairs]].inverse() @ poses[[j for _, j in pairs]]


def _span(trajectory: Trajectory) -> str:
    return f"{trajectory.stamps[0]:.3f} to {trajectory.stamps[-1]:.3f} s" if len(trajectory) else "no pose"
