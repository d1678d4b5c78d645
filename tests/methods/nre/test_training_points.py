"""Points to train on: the same point of the scene in both photos, or not among them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from metriloc.geometry import Camera, Pose, sample_depth, so3_exp
from metriloc.methods.nre.training_points import PointPair, points_from_depth, points_from_map, shared_points
from metriloc.types import Pair, SfmMap, View


def _camera(size=(80, 60)) -> Camera:
    return Camera.from_fov(torch.tensor([float(s) for s in size]), math.radians(70))


def _pose(rotation=(0.02, -0.1, 0.05), t=(0.3, 0.05, 0.1)) -> Pose:
    return Pose(so3_exp(torch.tensor(rotation, dtype=torch.float64)), torch.tensor(t, dtype=torch.float64))


def _plane_pair(occluder: bool = False) -> Pair:
    """A wall three metres ahead of camera 0 seen from two places; with ``occluder``, view 1 sees something nearer."""
    camera, pose = _camera(), _pose()
    image = torch.rand(3, 60, 80)
    grid = torch.stack(torch.meshgrid(torch.arange(80.0), torch.arange(60.0), indexing="xy"), -1).reshape(-1, 2)
    rays = camera.unproject(grid)[0]
    # the wall z = 3 of camera 0, along the rays of camera 1
    inverse = pose.to(torch.float32).inverse()
    depth1 = ((3 - inverse.t[2]) / (rays @ inverse.R[2])).reshape(60, 80)
    if occluder:
        depth1 = depth1.clone()
        depth1[:, :40] *= 0.8
    return Pair(
        View(image, camera, depth=torch.full((60, 80), 3.0)), View(image, camera, depth=depth1), pose.to(torch.float32)
    )


def test_points_from_depth_show_the_same_point(generator):
    pair = _plane_pair()
    found = points_from_depth(pair, 200, generator)
    assert 150 <= len(found) <= 200
    rays, _ = pair.view0.camera.to(torch.float64).unproject(found.uv0.double())
    uv1, _ = pair.view1.camera.to(torch.float64).project(_pose().transform(3 * rays))
    torch.testing.assert_close(found.uv1.double(), uv1, atol=1e-3, rtol=0)
    assert (found.uv1 >= 0).all() and (found.uv1 <= torch.tensor([79.0, 59.0])).all()


def test_occluded_points_are_left_out(generator):
    found = points_from_depth(_plane_pair(occluder=True), 200, generator)
    assert len(found) and (found.uv1[:, 0] > 38).all()
    # a tolerance beyond the step lets them in again: it is the check that keeps them out
    loose = points_from_depth(_plane_pair(occluder=True), 200, generator, tolerance=0.5)
    assert (loose.uv1[:, 0] < 38).any()


def test_unknown_depth_gives_no_points(generator):
    pair = _plane_pair()
    for side in ("view0", "view1"):
        blind = replace(getattr(pair, side), depth=torch.zeros(60, 80))
        assert len(points_from_depth(replace(pair, **{side: blind}), 50, generator)) == 0
    behind = replace(pair, cam1_from_cam0=Pose(torch.diag(torch.tensor([-1.0, 1, -1])), torch.zeros(3)))
    assert len(points_from_depth(behind, 50, generator)) == 0


def test_depth_maps_may_be_smaller_than_the_photos(generator):
    pair = _plane_pair()
    small = replace(pair.view1, depth=pair.view1.depth[::2, ::2])
    found = points_from_depth(replace(pair, view1=small), 100, generator)
    assert len(found) > 60
    depth, _ = sample_depth(small.depth, found.uv1, small.size)
    assert depth.isfinite().all()


def test_pairs_without_depth_or_pose_raise(generator):
    pair = _plane_pair()
    for bad in (replace(pair, cam1_from_cam0=None), replace(pair, view1=replace(pair.view1, depth=None))):
        with pytest.raises(ValueError, match="lack"):
            points_from_depth(bad, 10, generator)


def _map(noise_px: float = 0.0) -> tuple[SfmMap, tuple[View, View]]:
    """Forty points seen by two of three cameras; the third sees only the first ten."""
    g = torch.Generator().manual_seed(1)
    xyz = torch.rand(40, 3, generator=g, dtype=torch.float64) * 2 + torch.tensor([-1.0, -1, 3])
    poses = [Pose.identity(dtype=torch.float64), _pose(), _pose((0.0, 0.1, 0.0), (-0.3, 0.0, 0.0))]
    camera = _camera((320, 240))
    uv, image_index, point_index = [], [], []
    for image, pose in enumerate(poses):
        number = 10 if image == 2 else 40
        seen = camera.to(torch.float64).project(pose.transform(xyz[:number]))[0]
        uv.append(seen + noise_px * torch.randn(seen.shape, generator=g))
        image_index += [image] * number
        # the order of observations is arbitrary
        order = torch.randperm(number, generator=g)
        uv[-1], point_index = uv[-1][order], [*point_index, *order.tolist()]
    scene = SfmMap(
        ("a", "b", "c"),
        (camera,) * 3,
        Pose.stack(poses),
        xyz,
        torch.tensor(image_index),
        torch.tensor(point_index),
        torch.cat(uv),
    )
    views = [View(torch.rand(3, 240, 320), camera, poses[i], name) for i, name in enumerate("abc")]
    return scene, (views[0], views[1])


def test_points_from_a_map_are_where_the_poses_project_them(generator):
    scene, views = _map(noise_px=1.0)
    found = points_from_map(scene, (0, 1), views, 25, generator)
    assert len(found) == 25
    camera = views[0].camera.to(torch.float64)
    places = [camera.project(scene.cam_from_world[i].transform(scene.xyz))[0].float() for i in (0, 1)]
    nearest = torch.cdist(found.uv0, places[0]).argmin(-1)
    assert len(set(nearest.tolist())) == 25, "each point once"
    torch.testing.assert_close(found.uv0, places[0][nearest], atol=1e-3, rtol=0)
    torch.testing.assert_close(found.uv1, places[1][nearest], atol=1e-3, rtol=0)


def test_points_of_a_map_that_are_off_their_observations_are_left_out(generator):
    scene, views = _map()
    assert len(points_from_map(scene, (0, 1), views, 100, generator)) == 40
    wrong = scene.uv.clone()
    wrong[scene.observations_of(1)][:7] += 10
    common, good = shared_points(replace(scene, uv=wrong), (0, 1), 4.0)
    bad = scene.point_index[scene.observations_of(1)][:7]
    assert set(common[~good].tolist()) == set(bad.tolist())


def test_only_points_both_observe_count(generator):
    scene, _ = _map()
    common, _ = shared_points(scene, (1, 2), 4.0)
    assert common.tolist() == list(range(10))


def test_points_from_a_map_follow_a_changed_photo(generator):
    from metriloc.io import resize_view

    scene, views = _map()
    half = resize_view(views[1], (160, 120))
    found = points_from_map(scene, (0, 1), (views[0], half), 40, torch.Generator().manual_seed(0))
    whole = points_from_map(scene, (0, 1), views, 40, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.uv1, (whole.uv1 + 0.5) / 2 - 0.5, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="pose"):
        points_from_map(scene, (0, 1), (views[0], replace(half, cam_from_world=None)), 4, generator)


def test_uneven_positions_raise():
    image = torch.zeros(3, 8, 8)
    with pytest.raises(ValueError, match="N, 2"):
        PointPair(image, image, torch.zeros(3, 2), torch.zeros(2, 2))
