"""``metriloc localize --method pixloc`` on the tiny scene: hloc's files and the options lead to the recorded runs."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import metriloc.cli.localize as command
from metriloc.cli.main import main
from metriloc.geometry import Pose
from metriloc.io import pose_from_dict
from metriloc.methods.pixloc import AlignConfig, CostConfig, LocalizeConfig, PixLoc

Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture()
def run(
    tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """``run(*options)`` -> (exit code, the query's entry, standard error), with the maps made for the scene."""
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))
    loop = AlignConfig(CostConfig(pad=1, validity="pixloc"))
    stored = LocalizeConfig(min_track=2, min_reference_inliers=5)
    monkeypatch.setattr(command, "choose_localizer", lambda _: PixLoc(tiny.extractor(), loop, stored))

    def call(*options: object, model: str = "sfm_bin") -> tuple[int, dict[str, Any], str]:
        images = tiny.folder / "images"
        given = [tiny.folder / model, "--images", images, "--queries", tiny.folder / "queries_with_intrinsics.txt"]
        given += ["--method", "pixloc", "--iterations", 50, "--json", *options]
        with pytest.raises(SystemExit) as stop:
            main(["localize", *map(str, given)])
        captured = capsys.readouterr()
        entry = json.loads(captured.out)["queries"][0] if captured.out else {}
        return int(stop.value.code or 0), entry, captured.err

    yield call


def log_file(tiny: SimpleNamespace, folder: Path, layout: str = "old", **changes: Any) -> Path:
    """The tiny scene's log as hloc pickles it."""
    log = json.loads((tiny.folder / "hloc_log.json").read_text())
    observed, found = log["points3D_to_dbidx"], log["PnP_ret"]
    entry = {"db": log["db"], "PnP_ret": found, "keypoint_index_to_db": (list(range(len(observed))), observed)}
    if layout == "new":
        pycolmap = pytest.importorskip("pycolmap")
        w, *xyz = found["qvec"]
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(np.array([*xyz, w])), np.array(found["tvec"]))
        mask = np.array(found["inliers"])
        entry["PnP_ret"] = {"cam_from_world": pose, "num_inliers": found["num_inliers"], "inlier_mask": mask}
    entry |= changes
    if layout == "clustered":
        lost = {**entry, "PnP_ret": None}
        entry = {"db": log["db"], "best_cluster": 1, "log_clusters": [lost, entry], "covisibility_clustering": True}
    path = folder / f"{layout}_logs.pkl"
    path.write_bytes(pickle.dumps({"loc": {tiny.query.name: entry}, "retrieval": Path("pairs.txt")}))
    return path


def descriptor_files(tiny: SimpleNamespace, folder: Path) -> tuple[Path, Path]:
    """Of the map and of the query, as hloc keeps them: one file for each."""
    h5py = pytest.importorskip("h5py")
    files = folder / "db.h5", folder / "query.h5"
    stored = np.load(tiny.folder / "global_descriptors.npz")
    with h5py.File(files[0], "w") as db, h5py.File(files[1], "w") as query:
        for name in stored.files:
            file = query if name.startswith("query|") else db
            file.create_group(name.replace("|", "/"))["global_descriptor"] = stored[name]
    return files


def check(tiny: SimpleNamespace, data: Any, entry: dict[str, Any], expected: str) -> None:
    pose = data.pack(pose_from_dict(entry["cam_from_world"]))
    torch.testing.assert_close(pose, tiny.golden[expected].to(pose), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tag", "options"),
    [
        ("default", ["--num-references", 4]),
        ("average", ["--num-references", 4, "--average", "True"]),
        ("single_scale", ["--num-references", 4, "--image-scales", 1]),
        ("layers_0_1", ["--num-references", 4, "--levels", 0, 1]),
        ("inlier_rank", ["--num-references", 2, "--rank-by-inliers", "True", "LOG"]),
        (
            "inlier_rank_inlier_points",
            ["--num-references", 4, "--rank-by-inliers", "True", "--points", "inliers", "LOG"],
        ),
        ("approx", ["--num-references", 4, "--approximate-pose", "True", "DESCRIPTORS"]),
    ],
)
def test_recorded_runs_from_retrieval(
    tag: str, options: list[Any], run: Run, tiny: SimpleNamespace, data: Any, tmp_path: Path
) -> None:
    given: list[Any] = ["--pairs", tiny.folder / "pairs.txt"]
    for option in options:
        if option == "LOG":
            given += ["--hloc-logs", log_file(tiny, tmp_path)]
        elif option == "DESCRIPTORS":
            given += ["--global-descriptors", *descriptor_files(tiny, tmp_path)]
        else:
            given.append(option)
    code, entry, _ = run(*given)
    assert code == 0, entry
    check(tiny, data, entry, f"retrieval_{tag}/T_refined")
    assert sorted(tiny.scene.index(name) for name in entry["references"]) == sorted(
        tiny.image_of[int(i)] for i in tiny.golden[f"retrieval_{tag}/dbids"]
    )


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["old", "new", "clustered"])
@pytest.mark.parametrize("tag", ["average", "dup"])
def test_recorded_runs_from_poses(
    layout: str, tag: str, run: Run, tiny: SimpleNamespace, data: Any, tmp_path: Path
) -> None:
    """Inliers, their ranking and the single scale come with --from-poses; references from the log itself."""
    log = log_file(tiny, tmp_path, layout)
    options = [
        "--hloc-logs",
        log,
        "--from-poses",
        "--num-references",
        3,
        "--levels",
        0,
        1,
        "--average",
        tag == "average",
    ]
    code, entry, _ = run(*options)
    assert code == 0, entry
    check(tiny, data, entry, f"poses_{tag}/T_refined")
    start = pose_from_dict(entry["stages"][0]["cam_from_world"])
    torch.testing.assert_close(start.matrix(), tiny.pnp.matrix(), rtol=0, atol=1e-9)
    assert [stage["name"] for stage in entry["stages"]] == ["start", "scale 1, level 1", "scale 1, level 0"]


