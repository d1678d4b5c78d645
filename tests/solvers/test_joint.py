"""The joint fit: Jacobians, elimination against the whole system, recovery from wrong matches and biased depths."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from metriloc.geometry import Camera, Pose, rotation_angle
from metriloc.solvers import joint
from metriloc.solvers.joint import DepthError, JointConfig, joint_fit

ERROR = DepthError(scale=0.3, correlation=0.6, tilt=0.2, shape=0.15, votes=30)
CONFIG = JointConfig(ERROR)


def camera() -> Camera:
    tensors = [torch.tensor(v, dtype=torch.float64) for v in ([640, 480], [520, 510], [321, 238])]
    return Camera(*tensors)


CAMERAS = camera(), camera()


def scene(
    generator: torch.Generator, count: int = 80, way: tuple[float, float, float] = (0.5, -0.1, 0.2)
) -> tuple[Pose, Tensor, Tensor, Tensor, Tensor]:
    """True pose (1_from_0), then uv0, depth0, uv1, depth1, exact."""
    pose = Pose.from_tangent(torch.tensor([*way, 0.05, -0.15, 0.1], dtype=torch.float64))
    uv0 = torch.rand(20 * count, 2, generator=generator, dtype=torch.float64) * torch.tensor([639.0, 479.0])
    depth0 = 2 + 4 * torch.rand(20 * count, generator=generator, dtype=torch.float64)
    xyz1 = pose.transform(CAMERAS[0].unproject(uv0)[0] * depth0[:, None])
    uv1, seen = CAMERAS[1].project(xyz1)
    keep = seen.nonzero().squeeze(-1)[:count]
    assert len(keep) == count
    return pose, uv0[keep], depth0[keep], uv1[keep], xyz1[keep, 2]


def noise(generator: torch.Generator, like: Tensor, sigma: float) -> Tensor:
    return sigma * torch.randn(like.shape, generator=generator, dtype=torch.float64)


def moved(pose: Pose, *delta: float) -> Pose:
    return Pose.from_tangent(torch.tensor(delta, dtype=torch.float64)) @ pose


def degrees(pose: Pose, truth: Pose) -> tuple[float, float]:
    """Of the rotation, and of the direction."""
    cosine = float(pose.t @ truth.t / (pose.distance() * truth.distance()))
    return math.degrees(float(rotation_angle(pose.R @ truth.R.mT))), math.degrees(math.acos(min(1.0, cosine)))


def problem_of(generator: torch.Generator, count: int) -> tuple[joint._Problem, joint._State]:
    """Twelve noisy matches, one with a depth in one photo only, each way, at a state that is not the best."""
    truth, uv0, depth0, uv1, depth1 = scene(generator, count)
    depth0, depth1 = depth0 * noise(generator, depth0, 0.1).exp(), 1.3 * depth1
    depth0[0], depth1[1] = 0, torch.nan
    start = moved(truth, 0.1, 0.05, -0.1, 0.02, 0.03, -0.02)
    problem, xyz0 = joint._problem(start, (uv0, uv1 + noise(generator, uv1, 1)), (depth0, depth1), CAMERAS, CONFIG)
    assert len(xyz0) == count
    photos = torch.tensor([0.1, -0.2, 0.3, 0.15], dtype=torch.float64)
    return problem, joint._State(start, photos, xyz0 + noise(generator, xyz0, 0.1))


def test_jacobians_are_the_derivatives(generator: torch.Generator) -> None:
    problem, state = problem_of(generator, 12)
    _, xyz1 = problem.residuals(state)
    J, J_point = problem.jacobians(state, xyz1)
    step, no_depth = 1e-6, torch.zeros(12, 6, dtype=torch.bool)
    no_depth[0, 4], no_depth[1, 5] = True, True  # these rows have no residual, and weigh nothing
    assert float(problem.robust(*_seen(problem, state))[1][no_depth].abs().max()) == 0
    for k in range(10):
        delta = torch.zeros(10, dtype=torch.float64)
        delta[k] = step
        ends = [
            joint._State(Pose.from_tangent(d[:6]) @ state.pose, state.photos + d[6:], state.xyz0)
            for d in (delta, -delta)
        ]
        measured = (problem.residuals(ends[0])[0] - problem.residuals(ends[1])[0]) / (2 * step)
        torch.testing.assert_close(J[..., k][~no_depth], measured[~no_depth], rtol=1e-5, atol=1e-5)
    for k in range(3):
        delta = torch.zeros(3, dtype=torch.float64)
        delta[k] = step
        ends = [joint._State(state.pose, state.photos, state.xyz0 + d) for d in (delta, -delta)]
        measured = (problem.residuals(ends[0])[0] - problem.residuals(ends[1])[0]) / (2 * step)
        torch.testing.assert_close(J_point[..., k][~no_depth], measured[~no_depth], rtol=1e-5, atol=1e-5)


def _seen(problem: joint._Problem, state: joint._State) -> tuple[Tensor, Tensor, Tensor]:
    residual, xyz1 = problem.residuals(state)
    return residual, state.xyz0, xyz1


def test_step_is_that_of_the_whole_system(generator: torch.Generator) -> None:
    """10 + 3 N unknowns at once, with the priors as four more rows."""
    problem, state = problem_of(generator, 10)
    residual, xyz1 = problem.residuals(state)
    weight = problem.robust(residual, state.xyz0, xyz1)[1].reshape(-1)
    J, J_point = problem.jacobians(state, xyz1)
    whole = torch.cat([J.reshape(-1, 10), torch.block_diag(*J_point)], -1)
    priors = torch.zeros(4, whole.shape[1], dtype=torch.float64)
    priors[:, 6:10] = problem.prior
    rows = torch.cat([whole * weight.sqrt()[:, None], priors])
    values = torch.cat([residual.reshape(-1) * weight.sqrt(), problem.prior @ state.photos])
    full = -torch.linalg.lstsq(rows, values[:, None]).solution.squeeze(-1)
    system = problem.system(state, 0.0)
    delta = -torch.linalg.solve(system.H, system.g)
    torch.testing.assert_close(delta, full[:10], rtol=1e-6, atol=1e-8)
    points = system.to_points @ torch.cat([delta, delta.new_ones(1)])
    torch.testing.assert_close(points.reshape(-1), full[10:], rtol=1e-6, atol=1e-7)


def test_prior_is_the_covariance_of_kin() -> None:
    root = joint._prior(ERROR)
    covariance = torch.linalg.inv(root.mT @ root)
    expected = torch.diag(torch.tensor([0.09, 0.04, 0.09, 0.04], dtype=torch.float64))
    expected[0, 2] = expected[2, 0] = 0.6 * 0.09
    torch.testing.assert_close(covariance, expected)


def test_exact_matches_give_the_exact_pose(generator: torch.Generator) -> None:
    truth, uv0, depth0, uv1, depth1 = scene(generator)
    found = joint_fit(moved(truth, 0.1, 0.05, -0.1, 0.05, 0.03, -0.04), (uv0, uv1), (depth0, depth1), CAMERAS, CONFIG)
    assert found.ok and found.cost < 1e-6
    torch.testing.assert_close(found.pose.t, truth.t, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.pose.R, truth.R, rtol=0, atol=1e-6)


def test_depths_that_contradict_bend_nothing(generator: torch.Generator) -> None:
    """One map 1.6 times too far, the other right, both noisy: the pose holds, and each photo is told its own error."""
    truth, uv0, depth0, uv1, depth1 = scene(generator, 200)
    wrong = 1.6 * depth0 * noise(generator, depth0, 0.15).exp()
    fair = depth1 * noise(generator, depth1, 0.15).exp()
    uvs = uv0 + noise(generator, uv0, 0.5), uv1 + noise(generator, uv1, 0.5)
    found = joint_fit(moved(truth, 0.05, 0.02, 0.0, 0.01, 0.01, -0.01), uvs, (wrong, fair), CAMERAS, CONFIG)
    rotation, direction = degrees(found.pose, truth)
    assert rotation < 0.2 and direction < 1
    first, second = found.photos
    assert first is not None and second is not None
    assert first.log_scale - second.log_scale == pytest.approx(math.log(1.6), abs=0.08)
    assert float(found.pose.distance() / truth.distance()) == pytest.approx(math.sqrt(1.6), rel=0.08)


def test_a_tilted_map_bends_nothing(generator: torch.Generator) -> None:
    """Depths to the power of 1.3, as a network squeezes or stretches a room."""
    truth, uv0, depth0, uv1, depth1 = scene(generator, 200)
    middle = depth0.log().mean().exp()
    depths = middle * (depth0 / middle) ** 1.3, middle * (depth1 / middle) ** 1.3
    found = joint_fit(truth, (uv0, uv1), depths, CAMERAS, CONFIG)
    rotation, direction = degrees(found.pose, truth)
    assert rotation < 0.02 and direction < 0.1
    assert float(found.pose.distance() / truth.distance()) == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("owner", [0, 1])
def test_one_photo_with_depth_is_enough(generator: torch.Generator, owner: int) -> None:
    truth, uv0, depth0, uv1, depth1 = scene(generator)
    none = torch.zeros(len(uv0), dtype=torch.float64)
    depths = (depth0, none) if owner == 0 else (none, depth1)
    found = joint_fit(moved(truth, 0.05, 0.02, -0.05, 0.02, 0.01, -0.02), (uv0, uv1), depths, CAMERAS, CONFIG)
    assert found.ok and found.photos[1 - owner] is None
    torch.testing.assert_close(found.pose.t, truth.t, rtol=1e-3, atol=1e-4)


def test_no_translation_is_a_start_and_an_answer(generator: torch.Generator) -> None:
    """Cameras that only turned, all depths held: a way of at most 3 cm, and its length is said to be open."""
    truth, uv0, depth0, uv1, depth1 = scene(generator, 200, way=(0.0, 0.0, 0.0))
    uvs = uv0 + noise(generator, uv0, 0.5), uv1 + noise(generator, uv1, 0.5)
    wrong = depth0 * noise(generator, depth0, 0.2).exp(), depth1 * noise(generator, depth1, 0.2).exp()
    start = Pose(moved(truth, 0, 0, 0, 0.002, -0.002, 0.002).R, torch.zeros(3, dtype=torch.float64))
    held = JointConfig(replace(ERROR, votes=1e9))
    found = joint_fit(start, uvs, wrong, CAMERAS, held)
    assert found.ok and math.degrees(float(rotation_angle(found.pose.R @ truth.R.mT))) < 0.35
    assert float(found.pose.distance()) < 0.03 and found.open_sigma > 0.15
    moving = scene(generator, 200)
    clear = joint_fit(moving[0], (moving[1], moving[3]), (moving[2], moving[4]), CAMERAS, CONFIG)
    assert clear.open_sigma < found.open_sigma / 3


def test_more_points_are_no_surer_than_their_votes(generator: torch.Generator) -> None:
    sigmas = []
    for count in (60, 400):
        truth, uv0, depth0, uv1, depth1 = scene(generator, count)
        uneven = [d * noise(generator, d, 0.15).exp() for d in (depth0, depth1)]
        photo = joint_fit(truth, (uv0, uv1), (uneven[0], uneven[1]), CAMERAS, CONFIG).photos[0]
        assert photo is not None and photo.count == count
        sigmas.append(photo.sigma)
    assert all(0.3 < sigma < 0.304 for sigma in sigmas)
    assert sigmas[1] == pytest.approx(sigmas[0], rel=0.01)


def test_what_cannot_be_fitted_is_said(generator: torch.Generator) -> None:
    truth, uv0, depth0, uv1, depth1 = scene(generator)
    none = torch.zeros_like(depth0)
    assert not joint_fit(truth, (uv0, uv1), (none, none), CAMERAS, CONFIG).ok
    few = joint_fit(truth, (uv0[:5], uv1[:5]), (depth0[:5], depth1[:5]), CAMERAS, CONFIG)
    assert not few.ok and few.pose is truth and few.photos == (None, None)
    lost = joint_fit(Pose(truth.R * torch.nan, truth.t), (uv0, uv1), (depth0, depth1), CAMERAS, CONFIG)
    assert not lost.ok
    spoiled = [v.clone() for v in (uv0, depth0, uv1, depth1)]
    spoiled[0][0, 0], spoiled[2][1, 1], spoiled[1][2], spoiled[3][3] = torch.nan, torch.inf, torch.inf, torch.nan
    found = joint_fit(truth, (spoiled[0], spoiled[2]), (spoiled[1], spoiled[3]), CAMERAS, CONFIG)
    assert found.ok and degrees(found.pose, truth)[0] < 1e-3


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ValueError, match=r"DepthError.scale must be positive, got 0"):
        DepthError(scale=0, correlation=0, tilt=1, shape=1, votes=1)
    with pytest.raises(ValueError, match=r"DepthError.correlation"):
        DepthError(scale=1, correlation=1.5, tilt=1, shape=1, votes=1)
