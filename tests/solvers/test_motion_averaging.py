"""Motion averaging: recovery, honest covariances, lengths that err alike, wrong motions, and who contradicts whom."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.solvers.consistency import MOST_WITNESSES, most_consistent, triangle_misfit
from metriloc.solvers.motion_averaging import Averaged, Motion, _Problem, _State, average_motions, nearest_to_rays
from metriloc.solvers.pose_uncertainty import relative_covariance
from metriloc.solvers.shared_focal import across

SIGMA = 0.01


def cameras(generator: torch.Generator, count: int) -> Pose:
    """``cam_from_world`` of cameras that stand about a place; the first is the world."""
    delta = torch.randn(count, 6, generator=generator, dtype=torch.float64)
    poses = Pose.from_tangent(delta * torch.tensor([1.5, 1.5, 1.5, 0.3, 0.3, 0.3], dtype=torch.float64))
    return poses @ poses[0].inverse()


def measured(
    poses: Pose,
    first: int,
    second: int,
    generator: torch.Generator,
    sigma: float = SIGMA,
    length_sigma: float = 0.3,
    longer: float = 1.0,
) -> Motion:
    """What a pair would say, with noise. longer: factor of its length."""
    pose = poses[second] @ poses[first].inverse()
    noise = sigma * torch.randn(5, generator=generator, dtype=torch.float64)
    length = pose.t.norm()
    heading = pose.t / length + across(pose.t / length) @ noise[3:]
    noisy = Pose(so3_exp(noise[:3]) @ pose.R, heading / heading.norm() * length * longer)
    covariance = max(sigma, 1e-4) ** 2 * torch.eye(5, dtype=torch.float64)
    return Motion(first, second, noisy, covariance, length_sigma, 0.7 if math.isfinite(length_sigma) else 0.0)


def of_known(poses: Pose, motions: list[Motion], start: Pose | None = None) -> Averaged:
    """The last camera, where all others are known."""
    fixed = torch.arange(len(poses.t)) < len(poses.t) - 1
    first = motions[0].pose @ poses[motions[0].first] if start is None else start
    return average_motions(motions, Pose.stack([*(poses[i] for i in range(len(poses.t) - 1)), first]), fixed)


def test_known_cameras_and_directions_alone_fix_a_position(generator: torch.Generator) -> None:
    poses = cameras(generator, 4)
    motions = [measured(poses, i, 3, generator, 0.0, math.inf) for i in range(3)]
    found = of_known(poses, motions)
    assert float(found.cam_from_world[3].center_distance(poses[3])) < 1e-5
    assert float(found.cam_from_world[3].angle_to(poses[3])) < 1e-6
    assert found.covariance is not None and max(found.misfits) < 1e-3


def test_lengths_that_are_all_too_long_bend_no_position(generator: torch.Generator) -> None:
    poses = cameras(generator, 4)
    found = of_known(poses, [measured(poses, i, 3, generator, 0.0, 0.3, longer=1.4) for i in range(3)])
    assert float(found.cam_from_world[3].center_distance(poses[3])) < 1e-3


def test_unknown_cameras_are_found_up_to_what_all_lengths_have_in_common(generator: torch.Generator) -> None:
    poses = cameras(generator, 4)
    motions = [measured(poses, i, j, generator, 0.0, 0.3, longer=1.4) for i in range(4) for j in range(i + 1, 4)]
    starts = Pose.stack([poses[0], *(motions[i].pose for i in range(3))])
    found = average_motions(motions, starts, torch.tensor([True, False, False, False]))
    for i in range(1, 4):
        assert float(found.cam_from_world[i].angle_to(poses[i])) < 1e-6
        assert torch.allclose(found.cam_from_world[i].t, 1.4 * poses[i].t, atol=1e-5)
    assert found.covariance is not None
    spread = found.covariance[3]
    along = poses[3].t / poses[3].t.norm()
    sigma = float((along @ spread[:3, :3] @ along).sqrt() / found.cam_from_world[3].distance())
    # six lengths with one error in common are little surer than one
    assert 0.24 < sigma < 0.3


def test_covariances_are_those_of_the_noise(generator: torch.Generator) -> None:
    poses = cameras(generator, 4)
    squares = []
    for _ in range(25):
        found = of_known(poses, [measured(poses, i, 3, generator) for i in range(3)])
        assert found.covariance is not None
        delta = found.cam_from_world[3] @ poses[3].inverse()
        off = torch.cat([found.cam_from_world[3].t - delta.R @ poses[3].t, _rotation_vector(delta.R)])
        squares.append(float(off @ torch.linalg.solve(found.covariance[3], off)))
    assert 4 < sum(squares) / len(squares) < 9  # 6 for chi-squared; the robust loss adds a little


def _rotation_vector(R: Tensor) -> Tensor:
    return torch.stack([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / 2


def test_derivatives_are_those_of_the_residuals(generator: torch.Generator) -> None:
    poses = cameras(generator, 3)
    motions = [measured(poses, i, j, generator, 0.1) for i, j in ((0, 1), (1, 2), (0, 2))]
    problem = _Problem.of(motions, torch.tensor([True, False, False]))
    state = _State(poses, 0.1)
    _, local = problem._linearized(state)
    for k in range(6):
        for side, ends in enumerate((problem.first, problem.second)):
            for row, camera in enumerate(ends.tolist()):
                delta = torch.zeros(2, 3, 6, dtype=torch.float64)
                delta[0, camera, k], delta[1, camera, k] = 1e-6, -1e-6
                high, low = (problem.residuals(_State(Pose.from_tangent(d) @ poses, 0.1))[row] for d in delta)
                assert torch.allclose((high - low) / 2e-6, local[row, :, 6 * side + k], atol=0.02, rtol=2e-3)
    high, low = (problem.residuals(_State(poses, 0.1 + step)) for step in (1e-6, -1e-6))
    assert torch.allclose((high - low) / 2e-6, local[..., -1], atol=1e-4)


def test_a_wrong_motion_is_outvoted(generator: torch.Generator) -> None:
    poses = cameras(generator, 5)
    motions = [measured(poses, i, 4, generator) for i in range(4)]
    wrong = Motion(1, 4, Pose(so3_exp(torch.tensor([0.5, 0, 0]).double()) @ motions[1].pose.R, -motions[1].pose.t),
                   motions[1].covariance, 0.3, 0.7)  # fmt: skip
    found = of_known(poses, [motions[0], wrong, *motions[2:]])
    assert float(found.cam_from_world[4].angle_to(poses[4])) < 5 * SIGMA
    assert found.misfits[1] > 100 * max(found.misfits[i] for i in (0, 2, 3))


def test_what_is_not_fixed_has_no_covariance(generator: torch.Generator) -> None:
    poses = cameras(generator, 3)
    motions = [measured(poses, 0, 1, generator)]
    free = average_motions(motions, poses, torch.tensor([True, False, False]))
    assert free.covariance is None
    with pytest.raises(ValueError, match="a camera that stays"):
        average_motions(motions, poses, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(ValueError, match="needs a motion"):
        average_motions([], poses, torch.tensor([True, False, False]))


def test_rays_meet_in_front(generator: torch.Generator) -> None:
    origins = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    point = torch.tensor([0.5, -0.2, 6.0], dtype=torch.float64)
    met = nearest_to_rays(origins, 3 * (point - origins))
    assert met is not None and torch.allclose(met, point)
    assert nearest_to_rays(origins, origins - point) is None
    assert nearest_to_rays(origins, point.expand(3, 3)) is None


# -- who contradicts whom ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("known", [True, False])
def test_triangles_tell_right_from_wrong(known: bool, generator: torch.Generator) -> None:
    poses = cameras(generator, 3)
    to_a, to_b = (measured(poses, i, 2, generator) for i in (0, 1))
    between: Pose | Motion = poses[1] @ poses[0].inverse() if known else measured(poses, 0, 1, generator)
    assert triangle_misfit(to_a, to_b, between) < 25
    turned = Pose(so3_exp(torch.tensor([0, 0.2, 0]).double()) @ to_b.pose.R, to_b.pose.t)
    assert triangle_misfit(to_a, Motion(1, 2, turned, to_b.covariance, 0.3, 0.7), between) > 200
    normal = torch.linalg.cross(to_a.pose.t, to_b.pose.t)
    off_plane = Pose(to_b.pose.R, to_b.pose.t + 0.4 * to_b.pose.t.norm() * normal / normal.norm())
    assert triangle_misfit(to_a, Motion(1, 2, off_plane, to_b.covariance, 0.3, 0.7), between) > 200


def test_the_largest_set_without_a_contradiction() -> None:
    pairs = torch.zeros(5, 5, dtype=torch.bool)
    for i, j in ((0, 1), (0, 2), (0, 3), (0, 4), (3, 4)):
        pairs[i, j] = pairs[j, i] = True
    assert most_consistent(pairs, [0.9, 0.5, 0.5, 0.2, 0.8]) == [(1, 2, 4), (1, 2, 3)]
    assert most_consistent(torch.zeros(3, 3, dtype=torch.bool), [1, 1, 1]) == [(0, 1, 2)]
    with pytest.raises(ValueError, match=f"at most {MOST_WITNESSES}"):
        most_consistent(torch.zeros(65, 65, dtype=torch.bool), [1.0] * 65)


# -- how sure a pair is ------------------------------------------------------------------------------------------------
def test_pairs_are_surer_the_more_the_matches_say(generator: torch.Generator) -> None:
    camera = Camera(torch.tensor([640.0, 480.0]), torch.tensor([520.0, 520.0]), torch.tensor([319.5, 239.5]))
    pose = Pose.from_tangent(torch.tensor([0.8, 0.1, 0.1, 0.0, -0.2, 0.0], dtype=torch.float64))

    def seen(count: int, noise: float) -> tuple[Tensor, Tensor]:
        uv0 = torch.rand(count, 2, generator=generator, dtype=torch.float64) * torch.tensor([639.0, 479.0])
        depth = 3 + 3 * torch.rand(count, generator=generator, dtype=torch.float64)
        uv1 = camera.to(torch.float64).project(pose.transform(camera.to(torch.float64).lift(uv0, depth)))[0]
        return uv0, uv1 + noise * torch.randn(count, 2, generator=generator, dtype=torch.float64)

    few, many, noisy = (
        relative_covariance(pose, *seen(count, noise), (camera, camera))
        for count, noise in ((50, 3.0), (800, 3.0), (800, 20.0))
    )
    assert few is not None and many is not None and noisy is not None
    assert 2 < float((few.trace() / many.trace()).sqrt()) < 8  # the square root of 16 is 4
    assert 2 < float((noisy.trace() / many.trace()).sqrt()) < 20
    exact = relative_covariance(pose, *seen(5000, 0.0), (camera, camera))
    assert exact is not None and float(exact[3, 3].sqrt()) > math.radians(0.5)  # no camera is known that well
    assert relative_covariance(pose, *seen(5, 0.3), (camera, camera)) is None
    still = Pose(pose.R, torch.zeros(3, dtype=torch.float64))
    assert relative_covariance(still, *seen(50, 0.3), (camera, camera)) is None
