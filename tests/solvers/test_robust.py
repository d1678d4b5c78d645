"""Robust losses against PixLoc's golden values, finite differences and each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metriloc.solvers.robust import barron, cauchy, huber, scaled, scaled_barron, squared

ALPHAS = [-2.0, -1.0, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0]
LOSSES = {
    "squared": squared,
    "huber": huber,
    "cauchy": cauchy,
    **{f"barron {a}": (lambda x, a=a: barron(x, a)) for a in ALPHAS},
    "scaled huber": lambda x: scaled(x, huber, 0.3),
    "scaled barron": lambda x: scaled_barron(x, -2.0, 0.3),
}


def test_golden_values_and_weights(shared):
    golden = np.load(shared("golden/pixloc/losses.npz"))
    x = torch.from_numpy(golden["x"])
    cases = {"squared": squared(x), "huber": huber(x)}
    cases |= {f"barron_{a}": barron(x, a) for a in ALPHAS}
    cases |= {f"scaled_huber_{s}": scaled(x, huber, s) for s in (0.1, 1.0, 3.0)}
    for name in ("0_0.1", "0_1.0", "1.0_2.0", "-2.0_0.3", "2.0_0.7"):
        alpha, scale = (float(v) for v in name.split("_"))
        cases[f"scaled_barron_{name}"] = scaled_barron(x, alpha, scale)
        cases[f"scaled_barron_f32_{name}"] = scaled_barron(x.float(), alpha, scale)
    for name, loss in cases.items():
        single = "f32" in name
        tolerance = {"rtol": 1e-4, "atol": 1e-6} if single else {"rtol": 1e-9, "atol": 1e-12}
        torch.testing.assert_close(loss.value, torch.from_numpy(golden[f"{name}/loss"]), **tolerance, msg=name)
        torch.testing.assert_close(loss.weight, torch.from_numpy(golden[f"{name}/d1"]), **tolerance, msg=name)
        if "barron" not in name:  # the golden data has no second derivative for Barron's family (zeros)
            torch.testing.assert_close(loss.curvature, torch.from_numpy(golden[f"{name}/d2"]), **tolerance, msg=name)


@pytest.mark.parametrize("name", LOSSES)
def test_weight_and_curvature_are_the_derivatives(name):
    x = torch.tensor([[1e-3, 0.2, 0.8], [1.3, 7.0, 300.0]], dtype=torch.float64)
    loss, step = LOSSES[name], 1e-6 * (1 + x)
    upper, lower = loss(x + step), loss(x - step)
    value, weight, curvature = loss(x)
    assert value.shape == weight.shape == curvature.shape == x.shape
    torch.testing.assert_close((upper.value - lower.value) / (2 * step), weight, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close((upper.weight - lower.weight) / (2 * step), curvature, rtol=1e-5, atol=1e-8)
    assert (weight >= 0).all()


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_also_at_zero(name):
    x = torch.tensor([0.0, 0.5, 4.0], dtype=torch.float64, requires_grad=True)
    value = LOSSES[name](x).value
    (gradient,) = torch.autograd.grad(value.sum(), x)
    torch.testing.assert_close(gradient, LOSSES[name](x.detach()).weight)
    assert float(value.detach()[0]) == 0


def test_barron_knows_its_relatives():
    x = torch.linspace(0, 50, 101, dtype=torch.float64)
    torch.testing.assert_close(barron(x, 0.0).value, 2 * cauchy(x / 2).value)
    torch.testing.assert_close(barron(x, 1.0).value, 2 * ((x + 1).sqrt() - 1))  # pseudo-Huber
    torch.testing.assert_close(barron(x, -2.0).value, 4 * x / (x + 4))  # Geman-McClure
    torch.testing.assert_close(scaled_barron(x, 0.0, 0.1).weight, 1 / (1 + 50 * x))  # PixLoc's weight, spec section 4
    torch.testing.assert_close(barron(x, 1e-9).value, barron(x, 0.0).value, rtol=1e-5, atol=1e-6)


def test_huge_residuals_stay_finite():
    x = torch.tensor([1e38], dtype=torch.float32)
    for loss in (huber, cauchy, lambda v: barron(v, 0.0), lambda v: scaled(v, huber, 3.0)):
        assert all(bool(torch.isfinite(part).all()) for part in loss(x))


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
def test_a_scale_must_be_positive(scale):
    with pytest.raises(ValueError, match="positive, got"):
        scaled(torch.ones(2), huber, scale)
