"""Localisation benchmarks laid out as hloc and PixLoc do, around the golden COLMAP model."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from metriloc.datasets import (
    LocalizationTask,
    PosedFrame,
    aachen_task,
    cambridge_task,
    cmu_task,
    robotcar_task,
    sevenscenes_task,
)
from metriloc.datasets.matrices import pinhole
from metriloc.datasets.visloc import cmu_cameras, parse_robotcar_intrinsics
from metriloc.io import InputError
from metriloc.io.maps import read_map
from metriloc.io.poses import visloc_name

Shared = Callable[[str], Path]
CMU_INTRINSICS = """# camera model w h params
c0 OPENCV 1024 768 868.993378 866.063001 525.942323 420.042529 -0.399431 0.188924 0.000153 0.000571
c1 OPENCV 1024 768 873.382641 876.489513 529.324138 397.272397 -0.397066 0.181925 0.000176 -0.000579
"""


@pytest.fixture()
def golden(shared: Shared) -> Path:
    pytest.importorskip("pycolmap")
    return shared("golden/bench/visloc")


def lay(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    (shutil.copytree if source.is_dir() else shutil.copyfile)(source, target)


@pytest.mark.parametrize("benchmark", ["7-Scenes", "Cambridge"])
def test_benchmarks_with_public_truth(golden: Path, tmp_path: Path, benchmark: str) -> None:
    dataset, hloc = tmp_path / "dataset", tmp_path / "hloc"
    if benchmark == "7-Scenes":
        truth = dataset / "7scenes_sfm_triangulated/chess/triangulated"
        lay(golden / "model_bin", truth)
        lay(golden / "model_bin", hloc / "chess/sfm_superpoint+superglue+depth")
        lay(golden / "pairs-query.txt", hloc / "7scenes_densevlad_retrieval/chess_top10.txt")
        read, scene = sevenscenes_task, "chess"
    else:
        truth = dataset / "CambridgeLandmarks_Colmap_Retriangulated_1024px/ShopFacade"
        lay(golden / "model_txt", truth / "empty_all")
        lay(golden / "model_bin/list_test.txt", truth / "list_query.txt")
        lay(golden / "model_bin", hloc / "ShopFacade/sfm_superpoint+superglue")
        lay(golden / "pairs-query.txt", hloc / "ShopFacade/pairs-query-netvlad10.txt")
        read, scene = cambridge_task, "ShopFacade"
    photo = dataset / scene / "seq1/frame00000.png"
    photo.parent.mkdir(parents=True, exist_ok=True)
    photo.touch()
    task = read(scene, dataset, hloc)
    names = (golden / "model_bin/list_test.txt").read_text().split()
    assert [query.name for query in task.queries] == names and len(names) == 30
    sfm = read_map(golden / "model_txt")
    for query in task.queries:
        expected = sfm.cam_from_world[sfm.index(query.name)]
        assert query.cam_from_world is not None
        torch.testing.assert_close(query.cam_from_world.matrix(), expected.matrix(), rtol=0, atol=1e-12)
        assert query.path == dataset / scene / query.name
    assert visloc_name(names[0], task.result_names) == names[0] == "seq2/frame00010.png"
    assert task.references(names[0], 2) == ("seq1/frame00008.png", "seq1/frame00001.png")
    assert len(task.read_map()) == 40
    with pytest.raises(InputError, match="do not list the query 'nowhere'"):
        task.references("nowhere")
    with pytest.raises(InputError, match="has no scene 'attic': one of"):
        read("attic", dataset, hloc)


def test_a_query_without_truth(golden: Path, tmp_path: Path) -> None:
    truth = tmp_path / "CambridgeLandmarks_Colmap_Retriangulated_1024px/ShopFacade"
    lay(golden / "model_txt", truth / "empty_all")
    truth.joinpath("list_query.txt").write_text("seq2/frame00010.png\nseq9/frame00099.png\n")
    with pytest.raises(InputError, match=r"'seq9/frame00099\.png' is not in the model with the true poses"):
        cambridge_task("ShopFacade", tmp_path, tmp_path)


def test_aachen(tmp_path: Path) -> None:
    (tmp_path / "queries").mkdir()
    for part in ("day", "night"):
        line = f"query/{part}/milestone/IMG_{len(part)}.jpg SIMPLE_RADIAL 1600 1200 1300 800 600 0.1\n"
        (tmp_path / f"queries/{part}_time_queries_with_intrinsics.txt").write_text(line)
    (tmp_path / "pairs-query-netvlad50.txt").write_text("query/day/milestone/IMG_3.jpg db/1.jpg\n")
    task = aachen_task(tmp_path, tmp_path)
    assert [visloc_name(query.name, task.result_names) for query in task.queries] == ["IMG_3.jpg", "IMG_5.jpg"]
    assert task.queries[0].cam_from_world is None and task.queries[0].camera.model == "radtan"
    assert task.queries[0].path == tmp_path / "images/images_upright/query/day/milestone/IMG_3.jpg"
    assert task.references("query/day/milestone/IMG_3.jpg") == ("db/1.jpg",)


def test_names_that_a_result_file_cannot_tell_apart() -> None:
    camera = pinhole((64, 48), (50.0, 50.0, 31.5, 23.5))
    queries = tuple(PosedFrame("x", name, Path(name), camera) for name in ("a/1/x.jpg", "b/1/x.jpg"))
    for kind, result in (("file", "x.jpg"), ("folder/file", "1/x.jpg")):
        with pytest.raises(InputError, match=f"'b/1/x.jpg' and 'a/1/x.jpg' are both '{result}'"):
            LocalizationTask("x", queries, Path(), Path(), result_names=kind)  # type: ignore[arg-type]


def test_cmu(tmp_path: Path) -> None:
    (tmp_path / "intrinsics.txt").write_text(CMU_INTRINSICS)
    (tmp_path / "slice5").mkdir()
    names = ["img_00119_c1_1303398475046031us.jpg", "img_00120_c0_1303398475046031us.jpg"]
    (tmp_path / "slice5/test-images-slice5.txt").write_text("\n".join(names))
    (tmp_path / "slice5/pairs-query-netvlad10.txt").write_text(f"{names[0]} img_1.jpg\n")
    task = cmu_task(5, tmp_path, tmp_path)
    assert [query.name for query in task.queries] == names
    assert [float(query.camera.f[0]) for query in task.queries] == [873.382641, 868.993378]
    assert task.queries[0].path == tmp_path / "slice5/query" / names[0]
    with pytest.raises(InputError, match="has no slice '1'"):
        cmu_task(1, tmp_path, tmp_path)
    with pytest.raises(InputError, match=r"'img_1_c7_2\.jpg' names no camera"):
        cmu_cameras(["img_1_c7_2.jpg"], {"c0": task.queries[1].camera})


def test_robotcar(tmp_path: Path) -> None:
    (tmp_path / "intrinsics").mkdir()
    for side in ("left", "right", "rear"):
        (tmp_path / f"intrinsics/{side}_intrinsics.txt").write_text(
            "# pinhole\nfx 400.0\nfy 400.0\ncx 500.1\ncy 508.2\n"
        )
        (tmp_path / f"images/dawn/{side}").mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / f"images/dawn/{side}/1418.jpg")
    (tmp_path / "pairs-query-netvlad10-percam-perloc.txt").write_text(
        "dawn/rear/1418.jpg overcast-reference/rear/1.jpg\n"
    )
    task = robotcar_task("dawn", tmp_path, tmp_path)
    assert [visloc_name(query.name, task.result_names) for query in task.queries] == [
        "left/1418.jpg",
        "right/1418.jpg",
        "rear/1418.jpg",
    ]
    assert task.queries[2].camera.c.tolist() == pytest.approx([499.6, 507.7]) and task.queries[2].path.is_file()
    assert task.references("dawn/rear/1418.jpg") == ("overcast-reference/rear/1.jpg",)
    with pytest.raises(InputError, match="images/dusk' holds no photos"):
        robotcar_task("dusk", tmp_path, tmp_path)
    with pytest.raises(InputError, match="robotcar has no condition 'fog'"):
        robotcar_task("fog", tmp_path, tmp_path)


@pytest.mark.parametrize(
    "text, message",
    [
        ("fx 1\nfy 1\ncx 1\n", "has no cy"),
        ("fx 1\nfy 2\ncx 1\ncy 1\n", "fx 1 and fy 2 must be equal"),
        ("fx 1 2\n", "intrinsics.txt:1: 'fx 1 2' is not one value of fx"),
        ("fx 1\nfx 1\n", "intrinsics.txt:2"),
        ("fx one\n", "'one' is not a finite number"),
    ],
)
def test_malformed_robotcar(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_robotcar_intrinsics(text)
    assert parse_robotcar_intrinsics("fx: 400\nfy = 400\ncx: 1\ncy: 2").f.tolist() == [400, 400]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["fx", "fy", "cx", "cy", "1", "400", " ", "\n", ":", "=", "nan", "é"]), max_size=20))
def test_any_text_gives_a_camera_or_one_sentence(parts: list[str]) -> None:
    try:
        parse_robotcar_intrinsics(" ".join(parts), "f.txt")
    except InputError as error:
        assert "f.txt" in str(error)
