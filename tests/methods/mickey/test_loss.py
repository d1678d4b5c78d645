"""The losses of a pose equal the published ones, in value and gradient, and their options do what they say."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.methods.mickey.loss import (
    PoseLossConfig,
    hypothesis_loss,
    pose_loss,
    reprojection_shift,
    rotation_error,
    translation_error,
    vcre_loss,
)
from metriloc.solvers.vcre import virtual_points

RAW = PoseLossConfig(soft_clip=False, vcre_form="paper", clip_px=None)
PERFECT = 8  # of the golden poses: its VCRE gradient is amplified rounding (README)


@pytest.fixture(scope="module")
def golden(shared: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(shared("golden/mickey/losses.safetensors"))


def poses(golden: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> tuple[Pose, Pose]:
    R, t = golden["R"].to(dtype).requires_grad_(), golden["t"][:, 0].to(dtype).requires_grad_()
    return Pose(R, t), Pose(golden["Rgt"].to(dtype), golden["tgt"][:, 0].to(dtype))


def cameras(golden: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> tuple[Camera, Camera]:
    return Camera.from_K(golden["K0"].to(dtype), (540, 720)), Camera.from_K(golden["K1"].to(dtype), (540, 720))


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().abs().max() / expected.abs().max())


def random_poses(shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype = torch.float64) -> Pose:
    w, t = (torch.randn(*shape, 3, generator=generator, dtype=dtype) for _ in range(2))
    return Pose(so3_exp(0.2 * w), 0.2 * t)


def test_virtual_points(golden: dict[str, Tensor]) -> None:
    ours, theirs = ({tuple(p) for p in x.mul(100).round().int().tolist()} for x in (virtual_points(), golden["grid"]))
    assert ours == theirs and len(ours) == 196


@pytest.mark.parametrize("kind", ["vcre", "pose"])
@pytest.mark.parametrize("soft", [0, 1])
def test_golden_values_and_gradients(kind: str, soft: int, golden: dict[str, Tensor]) -> None:
    estimated, true = poses(golden)
    config = PoseLossConfig(kind=kind, soft_clip=bool(soft))  # type: ignore[arg-type]
    loss = hypothesis_loss(estimated, true, *cameras(golden), config)
    assert relative(loss, golden[f"{kind}.soft{soft}.loss"][:, 0]) < 1e-5
    g_R, g_t = torch.autograd.grad(loss.sum(), (estimated.R, estimated.t))
    good = torch.arange(48) != PERFECT
    expected_R, expected_t = golden[f"{kind}.soft{soft}.grad_R"], golden[f"{kind}.soft{soft}.grad_t"][:, 0]
    assert relative(g_t[good], expected_t[good]) < 5e-5
    if kind == "vcre":
        assert relative(g_R[good], expected_R[good]) < 5e-5
        return
    # d acos(c)/dc = 1 / sqrt(1 - c^2), 1 - c^2 ~ angle^2: two float32 roundings of c move it by 2e-7 / angle^2
    angle = rotation_error(estimated, true).detach()
    error = (g_R - expected_R).abs().amax((1, 2)) / expected_R.abs().amax((1, 2)).clamp(min=1e-12)
    assert bool((error <= 2e-5 + 2e-7 / angle.square()).all())
    assert bool((g_R[angle < math.radians(0.256)] == 0).all())  # clipped


def test_golden_parts(golden: dict[str, Tensor]) -> None:
    estimated, true = poses(golden)
    one_way = reprojection_shift(true.inverse() @ estimated, cameras(golden)[0], 720.0)
    assert relative(one_way, golden["vcre_oneway_px.dir0_K0"][:, 0]) < 1e-6
    assert relative(rotation_error(estimated, true), golden["vcre.rot_loss"][:, 0]) < 1e-5
    assert relative(translation_error(estimated, true), golden["vcre.trans_loss"][:, 0]) < 1e-6


def test_the_paper_form_is_equation_7(generator: torch.Generator) -> None:
    estimated, true = random_poses((), generator), random_poses((), generator)
    camera = Camera.from_fov((540, 720), 1.0).to(torch.float64)
    v = virtual_points(torch.float64)
    moved = (estimated @ true.inverse()).transform(v)
    before, after = ((x @ camera.K.T)[:, :2] / x[:, 2:] for x in (v, moved))
    expected = (before - after).norm(dim=-1).mean()
    assert float(vcre_loss(estimated, true, camera, camera, RAW)) == pytest.approx(float(expected), rel=1e-7)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_batch_shapes_and_broadcasting(shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> None:
    estimated, true = random_poses((*shape, 4), generator, dtype), random_poses(shape, generator, dtype)
    one = Camera.from_fov((540, 720), 1.0).to(dtype)
    batched = Camera(*(x.expand(*shape, 2) for x in (one.size, one.f, one.c)))
    spread = true[(..., None)] if shape else true
    for config in (PoseLossConfig(), PoseLossConfig(kind="pose"), PoseLossConfig(vcre_form="paper", clip_px=None)):
        camera = batched[(..., None)] if shape else one
        found = hypothesis_loss(estimated, spread, camera, camera, config)
        assert found.shape == (*shape, 4) and found.dtype == dtype
        places = list(itertools.product(*(range(n) for n in shape)))
        alone = [
            hypothesis_loss(estimated[(*place, k)], true[place], one, one, config) for place in places for k in range(4)
        ]
        assert torch.allclose(found.flatten(), torch.stack(alone), rtol=1e-5)


@pytest.mark.parametrize(
    "config",
    [PoseLossConfig(), PoseLossConfig(kind="pose"), RAW],
)
def test_gradcheck(config: PoseLossConfig, generator: torch.Generator) -> None:
    true = random_poses((2,), generator)
    camera = Camera.from_fov((540, 720), 1.0).to(torch.float64)
    delta = (0.1 * torch.randn(2, 6, generator=generator, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(
        lambda d: hypothesis_loss(Pose.from_tangent(d) @ true, true, camera, camera, config), (delta,)
    )


@pytest.mark.parametrize("kind", ["vcre", "pose"])
def test_a_perfect_pose_has_a_small_loss_and_a_finite_gradient(kind: str, generator: torch.Generator) -> None:
    true = random_poses((3,), generator)
    camera = Camera.from_fov((540, 720), 1.0).to(torch.float64)
    delta = torch.zeros(3, 6, dtype=torch.float64, requires_grad=True)
    config = PoseLossConfig(kind=kind)  # type: ignore[arg-type]
    loss = hypothesis_loss(Pose.from_tangent(delta) @ true, true, camera, camera, config)
    loss.sum().backward()
    assert float(loss.detach().max()) < 0.006
    assert delta.grad is not None and bool(torch.isfinite(delta.grad).all())


def test_points_at_depth_zero_and_behind_have_finite_losses() -> None:
    camera = Camera.from_fov((540, 720), 1.0)
    true = Pose.identity((3,))
    t = torch.tensor([[0.0, 0, -1.8], [0, 0, -2.7], [0, 0, -50]], requires_grad=True)  # points on, across, behind
    loss = vcre_loss(Pose(true.R, t), true, camera, camera)
    loss.sum().backward()
    assert t.grad is not None and bool(torch.isfinite(t.grad).all()) and bool(torch.isfinite(loss).all())
    assert bool((loss > 0.5).all()) and bool((loss <= 1).all())


def test_what_a_useless_pose_costs() -> None:
    assert PoseLossConfig().worst == 0.8 and 80 * math.atanh(0.8) == pytest.approx(87.9, abs=0.05)
    assert PoseLossConfig(soft_clip=False).worst == 90 and PoseLossConfig(kind="pose", soft_clip=False).worst == 1.5
    assert PoseLossConfig(max_loss=120).worst == 120


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "reprojection"}, "kind must be one of vcre, pose, got 'reprojection'"),
        ({"vcre_form": "both"}, "vcre_form must be one of"),
        ({"clip_px": 0.0}, "clip_px must be positive, got 0.0"),
        ({"max_loss": -1.0}, "max_loss must be positive"),
    ],
)
def test_wrong_settings_raise(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PoseLossConfig(**change)  # type: ignore[arg-type]


def test_pose_loss_without_settings_is_soft(generator: torch.Generator) -> None:
    estimated, true = random_poses((5,), generator), random_poses((5,), generator)
    assert torch.equal(pose_loss(estimated, true), pose_loss(estimated, true, PoseLossConfig(kind="pose")))
