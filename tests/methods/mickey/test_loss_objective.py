"""The training objective: golden values and gradients, one scalar against the published two-stage gradient, failures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from oracles.mickey_matching import dual_softmax, match_probabilities
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.methods.mickey.curriculum import Curriculum, select_pairs
from metriloc.methods.mickey.hypotheses import make_hypotheses, refinement_sets
from metriloc.methods.mickey.keypoint_maps import Keypoints
from metriloc.methods.mickey.log_probability import log_dual_softmax, log_match_probability, similarities
from metriloc.methods.mickey.loss import PoseLossConfig, vcre_loss
from metriloc.methods.mickey.objective import (
    Draws,
    Objective,
    ObjectiveConfig,
    PairFeatures,
    Truth,
    draw_sets,
    objective,
    objective_given_draws,
)
from metriloc.methods.mickey.solver import SolverConfig
from metriloc.solvers.consensus import residuals, soft_inliers
from metriloc.solvers.draws import draw_without_replacement
from metriloc.solvers.procrustes import kabsch

GOLDEN = ["vcre_soft_null_topk", "vcre_hard_nonull_all"]
CELLS = 360
LEAVES = ("kps0", "kps1", "depth0", "depth1")


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).detach().abs().max() / expected.abs().max())


class Golden:
    """One recorded call of the published objective, and ours on the same draws."""

    def __init__(self, path: Path, dtype: torch.dtype = torch.float32) -> None:
        with safe_open(path, "pt") as opened:
            self.meta = opened.metadata()
        self.data = {k: v.to(dtype) if v.is_floating_point() else v for k, v in load_file(path).items()}
        meta, data = self.meta, self.data
        self.B, self.Q, self.J = len(data["T_0to1"]), int(meta["it_matches"]), int(meta["it_ransac"])
        self.S = int(meta["num_samples"])
        solver = SolverConfig(self.Q, self.J, self.S, int(meta["num_corr"]), int(meta["num_ref_steps"]))
        solver = replace(
            solver, inlier_threshold=float(meta["inlier_ref_th"]), soft_inlier_threshold=float(meta["inlier_3d_th"])
        )
        loss = PoseLossConfig(soft_clip=meta["soft"] == "True", max_loss=float(meta["max_loss_null"]))
        self.config = ObjectiveConfig(
            solver,
            loss,
            null_hypothesis=meta["null"] == "True",
            null_score=float(meta["th_outliers"]),
            score_temperature=float(meta["score_temperature"]),
        )
        self.percent = None if meta["topk"] == "None" else float(meta["topk"])
        flat = data["idx_outer"].long().reshape(self.B, self.Q, self.S)
        minimal = data["idx_inner"].long().reshape(self.B, self.Q, self.J, -1)
        everything = torch.ones_like(flat, dtype=torch.bool)
        self.flat = flat
        self.draws = Draws(flat // CELLS, flat % CELLS, everything, minimal, everything[:, 0, 0])
        self.uv = [data[f"kps{i}"].mT.clone().requires_grad_() for i in (0, 1)]
        self.depth = [data[f"depth_kp{i}"][:, 0].clone().requires_grad_() for i in (0, 1)]
        self.log_p = (data["final_scores"].flatten(1).gather(1, flat.flatten(1)) + 1e-16).log()
        self.log_p = self.log_p.reshape(flat.shape).requires_grad_()

    def camera(self, name: str) -> Camera:
        return Camera.from_K(self.data[name], (540, 720))

    def run(self, **change: object) -> Objective:
        xyz = [self.camera(f"K_color{i}").lift(self.uv[i], self.depth[i]) for i in (0, 1)]
        pose = Pose.from_matrix(self.data["T_0to1"])
        truth = Truth(pose, self.camera("Kori_color0"), self.camera("Kori_color1"))
        config = replace(self.config, **change)  # type: ignore[arg-type]
        return objective_given_draws((xyz[0], xyz[1]), self.log_p, self.draws, truth, config, self.percent)

    def dense(self, gradient: Tensor) -> Tensor:
        zeros = torch.zeros(self.B, CELLS * CELLS, dtype=gradient.dtype)
        return zeros.scatter_add_(1, self.flat.flatten(1), gradient.flatten(1)).reshape(self.B, CELLS, CELLS)


@pytest.fixture(params=GOLDEN)
def golden(request: pytest.FixtureRequest, shared: Callable[[str], Path]) -> Golden:
    return Golden(shared(f"golden/mickey/train_loss_{request.param}.safetensors"))


def test_golden_values(golden: Golden) -> None:
    found, data = golden.run(), golden.data
    assert float(found.loss.detach()) == pytest.approx(float(data["avg_loss"]), rel=2e-6)
    assert torch.equal(found.hypotheses.sets.mask.flatten(0, 1), data["final_mask"])
    assert relative(found.hypotheses.pose.R.reshape(-1, 3, 3), data["final_R"]) < 1e-5
    assert relative(found.hypotheses.pose.t.reshape(-1, 3), data["final_t"][:, 0]) < 1e-5
    assert relative(found.hypotheses.score.flatten(), data["final_score"][:, 0]) < 1e-5
    assert torch.equal(found.chosen.float(), data["mask_topk"])
    assert float(found.rotation_error) == pytest.approx(float(data["avg_loss_rot"]), rel=1e-4)
    assert float(found.translation_error) == pytest.approx(float(data["avg_loss_trans"]), rel=1e-5)


def test_golden_gradients_of_one_backward(golden: Golden) -> None:
    leaves = [*golden.uv, *golden.depth, golden.log_p]
    *points, log_p = torch.autograd.grad(golden.run().loss, leaves)
    shaped = [points[0].mT, points[1].mT, points[2][:, None], points[3][:, None]]
    for name, value in zip(LEAVES, shaped, strict=True):
        assert relative(value, golden.data[f"grad.{name}"]) < 1e-4, name
    assert relative(golden.dense(log_p), golden.data["logprob_grad"]) < 3e-5


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_holds_in_float64(name: str, shared: Callable[[str], Path]) -> None:
    golden = Golden(shared(f"golden/mickey/train_loss_{name}.safetensors"), torch.float64)
    found = golden.run()
    assert found.loss.dtype == torch.float64
    assert float(found.loss.detach()) == pytest.approx(float(golden.data["avg_loss"]), rel=1e-5)
    assert torch.equal(found.hypotheses.sets.mask.flatten(0, 1), golden.data["final_mask"])
    points = torch.autograd.grad(found.loss, [*golden.uv, *golden.depth])
    for value, leaf in zip([points[0].mT, points[1].mT, points[2][:, None], points[3][:, None]], LEAVES, strict=True):
        assert relative(value, golden.data[f"grad.{leaf}"]) < 1e-4, leaf


def test_options_change_what_they_say(golden: Golden) -> None:
    published = golden.run()
    number = int(published.chosen.sum())
    (log_p,) = torch.autograd.grad(published.loss, golden.log_p)
    (mean,) = torch.autograd.grad(golden.run(reinforce="mean").loss, golden.log_p)
    assert torch.allclose(mean, log_p / number)
    (plain,) = torch.autograd.grad(golden.run(baseline=False).loss, golden.log_p)
    expected = (published.set_loss / golden.Q * published.chosen[:, None]).detach()
    assert torch.allclose(plain, expected[..., None].expand_as(plain))  # Eq. (10): no baseline
    last = golden.run(refinement_set="last").hypotheses
    sets, refined = published.hypotheses.sets, last.sets
    assert bool((refined.mask.sum(-1) >= sets.mask.sum(-1)).all()) and not torch.equal(refined.mask, sets.mask)
    assert bool(refined.grown[sets.grown].all())
    sharper = golden.run(score_temperature=5.0)
    assert not torch.equal(sharper.weight, published.weight)


# -- against a plain two-stage reference, from descriptors to gradients -------------------------------------------------


def scene(
    generator: torch.Generator, B: int = 3, N: int = 30, dtype: torch.dtype = torch.float64
) -> tuple[PairFeatures, Truth]:
    """Features of pairs in which most keypoints match, as leaves, in float64; N1 differs from N0."""
    camera = Camera.from_fov((540, 720), 1.0).to(dtype)
    camera = Camera(*(x.expand(B, 2) for x in (camera.size, camera.f, camera.c)))

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator, dtype=dtype)

    def randn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    pose = Pose(so3_exp(0.15 * randn(B, 3)), 0.3 * randn(B, 3))
    uv0, depth0 = rand(B, N, 2) * 500 + 20, 2 + 2 * rand(B, N)
    xyz1 = pose.transform(camera.lift(uv0, depth0)) + 0.06 * randn(B, N, 3)
    uv1 = xyz1[..., :2] / xyz1[..., 2:] * camera.f[:, None] + camera.c[:, None]
    desc0 = torch.nn.functional.normalize(randn(B, N, 16), dim=-1)
    desc1 = torch.nn.functional.normalize(desc0 + 0.2 * randn(B, N, 16), dim=-1)
    extra = torch.nn.functional.normalize(randn(B, 4, 16), dim=-1)
    desc1, uv1 = torch.cat([desc1, extra], 1), torch.cat([uv1, 500 * rand(B, 4, 2)], 1)
    depth1 = torch.cat([xyz1[..., 2], 3 * rand(B, 4)], 1)
    scores = [torch.softmax(randn(B, n), -1) for n in (N, N + 4)]
    scores[0][:, :3] = 0  # a border
    first = Keypoints(*(x.clone().requires_grad_() for x in (uv0, depth0, scores[0], desc0)), (1, N))
    second = Keypoints(*(x.clone().requires_grad_() for x in (uv1, depth1, scores[1], desc1)), (1, N + 4))
    dustbin = torch.tensor(1.0, dtype=dtype, requires_grad=True)
    return PairFeatures.lifted(first, second, (camera, camera), 0.1, dustbin), Truth(pose, camera, camera)


def leaves_of(features: PairFeatures) -> list[Tensor]:
    assert features.dustbin is not None
    sides = [(k.uv, k.depth, k.score, k.descriptor) for k in (features.first, features.second)]
    return [*sides[0], *sides[1], features.dustbin]


def two_stage_gradients(
    features: PairFeatures, truth: Truth, draws: Draws, config: ObjectiveConfig, keep: int
) -> tuple[Tensor, list[Tensor]]:
    """The published procedure, with loops: leaf copies, a dense gradient of log F, one more backward into the leaves."""
    B, Q, S = draws.index0.shape
    first, second = features.first, features.second
    F = match_probabilities(first.descriptor, second.descriptor, first.score, second.score, 0.1, features.dustbin)
    log_F = torch.log(F + 1e-16)
    given = [first.uv, second.uv, first.depth, second.depth]
    copies = [x.detach().clone().requires_grad_() for x in given]
    set_losses = []
    for b in range(B):
        for q in range(Q):
            i, j = draws.index0[b, q], draws.index1[b, q]
            X = truth.camera0[b].lift(copies[0][b, i], copies[2][b, i])
            Y = truth.camera1[b].lift(copies[1][b, j], copies[3][b, j])
            scores, losses = [], []
            for minimal in draws.minimal[b, q]:
                current = torch.zeros(S, dtype=X.dtype)
                current[minimal] = 1
                final, count = current, int(current.sum())
                with torch.no_grad():
                    for _ in range(config.solver.max_refinements):
                        inlier = (residuals(kabsch(X, Y, current).pose, X, Y) <= config.solver.inlier_threshold).to(X)
                        if int(inlier.sum()) <= count:
                            break
                        final, current, count = current, inlier, int(inlier.sum())
                pose = kabsch(X, Y, final).pose
                scores.append(soft_inliers(residuals(pose, X, Y), config.solver.soft_inlier_threshold))
                losses.append(vcre_loss(pose, truth.cam1_from_cam0[b], truth.camera0[b], truth.camera1[b]))
            scores.append(torch.tensor(0.35 * S, dtype=X.dtype))
            losses.append(torch.tensor(0.8, dtype=X.dtype))
            set_losses.append((torch.softmax(torch.stack(scores) / 20, 0) * torch.stack(losses)).sum())
    L = torch.stack(set_losses).reshape(B, Q)
    b_mean = L.mean(1)
    mask = (b_mean < b_mean.sort().values[keep]).to(L)
    average = (mask * b_mean).sum() / mask.sum()
    direct = torch.autograd.grad(average, copies)
    gradient = torch.zeros_like(F)
    for b in range(B):
        for q in range(Q):
            for i, j in zip(draws.index0[b, q].tolist(), draws.index1[b, q].tolist(), strict=True):
                gradient[b, i, j] += (mask[b] * (L[b, q] - b_mean[b]) / Q).detach()
    found = torch.autograd.grad([log_F, *given], leaves_of(features), [gradient, *direct])
    return average.detach(), list(found)


def test_one_scalar_has_the_two_stage_gradient(generator: torch.Generator) -> None:
    features, truth = scene(generator)
    config = ObjectiveConfig(SolverConfig(num_sets=3, num_hypotheses=4, set_size=24, minimal_size=8))
    draws = draw_sets(features, config.solver, torch.Generator().manual_seed(5))
    found = objective(features, truth, config, torch.Generator().manual_seed(5), percent=67)
    grown = found.hypotheses.sets.grown
    assert bool(grown.any()) and not bool(grown.all())  # both kinds of fit take part
    average, expected = two_stage_gradients(features, truth, draws, config, keep=2)
    assert float(found.loss.detach()) == pytest.approx(float(average), rel=1e-9)
    for value, other in zip(torch.autograd.grad(found.loss, leaves_of(features)), expected, strict=True):
        assert relative(value, other) < 1e-8


def test_objective_gradcheck_of_the_direct_part(generator: torch.Generator) -> None:
    features, truth = scene(generator, B=1, N=16)
    config = ObjectiveConfig(SolverConfig(num_sets=2, num_hypotheses=2, set_size=12, minimal_size=8, max_refinements=2))
    draws = draw_sets(features, config.solver, generator)
    log_p = torch.zeros(draws.index0.shape, dtype=torch.float64)
    uv1, depth1 = features.second.uv, features.second.depth

    def value(depth0: Tensor, uv0: Tensor) -> Tensor:
        xyz = truth.camera0.lift(uv0, depth0), truth.camera1.lift(uv1, depth1).detach()
        return objective_given_draws(xyz, log_p, draws, truth, config).loss

    assert torch.autograd.gradcheck(
        value, (features.first.depth, features.first.uv), atol=1e-6, check_undefined_grad=False
    )


def test_draws_leave_float64_probabilities_as_they_are(generator: torch.Generator) -> None:
    weights = torch.rand(50, generator=generator, dtype=torch.float64)
    before = weights.clone()
    draw_without_replacement(weights, 10, 2, generator)
    assert torch.equal(weights, before)


def test_same_seed_same_loss_and_nothing_is_written_to(generator: torch.Generator) -> None:
    features, truth = scene(generator, dtype=torch.float32)
    config = ObjectiveConfig(SolverConfig(num_sets=3, num_hypotheses=4, set_size=24, minimal_size=8))
    before = [x.detach().clone() for x in leaves_of(features)]
    first, second, other = (
        objective(features, truth, config, torch.Generator().manual_seed(s)).loss for s in (1, 1, 2)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)
    assert all(torch.equal(a, b) for a, b in zip(before, leaves_of(features), strict=True))


# -- log probabilities ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("with_bin", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log_probabilities_equal_the_dense_ones(with_bin: bool, dtype: torch.dtype, generator: torch.Generator) -> None:
    features, _ = scene(generator, dtype=dtype)
    first, second, bin_ = features.first, features.second, features.dustbin if with_bin else None
    index0, index1 = (
        torch.randint(0, 30, (3, 50), generator=generator),
        torch.randint(0, 34, (3, 50), generator=generator),
    )
    weight = torch.randn(3, 50, generator=generator, dtype=dtype)
    wanted = [first.score, first.descriptor, second.score, second.descriptor, *([bin_] if bin_ is not None else [])]
    dense = match_probabilities(first.descriptor, second.descriptor, first.score, second.score, 0.1, bin_)
    pair = torch.arange(3)[:, None]
    expected = torch.log(dense + 1e-16)[pair, index0, index1]
    found = log_match_probability(first, second, index0, index1, 0.1, bin_)
    tolerance = 1e-4 if dtype == torch.float32 else 1e-9
    possible = first.score[pair, index0] > 0
    assert torch.allclose(found, expected, rtol=tolerance)
    assert not bool(possible.all())  # impossible matches: log 1e-16, and no gradient
    weight = weight * possible  # where log F is finite the dense gradient is too
    gradients = torch.autograd.grad((weight * found).sum(), wanted)
    for value, other in zip(gradients, torch.autograd.grad((weight * expected).sum(), wanted), strict=True):
        assert relative(value, other) < tolerance
    soft = log_dual_softmax(first.descriptor, second.descriptor, index0, index1, 0.1, bin_)
    assert torch.allclose(
        soft.exp(), dual_softmax(first.descriptor, second.descriptor, 0.1, bin_)[pair, index0, index1]
    )


def test_impossible_matches_have_no_gradient(generator: torch.Generator) -> None:
    features, _ = scene(generator)
    index = torch.zeros(3, 5, dtype=torch.long)  # keypoint 0 has no score
    found = log_match_probability(features.first, features.second, index, index, 0.1, features.dustbin)
    gradients = torch.autograd.grad(found.sum(), [features.first.score, features.second.descriptor])
    assert all(float(g.abs().max()) < 1e-12 for g in gradients)


def test_similarities_gradcheck(generator: torch.Generator) -> None:
    a, b = (torch.randn(2, n, 3, generator=generator, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    bin_ = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    index0, index1 = torch.tensor([[0, 3, 3], [1, 1, 2]]), torch.tensor([[4, 0, 0], [1, 1, 3]])  # repeated entries too
    assert torch.autograd.gradcheck(lambda *x: similarities(x[0], x[1], index0, index1, 0.5, x[2]), (a, b, bin_))


def test_wrong_indices_raise(generator: torch.Generator) -> None:
    features, truth = scene(generator)
    with pytest.raises(ValueError, match="indices"):
        similarities(
            features.first.descriptor, features.second.descriptor, torch.zeros(3, 4).long(), torch.zeros(3, 5).long()
        )
    config = ObjectiveConfig(SolverConfig(num_sets=3, num_hypotheses=4, set_size=24, minimal_size=8))
    draws = draw_sets(features, config.solver, generator)
    with pytest.raises(ValueError, match="log_p must have the shape"):
        objective_given_draws((features.xyz0, features.xyz1), torch.zeros(3, 3, 1), draws, truth, config)


# -- what data can do ----------------------------------------------------------------------------------------------------


SMALL = ObjectiveConfig(SolverConfig(num_sets=3, num_hypotheses=4, set_size=24, minimal_size=8))


def spoil(features: PairFeatures, b: int, **values: float) -> PairFeatures:
    """The features with some numbers of pair b overwritten (leaves again)."""
    first = {}
    for name in ("uv", "depth", "score", "descriptor"):
        value = getattr(features.first, name).detach().clone()
        if name in values:
            value[b] = values[name]
        first[name] = value.requires_grad_()
    camera = Camera.from_fov((540, 720), 1.0).to(torch.float64)
    camera = Camera(*(x.expand(len(first["uv"]), 2) for x in (camera.size, camera.f, camera.c)))
    changed = Keypoints(first["uv"], first["depth"], first["score"], first["descriptor"], features.first.grid)
    return PairFeatures.lifted(changed, features.second, (camera, camera), 0.1, features.dustbin)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "values", [{"depth": NAN}, {"depth": INF}, {"score": 0.0}, {"score": NAN}, {"descriptor": NAN}]
)
def test_a_pair_that_gives_nothing_is_left_out(values: dict[str, float], generator: torch.Generator) -> None:
    features, truth = scene(generator)
    spoiled = spoil(features, 1, **values)
    found = objective(spoiled, truth, SMALL, generator)
    assert found.chosen.tolist() == [True, False, True]
    gradients = torch.autograd.grad(found.loss, [spoiled.first.depth, spoiled.first.uv, spoiled.second.depth])
    for gradient in gradients:
        assert bool(torch.isfinite(gradient[[0, 2]]).all()) and float(gradient[[0, 2]].abs().sum()) > 0
        assert float(gradient[1].abs().sum()) == 0


def test_a_batch_that_gives_nothing_has_a_zero_loss_with_zero_gradient(generator: torch.Generator) -> None:
    features, truth = scene(generator, B=1)
    features = spoil(features, 0, score=0.0)
    found = objective(features, truth, SMALL, generator)
    assert float(found.loss.detach()) == 0 and not bool(found.chosen.any())
    found.loss.backward()
    for leaf in leaves_of(features):
        assert leaf.grad is None or float(leaf.grad.abs().sum()) == 0


@pytest.mark.parametrize("null", [True, False])
def test_hypotheses_that_fix_no_pose_take_no_part(null: bool, generator: torch.Generator) -> None:
    features, truth = scene(generator, B=2)
    features = spoil(features, 0, depth=0.0)  # all points of photo 0 in one place: every fit is degenerate
    found = objective(features, truth, replace(SMALL, null_hypothesis=null), generator)
    assert not bool(found.hypotheses.usable[0].any()) and bool(found.hypotheses.usable[1].all())
    assert float(found.pair_loss[0].detach()) == pytest.approx(0.8)  # what a useless pose costs
    for gradient in torch.autograd.grad(found.loss, [features.first.uv, features.first.depth, features.second.depth]):
        assert bool(torch.isfinite(gradient).all()) and float(gradient[0].abs().max()) == 0


def test_an_undefined_derivative_of_one_fit_leaves_the_others_alone(generator: torch.Generator) -> None:
    # a regular octahedron: three equal singular values, where the SVD has no derivative
    octahedron = torch.cat([torch.eye(3), -torch.eye(3)]).double()
    other = torch.randn(6, 3, generator=generator, dtype=torch.float64)
    xyz = torch.cat([octahedron, other])[None, None].requires_grad_()
    minimal = torch.stack([torch.arange(6), torch.arange(6, 12)])[None, None]
    config = SolverConfig(num_sets=1, num_hypotheses=2, set_size=12, minimal_size=6, max_refinements=0)
    found = make_hypotheses(xyz, xyz.detach(), torch.ones(1, 1, 12, dtype=torch.bool), minimal, config)
    assert found.usable.tolist() == [[[True, True]]]
    (gradient,) = torch.autograd.grad(found.pose.R.sum() + found.pose.t.sum(), xyz)
    assert bool(torch.isfinite(gradient).all()) and float(gradient[0, 0, 6:].abs().max()) > 0


def test_fewer_matches_than_a_set_holds(generator: torch.Generator) -> None:
    features, truth = scene(generator, B=2)
    score = torch.zeros_like(features.first.score)
    score[0, 3], score[1, 3:] = 1, 1 / 27  # one keypoint: 34 possible matches
    first = replace(features.first, score=score.requires_grad_())
    few = replace(features, first=first)
    config = replace(SMALL, solver=replace(SMALL.solver, set_size=60))
    draws = draw_sets(few, config.solver, generator)
    assert draws.present.sum(-1).tolist() == [[34] * 3, [60] * 3]
    found = objective(few, truth, config, generator)
    assert float(found.hypotheses.score[0].max()) <= 34
    sets = found.hypotheses.sets.mask.unflatten(0, (2, 3))
    assert not bool(sets[0, ..., 34:].any())  # what is not there is never an inlier
    assert bool(torch.isfinite(torch.autograd.grad(found.loss, first.score)[0]).all())


def test_refinement_without_steps_keeps_the_minimal_sets(generator: torch.Generator) -> None:
    xyz = torch.randn(2, 20, 3, generator=generator)
    minimal = torch.stack([torch.randperm(20, generator=generator)[:8] for _ in range(6)]).reshape(2, 3, 8)
    config = SolverConfig(num_sets=2, num_hypotheses=3, set_size=20, minimal_size=8, max_refinements=0)
    sets = refinement_sets(xyz, xyz + 0.01, torch.ones(2, 20, dtype=torch.bool), minimal, config)
    assert not bool(sets.grown.any()) and bool((sets.mask.sum(-1) == 8).all()) and bool(sets.usable.all())


# -- curriculum ------------------------------------------------------------------------------------------------------------


def test_curriculum_schedules() -> None:
    published, paper = Curriculum(), Curriculum(growth=10, every=4000)
    assert [published.percent(1437 * e) for e in (0, 1, 9, 10, 11, 100)] == [30, 35, 75, 80, 80, 80]
    assert [paper.percent(s) for s in (0, 3999, 4000, 20000, 10**6)] == [30, 30, 40, 80, 80]
    assert Curriculum(50, 50).percent(10**9) == 50
    for wrong in ({"start": 0}, {"start": 90}, {"end": 101}, {"growth": -1}, {"every": 0}):
        with pytest.raises(ValueError, match="Curriculum needs"):
            Curriculum(**wrong)


@pytest.mark.parametrize(("percent", "expected"), [(None, 8), (100, 8), (30, 2), (80, 6), (1, 1), (50, 4)])
def test_select_pairs(percent: float | None, expected: int, generator: torch.Generator) -> None:
    losses = torch.rand(8, generator=generator)
    chosen = select_pairs(losses, percent)
    assert int(chosen.sum()) == expected
    if expected < 8:
        assert torch.equal(chosen, losses < losses.sort().values[expected])  # the published rule


def test_select_pairs_with_ties_and_losses_that_are_not_numbers() -> None:
    assert select_pairs(torch.full((4,), 0.8), 50).tolist() == [True, True, False, False]
    losses = torch.tensor([float("nan"), 0.5, 0.1, float("inf")])
    assert select_pairs(losses, 75).tolist() == [False, True, True, False]
    assert select_pairs(losses, None, torch.tensor([True, True, False, True])).tolist() == [False, True, False, False]
    with pytest.raises(ValueError, match="percentage"):
        select_pairs(losses, 0)
    with pytest.raises(ValueError, match="must be"):
        select_pairs(losses[None], 50)


def test_wrong_settings_raise() -> None:
    for wrong in ({"reinforce": "max"}, {"refinement_set": "first"}, {"score_temperature": 0.0}, {"null_score": -1.0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            ObjectiveConfig(**wrong)  # type: ignore[arg-type]
