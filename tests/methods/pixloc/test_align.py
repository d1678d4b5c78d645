"""The loop: golden runs iteration by iteration and their gradients, recovery, failures of single elements, large worlds."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metriloc.geometry import Camera, Pose, sample, so3_exp
from metriloc.methods.pixloc.align import Alignment, Iteration, align, evaluate, learned_damping
from metriloc.methods.pixloc.align_config import AlignConfig
from metriloc.methods.pixloc.cost import AlignmentProblem, CostConfig, RobustCost
from metriloc.methods.pixloc.lookup import FeatureTable

SQUARED, HUBER = RobustCost("squared", scale=1.0), RobustCost("huber", scale=1.0)
# name: cost, damping, confidences used, mask used, other settings
RUNS: dict[str, tuple[dict[str, Any], str, bool, bool, dict[str, Any]]] = {
    "base_gn": ({"loss": SQUARED}, "fixed", False, True, {"initial_damping": 0.0}),
    "base_lm_unweighted_nomask": ({}, "fixed", False, False, {}),
    "base_lm_jacobi": ({}, "fixed", True, True, {"jacobi_scaling": True}),
    "base_lm_normalize_features": ({"loss": HUBER, "normalize_features": True}, "fixed", True, True, {}),
    "learned_eval": ({}, "learned", True, True, {}),
    "learned_eval_f32": ({}, "learned", True, True, {}),
    "learned_eval_zero_const": ({}, "learned", True, True, {}),
    "learned_train15": ({}, "learned", True, True, {"num_iters": 15}),
    "learned_eval_cubic_like_pad4": ({"pad": 4}, "learned", True, True, {}),
    "classic_conf": ({}, "adaptive", True, True, {"published_acceptance": True}),
    "classic_noconf": ({}, "adaptive", False, True, {}),
    "classic_jacobi_squared": ({"loss": SQUARED}, "adaptive", False, True, {"jacobi_scaling": True}),
}


def run(name: str, load: Any, data: Any) -> tuple[Alignment, list[Iteration], dict[str, Tensor]]:
    cost, damping, trusted, masked, settings = RUNS[name]
    dtype = torch.float32 if name.endswith("f32") else torch.float64
    inputs = {k: v.to(dtype) if v.is_floating_point() else v for k, v in load("lm_inputs").items()}
    golden = {k.split("/", 1)[-1]: v for k, v in load("lm_runs").items() if k.startswith((f"{name}/", "damping"))}
    normalize = not cost.get("normalize_features", False)
    reference = F.normalize(inputs["F_ref"], dim=2) if normalize else inputs["F_ref"]
    problem = AlignmentProblem(
        inputs["p3D"],
        reference,
        FeatureTable.from_maps(inputs["F_q"], inputs["C_q"] if trusted else None, normalize),
        data.camera(inputs["cam"]),
        inputs["C_ref"][..., 0] if trusted else None,
        inputs["mask"] if masked else None,
    )
    theta = torch.zeros(6).double() if "zero_const" in name else golden["damping_const"]
    config = AlignConfig(CostConfig(**{"pad": 2, **cost}), damping=damping, **settings)  # type: ignore[arg-type]
    log: list[Iteration] = []
    factors = learned_damping(theta).to(dtype)
    found = align(problem, data.pose(inputs["T_init"]), config, factors, early_stop="train" not in name, log=log.append)
    return found, log, golden


@pytest.mark.parametrize("name", RUNS)
def test_golden(name: str, load: Any, data: Any) -> None:
    found, log, golden = run(name, load, data)
    close = {"rtol": 1e-4, "atol": 1e-4} if name.endswith("f32") else {"rtol": 1e-9, "atol": 1e-9}
    assert found.iterations == golden["num_iters"] == len(log)
    assert torch.equal(found.failed, golden["failed"])
    assert found.failed_at.tolist() == [0 if failed else -1 for failed in golden["failed"].tolist()]
    torch.testing.assert_close(data.pack(found.pose), golden["T_final"], **close)
    torch.testing.assert_close(torch.stack([data.pack(i.pose) for i in log]), golden["iter_T"], **close)
    torch.testing.assert_close(torch.stack([data.pack(i.delta) for i in log]), golden["iter_T_delta"], **close)
    valid = torch.stack([i.at.valid[..., 0] for i in log])
    assert torch.equal(valid, golden["iter_valid"])
    cost = torch.stack([i.at.cost[..., 0] for i in log])
    torch.testing.assert_close(cost[valid], golden["iter_cost"][valid], **close)
    torch.testing.assert_close(torch.stack([i.H for i in log]), golden["iter_H"], **close)
    if "iter_lambda_" in golden:
        factors = torch.stack([i.damping for i in log if i.damping is not None])
        torch.testing.assert_close(factors.float(), golden["iter_lambda_"].float())  # stored from float32
        accepted = torch.stack([i.accepted for i in log if i.accepted is not None])
        assert torch.equal(accepted, golden["iter_accept"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden_without_mask(dtype: torch.dtype, load: Any, data: Any) -> None:
    inputs = {k: v[:1].to(dtype) if v.is_floating_point() else v[:1] for k, v in load("lm_inputs").items()}
    golden = load("lm_runs")
    table = FeatureTable.from_maps(inputs["F_q"], inputs["C_q"])
    features = F.normalize(inputs["F_ref"], dim=2)
    problem = AlignmentProblem(inputs["p3D"], features, table, data.camera(inputs["cam"]), inputs["C_ref"][..., 0])
    config = AlignConfig(CostConfig(pad=3))
    found = align(problem, data.pose(inputs["T_init"]), config, golden["damping_lambda"].to(dtype))
    expected = golden["run_unbatched_pad3_f32/T_final" if dtype == torch.float32 else "run_unbatched_pad3/T_final"]
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    torch.testing.assert_close(data.pack(found.pose)[0], expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "num_iters", "trusted"),
    [("learned_train6_grad", 6, True), ("learned_train3_grad_noconf_jacobi", 3, False)],
)
def test_golden_gradients(name: str, num_iters: int, trusted: bool, load: Any, data: Any) -> None:
    inputs, golden = load("lm_inputs"), load("lm_runs")
    fmap, reference, trust_map, trust = (inputs[k].clone().requires_grad_() for k in ("F_q", "F_ref", "C_q", "C_ref"))
    theta = golden["damping_const"].clone().requires_grad_()
    problem = AlignmentProblem(
        inputs["p3D"],
        F.normalize(reference, dim=2),
        FeatureTable.from_maps(fmap, trust_map if trusted else None),
        data.camera(inputs["cam"]),
        trust[..., 0] if trusted else None,
        inputs["mask"],
    )
    config = AlignConfig(CostConfig(pad=2), num_iters, jacobi_scaling="jacobi" in name)
    found = align(problem, data.pose(inputs["T_init"]), config, learned_damping(theta), early_stop=False)
    loss = (data.pack(found.pose) * golden[f"{name}/grad_weight"]).sum()
    loss.backward()
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(loss.detach(), golden[f"{name}/loss"], **close)
    torch.testing.assert_close(fmap.grad, golden[f"{name}/d_Fq"], **close)
    torch.testing.assert_close(reference.grad, golden[f"{name}/d_Fref"], **close)
    torch.testing.assert_close(theta.grad, golden[f"{name}/d_const"], **close)
    if trusted:
        torch.testing.assert_close(trust_map.grad, golden[f"{name}/d_Cq"], **close)
        torch.testing.assert_close(trust.grad, golden[f"{name}/d_Cref"], **close)


def make_scene(batch: int, generator: torch.Generator, points: int = 200) -> tuple[AlignmentProblem, Pose, Pose]:
    """Smooth maps, features read under true poses, and starts a little off."""
    H, W = 48, 64
    fmap = F.interpolate(torch.randn(batch, 8, 8, 10, generator=generator), (H, W), mode="bicubic").double()
    camera = Camera.stack([Camera.from_fov((W, H), 1.1).to(torch.float64)] * batch)
    uv = 6 + torch.rand(batch, points, 2, generator=generator).double() * torch.tensor([W - 12, H - 12])
    rays, _ = camera.unproject(uv)
    cam_xyz = rays * (2 + 3 * torch.rand(batch, points, 1, generator=generator).double())
    truth = Pose(
        so3_exp(torch.randn(batch, 3, generator=generator).double()),
        torch.randn(batch, 3, generator=generator).double(),
    )
    xyz = truth.inverse().transform(cam_xyz)
    features = sample(F.normalize(fmap, dim=1), uv).values
    moved = 0.02 * torch.randn(batch, 6, generator=generator).double()
    problem = AlignmentProblem(xyz, features, FeatureTable.from_maps(fmap), camera)
    return problem, truth, Pose.from_tangent(moved) @ truth


def errors(pose: Pose, truth: Pose) -> Tensor:
    difference = pose.to(torch.float64) @ truth.inverse()
    return difference.distance() + difference.angle()


@pytest.mark.parametrize("damping", ["fixed", "adaptive", "learned"])
def test_recovers_known_poses(damping: Any, generator: torch.Generator) -> None:
    problem, truth, init = make_scene(3, generator)
    config = AlignConfig(damping=damping, num_iters=60, stop_translation=1e-7, stop_rotation_deg=1e-7)
    found = align(problem, init, config, torch.full((6,), 1e-3))
    assert not found.failed.any()
    assert errors(found.pose, truth).max() < 1e-6 < 0.01 < errors(init, truth).max()


def test_adaptive_damping_never_increases_the_cost(generator: torch.Generator) -> None:
    problem, _, init = make_scene(3, generator)
    far = Pose.from_tangent(0.1 * torch.randn(3, 6, generator=generator).double()) @ init
    config = AlignConfig(damping="adaptive", num_iters=25)
    log: list[Iteration] = []
    align(problem, far, config, early_stop=False, log=log.append)
    for before, after in pairwise(log):
        assert before.accepted is not None
        # of the points that were in view before the step
        new = after.at.mean_cost(before.at.valid)
        assert (new[before.accepted] < before.at.mean_cost()[before.accepted]).all()
        earlier = log[before.index - 1].pose if before.index else far
        assert torch.equal(before.pose.t[~before.accepted], earlier.t[~before.accepted])


def test_failures_stay_where_they_were_and_touch_no_other(generator: torch.Generator) -> None:
    problem, _, init = make_scene(4, generator)
    alone = align(problem, init, AlignConfig(num_iters=12), torch.full((6,), 0.1).double(), early_stop=False)
    mask = torch.ones(4, 200, 1, dtype=torch.bool)
    mask[1, 9:] = False  # nine points
    features = problem.features.clone()
    features[2, 5] = torch.nan  # no step can be computed
    broken = dataclasses.replace(problem, mask=mask, features=features)
    poses = Pose(init.R.clone(), init.t.clone())
    poses.t[3] = torch.tensor([0.0, 0.0, -100.0])  # everything behind the camera
    found = align(broken, poses, AlignConfig(num_iters=12), torch.full((6,), 0.1).double(), early_stop=False)
    assert found.failed.tolist() == [False, True, True, True]
    assert found.failed_at.tolist() == [-1, 0, 0, 0]
    assert torch.equal(found.pose.t[1:], poses.t[1:]) and torch.equal(found.pose.R[1:], poses.R[1:])
    torch.testing.assert_close(found.pose.t[0], alone.pose.t[0], rtol=0, atol=1e-12)


def test_flat_maps_do_not_move_anything(generator: torch.Generator) -> None:
    problem, _, init = make_scene(1, generator)
    flat = dataclasses.replace(problem, table=FeatureTable.from_maps(torch.ones(1, 8, 48, 64).double()))
    found = align(flat, init, AlignConfig(), torch.full((6,), 0.1).double())
    assert not found.failed.any() and found.iterations == 1
    torch.testing.assert_close(found.pose.t, init.t)


def test_worlds_far_from_their_origin_lose_nothing(generator: torch.Generator) -> None:
    """UTM coordinates: single precision around the camera gives what double precision gives."""
    problem, truth, init = make_scene(2, generator)
    offset = torch.tensor([412_345.6, 5_432_109.8, 310.2]).double()
    small = AlignmentProblem(
        problem.xyz + offset,
        problem.features.float(),
        FeatureTable.from_maps(problem.table.rows.float().view(2, 48, 64, 8).permute(0, 3, 1, 2)),
        problem.camera,
    )

    def moved(pose: Pose) -> Pose:
        return Pose(pose.R, pose.t - pose.R @ offset)

    config = AlignConfig(num_iters=60, stop_translation=1e-5, stop_rotation_deg=1e-5)
    found = align(small, moved(init), config, torch.full((6,), 1e-3))
    assert found.pose.dtype == torch.float64
    assert (found.pose.center() - (truth.center() + offset)).norm(dim=-1).max() < 1e-4
    at = evaluate(small, moved(truth), config.cost)
    assert at.valid.all() and at.cost.max() < 1e-9


def test_early_stop_needs_every_element_to_rest(generator: torch.Generator) -> None:
    problem, truth, init = make_scene(2, generator)
    factors = torch.full((6,), 0.1).double()
    resting = align(problem, truth, AlignConfig(), factors)
    assert resting.iterations == 1
    one_moves = align(problem, Pose.stack([truth[0], init[1]]), AlignConfig(), factors)
    assert one_moves.iterations > 1 and one_moves.iterations % 10 == 1
    often = align(problem, Pose.stack([truth[0], init[1]]), AlignConfig(stop_every=1), factors)
    assert often.iterations <= one_moves.iterations
    assert align(problem, truth, AlignConfig(num_iters=7), factors, early_stop=False).iterations == 7


def test_start_is_not_written_to(generator: torch.Generator) -> None:
    problem, _, init = make_scene(1, generator)
    R, t, features = init.R.clone(), init.t.clone(), problem.features.clone()
    align(problem, init, AlignConfig(num_iters=3), torch.full((6,), 0.1))
    assert torch.equal(init.R, R) and torch.equal(init.t, t) and torch.equal(problem.features, features)


def test_gradcheck_through_the_loop(generator: torch.Generator) -> None:
    problem, _, init = make_scene(1, generator, points=12)

    def run_with(features: Tensor, theta: Tensor) -> Tensor:
        changed = dataclasses.replace(problem, features=features)
        found = align(changed, init, AlignConfig(num_iters=2), learned_damping(theta), early_stop=False)
        return torch.cat([found.pose.t, found.pose.R.flatten(1)], -1)

    theta = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run_with, (problem.features.clone().requires_grad_(), theta), fast_mode=True)


def test_learned_damping_range() -> None:
    torch.testing.assert_close(learned_damping(torch.zeros(6)), torch.full((6,), 10**-0.5))
    ends = learned_damping(torch.tensor([-100.0, 100.0]))
    torch.testing.assert_close(ends, torch.tensor([1e-6, 1e5]))


def test_wrong_use(generator: torch.Generator) -> None:
    problem, _, init = make_scene(2, generator)
    with pytest.raises(ValueError, match="learned damping needs a tensor"):
        align(problem, init, AlignConfig())
    with pytest.raises(ValueError, match=r"init must have shape \[2\], got \[\]"):
        align(problem, init[0], AlignConfig(damping="fixed"))
    with pytest.raises(ValueError, match="'guess'"):
        AlignConfig(damping="guess")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_iters must be positive, got 0"):
        AlignConfig(num_iters=0)
    with pytest.raises(ValueError, match="damping must not be negative"):
        AlignConfig(initial_damping=-1)


def test_no_points_at_all() -> None:
    table = FeatureTable.from_maps(torch.rand(2, 4, 8, 8), torch.rand(2, 1, 8, 8))
    camera = Camera.stack([Camera.from_fov((8, 8), 1.0)] * 2)
    problem = AlignmentProblem(torch.zeros(2, 0, 3), torch.zeros(2, 0, 4), table, camera)
    found = align(problem, Pose.identity((2,)), AlignConfig(damping="fixed"))
    assert found.failed.all() and torch.equal(found.pose.t, torch.zeros(2, 3))
