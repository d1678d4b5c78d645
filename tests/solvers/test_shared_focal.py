"""One factor of both focal lengths, from matches made with another one."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.solvers.relative import essential_pose
from metriloc.solvers.shared_focal import EpipolarProblem, EpipolarState, shared_focal_factor

CAMERA = Camera(torch.tensor([640.0, 480.0]), torch.tensor([560.0, 560.0]), torch.tensor([319.5, 239.5]))


def matches(num: int = 300, wrong: float = 0.3, noise: float = 0.3, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Of a scene of depth, seen by two cameras whose axes do not meet; some are wrong."""
    g = torch.Generator().manual_seed(seed)
    uv0 = torch.rand(num, 2, generator=g) * CAMERA.size
    pose = Pose(so3_exp(torch.tensor([0.12, -0.35, 0.08])), torch.tensor([0.9, 0.3, 0.6]))
    uv1, _ = CAMERA.project(pose.transform(CAMERA.lift(uv0, 2 + 4 * torch.rand(num, generator=g))))
    stray = torch.rand(num, generator=g) < wrong
    uv1 = torch.where(stray[:, None], torch.rand(num, 2, generator=g) * CAMERA.size, uv1)
    return uv0 + noise * torch.randn(num, 2, generator=g), uv1 + noise * torch.randn(num, 2, generator=g)


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 0.8, 1.0, 1.3, 2.0])
def test_the_true_focal_length_is_found_from_a_wrong_one(factor: float) -> None:
    uv0, uv1 = matches()
    stated = replace(CAMERA, f=CAMERA.f * factor)
    fit = essential_pose(uv0, uv1, (stated, stated), 1.5)
    assert fit.pose is not None
    found = shared_focal_factor(fit.pose, uv0, uv1, (stated, stated), 1.5)
    assert found is not None and found.sigma < 0.05
    assert found.log_factor == pytest.approx(-math.log(factor), abs=4 * found.sigma)
    assert (found.gain > 100) == (factor != 1.0)


@pytest.mark.slow
def test_the_stated_deviation_is_honest() -> None:
    errors = []
    for seed in range(12):
        uv0, uv1 = matches(wrong=0.2, noise=0.5, seed=seed)
        fit = essential_pose(uv0, uv1, (CAMERA, CAMERA), 1.5)
        found = shared_focal_factor(fit.pose, uv0, uv1, (CAMERA, CAMERA), 1.5) if fit.pose is not None else None
        assert found is not None
        errors.append(found.log_factor / found.sigma)
    spread = torch.tensor(errors).square().mean().sqrt()
    assert 0.4 < float(spread) < 2.0


def test_a_sideways_motion_leaves_the_focal_length_open() -> None:
    g = torch.Generator().manual_seed(0)
    uv0 = torch.rand(300, 2, generator=g) * CAMERA.size
    pose = Pose(torch.eye(3), torch.tensor([0.5, 0.0, 0.0]))
    uv1, _ = CAMERA.project(pose.transform(CAMERA.lift(uv0, 2 + 4 * torch.rand(300, generator=g))))
    uv1 = uv1 + 0.3 * torch.randn(300, 2, generator=g)
    found = shared_focal_factor(pose, uv0, uv1, (CAMERA, CAMERA), 1.5)
    assert found is not None and abs(found.log_factor) < max(0.15, 4 * found.sigma)


def test_few_matches_or_a_mere_turn_tell_nothing() -> None:
    uv0, uv1 = matches()
    pose = Pose(torch.eye(3), torch.tensor([1.0, 0.0, 0.0]))
    assert shared_focal_factor(pose, uv0[:20], uv1[:20], (CAMERA, CAMERA)) is None
    assert shared_focal_factor(Pose(torch.eye(3), torch.zeros(3)), uv0, uv1, (CAMERA, CAMERA)) is None


def test_derivatives() -> None:
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.rand(2, 9, 2, generator=g, dtype=torch.float64) - 0.5
    f0, f1 = torch.tensor([500.0, 510.0]).double(), torch.tensor([620.0, 600.0]).double()
    problem = EpipolarProblem(x0, x1, f0, f1, 1.0)
    t = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
    state = EpipolarState(so3_exp(torch.tensor([0.3, 0.2, -0.4], dtype=torch.float64)), t / t.norm(), 0.2)
    _, J = problem.residual(state)
    across = torch.linalg.svd(state.t[None], full_matrices=True).Vh[1:].mT

    def moved(k: int, by: float) -> torch.Tensor:
        step = torch.zeros(6, dtype=torch.float64)
        step[k] = by
        to = state.t + across @ step[3:5]
        R = so3_exp(step[:3]) @ state.R
        return problem.residual(EpipolarState(R, to / to.norm(), state.log_factor + float(step[5])))[0]

    for k in range(6):
        torch.testing.assert_close(J[:, k], (moved(k, 1e-6) - moved(k, -1e-6)) / 2e-6, rtol=1e-5, atol=1e-4)
