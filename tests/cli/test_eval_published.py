"""``metriloc eval pixloc BENCHMARK --as-published`` on benchmarks of two photos, laid out as the real ones are."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import struct
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import metriloc
from metriloc.backbones.vgg import VGGConfig
from metriloc.cli.main import main
from metriloc.evaluation.benchmarks import part_names
from metriloc.evaluation.submission import read_visloc
from metriloc.geometry import Pose, sample_depth
from metriloc.io import InputError, read_mapfree_poses
from metriloc.io.lists import read_queries
from metriloc.methods.pixloc import NetworkConfig, PixLoc, PixLocNetwork, Settings, UNetConfig, save_pretrained

pytest.importorskip("pycolmap")
EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
QUICK = ("--set", "image_scales=4", "min_track=1", "align.num_iters=2")
LIST = "PINHOLE 640 480 560 560 320 240"
DRIVES = {"c0": "OPENCV 640 480 560 560 320 240 0 0 0 0", "c1": "OPENCV 640 480 561 562 321 241 -0.1 0.02 0.001 0.002"}


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["eval", "pixloc", *map(str, arguments), "--as-published"])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    """Points of the example's map, and where the true camera of the query stood."""
    photo = metriloc.load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    assert photo.depth is not None
    v, u = torch.meshgrid(torch.arange(8.0, 480, 16), torch.arange(8.0, 640, 16), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(-1, 2).double()
    depth, known = sample_depth(photo.depth.double(), uv, photo.size)
    xyz = photo.camera.to(torch.float64).unproject(uv[known])[0] * depth[known, None]
    truth = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    return {"uv": uv[known], "xyz": xyz, "truth": truth}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random ones, with the three levels that the published settings choose from."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    light = NetworkConfig(UNetConfig(VGGConfig((1, 1, 1), (8, 8, 8)), (8, 8), (0, 1, 2), (8, 8, 8)))
    save_pretrained(PixLocNetwork(light), folder, Settings())
    return folder


def write_model(
    folder: Path, reference: str, example: dict[str, Any], queries: Sequence[tuple[str, Pose]] = ()
) -> None:
    """The reference with its points; queries are images without any, as in a model of true poses."""
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text("1 PINHOLE 640 480 520 520 320 240\n2 PINHOLE 640 480 560 560 320 240\n")
    points = " ".join(f"{x + 0.5} {y + 0.5} {p}" for p, (x, y) in enumerate(example["uv"].tolist(), 1))
    lines = [f"7 1 0 0 0 0 0 0 1 {reference}", points]
    for n, (name, pose) in enumerate(queries, 20):
        lines += [" ".join([str(n), *map(repr, [*pose.quaternion().tolist(), *pose.t.tolist()]), "2", name]), ""]
    (folder / "images.txt").write_text("\n".join(lines) + "\n")
    rows = enumerate(example["xyz"].tolist(), 1)
    (folder / "points3D.txt").write_text("".join(f"{p} {x} {y} {z} 9 9 9 0.1 7 {p - 1}\n" for p, (x, y, z) in rows))


def photo(path: Path, source: str = "query.jpg") -> None:
    """One of the example; ``tiny``: too small for anything; ``square``: as RobotCar's; ``broken``: none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if source == "tiny":
        Image.new("RGB", (8, 6)).save(path)
    elif source == "square":
        Image.open(EXAMPLE / "query.jpg").resize((256, 256)).save(path)
    elif source == "broken":
        path.write_text("no photo")
    else:
        shutil.copy(EXAMPLE / source, path)


# -- 7-Scenes and Cambridge -------------------------------------------------------------------------------------------
def seven_scenes(data: Path, hloc: Path, example: dict[str, Any], scene: str, queries: dict[str, str]) -> None:
    truth = data / "7scenes_sfm_triangulated" / scene / "triangulated"
    write_model(truth, "seq-02/r.png", example, [(f"seq-01/{name}", example["truth"]) for name in queries])
    (truth / "list_test.txt").write_text("".join(f"seq-01/{name}\n" for name in queries))
    write_model(hloc / scene / "sfm_superpoint+superglue+depth", "seq-02/r.png", example)
    pairs = hloc / "7scenes_densevlad_retrieval" / f"{scene}_top10.txt"
    pairs.parent.mkdir(exist_ok=True)
    pairs.write_text("".join(f"seq-01/{name} seq-02/r.png\n" for name in queries))
    photo(data / scene / "seq-02" / "r.png", "reference.jpg")
    for name, source in queries.items():
        photo(data / scene / "seq-01" / name, source)


def test_sevenscenes_is_run_scored_and_gone_on_with(
    tmp_path: Path, example: dict[str, Any], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, hloc, out = tmp_path / "data", tmp_path / "hloc", tmp_path / "out"
    seven_scenes(data, hloc, example, "chess", {"a.png": "query.jpg", "b.png": "tiny", "c.png": "broken"})
    seven_scenes(data, hloc, example, "fire", {"a.png": "query.jpg"})
    common = ["7scenes", "--data", data, "--hloc", hloc, "--weights", weights, "--out", out]
    common += ["--parts", "chess", "fire", *QUICK]
    assert run(*common) == 1
    shown = capsys.readouterr()
    assert "1 of 4 queries could not be used" in shown.err and "chess/seq-01/c.png: " in shown.err
    assert "chess: 1 of 3 refined, 1 written as they started" in shown.out
    poses = read_visloc(out / "chess" / "poses.txt")
    assert list(poses) == ["seq-01/a.png", "seq-01/b.png"]
    # the tiny photo stays at the pose of the retrieved image, the identity
    torch.testing.assert_close(poses["seq-01/b.png"].matrix(), torch.eye(4, dtype=torch.float64))
    report = json.loads((out / "report.json").read_text())
    assert {scene: values["queries"] for scene, values in report["scenes"].items()} == {"chess": 3, "fire": 1}
    assert report["run"]["settings.config.num_references"] == 5 and report["run"]["settings.align.num_iters"] == 2
    away = {name: float((pose.center() - example["truth"].center()).norm()) for name, pose in poses.items()}
    # the broken photo is infinitely far off
    assert report["scenes"]["chess"]["median center error (m)"] == pytest.approx(max(away.values()))
    fire = read_visloc(out / "fire/poses.txt")["seq-01/a.png"].matrix()
    torch.testing.assert_close(fire, poses["seq-01/a.png"].matrix(), rtol=0, atol=1e-12)
    assert report["scenes"]["fire"]["median center error (m)"] == pytest.approx(away["seq-01/a.png"])
    # other settings in the same folder would mix two runs
    assert run(*common, "--set", "num_references=3") == 2
    assert "holds another run (settings.config.num_references: 5, now 3)" in capsys.readouterr().err
    # again: nothing is computed, nor read: the maps may be gone
    (hloc / "chess/sfm_superpoint+superglue+depth/images.txt").write_text("rubbish")
    before = (out / "chess" / "poses.txt").stat().st_mtime_ns
    assert run(*common) == 1
    shown = capsys.readouterr()
    assert shown.out.count("finished in an earlier run") == 2 and "chess/seq-01/c.png: " in shown.err
    assert (out / "chess" / "poses.txt").stat().st_mtime_ns == before
    assert json.loads((out / "report.json").read_text())["scenes"] == report["scenes"]
    # scoring alone needs neither weights nor photos
    shutil.rmtree(data / "chess")
    assert run("7scenes", "--data", data, "--parts", "chess", "fire", "--out", out, "--eval-only") == 0
    assert json.loads((out / "report.json").read_text())["scenes"] == report["scenes"]


def test_scores_are_the_published_evaluation(
    shared: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The golden case through the command: 20 true poses, 18 results, the report character for character."""
    golden = shared("golden/pixloc/eval_case")
    truth = tmp_path / "CambridgeLandmarks_Colmap_Retriangulated_1024px" / "ShopFacade"
    (truth / "empty_all").mkdir(parents=True)
    shutil.copy(golden / "list.txt", truth / "list_query.txt")
    data, at, lines = (golden / "images.bin").read_bytes(), 8, []
    for _ in range(struct.unpack_from("<Q", data)[0]):
        values = struct.unpack_from("<I7dI", data, at)
        at += 64
        end = data.index(b"\0", at)
        name = data[at:end].decode()
        at = end + 9 + 24 * struct.unpack_from("<Q", data, end + 1)[0]
        lines += [" ".join([str(values[0]), *map(repr, values[1:8]), "1", name]), ""]
    assert at == len(data) and len(lines) == 40
    (truth / "empty_all/images.txt").write_text("\n".join(lines) + "\n")
    (truth / "empty_all/cameras.txt").write_text("1 PINHOLE 640 480 520 520 320 240\n")
    (truth / "empty_all/points3D.txt").write_text("")
    (tmp_path / "out/ShopFacade").mkdir(parents=True)
    shutil.copy(golden / "predictions.txt", tmp_path / "out/ShopFacade/poses.txt")
    options = ["--data", tmp_path, "--parts", "ShopFacade", "--out", tmp_path / "out", "--eval-only"]
    everything, localized = (golden / "expected_report.txt").read_text().split("\n=== only_localized")
    for more, expected in (((), everything), (("--only-localized",), localized)):
        assert run("cambridge", *options, *more) == 0
        assert expected.strip() in capsys.readouterr().out


# -- CMU --------------------------------------------------------------------------------------------------------------
def cmu(data: Path, example: dict[str, Any], number: int, queries: dict[str, str]) -> Path:
    """Slice, everything in one root; an hloc log with a pose for each query but the last."""
    (data / "intrinsics.txt").parent.mkdir(parents=True, exist_ok=True)
    (data / "intrinsics.txt").write_text("".join(f"{name} {camera}\n" for name, camera in DRIVES.items()))
    root = data / f"slice{number}"
    write_model(root / "sfm_superpoint+superglue/model", "r.jpg", example)
    photo(root / "database/r.jpg", "reference.jpg")
    for name, source in queries.items():
        photo(root / "query" / name, source)
    (root / f"test-images-slice{number}.txt").write_text("".join(f"{name}\n" for name in queries))
    (root / "pairs-query-netvlad10.txt").write_text("".join(f"{name} lost.jpg\n{name} r.jpg\n" for name in queries))
    return root


def write_log(path: Path, names: Sequence[str], pose: Pose, points: int) -> None:
    """As hloc wrote it when PixLoc was written; the last query has no pose."""
    matches = [(p, [0]) for p in range(1, points + 1)]
    found = {
        "success": True,
        "qvec": pose.quaternion().numpy(),
        "tvec": pose.t.numpy(),
        "num_inliers": points,
        "inliers": [True] * points,
    }
    loc = {
        name: {
            "db": [7],
            "PnP_ret": found if name != names[-1] else {"success": False},
            "keypoints_query": np.zeros((points, 2)),
            "keypoint_index_to_db": (np.arange(points), matches),
        }
        for name in names
    }
    path.write_bytes(pickle.dumps({"loc": loc}))


def test_cmu_slices_one_after_the_other(
    tmp_path: Path, example: dict[str, Any], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "cmu", tmp_path / "out"
    cmu(data, example, 2, {"img_1_c0_2us.jpg": "query.jpg"})
    third = cmu(data, example, 13, {"img_3_c1_4us.jpg": "query.jpg", "img_5_c0_6us.jpg": "tiny"})
    common = ["cmu", "--data", data, "--weights", weights, "--out", out, *QUICK]
    assert run(*common, "--parts", "2") == 0
    first = (out / "slice2/poses.txt").read_text()
    assert first.startswith("img_1_c0_2us.jpg ") and (out / "poses_2.txt").read_text() == first
    made = (out / "slice2/queries_with_intrinsics.txt").read_text()
    assert made.split()[1] == "SIMPLE_RADIAL"  # the camera has one focal length and nothing else
    (data / "slice2/sfm_superpoint+superglue/model/images.txt").write_text("rubbish")  # must not be read again
    assert run(*common, "--parts", "13,2") == 0
    shown = capsys.readouterr().out
    assert "slice2: finished in an earlier run" in shown and "slice13: " in shown
    assert "upload" in shown and "(3 poses) to visuallocalization.net" in shown
    both = (out / "poses_13-2.txt").read_text()
    assert both == (out / "slice13/poses.txt").read_text() + first  # sorted by folder, as published
    assert [line.split()[0] for line in both.splitlines()] == [
        *("img_3_c1_4us.jpg", "img_5_c0_6us.jpg"),
        "img_1_c0_2us.jpg",
    ]
    listed = read_queries(out / "slice13/queries_with_intrinsics.txt")
    assert listed["img_3_c1_4us.jpg"].f.tolist() == [561, 562]
    assert listed["img_3_c1_4us.jpg"].distortion.tolist() == pytest.approx([-0.1, 0.02, 0.001, 0.002, 0])
    # a list that is there is used
    (third / "queries_with_intrinsics.txt").write_text(f"img_5_c0_6us.jpg {LIST}\n")
    assert run("cmu", "--data", data, "--weights", weights, "--out", tmp_path / "listed", "--parts", "13", *QUICK) == 0
    assert list(read_visloc(tmp_path / "listed/slice13/poses.txt")) == ["img_5_c0_6us.jpg"]
    assert run("cmu", "--data", data, "--out", out, "--eval-only") == 2
    assert "not public" in capsys.readouterr().err


def test_from_the_poses_of_hloc(
    tmp_path: Path, example: dict[str, Any], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = tmp_path / "cmu", tmp_path / "out"
    names = {
        "img_1_c0_1us.jpg": "query.jpg",
        "img_2_c0_2us.jpg": "tiny",
        "img_3_c0_3us.jpg": "query.jpg",
        "img_4_c0_4us.jpg": "query.jpg",
    }
    root = cmu(data, example, 2, names)
    (root / "pairs-query-netvlad10.txt").unlink()  # not needed
    log = root / "CMU_hloc_superpoint+superglue_netvlad10.txt_logs.pkl"
    logged = [name for name in names if "_3_" not in name]
    write_log(log, logged, example["truth"], points=150)
    common = ["cmu", "--data", data, "--weights", weights, "--parts", "2", "--from-poses"]
    assert run(*common, "--out", out, "--set", "min_track=1", "align.num_iters=2") == 1
    shown = capsys.readouterr()
    assert "1 of 4 queries could not be used" in shown.err and "does not list 'img_3_c0_3us.jpg'" in shown.err
    poses = read_visloc(out / "poses_2.txt")
    assert list(poses) == ["img_1_c0_1us.jpg", "img_2_c0_2us.jpg"]  # the last one has no pose to start from
    torch.testing.assert_close(poses["img_2_c0_2us.jpg"].matrix(), example["truth"].matrix(), rtol=0, atol=1e-9)
    described = json.loads((out / "slice2/run.json").read_text())
    assert described["from_poses"] and described["settings.config.points"] == "inliers"
    assert described["settings.config.levels"] == [0, 1]
    # fewer points than the 100 that the published settings ask for: as hloc had it
    write_log(log, logged, example["truth"], points=99)
    assert run(*common, "--out", tmp_path / "few", "--set", "min_track=1") == 1
    capsys.readouterr()
    few = read_visloc(tmp_path / "few/poses_2.txt")
    for pose in few.values():
        torch.testing.assert_close(pose.matrix(), example["truth"].matrix(), rtol=0, atol=1e-9)
    assert len(few) == 2


def test_references_ranked_by_the_log(tmp_path: Path, example: dict[str, Any], weights: Path) -> None:
    """References come from the log, and one with ten inliers or fewer is dropped; a log without a pose ranks nothing."""
    data = tmp_path / "cmu"
    names = ["img_1_c0_1us.jpg", "img_2_c0_2us.jpg"]
    root = cmu(data, example, 2, dict.fromkeys(names, "query.jpg"))
    log = root / "CMU_hloc_superpoint+superglue_netvlad10.txt_logs.pkl"
    (root / "pairs-query-netvlad10.txt").unlink()
    common = ["cmu", "--data", data, "--weights", weights, "--parts", "2", "--inlier-ranking", *QUICK]
    for points, found in ((11, 2), (10, 1)):
        write_log(log, names, example["truth"], points)
        assert run(*common, "--out", tmp_path / str(points)) == 0
        records = [
            json.loads(line)
            for line in (tmp_path / str(points) / "slice2/records-0-of-1.jsonl").read_text().splitlines()
        ]
        assert [record["reason"] for record in records].count("no_reference") == 2 - found


def test_stopping_loses_the_query_in_hand_only(
    tmp_path: Path,
    example: dict[str, Any],
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, out = tmp_path / "cmu", tmp_path / "out"
    cmu(data, example, 2, {f"img_{n}_c0_{n}us.jpg": "query.jpg" for n in range(3)})
    common = ["cmu", "--data", data, "--weights", weights, "--parts", "2", "--out", out, *QUICK]
    localize, calls = PixLoc.localize, 0

    def stopping(self: PixLoc, *arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return localize(self, *arguments, **named)

    monkeypatch.setattr(PixLoc, "localize", stopping)
    assert run(*common) == 130
    assert "the same command goes on where it was" in capsys.readouterr().err
    assert not (out / "slice2/poses.txt").exists()
    assert run(*common) == 0
    assert calls == 4 and len(read_visloc(out / "poses_2.txt")) == 3
    assert run(*common, "--step", "2") == 2  # other queries
    assert "holds another run (step: 1, now 2)" in capsys.readouterr().err


def test_a_photo_of_the_map_that_is_broken_is_named(
    tmp_path: Path, example: dict[str, Any], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "cmu"
    root = cmu(data, example, 2, {f"img_{n}_c0_{n}us.jpg": "query.jpg" for n in range(2)})
    photo(root / "database/r.jpg", "broken")
    common = ["cmu", "--data", data, "--weights", weights, "--parts", "2", "--out", tmp_path / "out", *QUICK]
    for _ in range(2):
        assert run(*common) == 1
        shown = capsys.readouterr()
        assert "1 of the maps' photos could not be used" in shown.err and shown.err.count("database/r.jpg'") == 1
    for pose in read_visloc(tmp_path / "out/poses_2.txt").values():  # of the reference: there was no refinement
        torch.testing.assert_close(pose.matrix(), torch.eye(4, dtype=torch.float64))


def test_no_memory_on_the_gpu_costs_one_query(
    tmp_path: Path,
    example: dict[str, Any],
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = tmp_path / "cmu"
    cmu(data, example, 2, {f"img_{n}_c0_{n}us.jpg": "query.jpg" for n in range(2)})

    def full(*arguments: Any, **named: Any) -> Any:
        raise torch.cuda.OutOfMemoryError("tried to allocate")

    monkeypatch.setattr(PixLoc, "localize", full)
    assert run("cmu", "--data", data, "--weights", weights, "--parts", "2", "--out", tmp_path / "out", *QUICK) == 1
    shown = capsys.readouterr()
    assert "2 of 2 queries could not be used" in shown.err and "the GPU has too little memory" in shown.err
    assert (tmp_path / "out/poses_2.txt").read_text() == ""


# -- RobotCar ---------------------------------------------------------------------------------------------------------
def test_robotcar_conditions(
    tmp_path: Path, example: dict[str, Any], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, hloc, out = tmp_path / "data", tmp_path / "hloc", tmp_path / "out"
    write_model(hloc / "sfm_superpoint+superglue", "overcast-reference/rear/r.jpg", example)
    photo(data / "images/overcast-reference/rear/r.jpg", "reference.jpg")
    (data / "intrinsics").mkdir()
    for side in ("left", "right", "rear"):
        (data / f"intrinsics/{side}_intrinsics.txt").write_text("fx 400.0\nfy 400.0\ncx 500.1\ncy 508.2\n")
    queries = ["night/rear/11.jpg", "night/left/12.jpg", "dusk/right/13.jpg"]
    for name in queries:
        photo(data / "images" / name, "square")
    pairs = "".join(f"{name} overcast-reference/rear/r.jpg\n" for name in queries[:2])
    (hloc / "pairs-query-netvlad10-percam-perloc.txt").write_text(pairs)
    common = ["robotcar", "--data", data, "--hloc", hloc, "--weights", weights, "--out", out, *QUICK]
    assert run(*common, "--parts", "night", "dusk") == 1
    shown = capsys.readouterr()
    assert "1 of 3 queries could not be used" in shown.err and "does not list 'dusk/right/13.jpg'" in shown.err
    assert (out / "night/queries_with_intrinsics.txt").read_text().splitlines() == [
        f"{name} SIMPLE_RADIAL 1024 1024 400.0 500.1 508.2 0.0" for name in ("night/left/12.jpg", "night/rear/11.jpg")
    ]
    assert list(read_visloc(out / "poses_dus-nig.txt")) == ["left/12.jpg", "rear/11.jpg"]
    assert run(*common, "--parts", "night", "dawn") == 2
    assert "dawn" in capsys.readouterr().err


# -- Aachen -----------------------------------------------------------------------------------------------------------
def test_aachen_averages_poses_by_descriptors(
    tmp_path: Path, example: dict[str, Any], weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    h5py = pytest.importorskip("h5py")
    data, out = tmp_path / "data", tmp_path / "out"
    images, model = data / "images/images_upright", data / "sfm_superpoint+superglue"
    other = Pose.from_tangent(torch.tensor([0.2, 0.0, 0.0, 0.0, 0.1, 0.0], dtype=torch.float64))
    write_model(model, "db/r.jpg", example, [("db/s.jpg", other)])
    text = (model / "images.txt").read_text().splitlines()
    (model / "images.txt").write_text("\n".join([*text[:3], text[1]]) + "\n")  # sees the same points
    rows = [line + f" 20 {n}" for n, line in enumerate((model / "points3D.txt").read_text().splitlines())]
    (model / "points3D.txt").write_text("\n".join(rows) + "\n")
    for name, source in (("db/r.jpg", "reference.jpg"), ("db/s.jpg", "reference.jpg"), ("query/night/q.jpg", "tiny")):
        photo(images / name, source)
    photo(images / "query/day/p.jpg", "tiny")
    (data / "queries").mkdir()
    for part, name in (("night", "q"), ("day", "p")):
        line = f"query/{part}/{name}.jpg {LIST}\n"
        (data / f"queries/{part}_time_queries_with_intrinsics.txt").write_text(line)
    pairs = [f"query/{query}.jpg db/{name}.jpg\n" for query in ("night/q", "day/p") for name in "rs"]
    (data / "pairs-query-netvlad50.txt").write_text("".join(pairs))
    common = ["aachen", "--data", data, "--weights", weights, "--out", out, *QUICK]
    assert run(*common) == 2
    assert "aachen_tf-netvlad.h5' does not exist (--global-descriptors" in capsys.readouterr().err
    vectors = {"query/night/q.jpg": [1, 0], "db/r.jpg": [0, 1], "db/s.jpg": [1, 0]}
    with h5py.File(data / "aachen_tf-netvlad.h5", "w") as file:
        for name, vector in vectors.items():
            file.create_group(name)["global_descriptor"] = np.array(vector, dtype=np.float32)
    assert run(*common) == 0
    poses = read_visloc(out / "poses.txt")
    assert set(poses) == {"p.jpg", "q.jpg"} and "upload" in capsys.readouterr().out
    torch.testing.assert_close(poses["q.jpg"].matrix(), other.matrix(), rtol=0, atol=1e-6)
    # without a descriptor all references count the same
    torch.testing.assert_close(poses["p.jpg"].center(), other.center() / 2, rtol=0, atol=1e-6)


# -- a network that knows something --------------------------------------------------------------------------------------
def test_bundled_weights_come_nearer_to_the_truth(tmp_path: Path, example: dict[str, Any]) -> None:
    """From poses as a matching pipeline leaves them, with the published settings as they are (but one photo's map)."""
    data, out, name = tmp_path / "cmu", tmp_path / "out", "img_1_c0_1us.jpg"
    root = cmu(data, example, 2, {name: "query.jpg", "img_2_c0_2us.jpg": "tiny"})
    off = Pose.from_tangent(torch.tensor([0.05, -0.03, 0.04, 0.01, -0.015, 0.01], dtype=torch.float64))
    start: Pose = off @ example["truth"]
    log = root / "CMU_hloc_superpoint+superglue_netvlad10.txt_logs.pkl"
    write_log(log, [name, "img_2_c0_2us.jpg"], start, points=len(example["xyz"]))
    common = ["cmu", "--data", data, "--weights", "pixloc-small", "--parts", "2", "--from-poses", "--out", out]
    assert run(*common, "--set", "min_track=1") == 0
    found = read_visloc(out / "poses_2.txt")[name]
    before, after = (float((p.center() - example["truth"].center()).norm()) for p in (start, found))
    turned = [float((p @ example["truth"].inverse()).angle()) for p in (start, found)]
    assert after < 0.5 * before and turned[1] < 0.5 * turned[0], (before, after, turned)


# -- wrong use --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["7scenes", "--parts", "attic"], "7scenes has no scene 'attic': one of chess"),
        (["7scenes", "--parts", "2"], "7scenes has no scene '2': one of chess"),
        (["cmu", "--parts", "1"], "cmu has no slice '1'"),
        (["cmu", "--parts", "6-2"], "--parts '6-2': slices of Extended CMU Seasons read as 2-6,13"),
        (["cmu", "--step", "0"], "--step must be at least 1, got 0"),
        (["robotcar", "--parts", "fog"], "robotcar has no condition 'fog'"),
        (["robotcar", "--from-poses", "--parts", "night"], "images' does not exist (--query-images"),
        (["cmu", "--set", "num_refs=3"], "no field 'num_refs' in LocalizeConfig; did you mean 'num_references'"),
        (["cmu", "--parts", "2"], "slice2/query' does not exist (--query-images names another place)"),
        (["7scenes", "--eval-only", "--parts", "chess"], "chess/poses.txt' does not exist"),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*arguments, "--data", tmp_path, "--weights", tmp_path, "--out", tmp_path / "out") == 2
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and words in errors[0]
    assert not (tmp_path / "out").exists()


def test_what_poses_and_weights_need_is_said(
    tmp_path: Path, example: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))
    seven_scenes(tmp_path / "data", tmp_path / "data", example, "chess", {"a.png": "tiny"})
    common = ["7scenes", "--data", tmp_path / "data", "--parts", "chess", "--out", tmp_path / "out"]
    assert run(*common, "--from-poses") == 2
    assert "7scenes has no usual place for this: give --hloc-logs" in capsys.readouterr().err
    assert run(*common) == 2
    assert "use pixloc_megadepth, which is not in" in capsys.readouterr().err


def test_commands_of_the_document_are_understood(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (Path(__file__).resolve().parents[2] / "docs" / "localization.md").read_text()
    block = next(
        found for found in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) if "metriloc eval pixloc " in found
    )
    shown = 'metriloc() { printf "%s\\n" "$*"; }\n' + block  # the shell expands the loop of the page
    printed = subprocess.run(["bash", "-euc", shown], capture_output=True, text=True, check=True).stdout
    commands = [line.split()[2:] for line in printed.splitlines()]
    commands = [[word for word in command if word != "--as-published"] for command in commands]
    assert [command[0] for command in commands] == ["7scenes", "cambridge", "aachen", "cmu", "robotcar"]
    monkeypatch.chdir(tmp_path)
    for command in commands:
        assert run(*command) == 2
        assert "' does not exist (--query-images names another place)" in capsys.readouterr().err


def test_slices() -> None:
    assert part_names("cmu", ["2-4,13"]) == ("2", "3", "4", "13") and part_names("cmu", ["[2, 3]", "5"]) == (
        "2",
        "3",
        "5",
    )
    assert part_names("cmu", ()) == () and part_names("robotcar", ["a-b"]) == ("a-b",)
    for text in ("a", "2-", "2,,3", "-3", "2-1"):
        with pytest.raises(InputError, match="read as 2-6,13"):
            part_names("cmu", [text])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pixloc", "7scenes", "--from-poses"], "--from-poses is of published runs: give --as-published"),
        (["pixloc", "7scenes", "--hloc-logs", "x.pkl"], "--hloc-logs is of published runs: give --as-published"),
        (["nre", "cmu", "--as-published"], "settings were published for pixloc, not for nre"),
        (["pixloc", "map", "--as-published"], "nothing was published for map: one of 7scenes, cambridge"),
        (["pixloc", "cmu", "--as-published", "--ray-workers", "2"], "by torchrun"),
    ],
)
def test_published_runs_and_others_are_not_mixed(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["eval", *arguments, "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert stop.value.code == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
