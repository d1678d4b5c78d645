"""The alignment cost: golden values, a naive twin with full Jacobians, finite differences, gradients, odd points."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from metriloc.geometry import Camera, J_transform, Pose, sample, so3_exp
from metriloc.methods.pixloc.cost import (
    AlignmentProblem,
    CostConfig,
    RobustCost,
    jacobi_scale,
    linearize,
    normal_equations,
)
from metriloc.methods.pixloc.lookup import FeatureTable, look_up

DISTORTIONS = {"pinhole": [], "radtan": [-0.2, 0.05, 0.01, -0.008, 0.02], "fisheye": [0.05, -0.02, 0.01, -0.003]}


def make_problem(
    generator: torch.Generator,
    model: str = "radtan",
    batch: int = 1,
    points: int = 40,
    observations: int = 1,
    **kind: Any,
) -> tuple[AlignmentProblem, Pose]:
    """Points in view of a camera with every distortion term on, before a random map of 6 channels."""
    dtype = kind.get("dtype", torch.float64)
    H, W = 30, 40

    def draw(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    camera = Camera(
        torch.tensor([W, H]).double().expand(batch, 2),
        torch.tensor([35.0, 33.0]).double().expand(batch, 2),
        torch.tensor([19.0, 15.5]).double().expand(batch, 2),
        torch.tensor(DISTORTIONS[model]).double().expand(batch, -1),
        model,  # type: ignore[arg-type]
    )
    xyz = torch.cat([(draw(batch, points, 2) - 0.5) * torch.tensor([3.0, 2.4]), 2 + 2 * draw(batch, points, 1)], -1)
    fmap, trust = draw(batch, 6, H, W) - 0.5, draw(batch, 1, H, W)
    features = torch.nn.functional.normalize(draw(batch, points, observations, 6) - 0.5, dim=-1)
    confidence = draw(batch, points, observations)
    pose = Pose(so3_exp(0.1 * (draw(batch, 3) - 0.5)), 0.2 * (draw(batch, 3) - 0.5))
    table = FeatureTable.from_maps(fmap.to(dtype), trust.to(dtype))
    problem = AlignmentProblem(xyz.to(dtype), features.to(dtype), table, camera.to(dtype), confidence.to(dtype))
    return problem, pose.to(dtype)


def naive(problem: AlignmentProblem, pose: Pose, config: CostConfig) -> tuple[Tensor, Tensor, Tensor]:
    """H, g and the mean column lengths from the full N x C x 6 Jacobian, channels first."""
    table = problem.table
    W, H = table.size
    fmap = table.rows if table.inverse_norm is None else table.rows * table.inverse_norm[:, None]
    fmap = fmap.view(-1, H, W, fmap.shape[-1]).permute(0, 3, 1, 2)
    p = pose.transform(problem.xyz)
    uv, visible = problem.camera.project(p, config.validity)
    found = sample(fmap, uv, config.mode, config.pad, gradients=True)
    weight = (visible & found.valid).to(fmap)
    if table.confidence is not None:
        weight = weight * sample(table.confidence.view(-1, 1, H, W), uv, config.mode, config.pad).values[..., 0]
    J = found.gradients @ problem.camera.J_project(p)[0] @ J_transform(p)
    A, b = J.new_zeros(len(J), 6, 6), J.new_zeros(len(J), 6)
    for k in range(problem.features.shape[2]):
        r = found.values - problem.features[:, :, k]
        w = config.loss(r.square().sum(-1)).weight * weight
        w = w if problem.confidence is None else w * problem.confidence[..., k]
        A = A + torch.einsum("bncj,bnck,bn->bjk", J, J, w)
        b = b + torch.einsum("bncj,bnc,bn->bj", J, r, w)
    valid = (visible & found.valid)[..., None]
    lengths = torch.where(valid, J.norm(dim=2), J.new_zeros(())).sum(1) / valid.sum(1)
    return A, b, 1 / (1 + lengths)


@pytest.mark.parametrize(("mode", "pad"), [("linear", 1), ("linear", 4), ("cubic", 2)])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("trusted", [False, True])
def test_golden(mode: Any, pad: int, normalize: bool, trusted: bool, load: Any, data: Any) -> None:
    golden = load("direct_cost")
    key = f"{mode}{pad}_norm{int(normalize)}_conf{int(trusted)}/"
    config = CostConfig(mode=mode, pad=pad, normalize_features=normalize, validity="pixloc")
    table = FeatureTable.from_maps(golden["F_query"][None], golden["C_query"][None] if trusted else None, False)
    trust = golden["C_ref"][None, :, 0] if trusted else None
    camera, pose = data.camera(golden["cam"])[None], data.pose(golden["T_w2q"])[None]
    problem = AlignmentProblem(golden["p3D"][None], golden["F_ref"][None], table, camera, trust)
    at = linearize(problem, pose, config)
    valid = golden[key + "valid"]
    assert torch.equal(at.valid[0, :, 0], valid)
    # what the cost keeps of residuals and Jacobians are their products
    r, J = golden[key + "res"], golden[key + "J"]
    torch.testing.assert_close(
        at.cost[0, valid, 0], RobustCost()(r.square().sum(-1)).value[valid], rtol=1e-9, atol=1e-12
    )
    gram = at.J_uv.mT @ at.slopes @ at.J_uv
    pull = at.J_uv.mT @ at.products
    torch.testing.assert_close(gram[0, valid], (J.mT @ J)[valid], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(pull[0, valid, :, 0], (J.mT @ r[..., None])[valid, :, 0], rtol=1e-9, atol=1e-9)
    if trusted and at.confidence is not None:
        torch.testing.assert_close(at.confidence[0, valid, 0], golden[key + "weight"][valid], rtol=1e-9, atol=1e-12)


def test_golden_system(load: Any, data: Any) -> None:
    golden = load("direct_cost")
    table = FeatureTable.from_maps(golden["F_query"][None], golden["C_query"][None], False)
    camera, pose = data.camera(golden["cam"])[None], data.pose(golden["T_w2q"])[None]
    problem = AlignmentProblem(golden["p3D"][None], golden["F_ref"][None], table, camera, golden["C_ref"][None, :, 0])
    at = linearize(problem, pose, CostConfig(pad=4, validity="pixloc"))
    H, g = normal_equations(at)
    torch.testing.assert_close(H[0], golden["system_H"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(g[0], golden["system_g"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(jacobi_scale(at)[0], golden["jacobi_scaling"], rtol=1e-9, atol=1e-12)
    valid = at.valid[0, :, 0]
    torch.testing.assert_close(at.cost[0, valid, 0], golden["system_cost"][valid], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(at.irls[0, valid, 0], golden["system_w_loss"][valid], rtol=1e-9, atol=1e-12)


def test_golden_losses(load: Any) -> None:
    golden = load("losses")
    x = golden["x"]
    kinds = {
        "squared": RobustCost("squared", scale=1.0),
        "huber": RobustCost("huber", scale=1.0),
        "scaled_huber_0.1": RobustCost("huber", scale=0.1),
        "scaled_huber_3.0": RobustCost("huber", scale=3.0),
        "barron_-2.0": RobustCost("barron", -2.0, 1.0),
        "scaled_barron_0_0.1": RobustCost(),
        "scaled_barron_1.0_2.0": RobustCost("barron", 1.0, 2.0),
        "scaled_barron_-2.0_0.3": RobustCost("barron", -2.0, 0.3),
    }
    for name, loss in kinds.items():
        found = loss(x)
        torch.testing.assert_close(found.value, golden[f"{name}/loss"], rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(found.weight, golden[f"{name}/d1"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["linear", "cubic"])
def test_golden_interpolation(mode: Any, load: Any) -> None:
    golden = load("interpolation")
    table = FeatureTable.from_maps(golden["fmap"], normalize=False)
    for pad in (1, 2, 4):
        found = look_up(table, golden["pts"][None], CostConfig(mode=mode, pad=pad))
        assert torch.equal(found.inside[0], golden[f"{mode}/mask_pad{pad}"])
    torch.testing.assert_close(found.terms[0, :, 0], golden[f"{mode}/values"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.terms[0, :, 1:].mT, golden[f"{mode}/grads"], rtol=1e-9, atol=1e-12)
    single = FeatureTable.from_maps(golden["fmap"].float(), normalize=False)
    found = look_up(single, golden["pts"][None].float(), CostConfig(mode=mode))
    torch.testing.assert_close(found.terms[0, :, 0], golden[f"{mode}/values_f32"], rtol=1e-4, atol=1e-5)


def test_golden_interpolation_batch_and_derivatives(load: Any) -> None:
    golden = load("interpolation")
    table = FeatureTable.from_maps(golden["batched/fmap"], normalize=False)
    found = look_up(table, golden["batched/pts"], CostConfig(pad=2))
    torch.testing.assert_close(found.terms[:, :, 0], golden["batched/values"], rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.terms[:, :, 1:].mT, golden["batched/grads"], rtol=1e-9, atol=1e-12)
    assert torch.equal(found.inside, golden["batched/mask"])
    fmap, uv = golden["fmap"].clone().requires_grad_(), golden["pts"].clone().requires_grad_()
    terms = look_up(FeatureTable.from_maps(fmap, normalize=False), uv[None], CostConfig()).terms[0]
    total = (terms[:, 0] * golden["autograd/cv"]).sum() + (terms[:, 1:].mT * golden["autograd/cg"]).sum()
    total.backward()
    torch.testing.assert_close(fmap.grad, golden["autograd/d_fmap"], rtol=1e-9, atol=1e-12)
    # on a pixel centre the bilinear field has a kink, and rounding decides which side a derivative is taken from
    smooth = golden["pts"] != golden["pts"].round()
    assert smooth.double().mean() > 0.8 and uv.grad is not None
    torch.testing.assert_close(uv.grad[smooth], golden["autograd/d_pts"][smooth], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("observations", [1, 3])
@pytest.mark.parametrize("model", DISTORTIONS)
def test_equals_full_jacobians(model: str, observations: int, dtype: torch.dtype, generator: torch.Generator) -> None:
    problem, pose = make_problem(generator, model, batch=2, observations=observations, dtype=dtype)
    config = CostConfig(pad=1)
    at = linearize(problem, pose, config)
    assert 0.3 < at.valid.double().mean() <= 1
    H, g = normal_equations(at)
    A, b, scale = naive(problem, pose, config)
    tight = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 1e-4, "atol": 1e-3}
    torch.testing.assert_close(H, A, **tight)
    torch.testing.assert_close(g, b, **tight)
    torch.testing.assert_close(jacobi_scale(at), scale, **tight)
    half = normal_equations(at, torch.full((2, 6), 0.5, dtype=dtype))[0]
    torch.testing.assert_close(half, H / 4, **tight)


def test_several_observations_are_points_that_share_their_place(generator: torch.Generator) -> None:
    problem, pose = make_problem(generator, observations=3)
    assert problem.confidence is not None
    mask = torch.rand(problem.confidence.shape, generator=generator) < 0.7
    shared = AlignmentProblem(problem.xyz, problem.features, problem.table, problem.camera, problem.confidence, mask)
    apart = AlignmentProblem(
        problem.xyz.repeat_interleave(3, 1),
        problem.features.flatten(1, 2),
        problem.table,
        problem.camera,
        problem.confidence.flatten(1),
        mask.flatten(1),
    )
    for config in (CostConfig(), CostConfig(normalize_features=True), CostConfig(mode="cubic")):
        one, other = linearize(shared, pose, config), linearize(apart, pose, config)
        assert torch.equal(one.valid.flatten(1), other.valid[..., 0])
        for a, b in zip(normal_equations(one), normal_equations(other), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(one.mean_cost(), other.mean_cost())
        torch.testing.assert_close(jacobi_scale(one), jacobi_scale(other))


@pytest.mark.parametrize("model", DISTORTIONS)
def test_jacobian_against_finite_differences(model: str, generator: torch.Generator) -> None:
    """The pixel with respect to the step, with every distortion term on."""
    problem, pose = make_problem(generator, model)
    at = linearize(problem, pose, CostConfig(pad=1))
    eps, numeric = 1e-6, []
    for axis in range(6):
        delta = torch.zeros(1, 6, dtype=torch.float64)
        delta[0, axis] = eps
        ends = [(Pose.from_tangent(sign * delta) @ pose).transform(problem.xyz) for sign in (1, -1)]
        ahead, behind = (problem.camera.project(end)[0] for end in ends)
        numeric.append((ahead - behind) / (2 * eps))
    torch.testing.assert_close(at.J_uv, torch.stack(numeric, -1), rtol=1e-6, atol=1e-6)


def test_gradient_is_that_of_the_cost(generator: torch.Generator) -> None:
    """On a map that is linear in x and y, central differences are exact, and g is half the derivative of sum |r|^2."""
    problem, pose = make_problem(generator)
    W, H = problem.table.size
    y, x = torch.meshgrid(torch.arange(H).double(), torch.arange(W).double(), indexing="ij")
    slopes = torch.randn(6, 3, generator=generator).double()
    fmap = slopes[:, 0, None, None] * x + slopes[:, 1, None, None] * y + slopes[:, 2, None, None]
    flat = AlignmentProblem(
        problem.xyz, problem.features, FeatureTable.from_maps(0.1 * fmap[None], normalize=False), problem.camera
    )
    config = CostConfig(RobustCost("squared"), pad=1)
    delta = torch.zeros(1, 6, dtype=torch.float64, requires_grad=True)
    at = linearize(flat, Pose.from_tangent(delta) @ pose, config)
    (at.cost * at.valid).sum().backward()
    assert delta.grad is not None
    torch.testing.assert_close(2 * normal_equations(at)[1], delta.grad, rtol=1e-9, atol=1e-9)


def test_gradcheck(generator: torch.Generator) -> None:
    fmap = torch.randn(1, 2, 7, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    trust = torch.rand(1, 1, 7, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    uv = torch.tensor([[[2.3, 3.7], [0.4, 0.6], [6.2, 5.5], [-3.0, 2.2], [7.5, 6.4]]]).double().requires_grad_()

    def run(fmap: Tensor, trust: Tensor, uv: Tensor) -> tuple[Tensor, Tensor]:
        found = look_up(FeatureTable.from_maps(fmap, trust), uv, CostConfig())
        assert found.confidence is not None
        return found.terms, found.confidence

    assert torch.autograd.gradcheck(run, (fmap, trust, uv))


def test_points_that_are_nowhere(generator: torch.Generator) -> None:
    """NaN, infinite, and behind the camera: not valid, and without effect on anything."""
    problem, pose = make_problem(generator)
    H, g = normal_equations(linearize(problem, pose, CostConfig()))
    odd = torch.tensor([[[torch.nan] * 3, [torch.inf, 0.0, 2.0], [0.1, 0.1, -1.0], [1e30, 1e30, 1.0], [0.0, 0.0, 0.0]]])
    xyz = torch.cat([problem.xyz, odd.double()], 1)
    assert problem.confidence is not None
    pad = torch.ones(1, 5, 1).double()
    more = AlignmentProblem(
        xyz,
        torch.cat([problem.features, pad[..., None].expand(-1, -1, -1, 6)], 1),
        problem.table,
        problem.camera,
        torch.cat([problem.confidence, pad], 1),
    )
    at = linearize(more, pose, CostConfig())
    assert not at.valid[0, -5:].any()
    H_more, g_more = normal_equations(at)
    torch.testing.assert_close(H_more, H)
    torch.testing.assert_close(g_more, g)
    assert torch.isfinite(at.mean_cost()).all()


def test_normalizing_pixels_is_normalizing_the_map(generator: torch.Generator) -> None:
    fmap = torch.randn(2, 5, 9, 11, generator=generator).double()
    uv = 8 * torch.rand(2, 30, 2, generator=generator).double()
    lazy = look_up(FeatureTable.from_maps(fmap), uv, CostConfig()).terms
    eager = look_up(
        FeatureTable.from_maps(torch.nn.functional.normalize(fmap, dim=1), normalize=False), uv, CostConfig()
    ).terms
    torch.testing.assert_close(lazy, eager)


def test_channels_last_maps_are_not_copied(generator: torch.Generator) -> None:
    fmap = torch.randn(1, 8, 5, 6, generator=generator).contiguous(memory_format=torch.channels_last)
    assert FeatureTable.from_maps(fmap).rows.data_ptr() == fmap.data_ptr()


def test_wrong_use() -> None:
    table = FeatureTable.from_maps(torch.zeros(1, 4, 5, 6))
    camera = Camera.from_fov((6, 5), 1.0)[None]
    with pytest.raises(ValueError, match=r"\[\*b, C, H, W\], got \[5, 6\]"):
        FeatureTable.from_maps(torch.zeros(5, 6))
    with pytest.raises(ValueError, match="confidences must have shape"):
        FeatureTable.from_maps(torch.zeros(1, 4, 5, 6), torch.zeros(1, 2, 5, 6))
    with pytest.raises(ValueError, match=r"xyz must have shape \[B, N, 3\], got \[7, 3\]"):
        AlignmentProblem(torch.zeros(7, 3), torch.zeros(1, 7, 4), table, camera)
    with pytest.raises(ValueError, match=r"features must have shape \[1, 7, K, 4\]"):
        AlignmentProblem(torch.zeros(1, 7, 3), torch.zeros(1, 7, 5), table, camera)
    with pytest.raises(ValueError, match="confidence must have shape"):
        AlignmentProblem(torch.zeros(1, 7, 3), torch.zeros(1, 7, 4), table, camera, torch.zeros(1, 6))
    with pytest.raises(ValueError, match="2 problems, 1 maps"):
        AlignmentProblem(torch.zeros(2, 7, 3), torch.zeros(2, 7, 4), table, camera)
    with pytest.raises(ValueError, match="'quintic'"):
        CostConfig(mode="quintic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="pad must not be negative, got -1"):
        CostConfig(pad=-1)
    with pytest.raises(ValueError, match="'tukey'"):
        RobustCost("tukey")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive, got 0"):
        RobustCost(scale=0)
