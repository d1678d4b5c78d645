"""Photos with true depth, of each form; named depth maps beside photos; ScanNet's sensor depth."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.datasets.depth_frames import read_depth_frames, with_depth_named
from metriloc.datasets.mapfree import read_mapfree_scene
from metriloc.datasets.scannet import depth_of, read_scannet_pairs
from metriloc.datasets.sources import depth_beside
from metriloc.evaluation.benchmarks import BenchmarkOptions, PairBenchmark, load_benchmark
from metriloc.io import InputError


def millimetres(path: Path, value: int, size: tuple[int, int] = (32, 24)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(size[::-1], value, dtype=np.uint16)).save(path)


def photo(path: Path, size: tuple[int, int] = (64, 48)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)


def scannet_list(folder: Path, names: tuple[str, str]) -> Path:
    K = "60 0 31.5 0 60 23.5 0 0 1"
    pose = "1 0 0 0.1 0 1 0 0 0 0 1 0 0 0 0 1"
    file = folder / "pairs.txt"
    file.write_text(f"{names[0]} {names[1]} 0 0 {K} {K} {pose}\n")
    return file


def test_photos_of_scenes_and_of_loose_folders(mapfree_like: Path, tmp_path: Path) -> None:
    frames = read_depth_frames(mapfree_like / "val")
    assert len(frames) == 13 and frames[0].name == "s00460/seq0/frame_00000.jpg"
    depth = frames[0].load().depth
    assert depth is not None and torch.equal(depth, torch.full_like(depth, 2.0))
    (tmp_path / "nyu").mkdir()
    (tmp_path / "nyu/intrinsics.txt").write_text("rgb/0001.jpg 60 60 31.5 23.5 64 48\n")
    photo(tmp_path / "nyu/rgb/0001.jpg")
    millimetres(tmp_path / "nyu/depth/0001.png", 1500)
    (loose,) = read_depth_frames(tmp_path / "nyu")
    view = loose.load()
    assert loose.name == "nyu/0001.jpg" and view.depth is not None and float(view.depth.mean()) == 1.5
    assert float(view.camera.f[0]) == 60
    photo(tmp_path / "none/rgb/0001.jpg")
    with pytest.raises(InputError, match="no photo with a depth map"):
        read_depth_frames(tmp_path / "none")


def test_named_maps_take_the_place_of_a_sets_own(mapfree_like: Path) -> None:
    scene = read_mapfree_scene(mapfree_like / "val/s00460").posed
    assert with_depth_named(scene.frame(0), "dptkitti").depth is None
    millimetres(scene.folder / "seq0/frame_00000.dptkitti.png", 2200, (42, 56))
    named = with_depth_named(scene.frame(0), "dptkitti").load().depth
    assert named is not None and float(named.mean()) == pytest.approx(2.2)
    (frame,) = read_depth_frames(scene.folder, depth="dptkitti")
    estimate = read_depth_frames(scene.folder)[0].estimate("dptkitti", (126, 168))
    assert frame.name.endswith("frame_00000.jpg") and estimate is not None and torch.equal(estimate, named)
    with pytest.raises(InputError, match=r"none of the 13 photos .* has a depth map"):
        read_depth_frames(scene.folder, depth="dptnyu")
    for wrong in ("", "../x", "a/b"):
        with pytest.raises(InputError, match="is not the name of depth maps"):
            depth_beside(scene.folder / "seq0/frame_00000.jpg", wrong)


def test_benchmarks_of_pairs_take_named_maps(mapfree_like: Path) -> None:
    options = BenchmarkOptions(mapfree_like, split="val")
    with pytest.raises(InputError, match=r"file:dptkitti: no photo has a depth map \*\.dptkitti\.png"):
        load_benchmark("mapfree", options, "dptkitti")
    millimetres(mapfree_like / "val/s00460/seq0/frame_00000.dptkitti.png", 2200, (42, 56))
    chosen = load_benchmark("mapfree", options, "dptkitti")
    assert isinstance(chosen, PairBenchmark) and len(chosen.tasks) == 3
    assert {t.pair.frame0.depth.name for t in chosen.tasks if t.pair.frame0.depth} == {"frame_00000.dptkitti.png"}
    assert {t.pair.frame1.depth for t in chosen.tasks} == {None}


@pytest.mark.parametrize(
    "photos, depth",
    [
        ("scene0707_00/sensor_data/frame-{:06d}.color.jpg", "scene0707_00/sensor_data/frame-{:06d}.depth.pgm"),
        ("scene0707_00/color/{}.jpg", "scene0707_00/depth/{}.png"),
    ],
)
def test_scannets_pairs_have_the_sensors_depth(tmp_path: Path, photos: str, depth: str) -> None:
    for number in (15, 30):
        photo(tmp_path / photos.format(number))
    millimetres(tmp_path / depth.format(15), 1700)
    listed = scannet_list(tmp_path, (photos.format(15), photos.format(30)))
    (pair,) = read_scannet_pairs(listed, tmp_path, size=(64, 48))
    loaded = pair.load((32, 24))
    assert loaded.view0.depth is not None and float(loaded.view0.depth.mean()) == pytest.approx(1.7)
    assert pair.frame1.depth is None and loaded.view1.depth is None
    (frame,) = read_depth_frames(listed, scans=tmp_path)
    assert frame.path == tmp_path / photos.format(15)
    assert depth_of(tmp_path / photos.format(30)) is None


def test_pairs_that_share_little_are_a_split(mapfree_like: Path) -> None:
    """The file lists (seq0/0, seq1/0..2) with 0.1, 0.5 and 0.9; the other query shares nothing."""
    scene = mapfree_like / "train/s00000"
    rows = np.array([(0, 0, 1, k) for k in range(3)] + [(1, 0, 0, 0)])
    np.savez(scene / "overlaps.npz", idxs=rows, overlaps=np.array([0.1, 0.5, 0.9, 0.3], np.float32))
    shutil.rmtree(mapfree_like / "train/s00001")

    def names(most: float | None) -> list[str]:
        chosen = load_benchmark("pairs", BenchmarkOptions(mapfree_like / "train", max_overlap=most))
        assert isinstance(chosen, PairBenchmark)
        return [task.pair.frame1.name[-6:-4] for task in chosen.tasks]

    assert names(None) == ["00", "01", "02", "03"]
    assert names(0.5) == ["00", "03"] and names(0.8) == ["00", "01", "03"]
    assert [p.overlap for p in read_mapfree_scene(scene).evaluation_pairs(1, overlaps=True)] == pytest.approx(
        [0.1, 0.5, 0.9, 0.0]
    )
    with pytest.raises(InputError, match=r"s00460.overlaps.npz' does not exist"):
        load_benchmark("mapfree", BenchmarkOptions(mapfree_like, split="val", max_overlap=0.5))
    for name, most in (("scannet", 0.5), ("pairs", -1.0), ("pairs", 20.0)):
        with pytest.raises(InputError, match=f"--max-overlap {most}: above 0 and at most 1, and for mapfree"):
            load_benchmark(name, BenchmarkOptions(mapfree_like, max_overlap=most))  # type: ignore[arg-type]
