"""Maps: both layouts of COLMAP models, half pixels, the questions an SfmMap answers, and files that are not whole."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch

from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.io.colmap_files import check_binary_model
from metriloc.io.maps import map_from_reconstruction, read_map
from metriloc.types import SfmMap

Shared = Callable[[str], Path]


@pytest.fixture(scope="module")
def model() -> pycolmap.Reconstruction:
    """Ten images of 60 points, by pycolmap's own generator."""
    pycolmap.set_random_seed(0)
    options = pycolmap.SyntheticDatasetOptions(num_rigs=1, num_cameras_per_rig=2, num_frames_per_rig=5, num_points3D=60)
    return pycolmap.synthesize_dataset(options)


@pytest.fixture()
def folder(model: pycolmap.Reconstruction, tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.mkdir()
    model.write(str(path))
    return path


def test_observations_reproject_with_our_pixel_centres(model: pycolmap.Reconstruction) -> None:
    scene = map_from_reconstruction(model)
    assert len(scene) == 10 and len(scene.xyz) == 60
    for i in range(len(scene)):
        seen = scene.observations_of(i)
        inside = scene.cam_from_world[i].transform(scene.xyz[scene.point_index[seen]])
        uv, valid = scene.cameras[i].project(inside)
        assert bool(valid.all())
        torch.testing.assert_close(uv, scene.uv[seen], atol=1e-6, rtol=0)


def test_five_file_and_three_file_and_text_models_agree(
    folder: Path, model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    scene = read_map(folder)
    text = tmp_path / "text"
    text.mkdir()
    model.write_text(str(text))
    for other in (read_map(text), map_from_reconstruction(model)):
        assert other.names == scene.names
        torch.testing.assert_close(other.cam_from_world.matrix(), scene.cam_from_world.matrix())
        assert torch.equal(other.point_index, scene.point_index)


def test_old_golden_models(shared: Shared) -> None:
    for kind in ("bin", "txt"):
        scene = read_map(shared(f"golden/bench/visloc/model_{kind}"))
        assert len(scene) == 40 and scene.names[0] == "seq1/frame00000.png"


def test_what_is_no_model(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(InputError, match="holds no COLMAP model"):
        read_map(tmp_path / "absent")
    (folder / "points3D.bin").unlink()
    with pytest.raises(InputError, match=r"holds no points3D\.bin"):
        read_map(folder)


def test_the_folder_of_images_must_be_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder of images"):
        read_map(folder, tmp_path / "nowhere")
    assert read_map(folder, tmp_path).folder == tmp_path


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
def test_files_that_are_not_whole_are_named(folder: Path, name: str) -> None:
    check_binary_model(folder)
    path = folder / f"{name}.bin"
    whole = path.read_bytes()
    for cut in sorted({1, 7, len(whole) // 3, len(whole) // 2, len(whole) - 1}):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError, match=rf"{name}\.bin' is damaged"):
            read_map(folder)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError, match="1 bytes follow"):
        read_map(folder)
    path.write_bytes((2**63).to_bytes(8, "little") + whole[8:])
    with pytest.raises(InputError, match="claims"):
        read_map(folder)


@pytest.mark.parametrize("kind", ["bin", "txt"])
def test_mutated_models_are_read_or_refused(shared: Shared, tmp_path: Path, kind: str) -> None:
    source = shared(f"golden/bench/visloc/model_{kind}")
    for seed in range(60):
        chance = random.Random(seed)
        copy = tmp_path / str(seed)
        copy.mkdir()
        for path in source.glob(f"*.{kind}"):
            shutil.copyfile(path, copy / path.name)
        victim = copy / f"{chance.choice(['cameras', 'images', 'points3D'])}.{kind}"
        data = bytearray(victim.read_bytes())
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randint(0, 2)] = bytes(
                chance.choice(b"0123 \n-x\xff\x00") for _ in range(chance.randint(0, 3))
            )
        victim.write_bytes(data)
        try:
            scene = read_map(copy)
        except InputError as error:
            assert "\n" not in str(error)
            continue
        assert np.isfinite(scene.xyz.numpy()).all()


def small_map() -> SfmMap:
    camera = Camera.from_fov((10, 10), 1.0)
    pose = Pose.identity((3,), dtype=torch.float64)
    image = torch.tensor([0, 0, 0, 1, 1, 2])
    point = torch.tensor([0, 1, 2, 1, 2, 2])
    xyz = torch.arange(12, dtype=torch.float64).reshape(4, 3)
    return SfmMap(("a", "b", "c"), (camera,) * 3, pose, xyz, image, point, torch.arange(12.0).reshape(6, 2))


def test_questions_a_map_answers() -> None:
    scene = small_map()
    assert scene.index("b") == 1 and len(scene) == 3
    assert scene.observations_of(1) == slice(3, 5)
    assert scene.track_lengths().tolist() == [1, 2, 3, 0]
    assert scene.points_seen_by([1, 2]).tolist() == [1, 2]
    assert scene.points_seen_by([0], min_track=2).tolist() == [1, 2]
    assert scene.covisible(0) == [(1, 2), (2, 1)] and scene.covisible(0, 2) == [(1, 2)]
    rest = scene.without([1])
    assert (
        rest.names == ("a", "c")
        and rest.image_index.tolist() == [0, 0, 0, 1]
        and rest.point_index.tolist() == [0, 1, 2, 2]
    )
    assert rest.uv.shape == (4, 2) and len(rest.xyz) == 4
    with pytest.raises(ValueError, match="no image 'z'"):
        scene.index("z")


def test_maps_that_contradict_themselves_are_refused() -> None:
    whole = vars(small_map())
    for change, says in (
        ({"names": ("a", "b")}, "2 names"),
        ({"names": ("a", "a", "b")}, "same name"),
        ({"image_index": torch.tensor([0, 0, 0, 1, 1, 3])}, "image 3 of 3"),
        ({"point_index": torch.tensor([0, 1, 2, 1, 2, 9])}, "point 9 of 4"),
        ({"image_index": torch.tensor([2, 0, 0, 1, 1, 0])}, "sorted"),
        ({"uv": torch.zeros(5, 2)}, "6 image indices"),
    ):
        with pytest.raises(ValueError, match=says):
            SfmMap(**{**whole, **change})
