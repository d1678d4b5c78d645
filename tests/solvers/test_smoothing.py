"""A pose graph of the last frames: smoother than what was measured, and a jump moves nothing."""

from __future__ import annotations

import torch
from oracles.bursts import drifting, walk

from metriloc.geometry import Pose
from metriloc.solvers.motion import DeviceDrift, MotionEdges
from metriloc.solvers.smoothing import Smoothed, smooth_poses

NOISE = 0.02


def smoothed(measured: Pose, device: Pose, has: torch.Tensor | None = None) -> Smoothed:
    count = len(measured.t)
    spread = torch.diag(torch.tensor([NOISE**2] * 3 + [0.01**2] * 3, dtype=torch.float64)).expand(count, 6, 6)
    has = torch.ones(count, dtype=torch.bool) if has is None else has
    edges = MotionEdges.of_device(device, DeviceDrift())
    return smooth_poses(measured, measured, spread, has, edges)


def stream(seed: int = 0) -> tuple[Pose, Pose, Pose]:
    """True, measured and device poses of twenty frames."""
    g = torch.Generator().manual_seed(seed)
    true = walk(20, 1.0, g)
    noise = torch.randn(20, 6, generator=g, dtype=torch.float64) * torch.tensor([NOISE] * 3 + [0.01] * 3)
    return true, Pose.from_tangent(noise) @ true, drifting(true, 0.005, 0.1, g)


def test_smoothed_poses_are_nearer_the_truth() -> None:
    true, measured, device = stream()
    found = smoothed(measured, device)
    before, after = (poses.center_distance(true).mean() for poses in (measured, found.poses))
    assert found.ok
    assert float(after) < 0.6 * float(before)


def test_one_pose_far_off_moves_nothing() -> None:
    true, measured, device = stream()
    t = measured.t.clone()
    t[12] += 1.0
    found = smoothed(Pose(measured.R, t), device)
    assert int(found.squares.argmax()) == 12
    assert float(found.poses.center_distance(true).max()) < 2 * NOISE


def test_frames_without_a_measured_pose_follow_the_device() -> None:
    true, measured, device = stream()
    has = torch.ones(20, dtype=torch.bool)
    has[15:] = False
    found = smoothed(measured, device, has)
    assert float(found.poses.center_distance(true).max()) < 2 * NOISE
    assert found.covariance is not None
    assert float(found.covariance[0, 0]) > 0


def test_nothing_measured_changes_nothing() -> None:
    _, measured, device = stream()
    found = smoothed(measured, device, torch.zeros(20, dtype=torch.bool))
    assert not found.ok
    assert torch.equal(found.poses.t, measured.t)
