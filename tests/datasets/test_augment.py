"""Augmentation: the same surface point must keep its colour and depth in both photos, whatever is done to the pair.

The oracle is a slanted plane with a smooth texture, drawn exactly through a camera (with every distortion term on); after
any change, pixels of photo 0 are carried through depth, pose and cameras into photo 1 and must find their colour there.
"""

from __future__ import annotations

import math
from functools import lru_cache

import pytest
import torch
from torch import Tensor

from metriloc.datasets import (
    Augment,
    Geometric,
    Photometric,
    mirror_pair,
    overlap_of_views,
    swap_pair,
    turn_pair,
    zoom_view,
)
from metriloc.datasets.augment import augment_colors, gaussian_blur, turn_view
from metriloc.geometry import Camera, Pose, sample, sample_depth, so3_exp
from metriloc.types import Pair, View

NORMAL = torch.tensor([0.25, -0.15, -1.0], dtype=torch.float64)
OFFSET = -3.0  # the plane is n . x = OFFSET
WAVES = torch.tensor([[2.0, 0.5, 0.3], [-0.6, 1.8, 0.4], [1.1, -1.3, 0.2]], dtype=torch.float64)


def draw(camera: Camera, cam_from_world: Pose, name: str, depth_size: tuple[int, int] | None = None) -> View:
    def cast(cam: Camera) -> tuple[Tensor, Tensor]:
        width, height = (int(side) for side in cam.size.tolist())
        v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        rays, _ = cam.unproject(torch.stack([u, v], -1).reshape(-1, 2).double())
        world_from_cam = cam_from_world.inverse()
        directions = rays @ world_from_cam.R.mT
        z = (OFFSET - world_from_cam.t @ NORMAL) / (directions @ NORMAL)
        xyz = world_from_cam.t + directions * z[:, None]
        colors = 0.5 + 0.35 * torch.sin(xyz @ WAVES.mT)
        return colors.mT.reshape(3, height, width).float(), z.reshape(height, width).float()

    image, depth = cast(camera)
    if depth_size is not None:
        small = camera.scale(torch.tensor(depth_size).double() / camera.size)
        depth = cast(small)[1]
    return View(image, camera.to(torch.float32), cam_from_world, name, depth=depth)


@lru_cache
def make_pair(model: str = "pinhole", depth_size: tuple[int, int] | None = None) -> Pair:
    terms = {"pinhole": [], "radtan": [0.08, -0.03, 0.012, -0.017, 0.01], "fisheye": [0.05, -0.02, 0.008, -0.003]}[
        model
    ]
    cameras = [
        Camera(
            torch.tensor([160.0, 120.0], dtype=torch.float64),
            torch.tensor([f, 1.02 * f], dtype=torch.float64),
            torch.tensor([cx, cy], dtype=torch.float64),
            torch.tensor(terms, dtype=torch.float64),
            model,  # type: ignore[arg-type]
        )
        for f, cx, cy in ((140.0, 83.0, 55.0), (155.0, 74.0, 63.0))
    ]
    poses = [
        Pose(so3_exp(torch.tensor(w, dtype=torch.float64)), torch.tensor(t, dtype=torch.float64))
        for w, t in (((0.05, -0.1, 0.02), (0.1, 0.0, 0.2)), ((-0.03, 0.12, -0.06), (-0.25, 0.08, 0.1)))
    ]
    view0, view1 = (draw(c, p, n, depth_size) for c, p, n in zip(cameras, poses, ("a", "b"), strict=True))
    return Pair(view0, view1, poses[1] @ poses[0].inverse())


def away_from_black(image: Tensor, uv: Tensor) -> Tensor:
    """Zooming mixes the black border of a turned photo into pixels beside it."""
    black = (image.amax(0) == 0).float()[None]
    near = torch.nn.functional.max_pool2d(black, 5, stride=1, padding=2)
    return sample(near, uv).values[:, 0] == 0


