"""The one VCRE: golden points, a naive twin in both of its uses, clipping, depth zero,
gradients."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.solvers.vcre import virtual_points, virtual_shift


def motion(*batch: int, scale: float = 0.3) -> Pose:
    w, t = torch.randn(2, *batch, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return Pose(so3_exp(scale * w), scale * t)


def camera(dtype: torch.dtype = torch.float64) -> Camera:
    return Camera.from_colmap("PINHOLE", 540, 720, [590.0, 600.0, 270.0, 361.0]).to(dtype)


def test_points_equal_the_golden_ones_in_order(shared: Callable[[str], Path]) -> None:
    golden = np.load(shared("golden/bench/unit/vcre_grid.npy"))
    np.testing.assert_allclose(virtual_points().numpy(), golden[:, :3], atol=1e-12)


def naive(pose: Pose, cam: Camera, clip: tuple[float, float] | None, smoothing: float) -> float:
    total = 0.0
    for i in range(7):
        for j in range(4):
            for k in range(7):
                point = np.array([0.3 * (i - 3), 0.3 * (j - 1.5), 1.8 + 0.3 * k])
                pixels = []
                for x, y, z in (point, pose.R.numpy() @ point + pose.t.numpy()):
                    uv = [590.0 * x / z + 269.5, 600.0 * y / z + 360.5]
                    pixels.append(uv if clip is None else [min(max(v, 0), c) for v, c in zip(uv, clip, strict=True)])
                total += math.sqrt(sum((a - b) ** 2 for a, b in zip(*pixels, strict=True)) + smoothing)
    return total / 196


@pytest.mark.parametrize("smoothing", [0.0, 1e-6, 4.0])
@pytest.mark.parametrize("clip", [None, 720.0, (540.0, 720.0)])
@pytest.mark.parametrize("scale", [0.02, 0.3, 2.0])
def test_equals_a_naive_twin(scale: float, clip: float | tuple[float, float] | None, smoothing: float) -> None:
    poses = motion(3, scale=scale)
    limit = torch.tensor(clip, dtype=torch.float64) if isinstance(clip, tuple) else clip
    found = virtual_shift(poses, camera(), limit, smoothing=smoothing)
    corners = (clip, clip) if isinstance(clip, float) else clip
    for i in range(3):
        assert float(found[i]) == pytest.approx(naive(poses[i], camera(), corners, smoothing), rel=1e-10)


def test_batches_broadcast_and_the_type_stays() -> None:
    cameras = torch.stack([camera(torch.float32)] * 2)
    size = torch.tensor([[540.0, 720.0], [54.0, 72.0]])
    poses = motion(2).float()
    found = virtual_shift(poses, cameras, size)
    assert found.shape == (2,) and found.dtype == torch.float32
    assert float(found[0]) == float(virtual_shift(poses[0], cameras[0], size[0])) and float(found[1]) <= math.hypot(
        54, 72
    )
    assert virtual_shift(poses[:, None], cameras[0], 720.0).shape == (2, 1)


def test_depth_zero() -> None:
    """A point that lands in the camera's center is NaN for the benchmark, and costs at most the
    clip in training."""
    # the point (0, -0.45, 1.8) moves into the center
    pose = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([0.0, 0.45, -1.8], dtype=torch.float64))
    assert math.isnan(float(virtual_shift(pose, camera(), 720.0)))
    guarded = virtual_shift(pose, camera(), 720.0, min_abs_depth=1e-8)
    assert 0 < float(guarded) < math.hypot(720, 720)


def test_gradients_at_a_perfect_pose_and_elsewhere() -> None:
    w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    t = torch.zeros(3, dtype=torch.float64, requires_grad=True)

    def loss(w: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return virtual_shift(Pose(so3_exp(w), t), camera(), None, smoothing=1e-2, min_abs_depth=1e-8)

    assert torch.autograd.gradcheck(loss, (w, t))
    assert torch.autograd.gradcheck(loss, ((w + 0.1).detach().requires_grad_(), (t - 0.2).detach().requires_grad_()))
    virtual_shift(Pose(so3_exp(w), t), camera(), 720.0).backward()  # without smoothing it has a kink there
    assert w.grad is not None and t.grad is not None
    assert bool(torch.isfinite(w.grad).all()) and bool(torch.isfinite(t.grad).all())
