"""A burst of frames with device poses before a reference: metres, and what is wrong is found."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from oracles.bursts import CAMERA, room

from metriloc.geometry import Pose
from metriloc.solvers.burst import Burst, BurstFit, solve_burst
from metriloc.solvers.multi_view import triangulate
from metriloc.solvers.tracks import Tracks


def off(fit: BurstFit, truth: Pose) -> tuple[float, float]:
    assert fit.newest_from_reference is not None, fit.said
    share = float(fit.newest_from_reference.distance() / truth.distance()) - 1
    return abs(share), math.degrees(float(fit.newest_from_reference.angle_to(truth)))


def moved(burst: Burst, frame: int, motion: Pose) -> Burst:
    """With the device pose of one frame wrong."""
    R, t = burst.cam_from_device.R.clone(), burst.cam_from_device.t.clone()
    wrong = motion @ burst.cam_from_device[frame]
    R[frame], t[frame] = wrong.R, wrong.t
    return replace(burst, cam_from_device=Pose(R, t))


def leap(x: float, turn: float = 0.0) -> Pose:
    return Pose.from_aa(torch.tensor([0.0, turn, 0.0]).double(), torch.tensor([x, 0.0, 0.0]).double())


@pytest.mark.parametrize(("frames", "way"), [(2, 0.2), (3, 0.2), (5, 0.2), (5, 0.1)])
def test_metres_come_from_the_motion(frames: int, way: float) -> None:
    burst, _, truth = room(frames, way, drift=(0.005, 0.1))
    fit = solve_burst(burst)
    share, degrees = off(fit, truth)
    assert share < 0.03
    assert degrees < 0.3
    assert share < 3 * fit.log_sigma
    assert fit.denied == fit.strange == ()
    assert fit.moved == pytest.approx(way, rel=0.1)


def test_sigma_tells_a_short_way_from_a_long_one() -> None:
    short, long = (solve_burst(room(3, way)[0]).log_sigma for way in (0.03, 0.3))
    assert short > 3 * long


def test_without_motion_there_are_no_metres() -> None:
    fit = solve_burst(room(3, 1e-6)[0])
    assert fit.newest_from_reference is None or fit.log_sigma > 0.3


@pytest.mark.parametrize("frame", [0, 2, 4])
def test_a_wrong_device_pose_is_found_and_its_photo_still_used(frame: int) -> None:
    burst, _, truth = room(5, 0.2, drift=(0.005, 0.1))
    fit = solve_burst(moved(burst, frame, leap(0.3, 0.1)))
    share, degrees = off(fit, truth)
    assert fit.denied == (frame,)
    assert share < 0.03
    assert degrees < 0.3


@pytest.mark.slow
def test_a_length_that_only_the_other_frames_contradict_is_found() -> None:
    """Three centimetres along the way: no pair of photos can tell."""
    burst, _, truth = room(5, 0.2, drift=(0.005, 0.1))
    fit = solve_burst(moved(burst, 2, leap(0.03)))
    assert fit.denied == (2,)
    assert off(fit, truth)[0] < 0.03


def test_a_wrong_photo_costs_itself() -> None:
    burst, _, truth = room(5, 0.2)
    g = torch.Generator().manual_seed(1)
    matches = {
        pair: (uv0, uv1[torch.randperm(len(uv1), generator=g)] if 2 in pair else uv1)
        for pair, (uv0, uv1) in burst.matches.items()
    }
    fit = solve_burst(replace(burst, matches=matches))
    assert 2 in (*fit.denied, *fit.strange)
    assert off(fit, truth)[0] < 0.03


def test_nothing_to_see_is_no_answer() -> None:
    burst, _, _ = room(3, 0.2)
    none = {pair: (uv0[:0], uv1[:0]) for pair, (uv0, uv1) in burst.matches.items()}
    fit = solve_burst(replace(burst, matches=none))
    assert fit.newest_from_reference is None
    assert fit.said


def test_the_same_twice() -> None:
    burst, _, _ = room(3, 0.2)
    one, two = (solve_burst(burst).newest_from_reference for _ in range(2))
    assert one is not None
    assert two is not None
    assert torch.equal(one.matrix(), two.matrix())


def test_triangulation_finds_exact_points_and_the_angle() -> None:
    xyz = torch.tensor([[0.0, 0.0, 2.0], [0.5, -0.3, 3.0]]).double()
    poses = Pose.stack([Pose.identity(dtype=torch.float64), leap(-1.0)])
    uv = torch.stack([CAMERA.project(pose.transform(xyz))[0] for pose in poses_of(poses)], 1)
    found, angle = triangulate(Tracks(uv, torch.ones(2, 2, dtype=torch.bool)), (CAMERA, CAMERA), poses)
    torch.testing.assert_close(found, xyz)
    assert float(angle[0]) == pytest.approx(math.atan2(1, 2), abs=1e-9)
    unseen = Tracks(uv, torch.tensor([[True, False], [True, True]]))
    assert torch.isnan(triangulate(unseen, (CAMERA, CAMERA), poses)[0][0]).all()


def poses_of(poses: Pose) -> list[Pose]:
    return [poses[k] for k in range(len(poses.t))]
