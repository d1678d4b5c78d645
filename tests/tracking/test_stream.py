"""What devices tell: times and poses that are wrong are named, and survived."""

from __future__ import annotations

import math

import torch

from metriloc.geometry import Pose
from metriloc.tracking.stream import StreamCheck
from metriloc.types import TrackTrouble


def at(x: float) -> Pose:
    return Pose(torch.eye(3), torch.tensor([-x, 0.0, 0.0]))


def troubles(check: StreamCheck, time: float | None, pose: Pose | None = None) -> list[TrackTrouble]:
    return [note.trouble for note in check.told("a.jpg", time, pose).notes]


def test_times() -> None:
    check = StreamCheck()
    for k in range(5):
        assert troubles(check, k / 30) == []
    assert troubles(check, 4 / 30) == [TrackTrouble.DUPLICATE_TIME]
    assert troubles(check, 3 / 30) == [TrackTrouble.OUT_OF_ORDER]
    assert troubles(check, math.nan) == [TrackTrouble.BAD_TIME]
    assert troubles(check, math.inf) == [TrackTrouble.BAD_TIME]
    assert troubles(check, 5 / 30) == []
    assert troubles(check, 3600.0) == [TrackTrouble.CLOCK_JUMP]
    assert troubles(check, 3600.03) == []
    assert troubles(check, 1.0) == [TrackTrouble.CLOCK_JUMP]
    assert troubles(check, 1.03) == []
    assert troubles(check, None) == []


def test_a_pose_that_is_none() -> None:
    check = StreamCheck()
    assert check.told("a", None, at(0)).device_pose is not None
    mirrored = Pose(torch.diag(torch.tensor([1.0, 1.0, -1.0])), torch.zeros(3))
    for bad in (at(math.nan), Pose(2 * torch.eye(3), torch.zeros(3)), mirrored, Pose.identity((2,))):
        told = check.told("b.jpg", None, bad)
        assert told.device_pose is None
        assert [n.trouble for n in told.notes] == [TrackTrouble.BAD_DEVICE_POSE]
        assert "b.jpg" in told.notes[0].said
    assert check.told("c", None, at(0.05)).device_pose is not None


def test_one_leap_costs_one_frame() -> None:
    check = StreamCheck()
    for k in range(5):
        check.told("a", None, at(0.05 * k))
    told = check.told("b", None, at(10.0))
    assert told.device_pose is None and [n.trouble for n in told.notes] == [TrackTrouble.DEVICE_JUMP]
    assert "9.8 m" in told.notes[0].said
    after = check.told("c", None, at(0.3))
    assert after.device_pose is not None and after.world == 0 and after.notes == ()


def test_a_leap_that_lasts_begins_a_new_world() -> None:
    check = StreamCheck()
    for k in range(5):
        check.told("a", None, at(0.05 * k))
    check.told("b", None, at(10.0))
    told = check.told("c", None, at(10.05))
    assert told.device_pose is not None and told.world == 1
    assert [n.trouble for n in told.notes] == [TrackTrouble.DEVICE_JUMP]
    assert check.told("d", None, at(10.1)).world == 1


def test_a_car_leaps_nowhere() -> None:
    check = StreamCheck()
    for k in range(10):
        assert check.told("a", None, at(1.2 * k)).notes == ()
    slow = StreamCheck()  # a photo a second
    assert slow.told("a", 0.0, at(0.0)).notes == slow.told("b", 1.0, at(12.0)).notes == ()
    assert [n.trouble for n in slow.told("c", 1.1, at(80.0)).notes] == [TrackTrouble.DEVICE_JUMP]