@pytest.mark.slow
def test_failures_of_logs_are_told_and_do_not_raise(run: Run, tiny: SimpleNamespace, tmp_path: Path) -> None:
    for layout, changes in (("old", {"PnP_ret": None}), ("old", {"PnP_ret": {"success": False}}), ("clustered", {})):
        log = log_file(tiny, tmp_path, layout, **changes)
        if layout == "clustered":
            content = pickle.loads(log.read_bytes())
            content["loc"][tiny.query.name]["best_cluster"] = None
            log.write_bytes(pickle.dumps(content))
        code, entry, _ = run("--hloc-logs", log, "--from-poses")
        assert (code, entry["reason"]) == (1, "too_few_matches") and "hloc found no pose" in entry["messages"][0]
        # without its pose, the references of the log still serve
        code, entry, _ = run("--hloc-logs", log, "--num-references", 4)
        assert code == 0 and entry["references"]
    log = log_file(tiny, tmp_path)
    code, entry, _ = run("--hloc-logs", log, "--from-poses", "--min-inliers", 1000)
    assert (code, entry["reason"]) == (1, "too_few_matches") and "51 inliers" in entry["messages"][0]
    code, entry, _ = run("--hloc-logs", log, "--from-poses", "--min-reference-inliers", 1000)
    assert (code, entry["reason"]) == (1, "no_reference")
    # a pose that is given does not depend on what hloc thought of its own
    w, x, y, z = tiny.pnp.quaternion().tolist()
    (tmp_path / "init.txt").write_text(" ".join(map(str, ["q0.png", w, x, y, z, *tiny.pnp.t.tolist()])))
    code, entry, _ = run("--hloc-logs", log, "--init", tmp_path / "init.txt", "--min-inliers", 1000)
    assert code == 0, entry


