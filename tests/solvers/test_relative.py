"""Relative pose from given matches: synthetic scenes with distortion and outliers, degenerate ones, bad numbers."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from metriloc.geometry import Camera, Pose, rotation_angle
from metriloc.solvers.relative import (
    essential_pose,
    marginal_score,
    parallax_angles,
    pnp_from_depth,
    rigid_from_depths,
    sampson_errors,
    scale_from_depth,
    translation_observable,
)

MODELS = {
    "pinhole": [],
    "radtan": [-0.2, 0.05, 0.002, -0.003, 0.01],
    "fisheye": [0.05, -0.01, 0.004, -0.001],
}
MOTION = (0.5, -0.1, 0.2, 0.05, -0.15, 0.1)


def camera(model: str = "pinhole", focal: tuple[float, float] = (520, 510)) -> Camera:
    tensors = [torch.tensor(v, dtype=torch.float64) for v in ([640, 480], focal, [321, 238], MODELS[model])]
    return Camera(*tensors, model=model)


@dataclass
class Scene:
    pose: Pose
    cameras: tuple[Camera, Camera]
    uv0: Tensor
    depth0: Tensor
    uv1: Tensor
    depth1: Tensor
    true: Tensor

    @property
    def everything(self):
        return self.uv0, self.depth0, self.uv1, self.depth1, self.cameras

    def error(self, pose: Pose | None) -> tuple[float, float]:
        """Degrees, metres."""
        assert pose is not None
        metres = (pose.t - self.pose.t).norm()
        return float(torch.rad2deg(rotation_angle(pose.R @ self.pose.R.mT))), float(metres)

    def direction_error(self, pose: Pose | None) -> float:
        assert pose is not None
        a, b = pose.t, self.pose.t / self.pose.t.norm()
        return float(torch.rad2deg(torch.atan2(torch.linalg.cross(a, b).norm(), a @ b)))


def scene(
    generator: torch.Generator,
    model0: str = "pinhole",
    model1: str = "pinhole",
    count: int = 150,
    motion: tuple[float, ...] = MOTION,
    noise: float = 0.0,
    outliers: float = 0.0,
    depth: tuple[float, float] = (2.0, 6.0),
) -> Scene:
    def uniform(*shape):
        return torch.rand(*shape, generator=generator, dtype=torch.float64)

    cameras = camera(model0), camera(model1, (480, 490))
    pose = Pose.from_tangent(torch.tensor(motion, dtype=torch.float64))
    uv0 = uniform(30 * count, 2) * torch.tensor([639.0, 479.0])
    depth0 = depth[0] + (depth[1] - depth[0]) * uniform(30 * count)
    ray, valid0 = cameras[0].unproject(uv0)
    xyz1 = pose.transform(ray * depth0[:, None])
    uv1, valid1 = cameras[1].project(xyz1)
    keep = (valid0 & valid1).nonzero().squeeze(-1)[:count]
    assert len(keep) == count
    uv0, depth0, uv1, depth1 = uv0[keep], depth0[keep], uv1[keep], xyz1[keep, 2]
    uv0 = uv0 + noise * torch.randn(uv0.shape, generator=generator, dtype=torch.float64)
    uv1 = uv1 + noise * torch.randn(uv1.shape, generator=generator, dtype=torch.float64)
    wrong = int(outliers * count)
    uv1[:wrong] = uniform(wrong, 2) * torch.tensor([639.0, 479.0])
    depth1[:wrong] = 1 + 6 * uniform(wrong)
    return Scene(pose, cameras, uv0, depth0, uv1, depth1, torch.arange(count) >= wrong)


@pytest.mark.slow
@pytest.mark.parametrize("model1", MODELS)
@pytest.mark.parametrize("model0", MODELS)
def test_all_solvers_recover_the_pose_of_distorted_cameras(generator, model0, model1):
    s = scene(generator, model0, model1, noise=0.3, outliers=0.4)
    essential = essential_pose(s.uv0, s.uv1, s.cameras)
    assert essential.t_observable and not essential.metric and essential.reason is None
    assert s.error(essential.pose)[0] < 0.5 and s.direction_error(essential.pose) < 2
    assert abs(float(essential.pose.distance()) - 1) < 1e-6
    pnp = pnp_from_depth(s.uv0, s.depth0, s.uv1, s.cameras)
    rigid = rigid_from_depths(*s.everything)
    for fit, degrees, metres in ((pnp, 0.3, 0.02), (rigid, 0.5, 0.03)):
        assert fit.metric and fit.reason is None
        assert s.error(fit.pose)[0] < degrees and s.error(fit.pose)[1] < metres
    for fit in (essential, pnp, rigid):
        assert (fit.inliers & s.true).sum() > 0.85 * s.true.sum()
        assert (fit.inliers & ~s.true).sum() < 0.15 * (~s.true).sum()


def test_exact_matches_give_the_exact_metric_pose(generator):
    s = scene(generator, "radtan", "fisheye")
    for fit in (pnp_from_depth(s.uv0, s.depth0, s.uv1, s.cameras), rigid_from_depths(*s.everything)):
        assert fit.inliers.all()
        assert s.error(fit.pose)[0] < 1e-4 and s.error(fit.pose)[1] < 1e-5


def test_same_seed_same_answer(generator):
    s = scene(generator, noise=1.0, outliers=0.5)
    for solve in (
        lambda seed: essential_pose(s.uv0, s.uv1, s.cameras, seed=seed),
        lambda seed: pnp_from_depth(s.uv0, s.depth0, s.uv1, s.cameras, seed=seed),
        lambda seed: rigid_from_depths(*s.everything, seed=seed),
    ):
        first, second = solve(3), solve(3)
        assert torch.equal(first.pose.R, second.pose.R) and torch.equal(first.pose.t, second.pose.t)
        assert torch.equal(first.inliers, second.inliers)


def test_float32_and_the_inputs_stay_as_they_are(generator):
    s = scene(generator, "radtan", "radtan", noise=0.3)
    single = [v.float() for v in (s.uv0, s.depth0, s.uv1, s.depth1)]
    copies = [v.clone() for v in single]
    cameras = tuple(c.to(torch.float32) for c in s.cameras)
    uv0, depth0, uv1, _ = single
    for fit in (
        essential_pose(uv0, uv1, cameras),
        pnp_from_depth(uv0, depth0, uv1, cameras),
        rigid_from_depths(*single, cameras),
    ):
        assert fit.pose.dtype == torch.float32 and s.error(fit.pose.to(torch.float64))[0] < 0.5
    assert all(torch.equal(a, b) for a, b in zip(single, copies, strict=True))


# -- too little, degenerate, not finite -----------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [0, 1, 2, 3, 5])
def test_too_few_matches(generator, count):
    s = scene(generator, count=6)
    uv0, depth0, uv1, depth1 = (v[:count] for v in (s.uv0, s.depth0, s.uv1, s.depth1))
    fits = [essential_pose(uv0, uv1, s.cameras)]
    fits += [pnp_from_depth(uv0, depth0, uv1, s.cameras)] if count < 4 else []
    fits += [rigid_from_depths(uv0, depth0, uv1, depth1, s.cameras)] if count < 3 else []
    for fit in fits:
        assert fit.pose is None and fit.reason == "too_few_matches" and fit.inliers.shape == (count,)


def test_matches_without_depth_do_not_count(generator):
    s = scene(generator)
    depth0 = s.depth0.clone()
    depth0[3:] = 0
    assert pnp_from_depth(s.uv0, depth0, s.uv1, s.cameras).reason == "too_few_matches"
    depth0[2] = torch.nan
    assert rigid_from_depths(s.uv0, depth0, s.uv1, s.depth1, s.cameras).reason == "too_few_matches"


def test_nan_and_infinity_are_left_out_or_named(generator):
    s = scene(generator)
    s.uv0[0, 0], s.uv1[1, 1], s.depth0[2], s.depth1[3] = torch.nan, torch.inf, torch.nan, torch.inf
    for fit in (
        essential_pose(s.uv0, s.uv1, s.cameras),
        pnp_from_depth(s.uv0, s.depth0, s.uv1, s.cameras),
        rigid_from_depths(*s.everything),
    ):
        assert s.error(fit.pose)[0] < 1e-2 and not fit.inliers[:2].any()
    bad = torch.full_like(s.uv0, torch.nan)
    for fit in (
        essential_pose(bad, s.uv1, s.cameras),
        pnp_from_depth(bad, s.depth0, s.uv1, s.cameras),
        rigid_from_depths(bad, s.depth0, s.uv1, s.depth1, s.cameras),
    ):
        assert fit.pose is None and fit.reason == "non_finite" and not fit.inliers.any()


def on_line(s: Scene) -> Scene:
    along = torch.linspace(-1, 1, 30, dtype=torch.float64)[:, None]
    xyz0 = torch.tensor([0.1, 0.2, 4.0], dtype=torch.float64) + along * torch.tensor(
        [0.8, 0.1, 0.5], dtype=torch.float64
    )
    xyz1 = s.pose.transform(xyz0)
    uv0, uv1 = s.cameras[0].project(xyz0)[0], s.cameras[1].project(xyz1)[0]
    return Scene(s.pose, s.cameras, uv0, xyz0[:, 2], uv1, xyz1[:, 2], torch.ones(30, dtype=torch.bool))


def test_points_on_a_line_and_one_point_many_times_are_degenerate(generator):
    s = scene(generator)
    line = on_line(s)
    same = Scene(
        s.pose, s.cameras, *(v[:1].expand(30, *v.shape[1:]) for v in (s.uv0, s.depth0, s.uv1, s.depth1, s.true))
    )
    for bad in (line, same):
        for fit in (
            essential_pose(bad.uv0, bad.uv1, bad.cameras),
            pnp_from_depth(bad.uv0, bad.depth0, bad.uv1, bad.cameras),
            rigid_from_depths(*bad.everything),
        ):
            assert fit.pose is None and fit.reason == "degenerate" and not fit.inliers.any()


def test_a_plane_is_enough_with_depth_and_usually_without(generator):
    s = scene(generator, noise=0.3, depth=(3.99, 4.0))
    for fit in (pnp_from_depth(s.uv0, s.depth0, s.uv1, s.cameras), rigid_from_depths(*s.everything)):
        assert s.error(fit.pose)[0] < 0.5 and s.error(fit.pose)[1] < 0.03
    essential = essential_pose(s.uv0, s.uv1, s.cameras)
    assert s.error(essential.pose)[0] < 2 and essential.t_observable


# -- is there a translation? ----------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.5])
@pytest.mark.parametrize("outliers", [0.0, 0.3])
def test_pure_rotation_keeps_its_rotation_and_says_that_the_direction_is_unknown(generator, noise, outliers):
    for _ in range(5):
        s = scene(generator, "radtan", motion=(0, 0, 0, 0.05, -0.15, 0.1), noise=noise, outliers=outliers)
        fit = essential_pose(s.uv0, s.uv1, s.cameras)
        assert fit.reason is None and not fit.t_observable
        assert s.error(fit.pose)[0] < 0.5
        pnp = pnp_from_depth(s.uv0, s.depth0, s.uv1, s.cameras)
        assert s.error(pnp.pose)[0] < 0.3 and s.error(pnp.pose)[1] < 0.03


def test_a_small_baseline_shows_only_where_the_noise_allows(generator):
    motion = (0.02, 0, 0, 0.05, -0.15, 0.1)  # 2 cm at 2 to 6 m: 2 to 5 pixels
    clear, lost = (scene(generator, motion=motion, noise=n) for n in (0.1, 2.0))
    assert essential_pose(clear.uv0, clear.uv1, clear.cameras).t_observable
    assert not essential_pose(lost.uv0, lost.uv1, lost.cameras, max_error_px=5.0).t_observable


def test_a_near_object_before_a_far_background_shows_the_translation(generator):
    far = scene(generator, noise=0.3, count=120, depth=(300, 600))
    near = scene(generator, noise=0.3, count=40)
    assert not translation_observable(far.pose, far.uv0, far.uv1, far.cameras)
    uv0, uv1 = torch.cat([far.uv0, near.uv0]), torch.cat([far.uv1, near.uv1])
    assert translation_observable(near.pose, uv0, uv1, near.cameras)
    assert not translation_observable(near.pose, uv0[:0], uv1[:0], near.cameras)


def test_parallax_and_epipolar_errors_mean_what_they_say(generator):
    s = scene(generator, "radtan", "fisheye", noise=0.0)
    back = s.pose.inverse().t  # centre of camera 1, seen from camera 0
    ray0 = s.cameras[0].unproject(s.uv0)[0] * s.depth0[:, None]
    toward1 = ray0 - back
    expected = torch.acos((ray0 * toward1).sum(-1) / ray0.norm(dim=-1) / toward1.norm(dim=-1))
    torch.testing.assert_close(parallax_angles(s.pose, s.uv0, s.uv1, s.cameras), expected, rtol=1e-5, atol=1e-6)
    squared, in_front = sampson_errors(s.pose, s.uv0, s.uv1, s.cameras)
    assert in_front.all() and squared.max() < 1e-10
    flipped = Pose(s.pose.R, -s.pose.t)
    assert not sampson_errors(flipped, s.uv0, s.uv1, s.cameras)[1].any()
    # Sampson is the first-order distance to the nearest exact match: noise of sigma in both images gives sigma
    noisy = scene(generator, noise=0.5, count=400)
    squared, _ = sampson_errors(noisy.pose, noisy.uv0, noisy.uv1, noisy.cameras)
    assert 0.45 < float(squared.mean().sqrt()) < 0.55


# -- metres ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS)
def test_scale_is_exact_on_exact_depths(generator, model):
    s = scene(generator, model, model)
    unit = Pose(s.pose.R, s.pose.t / s.pose.t.norm())
    for depth1 in (None, s.depth1):
        fit = scale_from_depth(unit, s.uv0, s.depth0, s.uv1, s.cameras, depth1)
        assert abs(fit.scale / float(s.pose.t.norm()) - 1) < 1e-6 and fit.spread < 1e-6
        assert fit.support == (150 if depth1 is None else 300)


def test_scale_stands_noise_outliers_and_holes(generator):
    s = scene(generator, noise=0.5)
    unit, truth = Pose(s.pose.R, s.pose.t / s.pose.t.norm()), float(s.pose.t.norm())
    depths = []
    for depth in (s.depth0, s.depth1):
        depth = depth * (0.15 * torch.randn(depth.shape, generator=generator, dtype=torch.float64)).exp()
        depth[:30] *= 3  # a fifth is wrong, all to one side
        depth[30:40], depth[40:45] = 0, torch.nan
        depths.append(depth)
    one = scale_from_depth(unit, s.uv0, depths[0], s.uv1, s.cameras)
    both = scale_from_depth(unit, s.uv0, depths[0], s.uv1, s.cameras, depths[1])
    assert abs(one.scale / truth - 1) < 0.1 and abs(both.scale / truth - 1) < 0.07
    assert 0.1 < one.spread < 0.35 and one.support < 120 and both.support > one.support


def test_no_scale_without_parallax_or_depth(generator):
    s = scene(generator)
    unit = Pose(s.pose.R, s.pose.t / s.pose.t.norm())
    assert scale_from_depth(unit, s.uv0, torch.zeros_like(s.depth0), s.uv1, s.cameras) is None
    assert scale_from_depth(unit, s.uv0[:0], s.depth0[:0], s.uv1[:0], s.cameras) is None
    backwards = Pose(s.pose.R, -unit.t)
    assert scale_from_depth(backwards, s.uv0, s.depth0, s.uv1, s.cameras) is None
    turned = scene(generator, motion=(1e-9, 0, 0, 0.05, -0.15, 0.1))
    assert scale_from_depth(Pose(turned.pose.R, unit.t), turned.uv0, turned.depth0, turned.uv1, turned.cameras) is None


def test_wrong_shapes_are_named(generator):
    s = scene(generator, count=20)
    with pytest.raises(ValueError, match=r"uv1 must have shape \[20, 2\], got \[19, 2\]"):
        essential_pose(s.uv0, s.uv1[1:], s.cameras)
    with pytest.raises(ValueError, match=r"a depth must have shape \[20\], got \[20, 1\]"):
        pnp_from_depth(s.uv0, s.depth0[:, None], s.uv1, s.cameras)
    with pytest.raises(ValueError, match=r"a depth must have shape \[20\], got \[3\]"):
        rigid_from_depths(s.uv0, s.depth0, s.uv1, s.depth1[:3], s.cameras)


def test_the_true_pose_has_the_best_marginal_score(generator):
    s = scene(generator, count=50)
    best = marginal_score(s.pose, s.uv0, s.uv1, s.cameras)
    turned = Pose.from_tangent(torch.tensor([0.0, 0.0, 0.0, 0.0, 0.01, 0.0], dtype=torch.float64)) @ s.pose
    assert best == pytest.approx(4 * 50, rel=0.01) and marginal_score(turned, s.uv0, s.uv1, s.cameras) < 0.9 * best
