"""Where the files of the localisation benchmarks are looked for, and lists of queries that are made."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metriloc.datasets.sevenscenes import SCENES
from metriloc.datasets.visloc_files import VISLOC_FILES, VislocName, VislocPart, format_queries
from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.io.lists import parse_queries


def part(name: VislocName, which: str, root: Path = Path("/x"), **paths: str) -> VislocPart:
    return VislocPart(VISLOC_FILES[name].replaced(paths), which, root / "data", root / "hloc")


def test_parts_are_the_published_ones() -> None:
    parts = {name: VISLOC_FILES[name].parts for name in get_args(VislocName)}
    assert parts["7scenes"] == SCENES and len(SCENES) == 7 and len(parts["cambridge"]) == 5
    assert parts["cmu"] == tuple(map(str, [2, 3, 4, 5, 6, 13, 14, 15, 16, 17, 18, 19, 20, 21]))
    assert VISLOC_FILES["cmu"].known == tuple(map(str, range(2, 26)))
    assert len(parts["robotcar"]) == 9 and parts["aachen"] == ("aachen",)
    names = {name: VISLOC_FILES[name].result_names for name in get_args(VislocName)}
    assert [name for name, kind in names.items() if kind == "file"] == ["aachen", "cmu"]
    assert [name for name in names if not VISLOC_FILES[name].withheld] == ["7scenes", "cambridge"]


@pytest.mark.parametrize(
    ("name", "which", "what", "place"),
    [
        ("7scenes", "fire", "reference_sfm", "hloc/fire/sfm_superpoint+superglue+depth"),
        ("7scenes", "fire", "retrieval", "hloc/7scenes_densevlad_retrieval/fire_top10.txt"),
        ("7scenes", "fire", "ground_truth", "data/7scenes_sfm_triangulated/fire/triangulated"),
        ("7scenes", "fire", "test_list", "data/7scenes_sfm_triangulated/fire/triangulated/list_test.txt"),
        ("cambridge", "OldHospital", "reference_sfm", "hloc/OldHospital/sfm_superpoint+superglue"),
        ("cambridge", "OldHospital", "retrieval", "hloc/OldHospital/pairs-query-netvlad10.txt"),
        (
            *("cambridge", "OldHospital", "ground_truth"),
            "data/CambridgeLandmarks_Colmap_Retriangulated_1024px/OldHospital/empty_all",
        ),
        ("aachen", "aachen", "query_images", "data/images/images_upright"),
        ("aachen", "aachen", "retrieval", "hloc/pairs-query-netvlad50.txt"),
        ("aachen", "aachen", "global_descriptors", "hloc/aachen_tf-netvlad.h5"),
        ("cmu", "13", "reference_sfm", "hloc/slice13/sfm_superpoint+superglue/model"),
        ("cmu", "13", "reference_images", "data/slice13/database"),
        ("cmu", "13", "global_descriptors", "hloc/slice13/cmu-slice13_tf-netvlad.h5"),
        ("cmu", "13", "hloc_logs", "hloc/slice13/CMU_hloc_superpoint+superglue_netvlad10.txt_logs.pkl"),
        ("robotcar", "night", "retrieval", "hloc/pairs-query-netvlad10-percam-perloc.txt"),
        ("robotcar", "night", "global_descriptors", "hloc/robotcar_ov-ref_tf-netvlad.h5"),
    ],
)
def test_usual_places(name: VislocName, which: str, what: str, place: str) -> None:
    assert part(name, which).path(what) == Path("/x") / place


def test_given_paths(tmp_path: Path) -> None:
    own = part("robotcar", "night", retrieval="{condition}/pairs.txt", reference_sfm=str(tmp_path / "m_{condition}"))
    assert own.path("retrieval") == Path("/x/hloc/night/pairs.txt")
    assert own.path("reference_sfm") == tmp_path / "m_night"
    assert own.path("hloc_logs") is None and own.name == "night" and part("cmu", "2").name == "slice2"
    # what is not among hloc's outputs is looked for in the data set
    (tmp_path / "data/queries").mkdir(parents=True)
    (tmp_path / "data/queries/day_time_queries_with_intrinsics.txt").write_text("a.jpg PINHOLE 4 3 2 2 2 1.5\n")
    found = part("aachen", "aachen", tmp_path).require("query_list")
    assert found == tmp_path / "data/queries/*_time_queries_with_intrinsics.txt"
    with pytest.raises(
        InputError, match=r"pairs-query-netvlad50.txt' does not exist \(--retrieval names another place"
    ):
        part("aachen", "aachen", tmp_path).require("retrieval")
    with pytest.raises(InputError, match="7scenes has no usual place for this: give --hloc-logs"):
        part("7scenes", "fire").require("hloc_logs")


number = st.floats(-0.5, 0.5)


@settings(max_examples=60, deadline=None)
@given(
    model=st.sampled_from(["PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE"]),
    f=st.floats(1, 3000),
    aspect=st.sampled_from([1.0, 1.01]),
    terms=st.lists(number, min_size=5, max_size=5),
)
def test_lists_of_queries_are_read_as_written(model: str, f: float, aspect: float, terms: list[float]) -> None:
    counts = {"PINHOLE": 0, "SIMPLE_RADIAL": 1, "RADIAL": 2, "OPENCV": 4, "FULL_OPENCV": 5, "OPENCV_FISHEYE": 4}
    focal = [f] if "RADIAL" in model else [f, f * aspect]
    params = [*focal, 320.25, 240.75, *terms[: counts[model]]] + ([0.0] * 3 if model == "FULL_OPENCV" else [])
    camera = Camera.from_colmap(model, 640, 480, params)
    (read,) = parse_queries(format_queries({"a/b.jpg": camera})).values()
    assert read.model == camera.model
    for name in ("size", "f", "c", "distortion"):
        torch.testing.assert_close(getattr(read, name), getattr(camera, name), rtol=0, atol=1e-12)


def test_names_without_a_list_of_tests(tmp_path: Path) -> None:
    """A list of cameras can stand in for the list of names; without both there is nothing to localise."""
    pytest.importorskip("pycolmap")
    own = part("7scenes", "fire", tmp_path)
    truth = own.path("ground_truth")
    assert truth is not None
    truth.mkdir(parents=True)
    (truth / "cameras.txt").write_text("1 PINHOLE 640 480 520 520 320 240\n")
    (truth / "images.txt").write_text("1 1 0 0 0 1 2 3 1 seq-01/a.png\n\n2 1 0 0 0 0 0 0 1 seq-02/b.png\n\n")
    (truth / "points3D.txt").write_text("")
    with pytest.raises(InputError, match=r"list_test.txt' does not exist \(--test-list"):
        own.queries()
    (tmp_path / "hloc/fire").mkdir(parents=True)
    (tmp_path / "hloc/fire/query_list_with_intrinsics.txt").write_text("seq-01/a.png PINHOLE 640 480 530 530 320 240\n")
    (query,) = own.queries()
    assert query.name == "seq-01/a.png" and query.camera.f.tolist() == [530, 530]
    assert query.cam_from_world is not None and query.cam_from_world.t.tolist() == [1, 2, 3]
    assert query.path == tmp_path / "data/fire/seq-01/a.png"
    (truth / "list_test.txt").write_text("seq-02/b.png\n")
    with pytest.raises(InputError, match=r"the list of intrinsics has no 'seq-02/b\.png'"):
        own.queries()
    (truth / "list_test.txt").write_text("")
    with pytest.raises(InputError, match="is empty"):
        own.queries()
