"""Pose: golden values, group axioms, Jacobian, shapes."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from metriloc.geometry import J_transform, Pose, so3_exp


def random_pose(seed: int, batch: tuple[int, ...] = (), scale: float = 1.0) -> Pose:
    generator = torch.Generator().manual_seed(seed)
    w, t = torch.randn(2, *batch, 3, dtype=torch.float64, generator=generator)
    return Pose(so3_exp(scale * w), t)


def close(a: Pose, b: Pose) -> bool:
    return bool(torch.allclose(a.R, b.R, atol=1e-12) and torch.allclose(a.t, b.t, atol=1e-12))


def from_data(data: np.ndarray) -> Pose:
    values = torch.from_numpy(data)
    return Pose(values[..., :9].unflatten(-1, (3, 3)), values[..., 9:])


def test_golden(shared: Callable[[str], Path]) -> None:
    golden = np.load(shared("golden/pixloc/pose.npz"))
    pose = Pose(so3_exp(torch.from_numpy(golden["aa"])), torch.from_numpy(golden["t"]))
    assert close(pose, from_data(golden["pose_data"]))
    assert close(pose.inverse(), from_data(golden["pose_inv"]))
    assert close(pose @ from_data(golden["pose2_data"]), from_data(golden["pose_compose"]))
    xyz = pose.transform(torch.from_numpy(golden["p3d"]))
    assert np.allclose(xyz, golden["transform"], atol=1e-12)
    assert np.allclose(J_transform(xyz), golden["J_transform"], atol=1e-12)
    assert np.allclose(pose.distance(), golden["mag_dt"], atol=1e-12)
    # the published angle is an acos, good to 1e-6 degrees; ours is exact
    assert np.allclose(torch.rad2deg(pose.angle()), golden["mag_dr_deg"], atol=2e-6)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 1e-9, 1e-3, 1.0, 10.0]))
@settings(max_examples=60, deadline=None)
def test_group_axioms(seed: int, scale: float) -> None:
    a, b, c = (random_pose(seed + i, scale=scale) for i in range(3))
    identity = Pose.identity(dtype=torch.float64)
    assert close((a @ b) @ c, a @ (b @ c))
    assert close(a @ identity, a) and close(identity @ a, a)
    assert close(a @ a.inverse(), identity) and close(a.inverse() @ a, identity)
    xyz = torch.randn(5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    assert torch.allclose((a @ b).transform(xyz), a.transform(b.transform(xyz)), atol=1e-10)


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_forms_and_batches(batch: tuple[int, ...]) -> None:
    pose = random_pose(1, batch)
    assert pose.shape == torch.Size(batch) and pose.angle().shape == batch and pose.distance().shape == batch
    assert close(Pose.from_matrix(pose.matrix()), pose)
    assert close(Pose.from_quaternion(pose.quaternion(), pose.t), pose)
    origin = pose.transform(pose.center()[..., None, :])
    assert origin.abs().max() < 1e-12
    assert close(Pose.stack([pose, pose])[1], pose)
    assert pose.to(torch.float32).dtype == torch.float32
    assert Pose.identity(batch).transform(torch.ones(*batch, 4, 3)).eq(1).all()
    if batch == (2, 3):
        assert pose[0].shape == (3,) and pose[0, 1].shape == () and pose[:, 1:].shape == (2, 2)


def test_jacobian_is_the_derivative_of_the_left_update() -> None:
    pose = random_pose(3)
    xyz = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def moved(delta: Tensor) -> Tensor:
        return (Pose.from_tangent(delta) @ pose).transform(xyz)

    numeric = torch.autograd.functional.jacobian(moved, torch.zeros(6, dtype=torch.float64))
    assert torch.allclose(J_transform(pose.transform(xyz)), numeric, atol=1e-12)


def test_is_finite_by_element() -> None:
    pose = random_pose(0, (3,))
    t = pose.t.clone()
    t[1, 0] = math.nan
    assert Pose(pose.R, t).is_finite().tolist() == [True, False, True]


def test_wrong_shapes_raise() -> None:
    with pytest.raises(ValueError, match="Pose needs"):
        Pose(torch.eye(3)[:2], torch.zeros(3))
    with pytest.raises(ValueError, match="Pose needs"):
        Pose(torch.eye(3).expand(2, 3, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="xyz"):
        Pose.identity().transform(torch.zeros(3))
    with pytest.raises(ValueError, match="delta"):
        Pose.from_tangent(torch.zeros(5))
