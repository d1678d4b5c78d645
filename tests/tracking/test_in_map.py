"""``Tracker`` in a map: states, starts, jumps, drift, memory."""

from __future__ import annotations

import math

import pytest
import torch
from oracles.bursts import drifting, walk
from oracles.streams import Told, localizer, photo

import metriloc
from metriloc.geometry import Pose
from metriloc.tracking.in_map import WINDOW
from metriloc.types import TrackState, TrackTrouble

SURE = 0.99


def stream(frames: int, way: float = 1.0, noise: float = 0.005) -> tuple[Pose, Pose, Pose]:
    """True, measured and device poses."""
    g = torch.Generator().manual_seed(5)
    true = walk(frames, way, g)
    off = noise * torch.randn(frames, 6, generator=g, dtype=torch.float64) * torch.tensor([1.0] * 3 + [0.2] * 3)
    return true, Pose.from_tangent(off) @ true, drifting(true, 0.005, 0.1, g)


def following(measured: Pose, confidence: float = SURE, start: bool = True) -> tuple[metriloc.Tracker, Told]:
    method = Told(start)
    method.answers = {f"{k}": (measured[k], confidence) for k in range(len(measured.t))}
    return metriloc.Tracker(localizer(method)), method


def test_each_frame_starts_where_the_device_leads() -> None:
    true, measured, device = stream(10)
    follow, method = following(measured)
    found = [follow.add(photo(f"{k}"), device[k]) for k in range(10)]
    states = [e.track.state for e in found if e.track]
    assert states == [TrackState.FOUND, *[TrackState.TRACKING] * 9]
    assert method.asked[0] is None and all(init is not None for init in method.asked[1:])
    assert len(method.asked) == 10
    init = method.asked[9]
    assert init is not None and float(init.center_distance(true[9])) < 0.05
    off = [float(e.pose.double().center_distance(true[k])) for k, e in enumerate(found)]
    assert max(off) < 0.03


def test_the_graph_smooths() -> None:
    true, measured, device = stream(25, noise=0.02)
    follow, _ = following(measured)
    found = [follow.add(photo(f"{k}"), device[k]) for k in range(25)]
    off = torch.tensor([float(e.pose.double().center_distance(true[k])) for k, e in enumerate(found)])
    raw = measured.center_distance(true)
    assert float(off[10:].mean()) < 0.8 * float(raw[10:].mean())


def test_a_jump_is_rejected_and_named() -> None:
    true, measured, device = stream(12)
    t = measured.t.clone()
    t[8] += 0.7
    follow, _ = following(Pose(measured.R, t))
    found = [follow.add(photo(f"{k}"), device[k]) for k in range(12)]
    track = found[8].track
    assert track is not None and [n.trouble for n in track.notes] == [TrackTrouble.JUMP_REJECTED]
    assert float(found[8].pose.double().center_distance(true[8])) < 0.05
    assert any("not believed" in doubt for doubt in found[8].doubts)
    assert all(e.track is not None and e.track.state is TrackState.TRACKING for e in found[1:])


def test_a_device_that_is_contradicted_again_and_again_is_not_believed() -> None:
    _, measured, device = stream(12)
    t = measured.t.clone()
    t[6:] += 0.7
    follow, _ = following(Pose(measured.R, t))
    found = [follow.add(photo(f"{k}"), device[k]) for k in range(12)]
    states = [e.track.state for e in found if e.track]
    assert states[8] is TrackState.RELOCALIZED and states[9:] == [TrackState.TRACKING] * 3
    assert float(found[-1].pose.double().center_distance(Pose(measured.R, t)[11])) < 0.05


def test_black_frames_lose_it_and_the_next_finds_it_again() -> None:
    _, measured, device = stream(50)
    follow, _ = following(measured)
    for k in range(10):
        follow.add(photo(f"{k}"), device[k])
    for _ in range(30):
        dark = follow.add(photo("black"), None)
        assert not bool(dark.success) and follow.state is TrackState.LOST
    back = follow.add(photo("45"), None)
    assert back.track is not None and back.track.state is TrackState.RELOCALIZED and back.track.searched


def test_what_is_hardly_sure_must_be_said_twice() -> None:
    _, measured, device = stream(5)
    follow, _ = following(measured, confidence=0.7, start=False)
    found = [follow.add(photo(f"{k}"), device[k]) for k in range(3)]
    states = [e.track.state for e in found if e.track]
    assert states == [TrackState.LOST, TrackState.FOUND, TrackState.TRACKING]
    assert not bool(found[0].success) and found[0].reason == "unsupported"


def test_a_start_is_no_evidence() -> None:
    """A method that begins at the pose before ends near it in any place: it must be rather right than wrong."""
    _, measured, device = stream(6)
    follow, method = following(measured)
    follow.add(photo("0"), device[0])
    method.answers, method.only_started = {f"{k}": (measured[k], 0.3) for k in range(6)}, True
    wrong = follow.add(photo("1"), device[1])
    assert not bool(wrong.success) and follow.state is TrackState.LOST
    assert wrong.track is not None and wrong.track.predicted is not None and wrong.track.searched
    method.only_started = False
    assert follow.add(photo("2"), device[2]).success  # said by a search as well, and where the device leads


def test_drift_and_the_unit_of_the_map_are_told() -> None:
    """A device whose metre is 0.8 of the map's units."""
    true, measured, _ = stream(30, way=3.0, noise=0.002)
    device = Pose(true.R, true.t / 0.8)
    follow, _ = following(measured)
    found = [follow.add(photo(f"{k}"), device[k]) for k in range(30)]
    drift = found[-1].track.drift if found[-1].track else None
    assert drift is not None
    assert drift.units_a_metre == pytest.approx(0.8, rel=0.01)
    assert drift.metres_a_metre < 0.02
    assert float(found[-1].pose.double().center_distance(true[29])) < 0.02


def test_without_a_device_the_frame_before_is_the_start() -> None:
    _, measured, _ = stream(6, way=0.2)
    follow, method = following(measured)
    found = [follow.add(photo(f"{k}")) for k in range(6)]
    assert [e.track.state for e in found if e.track] == [TrackState.FOUND, *[TrackState.TRACKING] * 5]
    assert all(init is not None for init in method.asked[1:])
    assert all(e.track is not None and e.track.drift is None for e in found)


def test_memory_is_that_of_the_window() -> None:
    frames = WINDOW + 10
    _, measured, device = stream(frames, way=3.0)
    follow, _ = following(measured)
    for k in range(frames):
        found = follow.add(photo(f"{k}"), device[k])
    assert len(follow._map._placed) == WINDOW
    assert found.track is not None and len(found.track.smoothed) == WINDOW
    assert math.isfinite(found.track.drift.metres_a_metre if found.track.drift else math.nan)
