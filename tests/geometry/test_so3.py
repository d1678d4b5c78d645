"""SO(3): golden values, scipy, group laws, and derivatives at the singular points."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from metriloc.geometry import (
    closest_rotation,
    matrix_from_quaternion,
    quaternion_from_matrix,
    rotation_angle,
    skew,
    so3_exp,
    so3_log,
)

vectors = st.lists(st.floats(-1, 1), min_size=3, max_size=3).map(lambda v: torch.tensor(v, dtype=torch.float64))
angles = st.one_of(
    st.floats(0, math.pi), st.sampled_from([0.0, 1e-12, 1e-8, 1e-5, 1e-2, 0.99e-2, math.pi - 1e-9, math.pi - 1e-6])
)


def rotation_vector(direction: torch.Tensor, angle: float) -> torch.Tensor:
    length = direction.norm()
    return direction / length * angle if length > 1e-3 else torch.tensor([angle, 0, 0], dtype=torch.float64)


@given(vectors, angles)
@settings(max_examples=200, deadline=None)
def test_log_inverts_exp(direction: torch.Tensor, angle: float) -> None:
    w = rotation_vector(direction, angle)
    R = so3_exp(w)
    again = so3_log(R)
    # at half a turn w and -w are one rotation
    assert min(float((again - w).norm()), float((again + w).norm()) if angle > 3.14 else math.inf) < 1e-7
    assert abs(float(rotation_angle(R)) - angle) < 1e-7


@given(vectors, angles)
@settings(max_examples=100, deadline=None)
def test_exp_agrees_with_scipy_and_is_a_rotation(direction: torch.Tensor, angle: float) -> None:
    w = rotation_vector(direction, angle)
    R = so3_exp(w)
    assert np.allclose(R, Rotation.from_rotvec(w.numpy()).as_matrix(), atol=1e-12)
    assert np.allclose(R @ R.T, np.eye(3), atol=1e-12)


@given(vectors, angles)
@settings(max_examples=100, deadline=None)
def test_quaternions_agree_with_scipy(direction: torch.Tensor, angle: float) -> None:
    R = so3_exp(rotation_vector(direction, angle))
    q = quaternion_from_matrix(R)
    x, y, z, w = Rotation.from_matrix(R.numpy()).as_quat()
    assert float(q[0]) >= 0
    assert abs(abs(float(q @ torch.tensor([w, x, y, z]))) - 1) < 1e-12
    assert np.allclose(matrix_from_quaternion(-3 * q), R, atol=1e-12)


@pytest.mark.parametrize("w", [[0, 0, 0], [1e-9, 0, 0], [1e-3, -2e-3, 1e-3], [9e-3, 4e-3, 0], [0.3, -1, 2]])
def test_gradients_also_at_zero(w: list[float]) -> None:
    at = torch.tensor(w, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(so3_exp, (at,))
    assert torch.autograd.gradcheck(lambda v: so3_log(so3_exp(v)), (at,))


def test_gradient_of_log_near_half_a_turn() -> None:
    at = torch.tensor([0.0, math.pi - 1e-3, 0.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: so3_log(so3_exp(v)), (at,))


def test_float32_keeps_tiny_angles() -> None:
    # acos of the trace returns 0 below 0.01 degrees in float32
    angle = math.radians(0.003)
    R = so3_exp(torch.tensor([0.0, angle, 0.0]))
    assert float(rotation_angle(R)) == pytest.approx(angle, rel=1e-3)
    assert float(so3_log(R)[1]) == pytest.approx(angle, rel=1e-3)


def test_golden(shared: Callable[[str], Path]) -> None:
    golden = np.load(shared("golden/pixloc/pose.npz"))
    assert np.allclose(so3_exp(torch.from_numpy(golden["aa"])), golden["so3exp"], atol=1e-12)
    single = so3_exp(torch.from_numpy(golden["aa"]).float())
    assert np.allclose(single, golden["so3exp_f32"], atol=1e-6)
    assert np.allclose(skew(torch.from_numpy(golden["t"])), golden["skew"], atol=0)
    for name in ("zero", "small", "reg"):
        at = torch.from_numpy(golden[f"so3exp_jac_in_{name}"])
        # below 1e-7 the published exponential drops the second order, 1e-9 in the derivative at 'small'
        assert np.allclose(torch.autograd.functional.jacobian(so3_exp, at), golden[f"so3exp_jac_{name}"], atol=2e-9)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batches(batch: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> None:
    w = torch.randn(*batch, 3, dtype=dtype, generator=generator)
    R = so3_exp(w)
    assert R.shape == (*batch, 3, 3) and R.dtype == dtype
    assert so3_log(R).shape == w.shape and rotation_angle(R).shape == batch
    assert quaternion_from_matrix(R).shape == (*batch, 4)
    assert (closest_rotation(R + 1e-3 * skew(w) @ R) - R).abs().max() < 1e-2


def test_closest_rotation_is_proper(generator: torch.Generator) -> None:
    M = torch.randn(50, 3, 3, dtype=torch.float64, generator=generator)
    R = closest_rotation(M)
    assert np.allclose(torch.linalg.det(R), 1) and np.allclose(R @ R.mT, np.eye(3), atol=1e-12)
    near = (R - M).norm(dim=(-1, -2))
    for _ in range(20):  # no rotation nearby is closer
        other = so3_exp(0.1 * torch.randn(50, 3, dtype=torch.float64, generator=generator)) @ R
        assert bool(((other - M).norm(dim=(-1, -2)) >= near - 1e-12).all())


def test_zero_quaternion_is_nan_and_wrong_shapes_raise() -> None:
    assert torch.isnan(matrix_from_quaternion(torch.zeros(4))).any()
    for function, shape in ((so3_exp, (2,)), (skew, (4,)), (so3_log, (3, 2)), (matrix_from_quaternion, (3,))):
        with pytest.raises(ValueError, match="shape"):
            function(torch.zeros(shape))
