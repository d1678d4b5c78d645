"""``Tracker`` before a reference photo: metres from the motion, states, and frames that are wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracles.bursts import drifting, walk
from oracles.streams import matching, photo

import metriloc
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.tracking.against_photo import MOTION
from metriloc.types import Frame, PoseEstimate, TrackState, TrackTrouble

REFERENCE = Pose.from_aa(torch.tensor([0.02, -0.1, 0.0]).double(), torch.tensor([0.5, 0.1, 0.3]).double())


def stream(frames: int, way: float = 0.3) -> tuple[Pose, Pose]:
    """True poses and those of a device."""
    g = torch.Generator().manual_seed(3)
    true = walk(frames, way, g)
    return true, drifting(true, 0.005, 0.1, g)


def tracker(**settings: object) -> metriloc.Tracker:
    return metriloc.Tracker(photo("reference", REFERENCE), method=matching(), **settings)  # type: ignore[arg-type]


def truth(true: Pose, k: int) -> Pose:
    return true[k] @ REFERENCE.inverse()


def states(estimates: list[PoseEstimate]) -> list[TrackState]:
    return [e.track.state for e in estimates if e.track is not None]


def troubles(estimate: PoseEstimate) -> list[TrackTrouble]:
    assert estimate.track is not None
    return [note.trouble for note in estimate.track.notes]


def test_metres_from_the_second_frame_on() -> None:
    true, device = stream(4)
    follow = tracker()
    found = [follow.add(photo(f"{k}", true[k]), device[k], k / 30) for k in range(4)]
    assert states(found) == [TrackState.FOUND, *[TrackState.TRACKING] * 3]
    assert not found[0].details[0].metric
    for k in (1, 2, 3):
        estimate, right = found[k], truth(true, k)
        assert estimate.details[0].metric and estimate.details[0].scale_source == f"the {MOTION}"
        assert float(estimate.pose.distance()) == pytest.approx(float(right.distance()), rel=0.05)
        assert math.degrees(float(estimate.pose.double().angle_to(right))) < 0.5
    last = found[-1]
    assert last.track is not None and last.track.frames == (0, 1, 2, 3)
    assert last.track.moved == pytest.approx(0.3, rel=0.1)
    assert last.covariance is not None and float(torch.linalg.eigvalsh(last.covariance)[0]) > 0
    entry = last.to_dict()["track"]
    assert entry["state"] == "tracking" and entry["frames"] == [0, 1, 2, 3]


def test_a_device_that_stands_gives_no_metres() -> None:
    true, device = stream(3, way=1e-7)
    follow = tracker()
    found = [follow.add(photo(f"{k}", true[k]), device[k]) for k in range(3)]
    last = found[-1]
    assert not last.details[0].metric or last.details[0].scale_sigma > 0.5


@pytest.mark.slow
def test_the_window_keeps_frames_apart_and_few() -> None:
    """Of a slow camera the frames that stay are those that moved; memory is that of the window."""
    true, device = stream(16, way=0.4)
    follow = tracker(frames=3, spacing=0.1)
    for k in range(16):
        last = follow.add(photo(f"{k}", true[k]), device[k])
        assert len(follow._photo._window) <= 3
    assert last.track is not None and last.track.moved > 0.1
    assert float(last.pose.distance()) == pytest.approx(float(truth(true, 15).distance()), rel=0.05)


def test_frames_that_are_wrong_are_named_and_survived(tmp_path: Path) -> None:
    true, device = stream(8, way=0.5)
    (tmp_path / "broken.jpg").write_text("no photo")
    far = Pose(device.R[4], device.t[4] + 10)
    nan = Pose(device.R[3], device.t[3] * math.nan)
    follow = tracker()
    for k in (0, 1):
        follow.add(photo(f"{k}", true[k]), device[k], k / 30)
    broken = follow.add(tmp_path / "broken.jpg", device[2], 2 / 30)
    assert not bool(broken.success) and broken.reason == "no_photo"
    assert states([broken]) == [TrackState.LOST] and troubles(broken) == [TrackTrouble.NO_PHOTO]
    again = follow.add(photo("3", true[3]), nan, 2 / 30)
    assert states([again]) == [TrackState.RELOCALIZED]
    assert troubles(again) == [TrackTrouble.DUPLICATE_TIME, TrackTrouble.BAD_DEVICE_POSE]
    jumped = follow.add(photo("4", true[4]), far, 1 / 30)
    assert troubles(jumped) == [TrackTrouble.OUT_OF_ORDER, TrackTrouble.DEVICE_JUMP]
    missing = follow.add_frame(Frame("5", error="the frame is cut off"))
    assert "the frame is cut off" in str(missing.track.notes if missing.track else "")
    for k in (6, 7):
        last = follow.add_frame(Frame(f"{k}", photo(f"{k}", true[k]), k / 30, device[k]))
    assert troubles(last) == [] and last.track is not None and last.track.index == 7
    assert float(last.pose.distance()) == pytest.approx(float(truth(true, 7).distance()), rel=0.05)


def test_a_small_wrong_pose_is_told_by_the_photos() -> None:
    true, device = stream(5, way=0.4)
    wrong = Pose(device.R[2], device.t[2] + torch.tensor([0.15, 0.1, 0.0]).double())
    follow = tracker()
    found = [follow.add(photo(f"{k}", true[k]), wrong if k == 2 else device[k]) for k in range(5)]
    notes = [note for e in found if e.track for note in e.track.notes]
    assert [note.trouble for note in notes] == [TrackTrouble.FRAME_DISAGREES]  # told once
    assert "frame 2" in notes[0].said
    last = found[-1]
    assert float(last.pose.distance()) == pytest.approx(float(truth(true, 4).distance()), rel=0.05)


def test_poses_the_wrong_way_round_are_told() -> None:
    true, device = stream(3, way=0.3)
    follow = tracker()
    for k in range(3):
        last = follow.add(photo(f"{k}", true[k]), device[k].inverse())
    assert any("camera to world" in message for message in last.details[0].messages)
    assert not last.details[0].metric


def test_a_guessed_focal_length_makes_metres_unsure() -> None:
    true, device = stream(3, way=0.3)
    follow = tracker()
    for k in range(3):
        view = replace(photo(f"{k}", true[k]), focal_sigma=0.2)
        last = follow.add(view, device[k])
    assert last.details[0].scale_sigma > 0.2


def test_lost_and_found_again() -> None:
    true, device = stream(6, way=0.4)
    follow = tracker()
    follow.add(photo("0", true[0]), device[0])
    nothing = follow.add(photo("nothing"), device[1])
    assert not bool(nothing.success) and states([nothing]) == [TrackState.LOST]
    assert nothing.track is not None and nothing.track.predicted is not None
    assert states([follow.add(photo("2", true[2]), device[2])]) == [TrackState.RELOCALIZED]


def test_wrong_use_is_refused() -> None:
    follow = tracker()
    with pytest.raises(InputError, match="device_pose must be a Pose"):
        follow.add(photo("0", REFERENCE), "identity")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="time must be seconds, got 'now'"):
        follow.add(photo("0", REFERENCE), None, "now")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="frames must be positive, got 0"):
        tracker(frames=0)
    with pytest.raises(InputError, match="images 'photos' was given for a reference photo"):
        tracker(images="photos")
    with pytest.raises(InputError, match="needs matches of its frames"):
        metriloc.Tracker(photo("reference"), method="identity")
