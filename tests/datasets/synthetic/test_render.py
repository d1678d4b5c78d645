"""The rasteriser, the baked light and the textures of the synthetic scenes against naive twins and formulas."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metriloc.datasets.synthetic import SyntheticConfig, make_scene, pictures, textures
from metriloc.datasets.synthetic.light import Blockers, Lighting, bake
from metriloc.datasets.synthetic.mesh import Material, Mesh
from metriloc.datasets.synthetic.pairs import look_at
from metriloc.datasets.synthetic.palette import KINDS, Palette
from metriloc.datasets.synthetic.render import look_through
from metriloc.datasets.synthetic.shading import paint
from metriloc.datasets.synthetic.shapes import Builder
from metriloc.geometry import Camera, Pose, so3_exp

GREY = Material(0, (1.0, 1.0))
EVEN = Lighting(ambient=np.ones(3), ground=np.ones(3))


def cast(mesh: Mesh, camera: Camera, pose: Pose) -> np.ndarray:
    """Depth by testing every ray against every quad that faces the camera, float64; the oracle."""
    width, height = (int(v) for v in camera.size)
    v, u = np.mgrid[:height, :width].reshape(2, -1)
    rays = camera.to(torch.float64).unproject(torch.tensor(np.stack([u, v], -1), dtype=torch.float64))[0].numpy()
    R, t = pose.R.double().numpy(), pose.t.double().numpy()
    best = np.full(len(rays), np.inf)
    for quad, patch in zip(mesh.quads @ R.T + t, mesh.patch_of, strict=True):
        normal = np.linalg.inv(R).T @ mesh.normal[patch]  # the rotation is rounded to float32, not quite orthogonal
        if normal @ quad[0] >= -1e-9:  # seen from behind
            continue
        with np.errstate(divide="ignore", invalid="ignore"):
            z = (normal @ quad[0]) / (rays @ normal)
        points = rays * z[:, None]
        edges = np.roll(quad, -1, 0) - quad
        signs = np.stack([np.cross(e, points - q) @ normal for e, q in zip(edges, quad, strict=True) if e @ e > 1e-18])
        inside = ((signs >= -1e-12).all(0) | (signs <= 1e-12).all(0)) & (z > 0.03)
        best = np.where(inside & (z < best), z, best)
    return np.where(np.isfinite(best), best, 0.0).reshape(height, width)


@pytest.mark.slow
@pytest.mark.parametrize("weights", [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)])
def test_depth_equals_a_ray_cast_against_every_quad(weights: tuple[float, float, float]) -> None:
    scene = make_scene(4, SyntheticConfig(weights=weights, texture_size=16))
    camera = Camera.from_fov((32, 24), 1.2)
    center = 0.5 * (scene.stage.low + scene.stage.high)
    pose = look_at(center, center + np.array([1.0, 0.6, -0.3]), roll=0.2)
    depth, truth = look_through(scene.mesh, camera, pose).depth, cast(scene.mesh, camera, pose)
    same = np.abs(depth - truth) <= 1e-9 * np.maximum(truth, 1)
    assert same.mean() > 0.995  # a ray through an edge may go either way


def test_depth_of_a_plane_is_exact_also_where_it_passes_under_the_camera() -> None:
    b = Builder()
    b.patch((-500, 500, 0), (1000, 0, 0), (0, -1000, 0), GREY)
    camera = Camera.from_fov((80, 60), 1.3)
    pose = look_at(np.array([3.0, -2.0, 1.6]), np.array([4.0, 5.0, 1.1]), roll=0.1)
    depth = look_through(b.mesh(), camera, pose).depth
    v, u = np.mgrid[:60, :80]
    rays = (
        camera.to(torch.float64)
        .unproject(torch.tensor(np.stack([u, v], -1).reshape(-1, 2), dtype=torch.float64))[0]
        .numpy()
    )
    R, t = pose.R.double().numpy(), pose.t.double().numpy()
    back = np.linalg.inv(R)  # the rotation is rounded to float32, not quite orthogonal
    truth = (back[2] @ t / (rays @ back[2])).reshape(60, 80)
    seen = depth > 0
    assert seen.mean() > 0.4
    np.testing.assert_allclose(depth[seen], truth[seen], rtol=1e-9)
    assert not seen[(truth < 0)].any()
    points = (rays * depth.reshape(-1, 1) - t) @ back.T
    assert np.abs(points[seen.ravel()][:, 2]).max() < 1e-9


def test_nearer_things_hide_farther_ones_and_backs_are_not_drawn() -> None:
    b = Builder()
    b.box((-2, 5, 0), (2, 6, 3), GREY)
    b.box((-0.5, 3, 0), (0.5, 3.5, 3), GREY)
    camera, pose = Camera.from_fov((41, 31), 1.0), look_at(np.array([0.0, 0.0, 1.5]), np.array([0.0, 1.0, 1.5]))
    depth = look_through(b.mesh(), camera, pose).depth
    assert depth[15, 20] == pytest.approx(3.0, abs=1e-6)
    assert depth[15, 10] == pytest.approx(5.0, abs=1e-6)
    inside = look_at(np.array([0.0, 5.5, 1.5]), np.array([0.0, 6.0, 1.5]))
    assert (look_through(b.mesh(), camera, inside).depth == 0).all()


@pytest.mark.parametrize("solid", ["box", "prism", "turned"])
def test_solids_are_closed_and_face_outwards(solid: str) -> None:
    """By the divergence theorem, area-weighted outward normals give the volume; patches of one solid sum to none."""
    b = Builder()
    with b.at(0.3, -0.2, 1.0, 0.7):
        if solid == "box":
            b.box((-1, -0.5, 0), (1, 0.5, 0.8), GREY)
            volume = 2 * 1 * 0.8
        elif solid == "prism":
            b.prism([(0, 0), (2, 0), (1, 1)], -0.3, 0.7, GREY)
            volume = 1.0
        else:
            b.turned_solid([(0.5, 0), (0.8, 0.6), (0.2, 1.0)], GREY, 12)
            corner = 0.5 * np.sin(2 * np.pi / 12) * 12  # area of the polygon, for radius 1
            cone = sum(h / 3 * (p * p + p * q + q * q) for p, q, h in ((0.5, 0.8, 0.6), (0.8, 0.2, 0.4)))
            volume = corner * cone
    mesh = b.mesh()
    areas = np.zeros((len(mesh.quads), 3))
    total = 0.0
    for k, (quad, patch) in enumerate(zip(mesh.quads, mesh.patch_of, strict=True)):
        area = 0.5 * (np.cross(quad[1] - quad[0], quad[2] - quad[0]) + np.cross(quad[2] - quad[0], quad[3] - quad[0]))
        outward = mesh.normal[patch] * np.linalg.norm(area)
        areas[k] = outward
        total += outward @ quad[0] / 3
    np.testing.assert_allclose(areas.sum(0), 0, atol=1e-9)
    assert total == pytest.approx(volume, rel=1e-6)


def test_pictures_are_not_aliased() -> None:
    """A small picture is close to a large one averaged down; picking pixels of the large one is far worse."""
    scene = make_scene(2, SyntheticConfig(weights=(1.0, 0.0, 0.0)))
    pose = look_at(np.array([0.0, 0.0, 1.5]), np.array([1.0, 0.4, 1.3]))
    small = Camera.from_fov((64, 48), 1.2)
    low, high = scene.render(small, pose).image, scene.render(small.scale(8), pose).image
    # compare before display curve and noise play a role: the mean over 8x8 pixels is the light of one
    averaged = torch.nn.functional.avg_pool2d(high[None], 8)[0]
    picked = high[:, 4::8, 4::8]
    assert (low - averaged).abs().mean() < 0.55 * (picked - averaged).abs().mean()


def test_texture_is_looked_up_at_the_right_place() -> None:
    """A patch seen head on at one texel a pixel shows its texture, upright and unmirrored."""
    side = 64
    image = np.random.default_rng(0).random((side, side, 3)).astype(np.float32)
    b = Builder()
    b.patch((-1, 2, 1), (2, 0, 0), (0, 0, -2), Material(0, None))
    mesh = b.mesh()
    f = side * 2.0 / 2.0  # depth 2, width 2
    camera = Camera(torch.tensor([64.0, 64.0]), torch.tensor([f, f]), torch.tensor([31.5, 31.5]))
    pose = look_at(np.zeros(3), np.array([0.0, 1.0, 0.0]))
    atlas = textures.pack([image])
    shown = paint(
        look_through(mesh, camera, pose), mesh, atlas, bake(mesh, EVEN, np.zeros(3), np.zeros(3)), lambda rays: rays * 0
    )
    inner = slice(2, -2)
    np.testing.assert_allclose(shown[inner, inner], image[inner, inner] ** 2, atol=0.02)


# -- light ------------------------------------------------------------------------------------------------------------
def test_rays_against_boxes_equal_a_naive_loop() -> None:
    rng = np.random.default_rng(0)
    b = Builder()
    for k in range(8):
        with b.at(*rng.uniform(-2, 2, 3), k * 0.4 if k % 2 else k * np.pi / 4):
            b.box((-0.3, -0.5, -0.2), (0.3, 0.5, 0.6), GREY)
    mesh = b.mesh()
    blockers = Blockers.of(mesh)
    starts, rays = rng.uniform(-3, 3, (60, 3)), rng.normal(0, 1, (60, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    own = rng.integers(-1, 8, 60)
    got = blockers.distance(starts.astype(np.float32), rays.astype(np.float32), own)
    for p, d, mine, way in zip(starts, rays, own, got, strict=True):
        steps = np.linspace(0, 9, 9001)
        points = p + steps[:, None] * d
        best = np.inf
        for k in range(8):
            turn = -mesh.block_yaw[k]
            local = (points - mesh.block_center[k]) @ so3_exp(torch.tensor([0.0, 0.0, turn])).double().numpy().T
            hit = (np.abs(local) < mesh.block_half[k] - 0.004).all(1)
            if k != mine and hit.any():
                best = min(best, steps[hit.argmax()])
        assert (np.isinf(best) and np.isinf(way)) or way == pytest.approx(best, abs=0.01) or abs(best) > 8.9


def test_the_sun_throws_the_shadow_of_a_box() -> None:
    b = Builder()
    b.ground((-3, -3), (3, 3), 0.0, GREY, step=3.0)
    b.box((-0.5, -0.5, 0), (0.5, 0.5, 1), GREY)
    mesh = b.mesh()
    sun = np.array([1.0, 0.0, 1.0]) / np.sqrt(2)
    lighting = Lighting(np.zeros(3), np.zeros(3), sun=sun, sun_color=np.ones(3))
    lightmap = bake(mesh, lighting, np.full(3, -3.0), np.full(3, 3.0))
    for patch in range(4):
        nu, nv = lightmap.shape[patch]
        j, i = np.mgrid[:nv, :nu]
        a, c = (i + 0.5) / nu, (j + 0.5) / nv
        x, y = (mesh.origin[patch, k] + a * mesh.right[patch, k] + c * mesh.down[patch, k] for k in (0, 1))
        value = lightmap.values[lightmap.start[patch] : lightmap.start[patch] + nu * nv, 0].reshape(nv, nu)
        shadow = (x > -1.45) & (x < -0.55) & (np.abs(y) < 0.45)  # a metre high, sun at 45 degrees from +x
        lit = (x < -1.6) | (x > 0.6) | (np.abs(y) > 0.6)
        assert (value[shadow] == 0).all()
        np.testing.assert_allclose(value[lit], np.sqrt(0.5), rtol=1e-5)


def test_corners_are_darker_than_the_open() -> None:
    b = Builder()
    b.ground((-3, -3), (3, 3), 0.0, GREY, step=6.0)
    b.box((0.5, -3, 0), (1.5, 3, 2), GREY)
    mesh = b.mesh()
    lightmap = bake(mesh, EVEN, np.full(3, -3.0), np.full(3, 3.0))
    nu, nv = lightmap.shape[0]
    row = lightmap.values[lightmap.start[0] : lightmap.start[0] + nu * nv, 0].reshape(nv, nu)[nv // 2]
    x = -3 + 6 * (np.arange(nu) + 0.5) / nu
    open_, corner = row[x < -1.5], row[(x > 0.3) & (x < 0.48)]
    np.testing.assert_allclose(open_, 1.0, rtol=1e-5)
    assert 0.3 < corner.mean() < 0.85


# -- textures ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_textures_are_pictures_and_follow_their_seed(kind: str) -> None:
    make = KINDS[kind][0]
    one, same, other = (make(np.random.default_rng(s), 64) for s in (1, 1, 2))
    assert one.shape == (64, 64, 3) and np.isfinite(one).all()
    assert np.array_equal(one, same) and not np.array_equal(one, other)
    assert one.min() > -0.2 and one.max() < 2.0 and 0.02 < np.clip(one, 0, 1).mean() < 0.99


@pytest.mark.parametrize("kind", [k for k, (_, tile, _) in sorted(KINDS.items()) if tile is not None])
def test_repeating_textures_have_no_seam(kind: str) -> None:
    """The step across the border is no larger than the steps inside; a joint may lie there, so compare with the largest."""
    image = np.clip(KINDS[kind][0](np.random.default_rng(3), 128), 0, 1)
    for axis in (0, 1):
        steps = np.abs(np.diff(image, axis=axis)).mean(2).mean(1 - axis)
        border = np.abs(image.take(0, axis) - image.take(-1, axis)).mean()
        assert border <= 1.5 * steps.max() + 0.02


def test_mip_levels_keep_the_mean() -> None:
    image = pictures.poster(np.random.default_rng(0), 64)
    atlas = textures.pack([image, 1 - image.clip(0, 1)])
    for texture, mean in ((0, image.clip(0, 1).mean((0, 1))), (1, 1 - image.clip(0, 1).mean((0, 1)))):
        last = atlas.texels[texture * atlas.stride + atlas.level_start[-1]]
        got = np.array([last]).view(np.uint8)[:3] / 255
        np.testing.assert_allclose(got, mean, atol=0.01)


def test_a_palette_holds_a_few_of_each_kind() -> None:
    palette = Palette(np.random.default_rng(0), 16)
    used = {palette("fabric").texture for _ in range(60)}
    assert 2 <= len(used) <= KINDS["fabric"][2]
    assert palette("door").tile is None and palette("bricks").tile == (1.2, 1.2)
