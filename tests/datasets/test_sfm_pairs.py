"""MegaDepth and CMU loaders: golden turns, resizes and cuts; cameras, poses and points that stay together."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metriloc.datasets.cmu import (
    CAMERAS,
    TRAIN_SLICES,
    VALIDATION_SLICES,
    cmu_slice,
    nearest_references,
    parse_cmu_poses,
    query_pairs,
)
from metriloc.datasets.megadepth import (
    TRAIN_SCENES,
    VALIDATION_SCENES,
    megadepth_scene,
    read_megadepth,
    scene_of_map,
    upright_turns,
)
from metriloc.datasets.pixloc_pairs import SampleConfig, covisible_pairs
from metriloc.datasets.pixloc_starts import Start
from metriloc.datasets.sfm_pairs import (
    RefinerScene,
    SfmSamples,
    SquareConfig,
    cut_square,
    resized,
    turned_map,
    write_pairs,
)
from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.io import InputError
from metriloc.io.changed_views import quarter_turn
from metriloc.io.maps import read_map
from metriloc.types import SfmMap, View

Find = Callable[[str], Path]


@pytest.fixture(scope="module")
def golden(shared: Find) -> dict[str, torch.Tensor]:
    with np.load(shared("golden/pixloc/misc.npz")) as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def golden_view(golden: dict[str, torch.Tensor]) -> View:
    w, h = 53.0, 37.0
    camera = Camera(torch.tensor([w, h]), torch.tensor([50.0, 50.0]), torch.tensor([26.0, 18.0]))
    return View(golden["view/image"].permute(2, 0, 1) / 255, camera, Pose.identity())


# -- photos -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("by", ["max", "min"])
def test_golden_resize(golden: Any, by: Any) -> None:
    found = resized(golden_view(golden), SquareConfig(24, by, None))
    expected = golden[f"view/resize24_{by}"].permute(2, 0, 1) / 255
    torch.testing.assert_close(found.image, expected, rtol=0, atol=1e-5)
    # the published scale is the nominal one; sides are rounded, so ours differs by at most half a pixel at the border
    factor = found.camera.f / 50 - golden[f"view/resize24_{by}_scale"].float()
    assert float((factor * torch.tensor([53.0, 37.0])).abs().max()) <= 0.5
    assert tuple(found.camera.size.tolist()) == found.size


def test_golden_crop_and_border(golden: Any) -> None:
    view = golden_view(golden)
    found = cut_square(view, (30, 0), 20)
    assert torch.equal(found.image, golden["view/crop20_centroid"].permute(2, 0, 1) / 255)
    w, h, fx, fy, cx, cy = golden["view/crop20_cam"].tolist()
    assert found.camera.size.tolist() == [w, h] and found.camera.f.tolist() == [fx, fy]
    assert found.camera.c.tolist() == [cx, cy]
    assert torch.equal(cut_square(view, (999, -5), 20).image, cut_square(view, (33, 0), 20).image)  # moved inside
    padded = cut_square(view, (0, 0), 64)
    assert torch.equal(padded.image, golden["view/pad64"].permute(2, 0, 1) / 255)
    assert padded.camera.size.tolist() == [53, 37]  # what lies in the border is not seen


def test_min_if_only_reduces(golden: Any) -> None:
    view = golden_view(golden)
    assert resized(view, SquareConfig(60, "min_if", None)) is view
    assert min(resized(view, SquareConfig(20, "min_if", None)).size) == 20
    for wrong in ({"by": "far"}, {"resize": 0}, {"crop": -1}):
        with pytest.raises(ValueError, match="SquareConfig"):
            SquareConfig(**wrong)


@pytest.mark.parametrize("quarters", range(4))
def test_golden_turns(golden: Any, quarters: int) -> None:
    K = golden["megadepth/K"]
    camera = Camera.from_K(K, (640.0, 480.0)).turn(quarters)
    torch.testing.assert_close(camera.K, golden[f"megadepth/K_rot{quarters}"], rtol=0, atol=1e-12)
    expected = golden[f"megadepth/R_rot{quarters}"]
    torch.testing.assert_close(quarter_turn(quarters).R, expected[:3, :3], rtol=0, atol=1e-12)


def test_golden_upright(golden: Any) -> None:
    R = golden["megadepth/R_c2w"].mT
    found = upright_turns(Pose(R, torch.zeros(len(R), 3, dtype=R.dtype)))
    assert torch.equal(found, golden["megadepth/rotations"])


def test_scene_lists() -> None:
    assert len(TRAIN_SCENES) == 118 and len(VALIDATION_SCENES) == 77
    assert not set(TRAIN_SCENES) & set(VALIDATION_SCENES) and not set(TRAIN_SLICES) & set(VALIDATION_SLICES)
    assert len(set(TRAIN_SCENES)) == 118 and all(len(name) == 4 for name in TRAIN_SCENES + VALIDATION_SCENES)


# -- MegaDepth --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def place(shared: Find, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real reconstruction laid out as a scene of MegaDepth."""
    pytest.importorskip("pycolmap")
    source = shared("data/eval/places/fountain_p11")
    folder = tmp_path_factory.mktemp("megadepth") / "0001"
    folder.mkdir()
    (folder / "sparse").symlink_to(source / "sparse")
    (folder / "images").symlink_to(source)
    return folder


