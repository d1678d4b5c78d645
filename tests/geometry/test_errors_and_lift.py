"""The one rotation error, the one position error and the one lift: values by a naive twin,
gradients where it is hard."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose, so3_exp

AXIS = torch.tensor([0.6, -0.64, 0.48], dtype=torch.float64)


def turned(angle: float, seed: int = 0) -> tuple[Pose, Pose]:
    """Two poses whose rotations are ``angle`` apart."""
    w, t = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    pose = Pose.from_aa(w, t)
    return Pose.from_aa(angle * AXIS, AXIS) @ pose, pose


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1e-4, 0.3, 3.0, math.pi - 1e-7, math.pi])
def test_angle_to(angle: float) -> None:
    a, b = turned(angle)
    assert float(a.angle_to(b)) == pytest.approx(angle, abs=1e-12 + 1e-9 * (angle > 3.1)) == float(b.angle_to(a))


def test_errors_equal_a_naive_twin() -> None:
    w, t = torch.randn(2, 2, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    a, b = Pose.from_aa(w[0], t[0]), Pose.from_aa(w[1], t[1])
    angles, distances = a.angle_to(b), a.center_distance(b)
    assert angles.shape == distances.shape == (5,)
    for i in range(5):
        relative = a.R[i].numpy() @ b.R[i].numpy().T
        assert float(angles[i]) == pytest.approx(math.acos((np.trace(relative) - 1) / 2), abs=1e-9)
        centers = [-p.R[i].numpy().T @ p.t[i].numpy() for p in (a, b)]
        assert float(distances[i]) == pytest.approx(np.linalg.norm(centers[0] - centers[1]), abs=1e-12)
    assert torch.equal(a.angle_to(b[0])[:1], angles[:1])  # batches broadcast


@pytest.mark.parametrize("angle", [0.0, 1e-3, 1.0, 3.1])
def test_gradients_of_the_errors(angle: float) -> None:
    """At equal poses, too, where neither is smooth: the gradient of both is 0 there, as the
    symmetric difference is."""
    w = (angle * AXIS).clone().requires_grad_()
    t = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    other = Pose.identity(dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: Pose.from_aa(a, b).angle_to(other), (w, t))
    assert torch.autograd.gradcheck(lambda a, b: Pose.from_aa(a, b).center_distance(other), (w, t))


@pytest.mark.parametrize("angle", [0.0, 1e-20, 1e-12, math.pi])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_everywhere(angle: float, dtype: torch.dtype) -> None:
    w, t = (angle * AXIS).to(dtype).requires_grad_(), (angle * AXIS).to(dtype).requires_grad_()
    pose, other = Pose(so3_exp(w), t), Pose.identity(dtype=dtype)
    (pose.angle_to(other) + pose.center_distance(other)).backward()
    assert bool(torch.isfinite(w.grad).all()) and bool(torch.isfinite(t.grad).all())  # type: ignore[arg-type]


CAMERAS = {
    "pinhole": ("PINHOLE", [500.0, 510.0, 320.5, 240.25]),
    "radtan": ("OPENCV", [500.0, 510.0, 320.5, 240.25, -0.1, 0.01, 0.002, -0.003]),
    "fisheye": ("OPENCV_FISHEYE", [300.0, 310.0, 320.5, 240.25, 0.02, -0.01, 0.004, -0.001]),
}


@pytest.mark.parametrize("name", CAMERAS)
def test_lift_undoes_projection_and_has_its_gradient(name: str) -> None:
    model, params = CAMERAS[name]
    camera = Camera.from_colmap(model, 640, 480, params)
    xyz = torch.tensor([[0.0, 0.0, 2.0], [0.5, -0.3, 2.5], [-0.2, 0.1, 1.0]], dtype=torch.float64)
    uv, seen = camera.project(xyz)
    assert bool(seen.all())
    assert torch.allclose(camera.lift(uv, xyz[:, 2]), xyz, atol=1e-9)
    assert torch.allclose(camera.lift(uv, -xyz[:, 2]), -xyz, atol=1e-9)  # the sign of the depth is kept
    # the principal point itself, where the fisheye divides by the radius
    uv = torch.cat([camera.c[None], uv]).detach().requires_grad_()
    depth = torch.tensor([0.0, 2.0, -1.0, 3.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(camera.lift, (uv, depth), atol=1e-6)


def test_lift_is_nan_where_the_distortion_has_no_inverse_and_gradients_stay_finite() -> None:
    camera = Camera.from_colmap("RADIAL", 640, 480, [300.0, 320.0, 240.0, -0.2, 0.0])
    uv = torch.tensor([[319.5, 239.5], [319.5 + 0.87 * 300, 239.5]], dtype=torch.float64, requires_grad=True)
    depth = torch.tensor([2.0, 2.0], dtype=torch.float64, requires_grad=True)
    xyz = camera.lift(uv, depth)
    assert torch.isnan(xyz).all(-1).tolist() == [False, True]
    xyz.nan_to_num().sum().backward()
    assert bool(torch.isfinite(uv.grad).all()) and bool(torch.isfinite(depth.grad).all())  # type: ignore[arg-type]
    assert depth.grad is not None and float(depth.grad[1]) == 0
    assert bool(torch.isnan(camera.lift(uv.detach(), torch.tensor([torch.nan, 1.0]))).all())
