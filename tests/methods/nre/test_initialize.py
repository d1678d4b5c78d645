"""The P3P start: golden triplets and scores, draws without repeats, determinism, and every clean failure."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from oracles.nre_maps import gain_at

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.methods.nre.evidence import score_poses
from metriloc.methods.nre.initialize import (
    InitializeConfig,
    distinct_poses,
    draw_triplets,
    initialize,
    rank,
    sampling_weights,
    solve_triplets,
)
from metriloc.methods.nre.maps import (
    from_log_probability,
)

EPSILON = 2.0**-23


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def error_deg(pose: Pose, other: Pose) -> float:
    return float(torch.rad2deg((pose @ other.inverse()).angle()))


def test_golden_stage(golden, camera_of):
    """One stage of the published code: ranking, weights, the stored triplets' poses and costs, and the winner."""
    data = golden("a_p3p_pipeline")
    logits = data["logits"].float()
    h, w = logits.shape[1:]
    log_c = (logits.flatten(1).softmax(-1) + EPSILON).log().unflatten(-1, (h, w))  # parity: upstream's epsilon
    maps, camera = from_log_probability(log_c), camera_of(data, (h, w))
    torch.testing.assert_close(maps.max_gain - maps.peak, data["map_minima"], rtol=0, atol=1e-5)
    torch.testing.assert_close(maps.entropy, data["entropy"], rtol=0, atol=1e-4)
    assert torch.equal(maps.peak_uv, data["argmax_2D"])
    order = rank(maps)[:20]
    assert set(order.tolist()) == set(data["top_N"].tolist())
    kept, xyz = maps[data["top_N"]], data["p3D"][data["top_N"]].double()
    torch.testing.assert_close(sampling_weights(kept.entropy), data["sampler_weights"], rtol=0, atol=1e-4)
    triplets = data["triplets"]
    distinct = (triplets.sort(-1).values.diff(dim=-1) > 0).all(-1)  # parity: upstream draws with replacement (U7)
    assert 0.1 < float((~distinct).float().mean()) < 0.3
    rays = camera.unproject(kept.peak_uv.double())[0]
    poses, owner = solve_triplets(triplets, rays, xyz)
    assert bool(distinct[owner].all())  # a repeated point gives no pose
    uv = camera.project(poses.transform(xyz))[0]
    clamped = uv.clamp(min=0).minimum(torch.tensor([w - 1.0, h - 1.0]))  # parity: border cells outside the map (U6)
    front = poses.transform(xyz)[..., 2] > 1e-4
    cost = 20 * kept.max_gain - (gain_at(kept, clamped) * front).sum(-1)
    found = 0
    for i in range(300):
        if not distinct[i]:
            continue
        ours = (owner == i).nonzero().squeeze(-1)
        n = int(data["n_solutions"][i])
        for k in range(n):
            d = (poses.R[ours] - data["sol_R"][i, k]).abs().amax((-1, -2)) + (
                poses.t[ours] - data["sol_t"][i, k]
            ).abs().amax(-1)
            if len(d) == 0 or float(d.min()) > 1e-3:  # OpenCV polishes less: a few of its solutions are rough
                continue
            assert float(cost[ours[d.argmin()]]) == pytest.approx(float(data["sol_cost"][i, k]), abs=1e-2), (i, k)
            found += 1
    assert found > 0.98 * int(data["n_solutions"][distinct].sum())
    best = int(cost.argmin())
    assert int(owner[best]) == int(data["best_iter"]) == 58
    assert float(cost[best]) == pytest.approx(float(data["best_cost"]), abs=1e-2)
    winner = Pose(so3_exp(data["best_rvec"][:, 0].double()), data["best_tvec"].double())
    assert error_deg(poses[best], winner) < 1e-2
    # the correct score never is lower: a point outside the map costs as much as an outlier
    assert bool((score_poses(kept, xyz, camera, poses) >= cost - 1e-3).all())


