"""The 3D scene against a synthetic world whose points and cameras are known."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View
from metriloc.viz import build_scene, triangulate
from metriloc.viz.scene_picture import _COLORS, _Eye, position_colors, scene_picture

DOUBLE = torch.float64
TRUE = Pose(so3_exp(torch.tensor([0.05, -0.3, 0.02], dtype=DOUBLE)), torch.tensor([1.2, 0.1, 0.3], dtype=DOUBLE))


def world(count: int = 60, metric: bool = True, depth: bool = False, lens: bool = False) -> tuple:
    """(points, estimate, reference, query): exact projections of points 4 to 9 m in front of both cameras."""
    generator = torch.Generator().manual_seed(1)
    xyz = torch.rand(count, 3, generator=generator, dtype=DOUBLE) * torch.tensor([2.0, 2.0, 5.0]) + torch.tensor(
        [-1.0, -1.0, 4.0]
    )
    distortion = torch.tensor([-0.1, 0.02, 1e-3, -1e-3, 0.0], dtype=DOUBLE) if lens else torch.zeros(0, dtype=DOUBLE)
    camera = Camera(
        torch.tensor([120.0, 90.0], dtype=DOUBLE),
        torch.tensor([100.0, 101.0], dtype=DOUBLE),
        torch.tensor([59.5, 44.5], dtype=DOUBLE),
        distortion,
        "radtan" if lens else "pinhole",
    )
    uv0, uv1 = camera.project(xyz)[0], camera.project(TRUE.transform(xyz))[0]
    image = torch.rand(3, 90, 120, generator=generator)
    known = xyz[:, 2] if depth else torch.full((count,), torch.nan, dtype=DOUBLE)
    inliers = Correspondences(uv0, uv1, known, known, torch.ones(count))
    pose = TRUE if metric else Pose(TRUE.R, TRUE.t / TRUE.distance())
    details = PairDetails(score=1.0, inliers=inliers, metric=metric, scale_source="test")
    estimate = PoseEstimate(pose, torch.tensor(True), torch.tensor(0.5), (None,), (details,))
    return xyz, estimate, View(image, camera), View(image, camera)


@pytest.mark.parametrize("lens", [False, True])
@pytest.mark.parametrize("depth", [False, True])
def test_points_agree_with_the_truth(depth: bool, lens: bool) -> None:
    xyz, estimate, reference, query = world(depth=depth, lens=lens)
    scene = build_scene(estimate, reference, query)
    assert scene is not None
    assert scene.points == pytest.approx(xyz.numpy(), abs=1e-6)
    assert scene.baseline == pytest.approx(float(TRUE.distance()), rel=1e-9) and scene.metric


def test_colors_are_those_of_the_reference_photo() -> None:
    _, estimate, reference, query = world()
    scene = build_scene(estimate, reference, query)
    assert scene is not None
    u, v = estimate.details[0].inliers.uv0.round().long().clamp(min=0).T
    expected = reference.image[:, v.clamp(max=89), u.clamp(max=119)].T * 255
    assert np.abs(scene.colors - expected.numpy()).max() <= 0.51


def test_without_metres_the_baseline_is_one_and_depth_is_not_trusted() -> None:
    xyz, estimate, reference, query = world(metric=False, depth=True)
    scene = build_scene(estimate, reference, query, true_query_from_reference=TRUE)
    assert scene is not None
    assert scene.baseline == 1.0 and not scene.metric
    assert scene.points == pytest.approx((xyz / TRUE.distance()).numpy(), abs=1e-6)
    reference_frustum, query_frustum, truth = scene.frusta
    assert np.linalg.norm(query_frustum.center) == pytest.approx(1.0)
    assert truth.center == pytest.approx(query_frustum.center) and truth.thumbnail is None
    assert reference_frustum.center == pytest.approx(np.zeros(3))


def test_frusta_stand_where_the_cameras_stood_and_see_their_corners() -> None:
    _, estimate, reference, query = world()
    scene = build_scene(estimate, reference, query)
    assert scene is not None
    frustum = scene.frusta[1]
    assert frustum.center == pytest.approx(TRUE.center().numpy())
    corners = TRUE.transform(torch.from_numpy(frustum.center + frustum.corners))
    uv, _ = query.camera.project(corners)
    assert uv.numpy() == pytest.approx(np.array([[-0.5, -0.5], [119.5, -0.5], [119.5, 89.5], [-0.5, 89.5]]))
    assert corners[:, 2].numpy() == pytest.approx(np.ones(4))


def test_points_behind_a_camera_or_not_finite_are_left_out() -> None:
    xyz, estimate, reference, query = world(count=20)
    inliers = estimate.details[0].inliers
    uv0, uv1 = inliers.uv0.clone(), inliers.uv1.clone()
    uv0[0] = torch.nan  # no pixel
    uv1[1, 0] = -400.0  # the query stands left of the reference: a ray far to its left never meets the other one
    uv1[2] = torch.inf
    broken = dataclasses.replace(estimate.details[0], inliers=dataclasses.replace(inliers, uv0=uv0, uv1=uv1))
    scene = build_scene(dataclasses.replace(estimate, details=(broken,)), reference, query)
    assert scene is not None
    assert scene.points == pytest.approx(xyz[3:].numpy(), abs=1e-6) and len(scene.colors) == 17


def test_many_points_are_thinned_evenly() -> None:
    _, estimate, reference, query = world(count=500)
    scene = build_scene(estimate, reference, query, max_points=100)
    everything = build_scene(estimate, reference, query)
    assert scene is not None and everything is not None and len(scene.points) == 100 and len(everything.points) == 500
    assert scene.points[0] == pytest.approx(everything.points[0])
    assert scene.points[-1] == pytest.approx(everything.points[-1])


def test_failure_and_a_pose_without_numbers_have_no_scene() -> None:
    _, estimate, reference, query = world()
    assert build_scene(PoseEstimate.failure("degenerate"), reference, query) is None
    broken = dataclasses.replace(estimate, pose=Pose(TRUE.R, TRUE.t * torch.nan))
    assert build_scene(broken, reference, query) is None
    with pytest.raises(ValueError, match="takes one estimate"):
        build_scene(PoseEstimate.stack([estimate, estimate]), reference, query)


@pytest.mark.parametrize("metric", [True, False])
def test_cameras_at_one_place_give_a_scene_without_points(metric: bool) -> None:
    _, estimate, reference, query = world()
    still = Pose(torch.eye(3), torch.zeros(3))
    details = dataclasses.replace(estimate.details[0], metric=metric)
    scene = build_scene(dataclasses.replace(estimate, pose=still, details=(details,)), reference, query)
    assert scene is not None and len(scene.points) == 0 and scene.baseline == 0.0
    json.dumps(scene.to_json([None, None]), allow_nan=False)


def test_corners_beyond_the_distortion_fall_back_to_finite_ones() -> None:
    _, estimate, reference, query = world()
    strong = dataclasses.replace(
        query.camera, distortion=torch.tensor([-2.5, 0, 0, 0, 0], dtype=DOUBLE), model="radtan"
    )
    scene = build_scene(estimate, reference, dataclasses.replace(query, camera=strong))
    assert scene is not None and np.isfinite(scene.frusta[1].corners).all()
    json.dumps(scene.to_json([None, None]), allow_nan=False)


@pytest.mark.parametrize("shape", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triangulate_batches(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    xyz = world()[0].to(dtype).expand(*shape, -1, -1)
    pose = Pose(TRUE.R.to(dtype).expand(*shape, 3, 3), TRUE.t.to(dtype).expand(*shape, 3))
    found = triangulate(3 * xyz, 0.2 * pose.transform(xyz), pose)
    assert found.dtype == dtype
    torch.testing.assert_close(found, xyz, rtol=0, atol=2e-4 if dtype == torch.float32 else 1e-10)


def test_triangulate_agrees_with_least_squares_on_skew_rays() -> None:
    ray0 = torch.tensor([[0.1, 0.0, 1.0]], dtype=DOUBLE)
    ray1 = torch.tensor([[-0.25, 0.07, 1.0]], dtype=DOUBLE)
    pose = Pose(torch.eye(3, dtype=DOUBLE), torch.tensor([-1.0, 0.0, 0.0], dtype=DOUBLE))
    c = np.array([1.0, 0.0, 0.0])
    a = np.stack([ray0[0].numpy(), -ray1[0].numpy()], 1)
    s, t = np.linalg.lstsq(a, c, rcond=None)[0]
    expected = (s * ray0[0].numpy() + c + t * ray1[0].numpy()) / 2
    assert triangulate(ray0, ray1, pose)[0].numpy() == pytest.approx(expected, abs=1e-12)


def test_triangulate_parallel_rays_are_nan_and_wrong_shapes_raise() -> None:
    pose = Pose(torch.eye(3), torch.tensor([-1.0, 0.0, 0.0]))
    forward = torch.tensor([[0.0, 0.0, 1.0]])
    assert triangulate(forward, forward, pose).isnan().all()
    with pytest.raises(ValueError, match="rays must both have shape"):
        triangulate(forward, torch.zeros(2, 3), pose)


# -- the still picture ------------------------------------------------------------------------------------------------
def near(picture: np.ndarray, color: tuple[int, int, int]) -> int:
    return int((np.abs(picture.astype(int) - np.array(color)).max(-1) < 40).sum())


def test_the_picture_shows_both_cameras_the_points_and_the_true_one_in_green() -> None:
    _, estimate, _, query = world(count=300)
    gray = dataclasses.replace(query, image=torch.full_like(query.image, 0.5))
    scene = build_scene(estimate, gray, gray)
    apart = build_scene(estimate, gray, gray, Pose(TRUE.R, TRUE.t * 1.6))
    assert scene is not None and apart is not None
    plain, with_truth = scene_picture(scene, (480, 360)), scene_picture(apart, (480, 360))
    assert plain.shape == (360, 480, 3) and plain.dtype == np.uint8
    assert (plain == scene_picture(scene, (480, 360))).all(), "the same scene, the same picture"
    for role in ("reference", "query"):
        assert near(plain, _COLORS[role]) > 60, role
    assert near(with_truth, _COLORS["truth"]) > near(plain, _COLORS["truth"]) + 60


def test_points_are_drawn_where_the_eye_sees_them_in_the_color_of_their_position() -> None:
    _, estimate, reference, query = world(count=300)
    scene = build_scene(estimate, reference, query)
    assert scene is not None
    size = (480, 360)
    few = dataclasses.replace(scene, points=scene.points[:1] * 0 + np.array([[0.0, 0.0, 6.0]]), colors=scene.colors[:1])
    x, y = (_Eye.on(few, size).screen(few.points)[0]).round().astype(int)
    color = position_colors(few.points)[0].astype(int)
    assert np.abs(scene_picture(few, size)[y - 1 : y + 2, x - 1 : x + 2].astype(int) - color).max(-1).min() < 60


def test_position_colors_are_the_cube_of_red_green_and_blue() -> None:
    corners = np.array([[x, y, z] for x in (0.0, 1.0) for y in (0.0, 2.0) for z in (4.0, 9.0)])
    assert (position_colors(corners) == np.where(corners == corners.max(0), 255, 70)).all()
    assert position_colors(np.zeros((0, 3))).shape == (0, 3)


def test_a_scene_without_points_or_baseline_is_still_a_picture() -> None:
    _, estimate, reference, query = world(count=4)
    still = dataclasses.replace(estimate, pose=Pose(TRUE.R, TRUE.t * 0), details=())
    scene = build_scene(still, reference, query)
    assert scene is not None and len(scene.points) == 0
    assert scene_picture(scene, (240, 180)).shape == (180, 240, 3)
