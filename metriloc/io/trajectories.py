"""Poses over time: looked up by time stamp, interpolated between two that are near enough."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from metriloc.geometry import Pose, so3_exp, so3_log


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Where something stood when.

    - stamps: seconds, in ascending order.
    - poses: ``cam_from_world`` (or any ``b_from_a``) at these times, batch (n,).
    """

    stamps: tuple[float, ...]
    poses: Pose

    @classmethod
    def of(cls, entries: Sequence[tuple[float, Pose]]) -> Trajectory:
        """From (seconds, pose) in any order. Of two with one time the first stays first."""
        ordered = sorted(entries, key=lambda entry: entry[0])
        poses = [pose for _, pose in ordered]
        stacked = Pose.stack(poses) if poses else Pose.identity((0,), torch.float64)
        return cls(tuple(stamp for stamp, _ in ordered), stacked)

    def __len__(self) -> int:
        return len(self.stamps)

    @property
    def span(self) -> tuple[float, float]:
        """First and last time. Raises IndexError for a trajectory without poses."""
        return self.stamps[0], self.stamps[-1]

    def at(self, time: float, *, max_gap: float = 0.1, reach: float = 0.0) -> Pose | None:
        """The pose at a time. The one that has it, between two, or the nearest.

        - time: seconds.
        - max_gap: longest time between two poses that are interpolated: the rotation along the
          shortest arc (SLERP), the camera center along a straight line.
        - reach: how far away, in seconds, the nearest pose may be where there are no such two.

        None where neither holds.
        """
        right = bisect.bisect_left(self.stamps, time)
        if right < len(self.stamps) and self.stamps[right] == time:
            return self.poses[right]
        if 0 < right < len(self.stamps) and self.stamps[right] - self.stamps[right - 1] <= max_gap:
            share = (time - self.stamps[right - 1]) / (self.stamps[right] - self.stamps[right - 1])
            return between(self.poses[right - 1], self.poses[right], share)
        near = self.nearest(time, reach)
        return None if near is None else self.poses[near]

    def nearest(self, time: float, reach: float) -> int | None:
        """Which pose is nearest to a time. It is one of those not further away than ``reach`` seconds; None for
        none."""
        return nearest_stamp(self.stamps, time, reach)


def nearest_stamp(stamps: Sequence[float], time: float, reach: float) -> int | None:
    """Which of ascending times is nearest to one. It is one of those not further away than ``reach``; None for none."""
    right = bisect.bisect_left(stamps, time)
    near = [i for i in (right - 1, right) if 0 <= i < len(stamps) and abs(stamps[i] - time) <= reach]
    return min(near, key=lambda i: abs(stamps[i] - time)) if near else None


def between(a: Pose, b: Pose, share: float) -> Pose:
    """From ``cam_from_world`` a (share 0) to b (share 1).

    Shortest arc, straight line of centers.
    """
    R = so3_exp(share * so3_log(b.R @ a.R.mT)) @ a.R
    center = (1 - share) * a.center() + share * b.center()
    return Pose(R, -(R @ center))
