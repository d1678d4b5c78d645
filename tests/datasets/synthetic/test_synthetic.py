"""Synthetic scenes: repeatable, metric, consistent between views, varied, with pairs inside their limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from metriloc.datasets.synthetic import (
    Exposure,
    PairLimits,
    SyntheticConfig,
    SyntheticPairs,
    SyntheticScene,
    make_scene,
    overlap,
    sample_camera,
    sample_pair,
)
from metriloc.datasets.synthetic.pairs import look_at
from metriloc.datasets.synthetic.palette import Palette
from metriloc.datasets.synthetic.rooms import room as room_of
from metriloc.datasets.synthetic.shapes import Builder
from metriloc.datasets.synthetic.streets import square, street
from metriloc.geometry import Camera, Pose, sample
from metriloc.types import Pair, View

WEIGHTS = {"room": (1.0, 0.0, 0.0), "street": (0.0, 1.0, 0.0), "square": (0.0, 0.0, 1.0)}
SMALL = SyntheticConfig(sizes=((128, 96),), texture_size=64)


def config(kind: str, **changes: object) -> SyntheticConfig:
    return replace(SMALL, weights=WEIGHTS[kind], **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=list(WEIGHTS))
def scene(request: pytest.FixtureRequest) -> SyntheticScene:
    return make_scene(1, config(request.param))


@pytest.fixture(scope="module")
def room() -> SyntheticScene:
    return make_scene(2, config("room"))


def rng_of(generator: torch.Generator) -> np.random.Generator:
    return np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))


def unprojected(view: View) -> tuple[Tensor, Tensor]:
    """Pixels and world points of every pixel with depth, by the library's own camera."""
    assert view.depth is not None and view.cam_from_world is not None
    v, u = torch.nonzero(view.depth > 0, as_tuple=True)
    uv = torch.stack([u, v], -1).double()
    rays, _ = view.camera.to(torch.float64).unproject(uv)
    xyz = rays * view.depth[v, u].double()[:, None]
    return uv, view.cam_from_world.to(torch.float64).inverse().transform(xyz)


