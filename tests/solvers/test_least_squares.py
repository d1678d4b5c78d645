"""The damped step against golden data, a plain solve, gradients, and elements that cannot be solved."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metriloc.solvers.least_squares import damped_step


def system(shape: tuple[int, ...], n: int = 4, seed: int = 0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    J = torch.randn(*shape, 9, n, generator=generator, dtype=torch.float64)
    r = torch.randn(*shape, 9, generator=generator, dtype=torch.float64)
    return (J.mT @ J).to(dtype), (J.mT @ r[..., None]).squeeze(-1).to(dtype)


def test_golden(shared):
    golden = {k: torch.from_numpy(v) for k, v in np.load(shared("golden/pixloc/pose.npz")).items() if "step" in k}
    H, g = golden["step_H"], golden["step_g"]
    by_element = torch.tensor([[1e-4], [1e-2], [1.0], [1.0]], dtype=torch.float64)
    for name, damping, mask in (
        ("step_gn", 0.0, None),
        ("step_lm_scalar", 0.01, None),
        ("step_lm_batch", by_element, None),
        ("step_lm_vec", golden["step_lambda6"], golden["step_mask"]),
    ):
        step = damped_step(H, g, damping, mask)
        torch.testing.assert_close(step.delta, golden[name], rtol=1e-9, atol=1e-12)
        assert step.ok.all()


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_a_plain_solve(shape, dtype):
    H, g = system(shape, dtype=dtype)
    step = damped_step(H, g, 0.3)
    expected = -torch.linalg.solve(H + 0.3 * torch.diag_embed(H.diagonal(dim1=-2, dim2=-1)), g)
    assert step.delta.shape == (*shape, 4) and step.ok.shape == shape and step.ok.all()
    torch.testing.assert_close(step.delta, expected, rtol=1e-4 if dtype == torch.float32 else 1e-10, atol=1e-6)


def test_damping_a_number_an_element_or_a_parameter():
    H, g = system((2,))
    by_element = damped_step(H, g, torch.tensor([[0.1], [2.0]], dtype=torch.float64)).delta
    torch.testing.assert_close(by_element[1], damped_step(H[1], g[1], 2.0).delta)
    by_parameter = damped_step(H, g, torch.tensor([0.1, 0.1, 0.1, 1e9], dtype=torch.float64)).delta
    assert by_parameter[:, 3].abs().max() < 1e-8 < by_parameter[:, :3].abs().min()


def test_a_failing_element_leaves_the_others_alone():
    H, g = system((4,))
    H[1] = torch.diag(torch.tensor([1.0, 1.0, 1.0, -1.0]))
    H[2, 0, 0] = torch.nan
    g[3, 1] = torch.inf
    step = damped_step(H, g)
    assert step.ok.tolist() == [True, False, False, False]
    assert (step.delta[1:] == 0).all()
    torch.testing.assert_close(step.delta[0], damped_step(H[0], g[0]).delta)
    masked = damped_step(H, g, mask=torch.tensor([True, False, False, False]))
    assert masked.ok.all() and (masked.delta[1:] == 0).all()


def test_no_information_gives_no_step():
    step = damped_step(torch.zeros(6, 6), torch.zeros(6))
    assert bool(step.ok) and (step.delta == 0).all()


def test_gradients_also_beside_a_failing_element():
    H, g = system((2,), n=3)
    H, g = H.requires_grad_(), g.requires_grad_()
    damping = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64, requires_grad=True)

    def delta(H, g, damping):
        return damped_step(0.5 * (H + H.mT), g, damping).delta

    assert torch.autograd.gradcheck(delta, (H, g, damping))
    bad = H.detach().clone()
    bad[1] = -torch.eye(3)
    bad.requires_grad_()
    gradient = torch.autograd.grad(damped_step(bad, g, damping).delta.sum(), (bad, g, damping))
    assert all(bool(torch.isfinite(part).all()) for part in gradient)
    assert (gradient[0][1] == 0).all() and (gradient[0][0] != 0).any()


def test_wrong_shapes_are_named():
    H, g = system((2,))
    with pytest.raises(ValueError, match=r"H must have shape .*\[2, 4, 4\] and \[2, 3\]"):
        damped_step(H, g[..., :3])
    with pytest.raises(ValueError, match=r"damping .* \[2, 4\], got \[3, 1, 1\]"):
        damped_step(H, g, torch.ones(3, 1, 1, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"mask must have shape \[2\]"):
        damped_step(H, g, mask=torch.ones(3, dtype=torch.bool))