def test_megadepth_scene(place: Path, tmp_path: Path) -> None:
    scene = megadepth_scene(place, 0.4, 1.0, store=tmp_path)
    again = megadepth_scene(place, 0.4, 1.0, store=tmp_path)
    assert len(scene) > 5 and torch.equal(scene.index, again.index) and torch.equal(scene.overlap, again.overlap)
    assert scene.turns is not None and not scene.turns.any()
    (found,) = read_megadepth(place.parent, TRAIN_SCENES)
    assert torch.equal(found.index, scene.index)
    with pytest.raises(InputError, match="none of the 77 scenes"):
        read_megadepth(place.parent, VALIDATION_SCENES)
    with pytest.raises(InputError, match="no COLMAP model"):
        megadepth_scene(tmp_path)
    stored = next(tmp_path.glob("*.npz"))
    write_pairs(stored, ["other.jpg"], scene.index, scene.overlap)
    with pytest.raises(InputError, match="other photos"):
        megadepth_scene(place, store=tmp_path)
    stored.write_bytes(b"PK damaged")
    with pytest.raises(InputError):
        megadepth_scene(place, store=tmp_path)


@pytest.mark.parametrize("centered", [False, True])
def test_samples_are_consistent(place: Path, centered: bool) -> None:
    """Points of a sample project to what the map observed, shifted by the cut, and the true pose maps both photos."""
    scene = megadepth_scene(place)
    square = SquareConfig(256, "min", 256, centered)
    samples = SfmSamples((scene,), square, SampleConfig(128, start=Start("share", share=(0.75, 1.0))))
    sample = samples[1, 9]
    assert sample.pair.view0.image.shape == sample.pair.view1.image.shape == (3, 256, 256)
    reference, query = scene.index[1].tolist()
    full = scene.scene
    observed = full.uv[full.observations_of(reference)]
    view = sample.pair.view0
    uv, seen = view.camera.project(sample.xyz)
    counted = sample.xyz[:, 2] > 0
    assert seen[counted].all() and counted.sum() > 50
    factor = view.camera.f.double() / full.cameras[reference].f
    offset = full.cameras[reference].scale(factor).c - view.camera.c.double()
    in_full = (uv[counted].double() + offset + 0.5) / factor - 0.5
    assert float(torch.cdist(in_full, observed).min(1).values.median()) < 0.5
    truth = full.cam_from_world[query] @ full.cam_from_world[reference].inverse()
    torch.testing.assert_close(sample.query_from_reference.matrix().double(), truth.matrix(), rtol=1e-5, atol=1e-5)
    share = float(sample.init.angle() / sample.query_from_reference.angle())
    assert 0.74 < share < 1.01
    assert torch.equal(samples[1, 9].xyz, sample.xyz) and not torch.equal(samples[1, 10].xyz, sample.xyz)
    if centered:
        both = sample.pair.view1.camera.project(sample.query_from_reference.transform(sample.xyz))[1]
        assert float(both[counted].float().mean()) > 0.5