def test_golden_pipeline_start(golden, camera_of):
    data = golden("g_coarse_pipeline")
    logits = data["logits"].float()
    maps = from_log_probability(logits.flatten(1).log_softmax(-1).unflatten(-1, logits.shape[1:]))
    camera, xyz = camera_of(data, logits.shape[1:]), data["p3D"].double()
    truth = Pose(data["R_gt"].double(), data["t_gt"].double())
    assert float(score_poses(maps, xyz, camera, truth)) == pytest.approx(float(data["gt_cost_all"]), abs=1e-2)
    published = Pose(so3_exp(data["p3p_rvec"][:, 0].double()), data["p3p_tvec"].double())
    for seed in range(3):
        found = initialize(maps, xyz, camera, seeded(seed))
        assert found.reason is None and error_deg(found.poses[0], truth) < 1.0
        # over all points, ours is as good as the published winner
        assert float(score_poses(maps, xyz, camera, found.poses[0])) <= 1.01 * float(
            score_poses(maps, xyz, camera, published)
        )


def test_triplets_never_repeat_a_point_and_follow_the_weights():
    """U7: a fifth of upstream's triplets hold a point twice."""
    weights = torch.tensor([0.0, 0.5, 1.0, 0.5, 1.0, 0.25])
    triplets = draw_triplets(weights, 4000, seeded())
    assert triplets.shape == (4000, 3) and bool((triplets.sort(-1).values.diff(dim=-1) > 0).all())
    share = torch.bincount(triplets[:, 0], minlength=6) / 4000
    assert float((share - weights / weights.sum()).abs().max()) < 0.03
    assert draw_triplets(torch.zeros(3), 5, seeded()).sort(-1).values.tolist() == [[0, 1, 2]] * 5
    assert torch.equal(draw_triplets(weights, 50, seeded(4)), draw_triplets(weights, 50, seeded(4)))
    with pytest.raises(ValueError, match="three points, got 2"):
        draw_triplets(torch.ones(2), 5, seeded())


@pytest.mark.parametrize("distortion", [None, (-0.1, 0.03, 0.004, -0.003, 0.01)])
def test_finds_the_pose_and_repeats_itself(scene, distortion):
    s = scene(distortion=distortion, outliers=0.4)
    state = s.maps.log_ratio.clone(), s.xyz.clone()
    found = initialize(s.maps, s.xyz, s.camera, seeded())
    assert found.reason is None and 1 <= len(found.costs) <= 4
    assert error_deg(found.poses[0], s.pose) < 1.5 and float((found.poses.t[0] - s.pose.t).norm()) < 0.3
    assert bool((found.costs.diff() >= 0).all())
    torch.testing.assert_close(
        found.costs, score_poses(s.maps, s.xyz, s.camera, found.poses), rtol=1e-6, atol=1e-3
    )  # all maps are informative here
    again = initialize(s.maps, s.xyz.float(), s.camera, seeded())
    assert torch.equal(found.poses.R, initialize(s.maps, s.xyz, s.camera, seeded()).poses.R)
    assert error_deg(again.poses[0], found.poses[0]) < 0.01
    assert torch.equal(state[0], s.maps.log_ratio) and torch.equal(state[1], s.xyz)


@pytest.mark.parametrize("outliers", [0.5, 0.8])
def test_the_tournament_finds_what_scoring_everything_finds(scene, outliers):
    s = scene(300, outliers=outliers, seed=3)
    full = initialize(s.maps, s.xyz, s.camera, seeded(), InitializeConfig(num_samples=1000, first_points=300))
    quick = initialize(s.maps, s.xyz, s.camera, seeded(), InitializeConfig(num_samples=1000, first_points=20))
    assert float(quick.costs[0]) <= 1.02 * float(full.costs[0])
    assert error_deg(quick.poses[0], s.pose) < 2.0


def test_stops_early_and_at_the_limit(scene):
    s = scene(outliers=0.0)
    assert initialize(s.maps, s.xyz, s.camera, seeded(), InitializeConfig(num_samples=300)).num_samples == 300
    assert initialize(s.maps, s.xyz, s.camera, seeded(), InitializeConfig(50000, patience=1000)).num_samples < 20000


