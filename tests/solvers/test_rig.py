"""The pose of several cameras at once: recovery, wrong matches, and a covariance in the axes of the rig."""

from __future__ import annotations

import pytest
import torch

from metriloc.geometry import Camera, Pose
from metriloc.geometry.so3 import skew
from metriloc.solvers.absolute_support import pose_covariance
from metriloc.solvers.rig import RigMatches, rig_covariance, rig_pose

SIZE = (640, 480)


def place(aa: list[float], t: list[float]) -> Pose:
    return Pose.from_aa(torch.tensor(aa, dtype=torch.float64), torch.tensor(t, dtype=torch.float64))


TRUE = place([0.1, -0.2, 0.05], [0.3, -0.1, 0.2])
PLACES = (place([0, 0, 0], [0, 0, 0]), place([0, 1.2, 0], [-0.4, 0.1, 0]), place([0.2, -1.0, 0.1], [0.5, 0, 0.2]))


def seen_by(
    number: int, generator: torch.Generator, count: int, noise: float = 0.0, focal: float = 500.0
) -> RigMatches:
    """Points in view of one camera of the rig, with pixels of it."""
    camera = Camera.from_K(torch.tensor([[focal, 0, 319.5], [0, focal, 239.5], [0, 0, 1]], dtype=torch.float64), SIZE)
    uv = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([639.0, 479.0])
    depth = 2 + 4 * torch.rand(count, 1, generator=generator, dtype=torch.float64)
    world = (PLACES[number] @ TRUE).inverse().transform(camera.unproject(uv)[0] * depth)
    uv = uv + noise * torch.randn(count, 2, generator=generator, dtype=torch.float64)
    return RigMatches(uv, world, camera, PLACES[number])


def test_three_cameras_with_few_points_each(generator: torch.Generator) -> None:
    """Three points in each, of which no camera alone would find its pose; cameras of different focal lengths and limits."""
    cameras = [seen_by(n, generator, 3, focal=400.0 + 100 * n) for n in range(3)]
    found = rig_pose(cameras, [3.0, 4.0, 5.0])
    assert found.pose is not None and [int(kept.sum()) for kept in found.inliers] == [3, 3, 3]
    torch.testing.assert_close(found.pose.R, TRUE.R, atol=1e-8, rtol=0)
    torch.testing.assert_close(found.pose.t, TRUE.t, atol=1e-8, rtol=0)


def test_wrong_matches_are_told_and_seeds_repeat(generator: torch.Generator) -> None:
    cameras = [seen_by(n, generator, 40, noise=0.3) for n in range(3)]
    for own in cameras:
        own.uv[:15] += 60
        own.uv[15] = torch.nan
    found, again = rig_pose(cameras, [3.0] * 3, seed=4), rig_pose(cameras, [3.0] * 3, seed=4)
    assert found.pose is not None and again.pose is not None
    torch.testing.assert_close(found.pose.t, again.pose.t, atol=1e-8, rtol=0)
    assert all(torch.equal(a, b) for a, b in zip(found.inliers, again.inliers, strict=True))
    assert float(found.pose.center_distance(TRUE)) < 0.01
    for kept in found.inliers:
        assert not bool(kept[:16].any()) and int(kept[16:].sum()) >= 22


def test_too_little_is_no_pose(generator: torch.Generator) -> None:
    assert rig_pose([seen_by(0, generator, 1), seen_by(1, generator, 2)], [3.0, 3.0]).pose is None
    empty = seen_by(0, generator, 0)
    assert rig_pose([empty], [3.0]).pose is None


@pytest.mark.parametrize("number", [0, 1, 2])
def test_the_covariance_of_one_camera_in_the_axes_of_the_rig(generator: torch.Generator, number: int) -> None:
    own = seen_by(number, generator, 60, noise=0.5)
    everything = torch.ones(60, dtype=torch.bool)
    found = rig_covariance(TRUE, [own], [everything], [1.0])
    camera = pose_covariance(own.cam_from_rig @ TRUE, own.xyz, own.uv, own.camera, 1.0)
    assert found is not None and camera is not None
    # what a motion of the rig does to the camera, by differences
    step, columns = 1e-6, []
    for axis in torch.eye(6, dtype=torch.float64):
        moved = own.cam_from_rig @ Pose.from_tangent(step * axis) @ TRUE
        change = moved @ (own.cam_from_rig @ TRUE).inverse()
        w = torch.stack(
            [change.R[2, 1] - change.R[1, 2], change.R[0, 2] - change.R[2, 0], change.R[1, 0] - change.R[0, 1]]
        )
        columns.append(torch.cat([change.t, 0.5 * w]) / step)
    J = torch.stack(columns, 1)
    torch.testing.assert_close(J @ found @ J.mT, camera, rtol=1e-4, atol=1e-12)
    torch.testing.assert_close(J[:3, 3:], skew(own.cam_from_rig.t) @ own.cam_from_rig.R, rtol=1e-4, atol=1e-5)


def test_more_cameras_are_surer(generator: torch.Generator) -> None:
    cameras = [seen_by(n, generator, 60, noise=0.5) for n in range(3)]
    everything = [torch.ones(60, dtype=torch.bool)] * 3
    one, all_ = (
        rig_covariance(TRUE, cameras[:1], everything[:1], [1.0]),
        rig_covariance(TRUE, cameras, everything, [1.0] * 3),
    )
    assert one is not None and all_ is not None and bool((all_.diagonal() < one.diagonal()).all())
