"""Map-free folders: pair lists, poses, intrinsics and images against the published loader's, and malformed folders."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metriloc.datasets import MapfreeScene, read_mapfree, read_mapfree_scene
from metriloc.io import InputError

Shared = Callable[[str], Path]


def numbers(name: str) -> list[int]:
    found = re.fullmatch(r"seq(\d+)/frame_(\d+)\.jpg", name)
    assert found is not None
    return [int(found[1]), int(found[2])]


@pytest.fixture(scope="module")
def bench(shared: Shared) -> tuple[Path, dict[str, list]]:
    folder = shared("golden/bench/pairs")
    return folder, json.loads((folder / "expected.json").read_text())


@pytest.fixture(scope="module")
def synth(shared: Shared) -> tuple[Path, dict[str, np.ndarray]]:
    folder = shared("golden/mickey/mapfree_synth")
    return folder, dict(np.load(folder / "expected.npz", allow_pickle=False))


# -- golden: pair lists -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("limits", [(0.2, 0.7), (0.4, 0.8), (0.0, 1.0)])
def test_training_pairs(bench: tuple[Path, dict], limits: tuple[float, float]) -> None:
    (scene,) = read_mapfree(bench[0], "train")
    pairs = scene.training_pairs(*limits)
    names = [(pairs.scene.names[i], pairs.scene.names[j]) for i, j in zip(pairs.index0, pairs.index1, strict=True)]
    assert [numbers(a) + numbers(b) for a, b in names] == bench[1][f"train_{limits[0]}_{limits[1]}"]
    assert ((pairs.overlap > limits[0]) & (pairs.overlap < limits[1])).all()


def test_training_blocks(bench: tuple[Path, dict]) -> None:
    (scene,) = read_mapfree(bench[0], "train")
    blocks = scene.training_blocks(0.2, 0.7)
    found = [
        [*numbers(b.reference.name), numbers(b.pair.frame1.name)[0], [numbers(q.name)[1] for q in b.queries]]
        for b in blocks
    ]
    assert found == bench[1]["train_multi_0.2_0.7"]
    assert all(0.2 < b.pair.overlap < 0.7 for b in blocks)


def test_evaluation_pairs_and_blocks(bench: tuple[Path, dict]) -> None:
    (scene,) = read_mapfree(bench[0], "val")
    pairs = scene.evaluation_pairs()
    assert [[p.frame0.name, p.frame1.name] for p in pairs] == bench[1]["val_single_paths"]
    assert [numbers(p.frame0.name) + numbers(p.frame1.name) for p in pairs] == bench[1]["val_single"]
    blocks = scene.evaluation_blocks()
    found = [[*numbers(b.reference.name), 1, [numbers(q.name)[1] for q in b.queries]] for b in blocks]
    assert found == bench[1]["val_multi"]
    assert all(b.cam_from_last is not None and bool(b.cam_from_last.is_finite().all()) for b in blocks)


def test_relative_pose_and_resized_intrinsics(bench: tuple[Path, dict]) -> None:
    expected = bench[1]["relpose"]
    (scene,) = read_mapfree(bench[0], "train")
    first, second = (scene.posed.index(path) for path in expected["paths"])
    pose = scene.posed.pair(first, second).cam1_from_cam0
    assert pose is not None and pose.dtype == torch.float64
    torch.testing.assert_close(pose.matrix(), torch.tensor(expected["T_0to1"], dtype=torch.float64), rtol=0, atol=2e-7)
    camera = scene.posed.frame(first).camera
    small = camera.scale(torch.tensor([270.0, 360.0]) / camera.size)
    torch.testing.assert_close(small.K, torch.tensor(expected["K0_270x360"], dtype=torch.float64), rtol=1e-6, atol=0)


# -- golden: items ----------------------------------------------------------------------------------------------------
def test_lists_of_the_training_loader(synth: tuple[Path, dict]) -> None:
    folder, expected = synth
    scenes = read_mapfree(folder, "train")
    assert [scene.name for scene in scenes] == ["s00000", "s00001"]
    assert [len(scene.training_pairs()) for scene in scenes] == expected["train.lengths"].tolist()
    for low, high in ((0.0, 1.0), (0.4, 0.8)):
        pairs = scenes[0].training_pairs(low, high)
        found = [
            numbers(pairs.scene.names[i]) + numbers(pairs.scene.names[j])
            for i, j in zip(pairs.index0, pairs.index1, strict=True)
        ]
        assert found == expected[f"pairs.train.{low}_{high}"].tolist()


@pytest.mark.parametrize("split, items", [("train", (0, 5, 17)), ("val", (0, 1, 2))])
def test_items_of_the_training_loader(synth: tuple[Path, dict], split: str, items: tuple[int, ...]) -> None:
    folder, expected = synth
    scene = read_mapfree(folder, split)[0]
    pairs = scene.training_pairs() if split == "train" else scene.evaluation_pairs()
    for item in items:
        key, frames = f"{split}.{item}", pairs[item]
        assert [frames.frame0.name, frames.frame1.name] == expected[f"{key}.pair_names"].tolist()
        pair = frames.load((36, 48))
        assert pair.cam1_from_cam0 is not None
        truth = torch.from_numpy(expected[f"{key}.T_0to1"])
        torch.testing.assert_close(pair.cam1_from_cam0.matrix().float(), truth, rtol=0, atol=1e-6)
        for side, view, frame in ((0, pair.view0, frames.frame0), (1, pair.view1, frames.frame1)):
            resized, original = (
                torch.from_numpy(expected[f"{key}.{kind}{side}"]) for kind in ("K_color", "Kori_color")
            )
            torch.testing.assert_close(view.camera.K, resized, rtol=1e-6, atol=1e-5)
            torch.testing.assert_close(frame.camera.K.float(), original, rtol=0, atol=0)
            assert view.size == (36, 48) and view.camera.size.tolist() == [36, 48]
            if f"{key}.image{side}" in expected:
                difference = (view.image - torch.from_numpy(expected[f"{key}.image{side}"])).abs()
                assert float(difference.max()) <= 2.01 / 255
            if split == "train":
                pose = frame.cam_from_world
                assert pose is not None
                center = torch.from_numpy(expected[f"{key}.abs_c_{side}"])
                torch.testing.assert_close(pose.center(), center, rtol=0, atol=1e-7)


# -- the real sets ----------------------------------------------------------------------------------------------------
def test_training_sets(shared: Shared) -> None:
    scenes = read_mapfree(shared("data/train"))
    assert {scene.name: len(scene) for scene in scenes} == {"fr1_rpy": 719, "kitchen": 640}
    view = scenes[1].posed.frame(45).load()
    assert view.size == (320, 240) and view.depth is not None and tuple(view.depth.shape) == (120, 160)
    assert view.name == "kitchen/seq0/frame_00045.jpg" and "intrinsics.txt" in view.intrinsics_source
    assert 0.3 < float(view.depth[view.depth > 0].median()) < 5
    assert scenes[1].evaluation_pairs() == []


def test_evaluation_sets(shared: Shared) -> None:
    folder = shared("data/eval/val")
    scenes = read_mapfree(folder)
    assert len(scenes) == 18
    pairs = [pair for scene in scenes for pair in scene.evaluation_pairs(step=1)]
    assert len(pairs) == len((folder.parent / "pairs.csv").read_text().strip().splitlines()) - 1
    listed = (folder.parent / "pairs.csv").read_text().strip().splitlines()[1:]
    for pair, line in zip(pairs, listed, strict=True):
        scene, place, _, query, _, baseline, rotation, _ = line.split(",")
        assert (pair.scene, pair.frame1.name) == (scene, query)
        pose = pair.cam1_from_cam0
        assert pose is not None
        assert float(pose.distance()) == pytest.approx(float(baseline), abs=6e-4)
        # two decimals; the angle of the kitchen was taken from 7-Scenes' matrices, which are not quite rotations
        tolerance = 0.012 if place == "kitchen" else 0.006
        assert float(torch.rad2deg(pose.angle())) == pytest.approx(float(rotation), abs=tolerance)


def test_scannet_pairs_in_this_form(shared: Shared) -> None:
    scenes = read_mapfree(shared("data/eval/scannet_pairs"), "val")
    pairs = [pair for scene in scenes for pair in scene.evaluation_pairs()]
    assert len(pairs) == 8
    manifest = json.loads((shared("data/eval/scannet_pairs") / "manifest.json").read_text())
    truth = {entry["scene"]: entry for entry in manifest}
    for pair in pairs:
        pose = pair.cam1_from_cam0
        assert pose is not None
        assert float(pose.distance()) == pytest.approx(truth[pair.scene]["translation_m"], abs=1e-3)
        assert float(torch.rad2deg(pose.angle())) == pytest.approx(truth[pair.scene]["rotation_deg"], abs=1e-2)


# -- small folders ----------------------------------------------------------------------------------------------------
POSES = """seq0/frame_00000.jpg 1 0 0 0 0 0 0
seq1/frame_00003.jpg 0 1 0 0 0.5 0 0
# seq1/frame_00004.jpg 1 0 0 0 0 0 0
seq1/frame_00007.jpg 0 0 0 0 0 0 0
"""
INTRINSICS = "".join(f"{name} 500 510 320 240 640 480\n" for name in ("seq0/frame_00000.jpg", "seq1/frame_00003.jpg"))
INTRINSICS += "seq1/frame_00007.jpg 500.5 510 320 240 640.0 480\n"


def make(folder: Path, poses: str = POSES, intrinsics: str = INTRINSICS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "poses.txt").write_text(poses)
    (folder / "intrinsics.txt").write_text(intrinsics)
    return folder


def overlaps(folder: Path, rows: object, overlap: object, **more: np.ndarray) -> Path:
    np.savez(folder / "overlaps.npz", idxs=np.asarray(rows), overlaps=np.asarray(overlap), **more)
    return folder


def test_withheld_truth(tmp_path: Path) -> None:
    scene = read_mapfree_scene(make(tmp_path / "s00525"))
    known, withheld = scene.evaluation_pairs(step=1)
    assert known.cam1_from_cam0 is not None and withheld.cam1_from_cam0 is None
    assert withheld.frame1.cam_from_world is None
    assert [p.frame1.name for p in scene.evaluation_pairs()] == ["seq1/frame_00003.jpg"]
    assert scene.posed.frame(2).camera.f.tolist() == [500.5, 510]


def test_roots(tmp_path: Path) -> None:
    for split in ("train", "val"):
        for name in ("s00002", "s00001"):
            make(tmp_path / split / name)
    (tmp_path / "val" / "notes").mkdir()
    assert [scene.name for scene in read_mapfree(tmp_path, "val")] == ["s00001", "s00002"]
    assert [scene.name for scene in read_mapfree(tmp_path / "val")] == ["s00001", "s00002"]
    assert [scene.name for scene in read_mapfree(tmp_path / "val" / "s00002")] == ["s00002"]
    with pytest.raises(InputError, match="it has the splits train, val: name one"):
        read_mapfree(tmp_path)
    with pytest.raises(InputError, match="test' is not a folder"):
        read_mapfree(tmp_path, "test")
    with pytest.raises(InputError, match="not the name of a split"):
        read_mapfree(tmp_path, "../val")


@pytest.mark.parametrize(
    "poses, intrinsics, message",
    [
        (POSES, INTRINSICS.replace("seq1/frame_00003", "seq1/frame_00009"), "no intrinsics of 'seq1/frame_00003.jpg'"),
        (POSES, INTRINSICS + "seq0/frame_00000.jpg 1 1 0 0 2 2\n", "intrinsics.txt:4: .* other intrinsics already"),
        (POSES.replace("0.5", "abc"), INTRINSICS, "poses.txt:2: 'abc' is not a finite number"),
        (POSES.replace("0.5 0", "0.5"), INTRINSICS, "poses.txt:2: 7 fields instead of 8"),
        (POSES.replace("seq1/frame_00003", "../../etc/passwd"), INTRINSICS, "which is not inside the scene"),
        (POSES, INTRINSICS.replace("510", "-510"), "intrinsics.txt:1: focal lengths"),
        (POSES, "", "intrinsics.txt' is empty"),
    ],
)
def test_malformed_scenes(tmp_path: Path, poses: str, intrinsics: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_mapfree_scene(make(tmp_path / "s00000", poses, intrinsics))


def test_wrong_requests(tmp_path: Path, generator: torch.Generator) -> None:
    scene = read_mapfree_scene(make(tmp_path / "s00000"))
    with pytest.raises(ValueError, match="step must be at least 1, got 0"):
        scene.evaluation_pairs(0)
    with pytest.raises(ValueError, match=r"no overlap is above 0.8 and below 0.4"):
        scene.training_pairs(0.8, 0.4)
    with pytest.raises(InputError, match=r"overlaps.npz' does not exist: metriloc overlaps makes it"):
        scene.training_pairs()
    with pytest.raises(InputError, match=r"has no photo 'seq0/frame_00009.jpg'"):
        scene.posed.index("seq0/frame_00009.jpg")
    without_reference = POSES.replace("seq0/frame_00000", "seq0/frame_00001")
    scene = read_mapfree_scene(
        make(tmp_path / "s1", without_reference, INTRINSICS.replace("seq0/frame_00000", "seq0/frame_00001"))
    )
    with pytest.raises(InputError, match=r"has no photo 'seq0/frame_00000.jpg'"):
        scene.evaluation_pairs()


@pytest.mark.parametrize(
    "rows, overlap, message",
    [
        ([[0, 0, 1, 4]], [0.5], "row 0: .*s00000' has no frame 4 of seq1"),
        ([[0, 0, 1, 3], [0, 1, 1, 3]], [0.5, 0.5], "row 1: .*s00000' has no frame 1 of seq0"),
        ([[0, 0, 1]], [0.5], "idxs must be whole numbers"),
        ([[0.0, 0, 1, 3]], [0.5], "idxs must be whole numbers"),
        ([[0, 0, 1, 3]], [0.5, 0.6], "overlaps must be numbers"),
        ([[0, 0, 1, 3]], [1], "overlaps must be numbers"),
        ([[0, 0, 1, 3]], [1.5], "between 0 and 1"),
        ([[0, 0, 1, 3]], [float("nan")], "between 0 and 1"),
        ([[0, -1, 1, 3]], [0.5], "outside 0 to"),
    ],
)
def test_malformed_overlaps(tmp_path: Path, rows: object, overlap: object, message: str) -> None:
    scene = read_mapfree_scene(overlaps(make(tmp_path / "s00000"), rows, overlap))
    with pytest.raises(InputError, match=message):
        scene.training_pairs()


def test_pickles_are_not_opened(tmp_path: Path) -> None:
    scene = read_mapfree_scene(make(tmp_path / "s00000"))
    np.savez(tmp_path / "s00000" / "overlaps.npz", idxs=np.array([{"a": 1}], dtype=object), overlaps=np.zeros(1))
    with pytest.raises(InputError, match=r"not a usable .npz"):
        scene.training_pairs()


def test_a_header_that_promises_too_much(tmp_path: Path) -> None:
    scene = read_mapfree_scene(overlaps(make(tmp_path / "s00000"), [[0, 0, 1, 3]], [0.5]))
    path = tmp_path / "s00000" / "overlaps.npz"
    header = np.lib.format.magic(1, 0) + (118).to_bytes(2, "little")
    text = "{'descr': '<i8', 'fortran_order': False, 'shape': (20000000000, 4), }"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("idxs.npy", header + text.ljust(117).encode() + b"\n")
    with pytest.raises(InputError, match=r"not a usable .npz"):
        scene.training_pairs()


def test_stored_correspondences(tmp_path: Path) -> None:
    scene = read_mapfree_scene(make(tmp_path / "s00000"))
    table = np.full((2, 3, 4), np.nan)
    table[0, :2] = [[1, 2, 3, 4], [5, 6, 7, 8]]
    np.savez(tmp_path / "s00000/correspondences_loftr.npz", correspondences=table)
    first, second = scene.correspondences("loftr")
    assert first.tolist() == [[1, 2, 3, 4], [5, 6, 7, 8]] and second.shape == (0, 4)
    np.savez(tmp_path / "s00000/correspondences_loftr.npz", correspondences=table[:1])
    with pytest.raises(InputError, match="has 1 rows for 2 queries"):
        scene.correspondences("loftr")
    np.savez(tmp_path / "s00000/correspondences_loftr.npz", correspondences=table[0])
    with pytest.raises(InputError, match="has no numbers 'correspondences'"):
        scene.correspondences("loftr")
    with pytest.raises(InputError, match="does not exist"):
        scene.correspondences("sift")


def test_uniform_pairs(tmp_path: Path, generator: torch.Generator) -> None:
    poses = "".join(f"seq0/frame_{i:05d}.jpg {1 if i % 3 else 0} 0 0 0 0 0 {i}\n" for i in range(12))
    intrinsics = "".join(f"seq0/frame_{i:05d}.jpg 500 500 320 240 640 480\n" for i in range(12))
    scene = read_mapfree_scene(make(tmp_path / "s00000", poses, intrinsics))
    pairs = scene.uniform_pairs(5000, generator)
    assert len(pairs) == 5000 and (pairs.index0 != pairs.index1).all()
    usable = {i for i in range(12) if i % 3}
    assert set(pairs.index0.tolist()) == set(pairs.index1.tolist()) == usable
    counts = np.bincount(pairs.index0 * 12 + pairs.index1)
    assert counts[counts > 0].size == 8 * 7 and counts[counts > 0].min() > 50  # 89 expected
    again = scene.uniform_pairs(5000, torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(pairs.index1, again.index1)
    lonely = read_mapfree_scene(make(tmp_path / "s00001"))
    with pytest.raises(InputError, match="1 photos with a pose"):
        read_mapfree_scene(make(tmp_path / "s2", POSES.replace("0 1 0 0 0.5", "0 0 0 0 0.5"))).uniform_pairs(
            3, generator
        )
    assert isinstance(lonely, MapfreeScene)


# -- hostile text -----------------------------------------------------------------------------------------------------
LINE = st.one_of(
    st.text(max_size=60),
    st.tuples(
        st.sampled_from(["seq0/frame_00000.jpg", "seq1/frame_00001.jpg", "a b.jpg", "/etc/passwd", ".."]),
        st.lists(st.sampled_from(["0", "1", "-1.5", "1e400", "nan", "1_0", "٣", "640", "\0"]), min_size=5, max_size=9),
    ).map(lambda parts: " ".join([parts[0], *parts[1]])),
)


@pytest.mark.slow
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(poses=st.lists(LINE, max_size=5), intrinsics=st.lists(LINE, max_size=5))
def test_any_text_gives_a_scene_or_one_sentence(tmp_path: Path, poses: list[str], intrinsics: list[str]) -> None:
    folder = make(tmp_path / "scene")
    (folder / "poses.txt").write_text("\n".join(poses), encoding="utf-8", errors="surrogatepass")
    (folder / "intrinsics.txt").write_text("\n".join(intrinsics), encoding="utf-8", errors="surrogatepass")
    try:
        scene = read_mapfree_scene(folder)
        assert all(frame.camera.f.gt(0).all() for frame in scene.posed)
        scene.evaluation_blocks()
        assert len(scene.evaluation_pairs(1)) == len(scene.queries())
    except InputError as error:
        assert str(error) and "\n" not in str(error)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_bytes_give_overlaps_or_one_sentence(tmp_path: Path, data: st.DataObject) -> None:
    folder = make(tmp_path / "scene")
    overlaps(folder, [[0, 0, 1, 3], [1, 3, 0, 0]], [0.5, 0.25])
    raw = bytearray((folder / "overlaps.npz").read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    (folder / "overlaps.npz").write_bytes(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    try:
        pairs = read_mapfree_scene(folder).training_pairs()
        assert len(pairs) <= 2
    except InputError as error:
        assert "overlaps.npz" in str(error)
    finally:
        shutil.rmtree(folder)
