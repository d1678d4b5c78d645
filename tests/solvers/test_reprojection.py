"""The polish: Jacobians with every distortion term on, recovery, never worse than the start, degenerate input."""

from __future__ import annotations

import pytest
import torch

from metriloc.geometry import Camera, Pose, rotation_angle
from metriloc.solvers import reprojection
from metriloc.solvers.reprojection import PolishConfig, polish

MODELS = {
    "pinhole": [],
    "radtan": [-0.2, 0.05, 0.002, -0.003, 0.01],
    "fisheye": [0.05, -0.01, 0.004, -0.001],
}


def camera(model: str = "pinhole") -> Camera:
    tensors = [torch.tensor(v, dtype=torch.float64) for v in ([640, 480], [520, 510], [321, 238], MODELS[model])]
    return Camera(*tensors, model=model)


def scene(generator: torch.Generator, cameras: tuple[Camera, Camera], count: int = 60):
    """Points seen by both cameras, true pose: (pose, uv0, depth0, uv1, depth1), exact."""
    pose = Pose.from_tangent(torch.tensor([0.5, -0.1, 0.2, 0.05, -0.15, 0.1], dtype=torch.float64))
    uv0 = torch.rand(20 * count, 2, generator=generator, dtype=torch.float64) * torch.tensor([639.0, 479.0])
    depth0 = 2 + 4 * torch.rand(20 * count, generator=generator, dtype=torch.float64)
    ray, valid0 = cameras[0].unproject(uv0)
    xyz1 = pose.transform(ray * depth0[:, None])
    uv1, valid1 = cameras[1].project(xyz1)
    keep = (valid0 & valid1).nonzero().squeeze(-1)[:count]
    assert len(keep) == count
    return pose, uv0[keep], depth0[keep], uv1[keep], xyz1[keep, 2]


def noisy(generator: torch.Generator, matches, pixels: float = 1.0, log_depth: float = 0.15):
    uv0, depth0, uv1, depth1 = matches

    def draw(like):
        return torch.randn(like.shape, generator=generator, dtype=torch.float64)

    return (
        uv0 + pixels * draw(uv0),
        depth0 * (log_depth * draw(depth0)).exp(),
        uv1 + pixels * draw(uv1),
        depth1 * (log_depth * draw(depth1)).exp(),
    )


def moved(pose: Pose, *delta: float) -> Pose:
    return Pose.from_tangent(torch.tensor(delta, dtype=torch.float64)) @ pose


def errors(pose: Pose, truth: Pose) -> tuple[float, float]:
    """Degrees, metres."""
    return float(torch.rad2deg(rotation_angle(pose.R @ truth.R.mT))), float((pose.t - truth.t).norm())


@pytest.mark.parametrize("model", MODELS)
def test_jacobians_are_the_derivatives(generator, model):
    cameras = camera(model), camera(model)
    truth, *matches = scene(generator, cameras, 12)
    uv0, depth0, uv1, depth1 = noisy(generator, matches)
    depth0[0], depth1[1] = 0, torch.nan  # one match with a depth in one image only, each way
    start = moved(truth, 0.1, 0.05, -0.1, 0.02, 0.03, -0.02)
    problem, xyz0 = reprojection._problem(start, (uv0, uv1), (depth0, depth1), cameras, PolishConfig())
    assert len(xyz0) == 12
    xyz0 = xyz0 + 0.1 * torch.randn(12, 3, generator=generator, dtype=torch.float64)
    residual, xyz1 = problem.residuals(start, xyz0)
    weight = problem.robust(residual, xyz0, xyz1)[1]
    assert weight[0, 4] == 0 and weight[1, 5] == 0 and (weight == 0).sum() == 2
    J_pose, J_point = problem.jacobians(start, xyz0, xyz1)
    step = 1e-6
    for k in range(6):
        delta = torch.zeros(6, dtype=torch.float64)
        delta[k] = step
        upper, lower = (problem.residuals(Pose.from_tangent(d) @ start, xyz0)[0] for d in (delta, -delta))
        measured = torch.where(weight > 0, (upper - lower) / (2 * step), J_pose[..., k])
        torch.testing.assert_close(J_pose[..., k], measured, rtol=1e-5, atol=1e-5)
    for k in range(3):
        delta = torch.zeros(3, dtype=torch.float64)
        delta[k] = step
        upper, lower = (problem.residuals(start, xyz0 + d)[0] for d in (delta, -delta))
        measured = torch.where(weight > 0, (upper - lower) / (2 * step), J_point[..., k])
        torch.testing.assert_close(J_point[..., k], measured, rtol=1e-5, atol=1e-5)


