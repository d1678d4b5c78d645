"""Published training files of PixLoc, made small: pairs, poses and photos as the loaders of maps would give them."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.datasets.cmu import CAMERAS
from metriloc.datasets.pixloc_files import cmu_of_file, megadepth_of_file, training_file
from metriloc.datasets.pixloc_pairs import SampleConfig
from metriloc.datasets.sfm_pairs import SfmSamples, SquareConfig
from metriloc.geometry import Pose, so3_exp
from metriloc.io import InputError
from metriloc.recipes import pixloc_cmu, pixloc_megadepth
from metriloc.training import override

POINTS = np.random.default_rng(0).uniform([-3, -2, 8], [3, 2, 14], (80, 3))


def poses(count: int, step: float) -> Pose:
    turns = so3_exp(torch.tensor([[0.0, 0.02 * n, 0.01] for n in range(count)], dtype=torch.float64))
    centers = torch.tensor([[step * n, 0.0, 0.1] for n in range(count)], dtype=torch.float64)
    return Pose(turns, -(turns @ centers[..., None]).squeeze(-1))


def pairs_of(pose: Pose) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(R.numpy(), t.numpy()) for R, t in zip(pose.R, pose.t, strict=True)]


def photo(path: Path, size: tuple[int, int], color: str = "gray") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path)


def cmu_info() -> dict[str, Any]:
    references, queries = poses(3, 0.5), poses(2, 0.6)
    return {
        "points3D": POINTS,
        "track_lengths": np.full(80, 3),
        "ref_poses": pairs_of(references),
        "ref_image_names": [f"img_{n:05d}_c0_1us.jpg" for n in range(3)],
        "p3D_observed": [np.arange(60), np.arange(70), np.arange(80)],
        "query_poses": pairs_of(queries),
        "query_image_names": [f"img_{n:05d}_c1_2us.jpg" for n in range(2)],
        "query_closest_indices": np.array([0, 1]),
        "ref_overlap_matrix": np.full((3, 3), 0.8),
        "query_overlap_matrix": np.array([[-1, 0.5, 0.2], [0.9, -1, 0.6]]),
        "query_to_ref_distance_matrix": torch.cdist(queries.center(), references.center()).numpy(),
    }


@pytest.fixture()
def cmu(tmp_path: Path) -> Path:
    for n in range(3):
        photo(tmp_path / f"slice8/database/img_{n:05d}_c0_1us.jpg", (1024, 768))
        photo(tmp_path / f"slice8/query/img_{n:05d}_c1_2us.jpg", (1024, 768))
    (tmp_path / "training").mkdir()
    write(tmp_path, cmu_info())
    return tmp_path


def write(folder: Path, info: Any, name: str = "slice8") -> Path:
    (folder / "training" / f"{name}.pkl").write_bytes(pickle.dumps(info))
    return folder / "training" / f"{name}.pkl"


def test_a_slice_gives_pairs_within_the_limits(cmu: Path) -> None:
    file = training_file(cmu, "slice8")
    assert file is not None
    scene = cmu_of_file(file, cmu, baseline=(0.0, 0.55))
    assert scene.index.tolist() == [[1, 0], [2, 1]] and scene.overlap.tolist() == pytest.approx([0.5, 0.6])
    assert [tuple(rows) for rows in cmu_of_file(file, cmu).index.tolist()] == [(1, 0), (0, 1), (2, 1)]
    assert scene.scene.cameras[0] is CAMERAS["c0"] and scene.queries is not None
    torch.testing.assert_close(scene.queries.cam_from_world.t, poses(2, 0.6).t)
    sample = SfmSamples((scene,), SquareConfig(96, "min", 96), SampleConfig(40))[0, 1]
    assert sample.xyz.shape == (40, 3) and tuple(sample.pair.view0.image.shape) == (3, 96, 96)


def test_queries_stored_as_centers_are_told_by_the_distances(cmu: Path) -> None:
    info = cmu_info()
    centers = poses(2, 0.6).center().numpy()
    info["query_poses"] = [(R, c) for (R, _), c in zip(info["query_poses"], centers, strict=True)]
    scene = cmu_of_file(write(cmu, info), cmu)
    assert scene.queries is not None
    torch.testing.assert_close(scene.queries.cam_from_world.t, poses(2, 0.6).t)


def megadepth_info(turned: int = 0) -> dict[str, Any]:
    K = np.array([[500.0, 0, 319.5], [0, 500.0, 239.5], [0, 0, 1]])
    return {
        "points3D": POINTS,
        "intrinsics": [K] * 3,
        "poses": pairs_of(poses(3, 0.3)),
        "p3D_observed": [np.arange(80)] * 3,
        "image_names": ["a.jpg", "b.jpg", "c.jpg"],
        "rotations": np.array([turned, 0, 0]),
        "overlap_matrix": np.array([[-1, 0.9, 0.3], [0.5, -1, 0.41], [0.2, 0.4, -1]]),
        "angle_matrix": np.zeros((3, 3)),
    }


def test_a_scene_of_megadepth_with_a_turned_photo(tmp_path: Path) -> None:
    for name in "abc":
        photo(tmp_path / f"0000/images/{name}.jpg", (480, 640) if name == "a" else (640, 480))
    (tmp_path / "training").mkdir()
    scene = megadepth_of_file(write(tmp_path, megadepth_info(1), "0000"), tmp_path)
    assert scene.index.tolist() == [[0, 1], [1, 0], [1, 2]]
    assert scene.turns is not None and scene.turns.tolist() == [1, 0, 0]
    sample = SfmSamples((scene,), SquareConfig(None, "min", None), SampleConfig(40))[0, 1]
    assert sample.pair.view0.size == sample.pair.view1.size == (640, 480)  # the first was stored lying on its side
    seen = sample.pair.view0.camera.project(sample.xyz)[1]
    assert bool(seen.all())


def test_photos_are_filled_up_and_lose_their_colors(tmp_path: Path) -> None:
    for name, color in zip("abc", ("red", "green", "blue"), strict=True):
        photo(tmp_path / f"0000/images/{name}.jpg", (640, 480), color)
    (tmp_path / "training").mkdir()
    scene = megadepth_of_file(write(tmp_path, megadepth_info(), "0000"), tmp_path)
    square = SquareConfig(480, "max", None, pad=512, grayscale=True)
    view = SfmSamples((scene,), square, SampleConfig(40))[0, 1].pair.view0
    assert tuple(view.image.shape) == (3, 512, 512) and view.camera.size.tolist() == [480, 360]
    assert bool((view.image[:, 360:] == 0).all()) and bool((view.image[:, :, 480:] == 0).all())
    inside = view.image[:, :360, :480]
    torch.testing.assert_close(inside, torch.full_like(inside, 0.299), atol=0.01, rtol=0)  # Rec. 601 of red
    with pytest.raises(InputError, match=r"0000/a\.jpg. of 640x480 pixels does not fit into a square of 512"):
        SfmSamples((scene,), SquareConfig(None, crop=None, pad=512), SampleConfig(40))[0, 1]
    with pytest.raises(ValueError, match="needs crop none"):
        SquareConfig(pad=512)


def test_pairs_can_be_too_near_and_sorted(cmu: Path) -> None:
    """The three pairs are 0.5, 0.6 and 0.4 m apart."""
    run = override(pixloc_cmu(), ["batches.files=training", "batches.batch_size=1", "batches.per_scene=3"])
    assert override(run, ["batches.min_baseline=0.45"]).batches(cmu).samples.lengths == (2,)  # type: ignore[attr-defined]
    source = override(run, ["batches.sort_by_overlap=true"]).batches(cmu)
    overlap = source.samples.scenes[0].overlap  # type: ignore[attr-defined]
    drawn = [source.sampler.batch(step)[0][0] for step in range(3)]  # type: ignore[attr-defined]
    assert overlap[drawn].tolist() == pytest.approx([0.9, 0.6, 0.5])


def test_recipes_take_them(cmu: Path) -> None:
    run = override(pixloc_cmu(), ["batches.files=training", "batches.batch_size=2", "batches.per_scene=2"])
    assert run.batches(cmu).samples.lengths == (3,)  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="holds none of the training files 0000"):
        override(pixloc_megadepth(), ["batches.files=training"]).batches(cmu)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points3D": ["x"]}, "'points3D' holds no numbers"),
        ({"points3D": np.zeros((4, 2))}, r"the shape \[4, 2\]"),
        ({"ref_poses": [(np.eye(3), np.zeros(3))]}, "are no 3 poses"),
        ({"ref_poses": [(2 * np.eye(3), np.zeros(3))] * 3}, "are no 3 poses"),
        ({"ref_poses": 3}, "no list of rotations"),
        ({"p3D_observed": [np.array([99])] * 3}, "none of the 80"),
        ({"p3D_observed": []}, "no list of 3"),
        ({"points3D": -POINTS}, "do not fit"),
        ({"query_to_ref_distance_matrix": np.full((2, 3), 9.0)}, "distances of queries"),
        ({"ref_image_names": [1, 2, 3]}, "no list of names"),
        ({"query_overlap_matrix": np.zeros((3, 3))}, r"not \[2, 3\]"),
    ],
)
def test_what_contradicts_itself_is_one_sentence(changes: dict[str, Any], message: str, cmu: Path) -> None:
    with pytest.raises(InputError, match=message):
        cmu_of_file(write(cmu, cmu_info() | changes), cmu)


def test_other_pickles_and_lost_photos(cmu: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no table"):
        cmu_of_file(write(cmu, [1, 2]), cmu)
    with pytest.raises(InputError, match="has no 'ref_image_names'"):
        cmu_of_file(write(cmu, {}), cmu)
    with pytest.raises(InputError, match=r"the photo 'a\.jpg' is not below"):
        megadepth_of_file(write(cmu, megadepth_info(), "0000"), cmu)
    with pytest.raises(InputError, match="os"):
        file = write(cmu, {})
        file.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
        cmu_of_file(file, cmu)
