"""Which of several witnesses to believe: the largest set of them in which no two contradict each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.solvers.motion_averaging import Motion, average_motions

MOST_WITNESSES = 64
"""Sets of so many are still searched in no time: contradictions leave few large ones."""


def triangle_misfit(to_a: Motion, to_b: Motion, between: Pose | Motion) -> float:
    """Squared standard deviations by which two motions to one camera and the one between their origins disagree.

    to_a, to_b: ``camera_from_a``, ``camera_from_b``. between: ``b_from_a``, known or itself measured. About 6 where all
    are right.
    """
    measured = isinstance(between, Motion)
    known = between.pose if isinstance(between, Motion) else between
    motions = [_between(to_a, 0, 2), _between(to_b, 1, 2)]
    if isinstance(between, Motion):
        motions.append(_between(between, 0, 1))
    known, first = known.to("cpu", torch.float64), to_a.pose.to("cpu", torch.float64)
    start = Pose.stack([Pose.identity(dtype=torch.float64), known, first])
    found = average_motions(motions, start, torch.tensor([True, not measured, False]))
    return sum(found.misfits) + sum(found.length_misfits)


def _between(motion: Motion, first: int, second: int) -> Motion:
    return Motion(first, second, motion.pose, motion.covariance, motion.length_sigma, motion.shared)


def most_consistent(
    contradict: Bool[Tensor, "n n"], trust: Float[Tensor, " n"] | Sequence[float]
) -> list[tuple[int, ...]]:
    """The largest sets of witnesses of whom no two contradict each other, the most trusted first.

    trust: what each adds to that of its set. All sets of the largest size are returned, so that more than one says that
    nobody can tell. Raises ValueError for more than ``MOST_WITNESSES``.
    """
    count = len(contradict)
    if count > MOST_WITNESSES:
        raise ValueError(f"at most {MOST_WITNESSES} witnesses can be compared, got {count}")
    agree = {i: {j for j in range(count) if j != i and not bool(contradict[i, j])} for i in range(count)}
    found: list[tuple[int, ...]] = []

    def grow(chosen: tuple[int, ...], candidates: set[int], done: set[int]) -> None:
        """Bron and Kerbosch, with a pivot."""
        if not candidates and not done:
            found.append(tuple(sorted(chosen)))
            return
        pivot = max(candidates | done, key=lambda i: len(agree[i] & candidates))
        for i in sorted(candidates - agree[pivot]):
            grow((*chosen, i), candidates & agree[i], done & agree[i])
            candidates = candidates - {i}
            done = done | {i}

    grow((), set(range(count)), set())
    most = max(len(one) for one in found)
    return sorted((one for one in found if len(one) == most), key=lambda one: -sum(float(trust[i]) for i in one))
