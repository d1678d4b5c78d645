"""Kabsch against the published one, scipy, and its promises on degenerate input."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from torch import Tensor

from metriloc.geometry import Pose, so3_exp
from metriloc.solvers.procrustes import kabsch


@pytest.fixture(scope="module")
def golden(shared: Callable[[str], Path]) -> dict[str, Tensor]:
    return load_file(shared("golden/mickey/kabsch.safetensors"))


@pytest.mark.parametrize(
    ("case", "tolerance"),
    [
        *[("exact3", 1e-3), ("noisy3", 1e-3), ("random3", 1e-3), ("noisy8", 1e-5)],
        *[("mirror8", 1e-4), ("mask256", 1e-5), ("softw256", 1e-5), ("zeromask256", 1e-6)],
    ],
)
def test_golden(case: str, tolerance: float, golden: dict[str, Tensor]) -> None:
    fit = kabsch(golden[f"{case}.A"], golden[f"{case}.B"], golden.get(f"{case}.w"))
    assert (fit.pose.R - golden[f"{case}.R"]).abs().max() < tolerance
    assert (fit.pose.t - golden[f"{case}.t"][:, 0]).abs().max() < tolerance
    assert bool((torch.linalg.det(fit.pose.R) - 1).abs().max() < 1e-5)
    assert bool(fit.rank_ok.all()) == (case != "zeromask256")


@pytest.mark.parametrize("case", ["collinear3", "coincident3", "zeromask256"])
def test_degenerate_golden(case: str, golden: dict[str, Tensor]) -> None:
    fit = kabsch(golden[f"{case}.A"], golden[f"{case}.B"], golden.get(f"{case}.w"))
    assert not bool(fit.rank_ok.any())
    assert bool(fit.pose.is_finite().all())
    identity = fit.pose.R @ fit.pose.R.mT
    assert (identity - torch.eye(3)).abs().max() < 1e-5


@pytest.mark.parametrize("N", [3, 8, 50])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "case", ["points up to rounding", "one point against many", "line against many", "lines", "small lines far away"]
)
def test_points_that_fix_no_rotation_up_to_rounding(
    case: str, dtype: torch.dtype, N: int, generator: torch.Generator
) -> None:
    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=dtype, generator=generator)

    def rounded(xyz: Tensor) -> Tensor:
        step = torch.randint(-1, 2, xyz.shape, generator=generator).to(dtype)
        return xyz * (1 + torch.finfo(dtype).eps * step)

    center = torch.tensor([0.3, -0.7, 4.3], dtype=dtype)
    point0, point1 = ((center + normal(500, 1, 3)).expand(-1, N, -1) for _ in range(2))
    many, along = center + normal(500, N, 3), normal(500, N, 1)
    line0, line1 = along * normal(500, 1, 3), along * normal(500, 1, 3)
    xyz0, xyz1 = {
        "points up to rounding": (rounded(point0), rounded(point1)),
        "one point against many": (point0, many),
        "line against many": (center + line0, many),
        "lines": (center + line0, center + line1),
        "small lines far away": (10 * center + 0.05 * line0, 10 * center + 0.05 * line1),
    }[case]
    fit = kabsch(xyz0, xyz1)
    assert not bool(fit.rank_ok.any())
    assert bool(fit.pose.is_finite().all())
    assert (torch.linalg.det(fit.pose.R) - 1).abs().max() < 1e-4
    # and points a centimetre apart at five metres do fix it
    cluster = center + 0.01 * normal(500, N, 3)
    assert float(kabsch(cluster, cluster).rank_ok.double().mean()) > 0.99


@pytest.mark.parametrize("N", [0, 1, 2])
def test_too_few_points(N: int, generator: torch.Generator) -> None:
    fit = kabsch(torch.randn(4, N, 3, generator=generator), torch.randn(4, N, 3, generator=generator))
    assert not bool(fit.rank_ok.any()) and bool(fit.pose.is_finite().all())


def test_golden_gradients(golden: dict[str, Tensor]) -> None:
    A = golden["mask256.A"][:2].clone().requires_grad_()
    B = golden["mask256.B"][:2].clone().requires_grad_()
    fit = kabsch(A, B, golden["mask256.w"][:2])
    ((fit.pose.R * golden["grad.cR"]).sum() + (fit.pose.t * golden["grad.ct"][:, 0]).sum()).backward()
    for found, expected in ((A.grad, golden["grad.A"]), (B.grad, golden["grad.B"])):
        assert found is not None
        assert (found - expected).abs().max() < 1e-4 * expected.abs().max()


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_recovers_a_known_motion(batch: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator) -> None:
    pose = Pose(
        so3_exp(torch.randn(*batch, 3, dtype=dtype, generator=generator)),
        torch.randn(*batch, 3, dtype=dtype, generator=generator),
    )
    xyz = torch.randn(*batch, 12, 3, dtype=dtype, generator=generator)
    fit = kabsch(xyz, pose.transform(xyz), torch.rand(*batch, 12, dtype=dtype, generator=generator))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert (fit.pose.R - pose.R).abs().max() < tolerance and (fit.pose.t - pose.t).abs().max() < tolerance
    assert fit.pose.shape == torch.Size(batch) and bool(fit.rank_ok.all())


def test_agrees_with_scipy(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 30, 3, dtype=torch.float64, generator=generator)
    w = torch.rand(30, dtype=torch.float64, generator=generator)
    fit = kabsch(a, b, w)
    mean_a, mean_b = np.average(a, 0, w), np.average(b, 0, w)
    expected, _ = Rotation.align_vectors(b.numpy() - mean_b, a.numpy() - mean_a, w.numpy())
    assert np.allclose(fit.pose.R, expected.as_matrix(), atol=1e-9)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf, 1e38])
def test_one_bad_element_leaves_the_others_alone(bad: float, generator: torch.Generator) -> None:
    a, b = torch.randn(2, 3, 5, 3, generator=generator)
    clean = kabsch(a, b)
    broken, other = a.clone(), b.clone()
    broken[1, 0, 0] = bad
    other[1, 2, 1] = bad
    fit = kabsch(broken, other)
    assert fit.rank_ok.tolist() == [True, False, True]
    assert torch.equal(fit.pose.R[[0, 2]], clean.pose.R[[0, 2]])
    assert bool(fit.pose.R[1].isnan().all()) and bool(fit.pose.t[1].isnan().all())


def test_gradcheck(generator: torch.Generator) -> None:
    a, b = torch.randn(2, 6, 3, dtype=torch.float64, generator=generator).unbind(0)

    def function(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        fit = kabsch(a, b)
        return fit.pose.R, fit.pose.t

    assert torch.autograd.gradcheck(function, (a.requires_grad_(), b.requires_grad_()))


@pytest.mark.parametrize(("a", "b", "w"), [((4, 3), (5, 3), None), ((4, 2), (4, 2), None), ((4, 3), (4, 3), (5,))])
def test_wrong_shapes_raise(a: tuple[int, ...], b: tuple[int, ...], w: tuple[int, ...] | None) -> None:
    with pytest.raises(ValueError, match="shape"):
        kabsch(torch.zeros(a), torch.zeros(b), None if w is None else torch.zeros(w))