def test_elimination_equals_the_full_system(generator):
    """The 6x6 step with the points eliminated is the step of the whole (6 + 3 N) system."""
    cameras = camera(), camera()
    truth, *matches = scene(generator, cameras, 10)
    start = moved(truth, 0.1, 0.05, -0.1, 0.02, 0.03, -0.02)
    uv0, depth0, uv1, depth1 = noisy(generator, matches)
    problem, xyz0 = reprojection._problem(start, (uv0, uv1), (depth0, depth1), cameras, PolishConfig())
    residual, xyz1 = problem.residuals(start, xyz0)
    weight = problem.robust(residual, xyz0, xyz1)[1].reshape(-1)
    J_pose, J_point = problem.jacobians(start, xyz0, xyz1)
    J = torch.cat([J_pose.reshape(-1, 6), torch.block_diag(*J_point)], -1)
    full = -torch.linalg.solve(J.mT @ (weight[:, None] * J), J.mT @ (weight * residual.reshape(-1)))
    system = reprojection._system(problem, start, xyz0, 0.0)
    delta = -torch.linalg.solve(system.H, system.g)
    torch.testing.assert_close(delta, full[:6], rtol=1e-6, atol=1e-9)
    points = system.to_points @ torch.cat([delta, delta.new_ones(1)])
    torch.testing.assert_close(points.reshape(-1), full[6:], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_exact_matches_give_the_exact_pose(generator, model):
    cameras = camera(model), camera(model)
    truth, *matches = scene(generator, cameras)
    result = polish(moved(truth, 0.1, 0.05, -0.1, 0.05, 0.03, -0.04), *matches, cameras)
    degrees, metres = errors(result.pose, truth)
    assert result.ok and degrees < 1e-4 and metres < 1e-5
    assert result.cost < 1e-6 * result.cost_before


def test_wrong_depths_do_not_bend_the_rotation(generator):
    """Pixels good to 0.5, depths to 15 %, a tenth of the matches wrong: far better than the alignment of points."""
    from metriloc.solvers.procrustes import kabsch

    cameras, before, after = (camera("radtan"), camera("radtan")), [], []
    for _ in range(6):
        truth, *matches = scene(generator, cameras, 100)
        uv0, depth0, uv1, depth1 = noisy(generator, matches, 0.5)
        points = [
            c.unproject(uv)[0] * d[:, None] for c, uv, d in zip(cameras, (uv0, uv1), (depth0, depth1), strict=True)
        ]
        start = kabsch(*points).pose
        uv1[:10] = uv1[:10].roll(1, 0)
        result = polish(start, uv0, depth0, uv1, depth1, cameras, PolishConfig(pixel_sigma=0.5))
        assert result.ok and result.cost <= result.cost_before
        before.append(errors(start, truth))
        after.append(errors(result.pose, truth))
    (degrees0, metres0), (degrees, metres) = (torch.tensor(e).median(0).values for e in (before, after))
    assert degrees < 0.1 * degrees0 and metres < 0.3 * metres0


@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_metres_come_from_the_depths(generator, scale):
    cameras = camera(), camera()
    truth, uv0, depth0, uv1, depth1 = scene(generator, cameras)
    result = polish(truth, uv0, scale * depth0, uv1, scale * depth1, cameras)
    torch.testing.assert_close(result.pose.t, scale * truth.t, rtol=1e-4, atol=1e-5)
    degrees, _ = errors(result.pose, truth)
    assert degrees < 1e-3


def test_one_image_with_depth_is_enough(generator):
    cameras = camera(), camera()
    truth, uv0, depth0, uv1, depth1 = scene(generator, cameras)
    start, none = moved(truth, 0.05, 0.02, -0.05, 0.02, 0.01, -0.02), torch.zeros(len(uv0))
    for depths in ((depth0, none), (none, depth1), (depth0, torch.full_like(depth0, torch.nan))):
        result = polish(start, uv0, depths[0], uv1, depths[1], cameras)
        degrees, metres = errors(result.pose, truth)
        assert result.ok and degrees < 1e-3 and metres < 1e-4
    assert not polish(start, uv0, none, uv1, none, cameras).ok


@pytest.mark.parametrize("seed", range(8))
def test_never_worse_than_the_start(seed):
    """Random starts, some hopeless: the cost never grows, and the pose stays a rotation."""
    generator = torch.Generator().manual_seed(seed)
    cameras = camera("fisheye"), camera("fisheye")
    truth, *matches = scene(generator, cameras, 30)
    delta = torch.randn(6, generator=generator, dtype=torch.float64) * (0.1 if seed % 2 else 1.5)
    result = polish(Pose.from_tangent(delta) @ truth, *noisy(generator, matches, 3.0), cameras)
    assert result.cost <= result.cost_before
    identity = torch.eye(3, dtype=torch.float64)
    torch.testing.assert_close(result.pose.R @ result.pose.R.mT, identity, rtol=0, atol=1e-9)


def test_too_few_matches_and_lines_return_the_start(generator):
    cameras = camera(), camera()
    truth, *matches = scene(generator, cameras)
    start = moved(truth, 0.05, 0.0, 0.0, 0.01, 0.0, 0.0)
    few = polish(start, *(v[:3] for v in matches), cameras)
    assert not few.ok and few.pose is start
    none = polish(start, *(v[:0] for v in matches), cameras)
    assert not none.ok and none.pose is start
    along = torch.linspace(-1, 1, 20, dtype=torch.float64)[:, None]
    xyz0 = torch.tensor([0.1, 0.2, 4.0], dtype=torch.float64) + along * torch.tensor(
        [0.8, 0.1, 0.5], dtype=torch.float64
    )
    xyz1 = truth.transform(xyz0)
    line = (cameras[0].project(xyz0)[0], xyz0[:, 2], cameras[1].project(xyz1)[0], xyz1[:, 2])
    on_line = polish(start, *line, cameras)
    assert not on_line.ok and on_line.pose is start
    same = polish(start, *(v[:1].expand(20, *v.shape[1:]) for v in matches), cameras)
    assert not same.ok and same.pose is start


def test_bad_numbers_are_left_out_not_spread(generator):
    cameras = camera(), camera()
    truth, *matches = scene(generator, cameras)
    start = moved(truth, 0.05, 0.02, -0.05, 0.02, 0.01, -0.02)
    matches = [v.clone() for v in matches]
    matches[0][0, 0], matches[2][1, 1], matches[1][2], matches[3][3] = torch.nan, torch.inf, torch.inf, torch.nan
    copies = [v.clone() for v in matches]
    result = polish(start, *matches, cameras)
    assert result.ok and errors(result.pose, truth)[0] < 1e-3
    for value, copy in zip(matches, copies, strict=True):
        torch.testing.assert_close(value, copy, equal_nan=True, rtol=0, atol=0)  # inputs are never written to
    lost = polish(Pose(start.R * torch.nan, start.t), *matches, cameras)
    assert not lost.ok and bool(torch.isnan(lost.pose.R).all())


def test_float32_in_float32_out(generator):
    cameras = camera(), camera()
    truth, *matches = scene(generator, cameras)
    single = tuple(c.to(torch.float32) for c in cameras)
    start = moved(truth, 0.05, 0.02, -0.05, 0.02, 0.01, -0.02).to(torch.float32)
    result = polish(start, *(v.float() for v in matches), single)
    assert result.pose.dtype == torch.float32 and errors(result.pose.to(torch.float64), truth)[0] < 1e-2


def test_wrong_use_is_named(generator):
    cameras = camera(), camera()
    truth, uv0, depth0, uv1, depth1 = scene(generator, cameras)
    with pytest.raises(ValueError, match=r"depth1 must have shape \[60\], got \[59\]"):
        polish(truth, uv0, depth0, uv1, depth1[1:], cameras)
    with pytest.raises(ValueError, match=r"one pose, got batch shape \(1,\)"):
        polish(Pose.stack([truth]), uv0, depth0, uv1, depth1, cameras)
    with pytest.raises(ValueError, match=r"PolishConfig.pixel_sigma must be positive, got 0"):
        PolishConfig(pixel_sigma=0)