def test_turned_scene_gives_upright_photos(place: Path) -> None:
    """Photos that were stored lying on their side come out of the loader as if they had not been."""
    straight = read_map(place / "sparse", place / "images")
    index, overlap = covisible_pairs(straight, 0.4, 1.0)
    plain = SfmSamples((scene_of_map(straight, "a", index, overlap, (0.4, 1.0)),), SquareConfig(128, "min", None))
    turns = torch.full((len(straight),), 1)
    lying = turned_map(straight, turns)
    undone = turned_map(lying, 4 - turns)
    torch.testing.assert_close(undone.uv, straight.uv, rtol=0, atol=1e-9)
    torch.testing.assert_close(undone.cam_from_world.R, straight.cam_from_world.R)
    uv = lying.cameras[0].project(lying.cam_from_world[0].transform(lying.xyz[lying.point_index[:20]]))[0]
    torch.testing.assert_close(uv, lying.uv[:20], rtol=0, atol=2.0)
    # all photos of a place lying on one side are upright by their own measure; one of them is turned back
    mixed = turned_map(straight, torch.nn.functional.one_hot(torch.tensor(3), len(straight)))
    assert upright_turns(mixed.cam_from_world).tolist() == [3 if n == 3 else 0 for n in range(len(straight))]
    assert len(plain) > 0 and plain[0, None].pair.view0.size[1] == 128


def test_small_photos_make_no_pairs(place: Path) -> None:
    scene = read_map(place / "sparse", place / "images")
    index, overlap = covisible_pairs(scene, 0.4, 1.0)
    small = dataclasses.replace(
        scene, cameras=tuple(c.scale(0.5) if n == 0 else c for n, c in enumerate(scene.cameras))
    )
    assert (index == 0).any() and not (scene_of_map(small, "a", index, overlap, (0.4, 1.0)).index == 0).any()


def test_no_pairs_is_an_input_error(place: Path) -> None:
    scene = megadepth_scene(place, 0.99, 1.0)
    with pytest.raises(InputError, match="no pair to train on in 1 scenes"):
        SfmSamples((scene,))
    with pytest.raises(ValueError, match="overlap"):
        RefinerScene("a", scene.scene, torch.zeros(2, 2).long(), torch.zeros(3))
    whole = SfmSamples((megadepth_scene(place),))
    with pytest.raises(IndexError):
        whole[len(whole), 0]


# -- CMU --------------------------------------------------------------------------------------------------------------
def test_pose_file() -> None:
    text = "# comment\nimg_1_c0_2.jpg 0.5 0.5 0.5 0.5 1 2 3\n\nimg_2_c1_2.jpg 1 0 0 0 -1 0 4\n"
    found = parse_cmu_poses(text)
    torch.testing.assert_close(found["img_1_c0_2.jpg"].center(), torch.tensor([1.0, 2.0, 3.0]).double())
    torch.testing.assert_close(found["img_2_c1_2.jpg"].t, torch.tensor([1.0, 0.0, -4.0]).double())
    for bad, words in (
        ("a 1 2 3", "is not"),
        ("a 1 0 0 0 1 2 x", "finite number"),
        ("a 0 0 0 0 1 2 3", "quaternion"),
        ("a 1 0 0 0 1 2 3\na 1 0 0 0 1 2 3", "twice"),
    ):
        with pytest.raises(InputError, match=words):
            parse_cmu_poses(bad, "poses.txt")


def at(x: float, yaw_deg: float = 0.0) -> Pose:
    R = so3_exp(torch.tensor([0.0, math.radians(yaw_deg), 0.0]).double())
    return Pose(R, -(R @ torch.tensor([x, 0.0, 0.0]).double()))