@pytest.mark.parametrize(("factor", "reason"), [(-2.0, "diverged"), (float("nan"), "non_finite")])
def test_a_system_that_cannot_be_solved(
    factor: float, reason: str, run: Run, tiny: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Negative damping makes the matrix indefinite: Cholesky fails, the query has no pose, and nothing is raised."""

    class Indefinite(tiny.extractor):  # type: ignore[misc, name-defined]
        def damping(self, level: int) -> torch.Tensor:
            return torch.full((6,), factor)

    stored = LocalizeConfig(min_track=2, num_references=4)
    monkeypatch.setattr(command, "choose_localizer", lambda _: PixLoc(Indefinite(), config=stored))
    code, entry, _ = run("--pairs", tiny.folder / "pairs.txt")
    assert (code, entry["success"], entry["reason"]) == (1, False, reason)
    assert "level 2: the alignment failed in iteration" in entry["messages"][0]


def test_a_log_of_another_map(run: Run, tiny: SimpleNamespace, tmp_path: Path) -> None:
    lost = {"db": [901, 902], "keypoint_index_to_db": ([0], [(10, [1])]), "PnP_ret": None}
    code, entry, _ = run("--hloc-logs", log_file(tiny, tmp_path, **lost))
    assert (code, entry["reason"]) == (1, "no_reference")
    assert "none of the 2 references of hloc's log is in the map" in entry["messages"][0]
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle.dumps({"loc": {"else.jpg": {"db": [], "PnP_ret": None}}}))
    code, entry, error = run("--hloc-logs", path)
    assert code == 2 and "says nothing of 'query/q0.png' (it has 1, such as 'else.jpg')" in error
    assert entry["error"]


def test_references_by_global_descriptors(run: Run, tiny: SimpleNamespace, tmp_path: Path) -> None:
    files = descriptor_files(tiny, tmp_path)
    code, entry, _ = run("--global-descriptors", *files, "--num-references", 3)
    best = sorted(tiny.scene.names, key=lambda name: -tiny.similarity[name])[:3]
    # the photo that looks most alike stood elsewhere: it is where the search begins, and sees too little of the query
    assert code == 1 and entry["references"] == best
    start = pose_from_dict(entry["stages"][0]["cam_from_world"])
    torch.testing.assert_close(start.matrix(), tiny.scene.cam_from_world[tiny.scene.index(best[0])].matrix())
    # the query's file is forgotten; the wrong file; a file that is none
    code, entry, error = run("--global-descriptors", files[0])
    assert code == 2 and "no global descriptor of the query 'query/q0.png'" in error
    code, _, error = run("--global-descriptors", files[1])
    assert code == 2 and "no global descriptor of any photo of the map, such as 'db/r0.png'" in error
    code, _, error = run("--global-descriptors", tiny.folder / "pairs.txt")
    assert code == 2 and "not an HDF5 file" in error
    import h5py

    with h5py.File(files[1], "r+") as file:
        del file["query/q0.png"]
        file.create_group("query/q0.png")["global_descriptor"] = np.ones(3, np.float32)
    code, _, error = run("--global-descriptors", *files)
    assert code == 2 and "global descriptors of 3 and of" in error


def test_a_photo_of_the_map_is_left_out_of_log_and_descriptors(
    tiny: SimpleNamespace, tmp_path: Path, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """Indices of the map without the photo are not those of the whole map."""
    name = tiny.scene.names[1]
    log = json.loads((tiny.folder / "hloc_log.json").read_text())
    observed = log["points3D_to_dbidx"]
    pose = tiny.scene.cam_from_world[1]
    found = {**log["PnP_ret"], "qvec": pose.quaternion().numpy(), "tvec": pose.t.numpy()}
    entry = {"db": log["db"], "PnP_ret": found, "keypoint_index_to_db": (list(range(len(observed))), observed)}
    (tmp_path / "log.pkl").write_bytes(pickle.dumps({"loc": {name: entry}}))
    arguments = [tiny.folder / "sfm_bin", tiny.folder / "images" / name, "--images", tiny.folder / "images"]
    arguments += ["--held-out", "--method", "pixloc", "--hloc-logs", tmp_path / "log.pkl", "--from-poses", "--json"]
    with pytest.raises(SystemExit) as stop:
        main(["localize", *map(str, arguments)])
    (result,) = json.loads(capsys.readouterr().out)["queries"]
    assert stop.value.code == 0, result
    assert name not in result["references"] and result["references"]
    assert result["from_truth"]["center"] < 0.05


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--from-poses"], "give --hloc-logs"),
        (["--points", "inliers"], "--points inliers needs matches of the query"),
        (["--rank-by-inliers", "True"], "--rank-by-inliers needs matches"),
        (["--hloc-logs", "LOG", "--from-poses", "--init", "i.txt"], "contradict"),
        (["--hloc-logs", "/nowhere/x.pkl"], "/nowhere/x.pkl"),
        (["--levels", 7], "(7,) are not among the 3"),
        (["--levels", -1], "must not be negative"),
        (["--image-scales", 0], "must be positive"),
        (["--iterations", 0], "num_iters must be positive"),
        (["--feature-side", 100], "cannot be brought to another size"),
        (["--min-points", 0], "min_points must be positive"),
        (["--video-fps", 5], "give --video too"),
        (["--video"], "--video is written to --out"),
        (["--out", "o", "--video", "--video-fps", 5, "--video-seconds", 5], "contradict"),
        (["--out", "o", "--video", "--video-fps", 0], "must be positive, got 0"),
    ],
)
def test_wrong_use(
    options: list[Any], words: str, run: Run, tiny: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    q, t = tiny.pnp.quaternion().tolist(), tiny.pnp.t.tolist()
    (tmp_path / "i.txt").write_text(" ".join(map(str, ["q0.png", *q, *t])))
    given = [log_file(tiny, tmp_path) if option == "LOG" else option for option in options]
    code, _, error = run("--pairs", tiny.folder / "pairs.txt", *given)
    lines = error.strip().splitlines()
    assert code == 2 and len(lines) == 1 and words in lines[0], error


def test_options_of_pixloc_are_not_of_others(
    tiny: SimpleNamespace, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    common = [tiny.folder / "sfm_bin", tiny.folder / "images" / "query" / "q0.png", "--images", tiny.folder / "images"]
    for options, words in (
        (["--image-scales", 1], "--image-scales is an option of pixloc"),
        (["--out", tmp_path / "o", "--video"], "--video shows the alignment of pixloc"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(["localize", *map(str, common), "--method", "xfeat-pnp", *map(str, options)])
        assert stop.value.code == 2 and words in capsys.readouterr().err


def test_first_poses_of_lists_and_options_are_kept_apart(tiny: SimpleNamespace) -> None:
    """Adjusting a localiser leaves the one it was made of as it was."""
    first = PixLoc(tiny.extractor(), config=LocalizeConfig(min_track=2))
    second = first.adjusted(config=LocalizeConfig(levels=(0, 2)), align=AlignConfig(num_iters=7))
    assert (first.levels, second.levels) == ((0, 1, 2), (0, 2)) and first.align.num_iters == 100
    assert second.align.num_iters == 7 and second.weights_id == first.weights_id
    assert isinstance(first.adjusted().localize(tiny.query, tiny.scene, tiny.references).pose, Pose)