def check(pair: Pair, *, color: float = 0.02, depth: float = 0.01, share: float = 0.3) -> None:
    """Colours and depths agree through the geometry, and the views' own poses give the pair's pose."""
    a, b, pose = pair.view0, pair.view1, pair.cam1_from_cam0
    assert pose is not None and a.cam_from_world is not None and b.cam_from_world is not None
    own = b.cam_from_world @ a.cam_from_world.inverse()
    torch.testing.assert_close(own.matrix(), pose.matrix(), rtol=0, atol=1e-9)
    torch.testing.assert_close(pose.R @ pose.R.mT, torch.eye(3, dtype=pose.dtype), rtol=0, atol=1e-9)
    assert float(torch.linalg.det(pose.R)) > 0
    width, height = a.size
    v, u = torch.meshgrid(torch.arange(3, height - 3, 2), torch.arange(3, width - 3, 2), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(-1, 2).float()
    assert a.depth is not None and b.depth is not None
    z, known = sample_depth(a.depth, uv, a.size)
    rays, possible = a.camera.unproject(uv)
    xyz = pose.to(torch.float32).transform(rays * z[:, None])
    uv1, seen = b.camera.project(xyz)
    z1, known1 = sample_depth(b.depth, uv1, b.size)
    interior = ((uv1 > 3) & (uv1 < torch.tensor(b.size) - 4)).all(-1)
    good = known & possible & seen & known1 & interior
    good &= away_from_black(a.image, uv) & away_from_black(b.image, uv1)
    assert float(good.float().mean()) > share
    there, here = sample(b.image, uv1).values[good], sample(a.image, uv).values[good]
    assert float((there - here).abs().max()) < color
    assert float((z1[good] / xyz[good, 2] - 1).abs().max()) < depth


@pytest.mark.parametrize("model", ["pinhole", "radtan", "fisheye"])
def test_the_oracle_itself(model: str) -> None:
    check(make_pair(model))
    wrong = make_pair(model)
    tilted = Pose(so3_exp(torch.tensor([0.0, 0.03, 0.0], dtype=torch.float64)), torch.zeros(3, dtype=torch.float64))
    with pytest.raises(AssertionError):
        check(Pair(wrong.view0, wrong.view1, tilted @ wrong.cam1_from_cam0))  # type: ignore[operator]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["pinhole", "radtan", "fisheye"])
@pytest.mark.parametrize("depth_size", [None, (80, 60)])
def test_mirror_swap_turn_zoom(model: str, depth_size: tuple[int, int] | None) -> None:
    pair = make_pair(model, depth_size)
    tolerance = 0.01 if depth_size is None else 0.03
    check(mirror_pair(pair), depth=tolerance)
    check(swap_pair(pair), depth=tolerance)
    # nearest cells of depth: half a cell on a slanted plane
    for which, angle in ((0, 0.2), (1, -0.35)):
        check(turn_pair(pair, which, angle), depth=0.02 if depth_size is None else 0.04, color=0.03)
    zoomed = Pair(zoom_view(pair.view0, 0.7, (0.2, 0.9)), zoom_view(pair.view1, 0.85, (1.0, 0.0)), pair.cam1_from_cam0)
    check(zoomed, depth=0.02 if depth_size is None else 0.04, color=0.03, share=0.2)


def test_mirror_and_swap_are_their_own_inverse() -> None:
    pair = make_pair("radtan")
    for change in (mirror_pair, swap_pair):
        back = change(change(pair))
        torch.testing.assert_close(back.cam1_from_cam0.matrix(), pair.cam1_from_cam0.matrix())  # type: ignore[union-attr]
        torch.testing.assert_close(back.view1.image, pair.view1.image, rtol=0, atol=0)
        torch.testing.assert_close(back.view1.camera.c, pair.view1.camera.c)
        torch.testing.assert_close(back.view1.camera.distortion, pair.view1.camera.distortion, rtol=0, atol=0)


@pytest.mark.parametrize("model", ["pinhole", "radtan", "fisheye"])
def test_mirrored_pixels_are_exact(model: str) -> None:
    pair = make_pair(model)
    mirrored = mirror_pair(pair)
    xyz = torch.tensor([[0.3, -0.2, 2.0], [-0.7, 0.4, 3.0], [0.05, 0.1, 1.0]])
    for view, other in ((pair.view0, mirrored.view0), (pair.view1, mirrored.view1)):
        uv, _ = view.camera.project(xyz)
        flipped, _ = other.camera.project(xyz * torch.tensor([-1.0, 1.0, 1.0]))
        expected = torch.stack([view.size[0] - 1 - uv[:, 0], uv[:, 1]], -1)
        torch.testing.assert_close(flipped, expected, rtol=0, atol=1e-4)


def test_zoomed_depth_takes_the_nearest_cell() -> None:
    camera = Camera(torch.tensor([8.0, 4.0]), torch.tensor([6.0, 6.0]), torch.tensor([3.5, 1.5]))
    depth = torch.arange(1.0, 33.0).reshape(4, 8)
    zoomed = zoom_view(View(torch.zeros(3, 4, 8), camera, depth=depth), 0.75, (1.0, 0.0)).depth
    assert zoomed is not None
    # columns 2..7 under 8 cells: centres at 2.375, 3.125, ...; rows 0..2 under 4 cells: 0.375, 1.125, 1.875, 2.625
    columns = [2, 3, 3, 4, 5, 6, 6, 7]
    assert zoomed.tolist() == [[1.0 + 8 * row + column for column in columns] for row in (0, 1, 1, 2)]
    coarse = zoom_view(View(torch.zeros(3, 4, 8), camera, depth=depth[::2, ::2]), 0.5, (0.0, 1.0)).depth
    assert coarse is not None and coarse.tolist() == [[17, 17, 19, 19]] * 2


def test_flipping_one_photo_alone_would_be_wrong() -> None:
    pair = make_pair()
    mirrored = mirror_pair(pair)
    with pytest.raises(AssertionError):
        check(Pair(mirrored.view0, mirrored.view1, pair.cam1_from_cam0))


def test_a_quarter_turn_moves_pixels_where_it_should() -> None:
    size = torch.tensor([41.0, 41.0])
    camera = Camera(size, torch.tensor([50.0, 50.0]), torch.tensor([20.0, 20.0]))
    image = torch.zeros(3, 41, 41)
    image[:, 20, 30] = 1  # to the right of the axis
    turned = turn_view(View(image, camera), math.pi / 2)
    # X' = R_z X turns the x axis into y: down in the picture
    assert float(turned.image[0, 30, 20]) == pytest.approx(1, abs=1e-4)
    assert float(turned.image.sum()) == pytest.approx(3, abs=1e-3)


@pytest.mark.parametrize("seed", range(4))
def test_everything_together(seed: int) -> None:
    pair = make_pair(("pinhole", "radtan")[seed % 2])
    before = [view.image.clone() for view in (pair.view0, pair.view1)]
    augment = Augment(photometric=None, geometric=Geometric(zoom=0.75, turn_deg=20))
    changed = augment(pair, torch.Generator().manual_seed(seed))
    check(changed, depth=0.03, color=0.04, share=0.08)
    assert all(torch.equal(a, v.image) for a, v in zip(before, (pair.view0, pair.view1), strict=True))


def test_the_generator_decides() -> None:
    pair, augment = make_pair(), Augment()
    results = [augment(pair, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(results[0].view0.image, results[1].view0.image)
    assert torch.equal(results[0].cam1_from_cam0.t, results[1].cam1_from_cam0.t)  # type: ignore[union-attr]
    assert not torch.equal(results[0].view0.image, results[2].view0.image)
    state = torch.get_rng_state()
    augment(pair, torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())


def test_overlap_survives_what_does_not_change_the_cameras() -> None:
    pair = make_pair()
    overlap = overlap_of_views(pair.view0, pair.view1)
    for change in (mirror_pair, swap_pair):
        changed = change(pair)
        assert overlap_of_views(changed.view0, changed.view1) == pytest.approx(overlap, abs=0.02)


def test_pairs_without_depth_or_pose() -> None:
    pair = make_pair()
    bare = Pair(*(View(view.image, view.camera) for view in (pair.view0, pair.view1)))
    for seed in range(6):
        changed = Augment()(bare, torch.Generator().manual_seed(seed))
        assert changed.cam1_from_cam0 is None and changed.view0.depth is None
        assert changed.view0.size == (160, 120)


# -- colours ----------------------------------------------------------------------------------------------------------
def test_colors_stay_in_range_and_geometry_stays() -> None:
    view = make_pair().view0
    strong = Photometric(
        brightness=1, contrast=1, saturation=1, white_balance=0.5, gamma=1, blur=3, noise=0.3, gray=0.5
    )
    for seed in range(10):
        changed = augment_colors(view, strong, torch.Generator().manual_seed(seed))
        assert float(changed.image.min()) >= 0 and float(changed.image.max()) <= 1
        assert torch.isfinite(changed.image).all()
        assert changed.depth is view.depth and changed.camera is view.camera


def test_nothing_asked_nothing_changed(generator: torch.Generator) -> None:
    view = make_pair().view0
    none = Photometric(brightness=0, contrast=0, saturation=0, white_balance=0, gamma=0, blur=0, noise=0, gray=0)
    torch.testing.assert_close(augment_colors(view, none, generator).image, view.image, rtol=0, atol=2e-6)
    pair = make_pair()
    same = Augment(None, Geometric(zoom=1, turn_deg=0, swap=0, mirror=0))(pair, generator)
    assert torch.equal(same.view1.image, pair.view1.image) and same.cam1_from_cam0 is pair.cam1_from_cam0


def test_gray_photos_are_gray(generator: torch.Generator) -> None:
    gray = Photometric(gray=1.0, noise=0)
    image = augment_colors(make_pair().view0, gray, generator).image
    assert float((image - image.mean(0)).abs().max()) < 1e-5


def test_blur() -> None:
    from scipy.ndimage import gaussian_filter

    image = torch.rand(3, 20, 30, generator=torch.Generator().manual_seed(0))
    blurred = gaussian_blur(image, 1.3)
    expected = gaussian_filter(image.numpy(), (0, 1.3, 1.3), mode="nearest", truncate=3.0)
    torch.testing.assert_close(blurred, torch.from_numpy(expected), rtol=0, atol=2e-3)
    assert torch.equal(gaussian_blur(image, 0.0), image)
    assert gaussian_blur(image[:, :2, :2], 5.0).shape == (3, 2, 2)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Photometric(brightness=1.5), "brightness must be between 0 and 1, got 1.5"),
        (lambda: Photometric(noise=-1), "noise must be between 0 and 10, got -1"),
        (lambda: Geometric(zoom=0), "zoom must be above 0"),
        (lambda: Geometric(turn_deg=200), "turn_deg must be between 0 and 180, got 200"),
        (lambda: Geometric(mirror=2), "probabilities"),
        (lambda: zoom_view(make_pair().view0, 1.2, (0, 0)), "at most 1, got 1.2"),
    ],
)
def test_wrong_settings(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_a_turned_camera_looks_elsewhere_and_stands_where_it_stood() -> None:
    pair = make_pair()
    for which in (0, 1):
        turned = turn_pair(pair, which, 0.3)
        assert turned.cam1_from_cam0 is not None and pair.cam1_from_cam0 is not None
        distances = turned.cam1_from_cam0.t.norm(), pair.cam1_from_cam0.t.norm()
        torch.testing.assert_close(*distances)
        assert float(turned.cam1_from_cam0.angle_to(pair.cam1_from_cam0)) == pytest.approx(0.3, abs=1e-4)
