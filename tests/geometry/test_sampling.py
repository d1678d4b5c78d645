"""Lookups in maps: golden values and derivatives, a naive twin, batches, and depth maps of any resolution."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from metriloc.geometry import J_normalize, sample, sample_depth

MODES: tuple[Literal["linear", "cubic"], ...] = ("linear", "cubic")


@pytest.fixture(scope="module")
def golden(shared: Callable[[str], Path]) -> Any:
    return np.load(shared("golden/pixloc/interpolation.npz"))


@pytest.mark.parametrize("mode", MODES)
def test_golden(mode: Literal["linear", "cubic"], golden: Any) -> None:
    fmap, uv = torch.from_numpy(golden["fmap"]), torch.from_numpy(golden["pts"])
    for pad in (1, 2, 4):
        found = sample(fmap, uv, mode, pad, gradients=True)
        assert np.array_equal(found.valid, golden[f"{mode}/mask_pad{pad}"])
    assert np.allclose(found.values, golden[f"{mode}/values"], atol=1e-9)
    assert np.allclose(found.gradients, golden[f"{mode}/grads"], atol=1e-9)
    single = sample(fmap.float(), uv.float(), mode, gradients=True)
    assert np.allclose(single.values, golden[f"{mode}/values_f32"], atol=1e-4)
    assert np.allclose(single.gradients, golden[f"{mode}/grads_f32"], atol=1e-4)
    assert sample(fmap, uv, mode).gradients.eq(0).all()


def test_golden_batch_and_derivatives(golden: Any) -> None:
    fmap, uv = torch.from_numpy(golden["batched/fmap"]), torch.from_numpy(golden["batched/pts"])
    found = sample(fmap, uv, pad=2, gradients=True)
    assert np.allclose(found.values, golden["batched/values"], atol=1e-9)
    assert np.array_equal(found.valid, golden["batched/mask"])
    assert np.allclose(found.gradients, golden["batched/grads"], atol=1e-9)
    fmap = torch.from_numpy(golden["fmap"]).requires_grad_()
    uv = torch.from_numpy(golden["pts"]).requires_grad_()
    found = sample(fmap, uv, gradients=True)
    cv, cg = torch.from_numpy(golden["autograd/cv"]), torch.from_numpy(golden["autograd/cg"])
    ((found.values * cv).sum() + (found.gradients * cg).sum()).backward()
    assert np.allclose(fmap.grad, golden["autograd/d_fmap"], atol=1e-9)
    assert np.allclose(uv.grad, golden["autograd/d_pts"], atol=1e-9)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_batches_equal_one_by_one(
    mode: Literal["linear", "cubic"], batch: tuple[int, ...], generator: torch.Generator
) -> None:
    fmap = torch.randn(*batch, 3, 9, 11, dtype=torch.float64, generator=generator)
    uv = 12 * torch.rand(*batch, 6, 2, dtype=torch.float64, generator=generator) - 1
    found = sample(fmap, uv, mode, gradients=True)
    assert found.values.shape == (*batch, 6, 3) and found.gradients.shape == (*batch, 6, 3, 2)
    for m, p, v, g in zip(
        fmap.reshape(-1, 3, 9, 11),
        uv.reshape(-1, 6, 2),
        found.values.reshape(-1, 6, 3),
        found.gradients.reshape(-1, 6, 3, 2),
        strict=True,
    ):
        alone = sample(m, p, mode, gradients=True)
        assert torch.allclose(alone.values, v) and torch.allclose(alone.gradients, g)


@pytest.mark.parametrize("mode", MODES)
def test_no_points_give_no_values(mode: Literal["linear", "cubic"]) -> None:
    for batch in ((), (2,), (0,)):
        found = sample(torch.zeros(*batch, 3, 8, 9), torch.zeros(*batch, 0, 2), mode, gradients=True)
        assert found.values.shape == (*batch, 0, 3) and found.gradients.shape == (*batch, 0, 3, 2)
        assert found.valid.shape == (*batch, 0)


def test_cubic_gradient_is_the_derivative_and_pixels_are_met(generator: torch.Generator) -> None:
    fmap = torch.randn(2, 8, 8, dtype=torch.float64, generator=generator)
    uv = 2 + 3 * torch.rand(5, 2, dtype=torch.float64, generator=generator)
    found = sample(fmap, uv, "cubic", gradients=True)
    numeric = torch.stack(
        [torch.autograd.functional.jacobian(lambda p: sample(fmap, p[None], "cubic").values[0], p) for p in uv]
    )
    assert torch.allclose(found.gradients, numeric, atol=1e-9)
    for mode in MODES:
        at = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
        assert torch.allclose(sample(fmap, at, mode).values[0], fmap[:, 4, 3])


def test_points_that_are_nowhere_are_not_valid() -> None:
    fmap = torch.ones(1, 5, 5)
    uv = torch.tensor([[math.nan, 1.0], [math.inf, 1.0], [-1e30, 2.0], [2.0, 2.0]])
    for mode in MODES:
        assert sample(fmap, uv, mode, pad=0).valid.tolist() == [False, False, False, True]


def test_normalization_jacobian(shared: Callable[[str], Path]) -> None:
    pose = np.load(shared("golden/pixloc/pose.npz"))
    assert np.allclose(J_normalize(torch.from_numpy(pose["jnorm_x"])), pose["jnorm_J"], atol=1e-12)


def plane(width: int, height: int, image: tuple[int, int]) -> Tensor:
    """Depth that is linear in the pixels of an image, on a grid of any resolution over the same field of view."""
    x = (torch.arange(width, dtype=torch.float64) + 0.5) * image[0] / width - 0.5
    y = (torch.arange(height, dtype=torch.float64) + 0.5) * image[1] / height - 0.5
    return 2 + 0.001 * x[None, :] + 0.002 * y[:, None]


@pytest.mark.parametrize("size", [(64, 48), (32, 24), (128, 96), (50, 37)])
def test_depth_of_any_resolution_follows_the_half_pixel_rule(size: tuple[int, int]) -> None:
    image = (64, 48)
    uv = torch.tensor([[10.3, 20.7], [5.0, 5.0], [50.2, 40.9]], dtype=torch.float64)
    value, valid = sample_depth(plane(*size, image), uv, image)
    assert bool(valid.all())
    assert torch.allclose(value, 2 + 0.001 * uv[:, 0] + 0.002 * uv[:, 1], atol=1e-9)


def test_depth_at_holes_and_edges_takes_the_nearest_cell() -> None:
    depth = torch.tensor([[1.0, 1.0, 3.0], [1.0, 0.0, 3.0], [math.nan, 1.0, 3.0]])
    uv = torch.tensor([[1.4, 0.0], [1.6, 0.0], [0.4, 0.4], [1.0, 1.0], [0.1, 1.9], [0.5, 0.0], [2.6, 0.0], [0.0, -0.6]])
    value, valid = sample_depth(depth, uv, (3, 3))
    assert valid.tolist() == [True, True, True, False, False, True, False, False]
    assert value.tolist() == [1.0, 3.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0]


def test_wrong_use_raises() -> None:
    with pytest.raises(ValueError, match="fmap"):
        sample(torch.zeros(5, 5), torch.zeros(1, 2))
    with pytest.raises(ValueError, match="mode"):
        sample(torch.zeros(1, 5, 5), torch.zeros(1, 2), "nearest")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="depth"):
        sample_depth(torch.zeros(1, 5, 5), torch.zeros(1, 2), (5, 5))