def seen_in(view: View, world: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pixel and depth of world points in a view, and whether they are inside it."""
    assert view.cam_from_world is not None
    xyz = view.cam_from_world.to(torch.float64).transform(world)
    uv, inside = view.camera.to(torch.float64).project(xyz)
    return uv, xyz[:, 2], inside


# -- repeatable -------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_the_same_seed_gives_the_same_pair_and_another_seed_another(scene: SyntheticScene) -> None:
    again = make_scene(1, scene.config)
    first, second, other = (
        sample_pair(s, torch.Generator().manual_seed(k)) for s, k in ((scene, 5), (again, 5), (scene, 6))
    )
    for a, b in ((first.view0, second.view0), (first.view1, second.view1)):
        assert torch.equal(a.image, b.image) and torch.equal(a.depth, b.depth)  # type: ignore[arg-type]
        assert torch.equal(a.camera.K, b.camera.K) and torch.equal(a.cam_from_world.R, b.cam_from_world.R)  # type: ignore[union-attr]
    assert not torch.equal(first.view0.image, other.view0.image)


def test_another_seed_builds_another_scene() -> None:
    one, two = (make_scene(seed, config("room", texture_size=16)) for seed in (10, 11))
    assert len(one.mesh.quads) != len(two.mesh.quads)


@pytest.mark.slow
def test_items_of_the_data_set_do_not_depend_on_the_order() -> None:
    forwards, backwards = (
        SyntheticPairs(2, 2, config("room", texture_size=16), first_seed=3, keep=2) for _ in range(2)
    )
    there = [forwards[i] for i in range(4)]
    back = [backwards[i] for i in (3, 0, 2, 1)]
    assert len(forwards) == 4
    for i, pair in zip((3, 0, 2, 1), back, strict=True):
        assert torch.equal(pair.view1.image, there[i].view1.image)
    assert [p.view0.name.split("/")[1] for p in there] == ["room-3", "room-3", "room-4", "room-4"]
    with pytest.raises(IndexError, match="4"):
        forwards[4]
    forwards.augment = lambda pair, g: replace(
        pair, view1=replace(pair.view1, name=str(torch.randint(9**9, (), generator=g)))
    )
    one, again, other = (forwards[i, seed].view1.name for i, seed in ((0, 7), (0, 7), (0, 8)))
    assert one == again != other and forwards[0].view1.name == "synthetic/room-3/1"
    assert forwards.lengths == (2, 2)


# -- consistent -------------------------------------------------------------------------------------------------------
def test_views_warp_onto_each_other_by_depth_pose_and_intrinsics(
    scene: SyntheticScene, generator: torch.Generator
) -> None:
    pair = sample_pair(scene, generator, PairLimits(overlap=(0.4, 0.9)))
    # the same light for both, or colours could not be compared
    view0, view1 = (scene.render(v.camera, v.cam_from_world) for v in (pair.view0, pair.view1))  # type: ignore[arg-type]
    assert view1.depth is not None
    uv0, world = unprojected(view0)
    uv1, z, inside = seen_in(view1, world)
    uv0, uv1, z = uv0[inside], uv1[inside], z[inside]
    there = sample(view1.depth[None].double(), uv1, pad=0).values[:, 0]
    visible = (there - z).abs() < 0.01 * z
    assert visible.double().mean() > 0.6  # the rest is hidden behind something, or lies at an edge
    color0, color1 = (sample(v.image.double(), uv[visible], pad=0).values for v, uv in ((view0, uv0), (view1, uv1)))
    error = (color0 - color1).abs().mean(-1)
    wrong = (color0 - color1[torch.randperm(len(color1), generator=generator)]).abs().mean(-1)
    assert error.median() < 0.02 and error.mean() < 0.04
    assert error.mean() < 0.3 * wrong.mean()


def test_the_pair_carries_the_relative_pose(scene: SyntheticScene, generator: torch.Generator) -> None:
    pair = sample_pair(scene, generator)
    assert (
        pair.cam1_from_cam0 is not None
        and pair.view0.cam_from_world is not None
        and pair.view1.cam_from_world is not None
    )
    uv, world = unprojected(pair.view0)
    in0 = pair.view0.cam_from_world.to(torch.float64).transform(world)
    in1 = pair.view1.cam_from_world.to(torch.float64).transform(world)
    torch.testing.assert_close(pair.cam1_from_cam0.to(torch.float64).transform(in0), in1, atol=1e-4, rtol=0)
    back, _, _ = seen_in(pair.view0, world)
    torch.testing.assert_close(back, uv, atol=1e-4, rtol=0)  # pixels; poses are float32


def test_turning_the_camera_shows_the_same_picture_elsewhere(room: SyntheticScene) -> None:
    """Moving the principal point by whole pixels moves the picture and the depth, and nothing else."""
    pose = look_at(np.array([0.0, 0.0, 1.5]), np.array([1.0, 0.3, 1.3]))
    camera = Camera.from_fov((96, 64), 1.1)
    moved = Camera(camera.size, camera.f, camera.c + torch.tensor([7.0, -5.0]))
    one, two = room.render(camera, pose), room.render(moved, pose)
    assert one.depth is not None and two.depth is not None
    torch.testing.assert_close(two.depth[:-5, 7:], one.depth[5:, :-7])
    inner = (slice(None), slice(1, -6), slice(8, -1))
    assert (two.image[inner] - one.image[:, 6:-1, 1:-8]).abs().max() < 1e-3


# -- pairs within their limits ----------------------------------------------------------------------------------------
def naive_overlap(pair: Pair) -> float:
    """As ``overlap``, with torch and the library's camera."""
    shares = []
    for a, b in ((pair.view0, pair.view1), (pair.view1, pair.view0)):
        assert a.depth is not None and b.depth is not None
        chosen = torch.zeros_like(a.depth)
        chosen[2::4, 2::4] = a.depth[2::4, 2::4]
        _, world = unprojected(replace(a, depth=chosen))
        uv, z, inside = seen_in(b, world)
        u, v = uv.round().long().clamp(min=0).unbind(-1)
        there = b.depth[v.clamp(max=b.depth.shape[0] - 1), u.clamp(max=b.depth.shape[1] - 1)]
        shares.append((((there - z).abs() < 0.05 * z) & inside).double().mean().item())
    return min(shares)


@pytest.mark.parametrize(
    "limits", [PairLimits(), PairLimits((0.35, 0.5), (0.3, 1.2), (0.1, 0.6)), PairLimits((0.7, 0.95), (0.05, 0.5))]
)
def test_pairs_keep_to_their_limits(room: SyntheticScene, limits: PairLimits, generator: torch.Generator) -> None:
    for _ in range(4):
        pair = sample_pair(room, generator, limits)
        shared, relative = overlap(pair.view0, pair.view1), pair.cam1_from_cam0
        assert relative is not None
        assert shared == pytest.approx(naive_overlap(pair), abs=0.005)
        assert limits.overlap[0] <= shared <= limits.overlap[1]
        assert limits.baseline[0] - 1e-3 <= float(relative.distance()) <= limits.baseline[1] + 1e-3
        assert limits.rotation[0] - 1e-3 <= float(relative.angle()) <= limits.rotation[1] + 1e-3


@pytest.mark.slow
def test_distant_places_get_wide_pairs_if_wanted(generator: torch.Generator) -> None:
    place = make_scene(3, config("square", outdoor_scale=(2.0, 2.5)))
    found: dict[float, list[tuple[float, float]]] = {0.0: [], 0.9: []}
    for share, pairs in found.items():
        for _ in range(8):
            pair = sample_pair(place, generator, PairLimits((0.1, 0.9), (0.1, 0.5), baseline_share=share))
            assert pair.view0.depth is not None and pair.cam1_from_cam0 is not None
            depth = float(pair.view0.depth[pair.view0.depth > 0].median())
            pairs.append((float(pair.cam1_from_cam0.distance()), depth))
    assert max(baseline for baseline, _ in found[0.0]) <= 0.5 + 1e-3
    assert max(baseline for baseline, _ in found[0.9]) > 1.0
    assert all(baseline <= max(0.5, 0.9 * depth) * 1.02 for baseline, depth in found[0.9])
    with pytest.raises(ValueError, match="baseline_share"):
        PairLimits(baseline_share=-1.0)


def test_larger_streets_and_squares_have_things_of_the_same_size() -> None:
    for build in (street, square):
        (small, low), (large, high) = (
            (builder.objects, build(builder, Palette(np.random.default_rng(5), 16), np.random.default_rng(5), scale))
            for builder, scale in ((Builder(), 1.0), (Builder(), 2.5))
        )
        assert (high.high[:2] > low.high[:2]).any()
        heights = [max(thing.size[2] for thing in things if thing.name == "house") for things in (small, large)]
        assert heights[1] > 1.2 * heights[0]
        for things in (small, large):
            for thing in things:
                if thing.name in {"person", "car", "bench"}:
                    assert SIZES[thing.name][2][0] <= thing.size[2] <= SIZES[thing.name][2][1], thing
    with pytest.raises(ValueError, match="outdoor_scale"):
        SyntheticConfig(outdoor_scale=(0.5, 1.0))


def test_overlap_of_a_view_with_itself_is_whole_and_with_its_back_nothing(room: SyntheticScene) -> None:
    camera, center = Camera.from_fov((96, 64), 1.0), np.array([0.0, 0.0, 1.5])
    view, back = (room.render(camera, look_at(center, center + np.array([x, 0.1, -0.1]))) for x in (1.0, -1.0))
    assert overlap(view, view) == 1.0
    assert overlap(view, back) == 0.0
    with pytest.raises(ValueError, match="depth and pose"):
        overlap(view, replace(back, depth=None))


def test_limits_nothing_can_meet_are_refused_in_one_sentence(room: SyntheticScene, generator: torch.Generator) -> None:
    with pytest.raises(ValueError, match="3 tries"):
        sample_pair(room, generator, PairLimits(baseline=(50.0, 60.0), attempts=3))


# -- metric -----------------------------------------------------------------------------------------------------------
SIZES = {  # name: (smallest, largest) of width, depth, height; metres
    "door": ((0.75, 1.15), (0.01, 0.1), (1.9, 2.2)),
    "table": ((0.7, 2.0), (0.4, 1.0), (0.7, 0.8)),
    "chair": ((0.35, 0.5), (0.35, 0.5), (0.8, 1.0)),
    "person": ((0.4, 0.6), (0.25, 0.5), (1.5, 1.95)),
    "car": ((3.6, 4.9), (1.6, 1.9), (1.4, 1.8)),
    "bed": ((0.85, 1.9), (1.95, 2.2), (0.4, 0.6)),
    "kitchen": ((2.0, 3.5), (0.55, 0.7), (0.85, 0.95)),
    "bench": ((1.4, 1.8), (0.4, 0.5), (0.8, 0.9)),
    "bookshelf": ((0.6, 1.5), (0.25, 0.35), (1.1, 2.3)),
    "house": ((5.0, 30.0), (7.0, 9.0), (5.5, 15.0)),
}


@pytest.mark.slow
def test_things_have_real_sizes() -> None:
    found: dict[str, int] = {}
    for seed in range(14):
        rng, builder = np.random.default_rng(seed), Builder()
        (street if seed in (3, 4) else room_of)(builder, Palette(rng, 16), rng)
        for thing in builder.objects:
            found[thing.name] = found.get(thing.name, 0) + 1
            for (low, high), size in zip(SIZES.get(thing.name, ()), thing.size, strict=False):
                assert low <= size <= high, thing
    assert set(SIZES) <= set(found), found


def test_recorded_sizes_are_those_of_the_solids(room: SyntheticScene) -> None:
    """A door's box stands where and as large as the record says."""
    doors = [thing for thing in room.objects if thing.name == "door"]
    assert doors
    for door in doors:
        gap = np.abs(room.mesh.block_center - np.array(door.center)).max(1)
        nearest = int(gap.argmin())
        assert gap[nearest] < 0.05
        assert 2 * room.mesh.block_half[nearest, 2] == pytest.approx(door.size[2])
        assert 2 * room.mesh.block_half[nearest, 0] == pytest.approx(door.size[0])


def test_a_door_has_its_height_in_the_picture(room: SyntheticScene) -> None:
    """The top and the bottom edge of a door, back-projected by the rendered depth, are its height apart."""
    door = next(thing for thing in room.objects if thing.name == "door")
    x, y, _ = door.center
    forward = np.array([-np.sin(door.yaw), np.cos(door.yaw), 0.0])
    center = np.array([x, y, 1.05]) - 1.8 * forward
    view = room.render(Camera.from_fov((200, 400), 1.0), look_at(center, center + forward))
    assert view.depth is not None
    _, world = unprojected(view)
    depth = view.depth[view.depth > 0].double()
    on_leaf = (depth - (1.8 - 0.035)).abs() < 0.01  # the leaf stands 3.5 cm before the wall, its frame 6 cm
    across = (world[:, :2] - torch.tensor([x, y])) @ torch.tensor([np.cos(door.yaw), np.sin(door.yaw)])
    column = on_leaf & (across.abs() < 0.05) & (world[:, 2] < 2.3)  # and not the ceiling
    assert column.any()
    assert float(world[column][:, 2].max()) == pytest.approx(door.size[2], abs=0.03)
    assert float(world[column][:, 2].min()) == pytest.approx(0.0, abs=0.03)


# -- varied -----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_scenes_cameras_and_light_vary() -> None:
    kinds, means, spreads = set(), [], []
    for seed in range(6):
        built = make_scene(seed, replace(SMALL, texture_size=32, weights=(1.0, 0.5, 0.5)))
        kinds.add(built.kind)
        view = sample_pair(built, torch.Generator().manual_seed(seed)).view0
        means.append(view.image.mean((1, 2)))
        spreads.append(float(view.image.std()))
    color = torch.stack(means)
    assert kinds == {"room", "street", "square"}
    assert 0.25 < float(color.mean()) < 0.75
    assert float(color.mean(1).std()) > 0.03
    assert min(spreads) > 0.05 and float((color[:, 0] - color[:, 2]).std()) > 0.01


def test_cameras_stay_within_the_configuration_and_fill_it() -> None:
    rng, settings = np.random.default_rng(0), SyntheticConfig()
    cameras = Camera.stack([sample_camera(rng, settings, (256, 192)) for _ in range(200)])
    fov = 2 * torch.atan(128 / cameras.f[:, 0])
    aspect = cameras.f[:, 1] / cameras.f[:, 0]
    offset = (cameras.c - torch.tensor([127.5, 95.5])) / torch.tensor([256.0, 192.0])
    for value, (low, high) in ((fov, settings.fov), (aspect, settings.pixel_aspect), (offset, (-0.04, 0.04))):
        assert low - 1e-5 <= float(value.min()) and float(value.max()) <= high + 1e-5
        assert float(value.max() - value.min()) > 0.9 * (high - low)


def test_exposure_changes_the_picture_and_not_the_geometry(room: SyntheticScene, generator: torch.Generator) -> None:
    camera, pose = Camera.from_fov((64, 48), 1.1), look_at(np.array([0.0, 0.0, 1.5]), np.array([1.0, 0.0, 1.2]))
    plain, dark = room.render(camera, pose), room.render(camera, pose, Exposure(gain=0.5))
    warm = room.render(camera, pose, Exposure(balance=(1.2, 1.0, 0.8)))
    noisy = room.render(camera, pose, Exposure(noise=0.02), generator)
    assert dark.image.mean() < plain.image.mean() - 0.05
    assert warm.image[0].mean() > plain.image[0].mean() and warm.image[2].mean() < plain.image[2].mean()
    assert 0.01 < float((noisy.image - plain.image).std()) < 0.025
    for view in (dark, warm, noisy):
        assert torch.equal(view.depth, plain.depth)  # type: ignore[arg-type]
        assert view.image.min() >= 0 and view.image.max() <= 1 and view.image.dtype == torch.float32


# -- the user's own photos --------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_photos_of_a_folder_become_textures(tmp_path: Path) -> None:
    gradient = np.zeros((40, 60, 3), dtype=np.uint8)
    gradient[..., 1] = 255  # no texture of ours is pure green
    Image.fromarray(gradient).save(tmp_path / "green.png")
    (tmp_path / "notes.txt").write_text("not a photo")
    greens = []
    for photos in (None, tmp_path):
        count = 0
        for seed in range(2):
            texels = make_scene(seed, config("room", photos=photos)).atlas.texels.view(np.uint8).reshape(-1, 4)
            count += int(((texels[:, 0] == 0) & (texels[:, 1] == 255) & (texels[:, 2] == 0)).sum())
        greens.append(count)
    assert greens[0] == 0 and greens[1] > 1000


def test_a_folder_without_photos_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no image"):
        make_scene(0, config("room", photos=tmp_path))
    with pytest.raises(ValueError, match="does not exist"):
        make_scene(0, config("room", photos=tmp_path / "missing"))


# -- wrong use --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"weights": (0.0, 0.0, 0.0)}, "weights"),
        ({"weights": (1.0, 1.0)}, "weights"),
        ({"weights": (1.0, -1.0, 0.0)}, "weights"),
        ({"sizes": ()}, "sizes"),
        ({"sizes": ((8, 96),)}, "sizes"),
        ({"fov": (1.2, 0.8)}, "fov"),
        ({"fov": (0.5, 4.0)}, "fov"),
        ({"pixel_aspect": (0.0, 1.0)}, "pixel_aspect"),
        ({"texture_size": 100}, "texture_size"),
        ({"noise": -0.1}, "noise"),
        ({"roll": 2.0}, "roll"),
    ],
)
def test_wrong_configurations_name_the_value(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        SyntheticConfig(**changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"overlap": (0.5, 0.2)}, "overlap"),
        ({"overlap": (0.5, 1.2)}, "overlap"),
        ({"baseline": (-1.0, 1.0)}, "baseline"),
        ({"rotation": (0.0, 4.0)}, "rotation"),
        ({"attempts": 0}, "attempts"),
    ],
)
def test_wrong_limits_name_the_value(changes: dict[str, object], word: str) -> None:
    with pytest.raises(ValueError, match=word):
        PairLimits(**changes)  # type: ignore[arg-type]


def test_wrong_calls_are_refused(room: SyntheticScene) -> None:
    camera, pose = Camera.from_fov((64, 48), 1.0), look_at(np.array([0.0, 0.0, 1.5]), np.array([1.0, 0.0, 1.2]))
    distorted = Camera(camera.size, camera.f, camera.c, torch.zeros(5), "radtan")
    lost = Pose(pose.R, torch.full((3,), torch.nan))
    with pytest.raises(ValueError, match="batch shapes"):
        room.render(Camera.stack([camera, camera]), pose)
    with pytest.raises(ValueError, match="radtan"):
        room.render(distorted, pose)
    with pytest.raises(ValueError, match="finite"):
        room.render(camera, lost)
    with pytest.raises(ValueError, match="generator"):
        room.render(camera, pose, Exposure(noise=0.1))
    with pytest.raises(ValueError, match="gain"):
        Exposure(gain=0.0)
    with pytest.raises(ValueError, match="-1"):
        make_scene(-1)
    with pytest.raises(ValueError, match="num_scenes"):
        SyntheticPairs(0, 1)