def line_map() -> SfmMap:
    """Four references along a line, one metre apart; neighbours share 60 of 100 points."""
    count, per = 4, 100
    image = torch.arange(count).repeat_interleave(per)
    point = torch.cat([torch.arange(40 * n, 40 * n + per) for n in range(count)])
    xyz = torch.stack([torch.linspace(0, 3, 220), torch.zeros(220), torch.full((220,), 5.0)], -1).double()
    poses = Pose.stack([at(float(n)) for n in range(count)])
    cameras = tuple(CAMERAS["c0"] for _ in range(count))
    return SfmMap(tuple("abcd"), cameras, poses, xyz, image, point, torch.zeros(len(image), 2).double())


def test_query_pairs_follow_the_nearest_reference() -> None:
    queries = Pose.stack([at(0.2), at(1.9, 20), at(2.0, 90), at(9.0), at(1.1)])
    nearest, distance = nearest_references(line_map().cam_from_world, queries)
    assert nearest.tolist() == [0, 2, -1, 3, 1]
    torch.testing.assert_close(distance[0], torch.tensor([0.2, 0.8, 1.8, 2.8]).double())
    index, overlap = query_pairs(line_map(), queries, 0.3, 1.0)
    # query 2 looks elsewhere, query 3 is six metres from any reference
    assert sorted(map(tuple, index.tolist())) == [(0, 4), (1, 0), (1, 1), (2, 4), (3, 1)]
    torch.testing.assert_close(overlap, torch.full((5,), 0.6))
    near, _ = query_pairs(line_map(), queries, 0.3, 1.0, (0.0, 0.95))
    assert sorted(map(tuple, near.tolist())) == [(1, 0), (1, 1), (2, 4)]


def test_cmu_slice(place: Path, tmp_path: Path) -> None:
    """A slice made of a real place: its photos are both the database and the queries."""
    scene = read_map(place / "sparse")
    folder = tmp_path / "slice8"
    (folder / "query").mkdir(parents=True)
    (folder / "database").symlink_to(place / "images")
    lines, intrinsics = [], ""
    for n, name in enumerate(scene.names):
        query = f"img_{n:05d}_c0_1.jpg"
        (folder / "query" / query).symlink_to(place / "images" / name)
        q, c = scene.cam_from_world[n].quaternion().tolist(), scene.cam_from_world[n].center().tolist()
        lines.append(" ".join([query, *map(str, q), *map(str, c)]))
        camera = scene.cameras[n]
        w, h = camera.size.int().tolist()
        intrinsics = f"c0 PINHOLE {w} {h} {' '.join(map(str, [*camera.f.tolist(), *(camera.c + 0.5).tolist()]))}\n"
    lines.append("img_99999_c0_1.jpg 1 0 0 0 0 0 0")  # its photo is missing
    (tmp_path / "poses.txt").write_text("\n".join(lines))
    (tmp_path / "intrinsics.txt").write_text(intrinsics)
    found = cmu_slice(8, tmp_path, place / "sparse", tmp_path / "poses.txt", baseline=(0.0, 50.0))
    expected, _ = covisible_pairs(scene, 0.3, 1.0)
    # overlaps are those of the query's own row
    assert sorted(map(tuple, found.index.flip(1).tolist())) == sorted(map(tuple, expected.tolist()))
    samples = SfmSamples((found,), SquareConfig(240, "min", 240), SampleConfig(64))
    sample = samples[0, 1]
    reference, query = found.index[0].tolist()
    truth = scene.cam_from_world[query] @ scene.cam_from_world[reference].inverse()
    torch.testing.assert_close(sample.query_from_reference.matrix().double(), truth.matrix(), rtol=1e-4, atol=1e-4)
    assert torch.equal(sample.init.matrix(), torch.eye(4)) and sample.pair.view1.name.startswith("slice8/img_")
    with pytest.raises(InputError, match="none of the"):
        cmu_slice(9, tmp_path, place / "sparse", tmp_path / "poses.txt")