def test_returned_poses_differ(scene):
    s = scene(outliers=0.6, seed=5)
    found = initialize(s.maps, s.xyz, s.camera, seeded(), InitializeConfig(num_poses=6, distinct=2.0))
    uv = s.camera.project(found.poses.transform(s.xyz))[0]
    for i in range(1, len(found.costs)):
        seen = s.camera.project(found.poses[0].transform(s.xyz))[1]
        assert float((uv[i] - uv[0])[seen].norm(dim=-1).median()) >= 2.0
    same = Pose(s.pose.R.expand(5, 3, 3), s.pose.t.expand(5, 3))
    assert distinct_poses(same, s.xyz, s.camera, 4, 1.0).tolist() == [0]


def test_reprojection_error_mode(scene):
    """Eq. (11), U19: one-hot maps still sample the surest points first."""
    s = scene(outliers=0.3)
    found = initialize(s.maps.one_hot(), s.xyz, s.camera, seeded())
    assert found.reason is None and error_deg(found.poses[0], s.pose) < 2.0


def test_equal_entropies_draw_uniformly(scene):
    """U8: upstream crashes when all entropies are equal."""
    s = scene(outliers=0.0)
    equal = dataclasses.replace(s.maps, entropy=torch.ones(80))
    found = initialize(equal, s.xyz, s.camera, seeded())
    assert found.reason is None and error_deg(found.poses[0], s.pose) < 1.5


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("three points", "too_few_points"),
        ("no points", "too_few_points"),
        ("collinear", "degenerate"),
        ("coincident", "degenerate"),
        ("flat", "flat_maps"),
        ("three maps", "flat_maps"),
        ("nan points", "non_finite"),
    ],
)
def test_failures_are_values(scene, case, reason):
    """U8: upstream crashes when there is no pose."""
    s = scene(30)
    maps, xyz = s.maps, s.xyz
    if case == "three points":
        maps, xyz = maps[torch.arange(3)], xyz[:3]
    elif case == "no points":
        maps, xyz = maps[torch.arange(0)], xyz[:0]
    elif case == "collinear":
        xyz = xyz[:1] + torch.linspace(0, 3, 30).double()[:, None] * torch.tensor([1.0, 0.3, 0.2]).double()
    elif case == "coincident":
        xyz = xyz[:1].expand(30, 3)
    elif case == "flat":
        maps = from_log_probability(torch.full_like(s.log_c, -7.4))
    elif case == "three maps":
        flat = torch.full_like(s.log_c, -7.4)
        flat[:3] = s.log_c[:3]
        maps = from_log_probability(flat)
    else:
        xyz = torch.full_like(xyz, torch.nan)
    found = initialize(maps, xyz, s.camera, seeded(), InitializeConfig(num_samples=200))
    assert found.reason == reason and found.poses.shape == (0,) and found.costs.shape == (0,)


def test_points_that_are_not_finite_are_left_out(scene):
    s = scene(60, outliers=0.2)
    xyz = s.xyz.clone()
    xyz[:10] = torch.nan
    found = initialize(s.maps, xyz, s.camera, seeded())
    assert found.reason is None and error_deg(found.poses[0], s.pose) < 1.5


def test_wrong_use_is_named(scene):
    s = scene(10)
    with pytest.raises(ValueError, match=r"\[10, 3\] .* got \[9, 3\]"):
        initialize(s.maps, s.xyz[:9], s.camera, seeded())
    with pytest.raises(ValueError, match=r"50x34 cells .*\[100.0, 68.0\]"):
        initialize(s.maps, s.xyz, s.camera.scale(2.0), seeded())
    with pytest.raises(ValueError, match="50x34"):
        initialize(s.maps, s.xyz, Camera.stack([s.camera]), seeded())
    with pytest.raises(ValueError, match="num_samples must be positive, got 0"):
        InitializeConfig(num_samples=0)
    with pytest.raises(ValueError, match=r"share .* got 1.5"):
        InitializeConfig(share=1.5)
    with pytest.raises(ValueError, match="distinct"):
        InitializeConfig(distinct=-1)
