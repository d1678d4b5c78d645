"""Edges of motion between poses: residuals, their derivatives, and what they weigh."""

from __future__ import annotations

import math

import pytest
import torch
from oracles.bursts import walk

from metriloc.geometry import Pose
from metriloc.solvers.motion import DeviceDrift, MotionEdges, add_edges


def edges_of(poses: Pose) -> MotionEdges:
    return MotionEdges.of_device(poses, DeviceDrift())


def test_the_device_itself_has_no_residual_in_any_world() -> None:
    poses = walk(4, 0.5, torch.Generator().manual_seed(0))
    elsewhere = poses @ Pose.from_aa(torch.tensor([0.4, -1.0, 0.2]).double(), torch.tensor([3.0, 1.0, -2.0]).double())
    assert float(edges_of(poses).squares(elsewhere).max()) < 1e-15


def test_sigmas_grow_with_the_way() -> None:
    drift = DeviceDrift(share=0.01, degrees_a_metre=0.5, metres=0.001, degrees=0.01)
    near, far = drift.sigmas(torch.tensor([0.0, 10.0], dtype=torch.float64))
    assert near[0] == pytest.approx(0.001)
    assert far[0] == pytest.approx(0.1, rel=1e-3)
    assert far[3] == pytest.approx(math.radians(5), rel=1e-3)


def test_jacobians_are_derivatives() -> None:
    g = torch.Generator().manual_seed(1)
    poses = walk(3, 0.5, g)
    edges = edges_of(poses)

    def residual(delta: torch.Tensor) -> torch.Tensor:
        return edges.residuals(Pose.from_tangent(delta) @ poses)

    J = torch.autograd.functional.jacobian(residual, torch.zeros(3, 6, dtype=torch.float64))
    J_i, J_j = edges.jacobians(poses)
    for e, (i, j) in enumerate(zip(edges.i.tolist(), edges.j.tolist(), strict=True)):
        torch.testing.assert_close(J[e, :, i], J_i[e], atol=1e-6, rtol=1e-6)
        torch.testing.assert_close(J[e, :, j], J_j[e], atol=1e-6, rtol=1e-6)


def test_normal_equations_are_those_of_all_residuals() -> None:
    g = torch.Generator().manual_seed(2)
    poses = walk(4, 0.5, g)
    edges = edges_of(poses)
    moved = Pose.from_tangent(1e-3 * torch.randn(4, 6, generator=g, dtype=torch.float64)) @ poses
    weight = torch.rand(len(edges), generator=g, dtype=torch.float64)
    H, gradient = torch.zeros(24, 24, dtype=torch.float64), torch.zeros(24, dtype=torch.float64)
    add_edges(H, gradient, edges, moved, weight)
    J_i, J_j = edges.jacobians(moved)
    J = torch.zeros(len(edges), 6, 4, 6, dtype=torch.float64)
    for e in range(len(edges)):
        J[e, :, e], J[e, :, e + 1] = J_i[e], J_j[e]
    J = (weight.sqrt()[:, None, None, None] * J).reshape(-1, 24)
    r = (weight.sqrt()[:, None] * edges.residuals(moved)).reshape(-1)
    torch.testing.assert_close(H, J.mT @ J)
    torch.testing.assert_close(gradient, J.mT @ r)


@pytest.mark.parametrize("field", ["share", "metres", "degrees"])
def test_a_drift_below_zero_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match=field):
        DeviceDrift(**{field: -1.0})
