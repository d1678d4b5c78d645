"""metriloc eval on a made-up set of the bundled example: run, resume, score, compare, calibrate, and refuse."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

import metriloc
from metriloc.cli.eval_run import device_of
from metriloc.cli.main import main
from metriloc.evaluation.submission import read_submission, write_submission

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
Shared = Callable[[str], Path]


def run(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def by_name(path: Path) -> dict[str, str]:
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return dict(line.split(maxsplit=1) for line in lines)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of Map-free's form from the example; the reference has its depth map beside it."""
    root = tmp_path_factory.mktemp("set") / "val"
    intrinsics, poses = (by_name(EXAMPLE / name) for name in ("intrinsics.txt", "poses.txt"))
    for scene in ("s00460", "s00461"):
        for sequence in ("seq0", "seq1"):
            (root / scene / sequence).mkdir(parents=True)
        files = {
            "seq0/frame_00000.jpg": "reference.jpg",
            "seq1/frame_00000.jpg": "query.jpg",
            "seq1/frame_00001.jpg": "query.jpg",
        }
        for name, source in files.items():
            shutil.copy(EXAMPLE / source, root / scene / name)
        shutil.copy(EXAMPLE / "reference.depth.png", root / scene / "seq0/frame_00000.depth.png")
        lines = [f"{name} {intrinsics[source]}\n" for name, source in files.items()]
        (root / scene / "intrinsics.txt").write_text("".join(lines))
        identity = "1 0 0 0 0 0 0"
        lines = [f"{name} {identity if 'seq0' in name else poses['query.jpg']}\n" for name in files]
        (root / scene / "poses.txt").write_text("".join(lines))
    return root


@pytest.fixture(scope="module")
def finished(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "xfeat"
    assert run("eval", "xfeat", "pairs", "--data", dataset, "--out", out, "--draws", "20") == 0
    return out


def test_each_process_of_a_machine_has_its_own_gpu() -> None:
    assert device_of("cuda", {"LOCAL_RANK": "3"}) == "cuda:3"
    assert device_of("cuda", {}) == "cuda" and device_of("cpu", {"LOCAL_RANK": "3"}) == "cpu"
    assert device_of("cuda:1", {"LOCAL_RANK": "3"}) == "cuda:1"


@pytest.mark.slow
def test_a_run_leaves_its_files(finished: Path) -> None:
    names = {path.name for path in finished.iterdir()}
    assert names == {
        "run.json", "records-0-of-1.jsonl", "report.json", "report.md", "report.html", "submission.zip"
    }  # fmt: skip
    metrics = json.loads((finished / "report.json").read_text())["metrics"]
    assert metrics["VCRE precision (10 % of diagonal)"]["value"] == 1
    assert metrics["median center error (m)"]["value"] < 0.05
    scenes = read_submission(finished / "submission.zip")
    assert set(scenes) == {"s00460", "s00461"} and all(len(text.splitlines()) == 2 for text in scenes.values())


def test_the_submission_has_the_confidence_of_the_estimates(finished: Path) -> None:
    records = [json.loads(line) for line in (finished / "records-0-of-1.jsonl").read_text().splitlines()]
    scenes = read_submission(finished / "submission.zip")
    found = {
        f"{scene}/seq0/frame_00000.jpg {line.split()[0]}": float(line.split()[8])
        for scene, text in scenes.items()
        for line in text.splitlines()
    }
    assert found == {record["key"]: record["confidence"] for record in records}
    assert all(0 < confidence <= 1 for confidence in found.values())


@pytest.mark.slow
def test_photos_can_be_resized_as_published(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("eval", "xfeat", "mapfree", "--data", dataset, "--out", tmp_path / "m", "--draws", "5", "--no-html")
    assert run(*words, "--resize", "540", "720") == 0
    described = json.loads((tmp_path / "m" / "run.json").read_text())
    assert described["resize"] == [540, 720]
    metrics = json.loads((tmp_path / "m" / "report.json").read_text())["metrics"]
    assert metrics["median center error (m)"]["value"] < 0.1  # the intrinsics followed, of another aspect
    capsys.readouterr()
    assert run(*words) == 2
    assert "holds another run (resize: [540, 720], now None)" in capsys.readouterr().err
    assert run(*words[:6], tmp_path / "n", "--resize", "0", "720") == 2
    assert "--resize 0 720: both must be positive" in capsys.readouterr().err


def test_official_says_its_warnings_as_often_as_the_published_scorer(
    shared: Shared, capsys: pytest.CaptureFixture[str]
) -> None:
    for case in ("malformed_lines", "nan_inf_zero_quat", "missing_scene", "basic", "no_seq1_frame0"):
        folder = shared(f"golden/bench/mapfree/{case}")
        words = ("eval", "score", folder / "submission.zip", "--data", folder / "dataset/val")
        assert run(*words, "--mode", "official") == 0
        log = json.loads((folder / "expected.json").read_text())["log"]
        assert capsys.readouterr().err.splitlines() == log, case
        run(*words)
        said = capsys.readouterr().err.splitlines()
        assert len(said) == len(set(said)), case


def test_the_same_command_again_does_nothing_twice(
    finished: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (finished / "records-0-of-1.jsonl").read_bytes()
    assert run("eval", "xfeat", "pairs", "--data", dataset, "--out", finished, "--draws", "20", "--no-html") == 0
    assert (finished / "records-0-of-1.jsonl").read_bytes() == before
    assert run("eval", "sift", "pairs", "--data", dataset, "--out", finished) == 2
    assert "holds another run (method: 'xfeat', now 'sift')" in capsys.readouterr().err


def test_mapfree_is_scored_by_both_scorers(dataset: Path, tmp_path: Path) -> None:
    out = tmp_path / "m"
    assert run("eval", "identity", "mapfree", "--data", dataset, "--out", out, "--draws", "5", "--no-html") == 0
    metrics = json.loads((out / "report.json").read_text())["metrics"]
    official = metrics["Map-free (official): Average Median Translation Error"]["value"]
    ours = metrics["median center error (m)"]["value"]
    assert official == pytest.approx(ours, abs=1e-5)
    assert "Map-free (clean): AUC @ VCRE < 90px" in metrics


def test_score_of_a_submission(
    finished: Path, dataset: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("eval", "score", finished / "submission.zip", "--data", dataset, "--step", "1") == 0
    shown = capsys.readouterr().out
    assert re.search(r"^metric +official +clean$", shown, re.M) and "0 of 4" in shown
    assert "VCRE: how far apart virtual points" in shown and "in pixels" in shown
    assert max(map(len, shown.splitlines())) <= 80
    write_submission(tmp_path / "empty.zip", {"s00460": "junk\n"})
    assert run("eval", "score", tmp_path / "empty.zip", "--data", dataset, "--mode", "official") == 0
    caught = capsys.readouterr()
    assert "Invalid number of fields" in caught.err and "s00461" in caught.err
    assert run("eval", "score", tmp_path / "absent.zip", "--data", dataset) == 2
    assert "absent.zip' does not exist" in capsys.readouterr().err


def test_compare_and_calibrate(
    finished: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "identity"
    assert run("eval", "identity", "pairs", "--data", dataset, "--out", other, "--draws", "5", "--no-html") == 0
    page = tmp_path / "compare.html"
    words = ("--benchmark", "pairs", "--data", dataset)
    assert run("eval", "compare", finished, other, *words, "--out", page, "--draws", "10") == 0
    shown = capsys.readouterr().out
    assert (
        max(map(len, shown.splitlines())) <= 80 and "VCRE: how far apart" in shown and "VCRE: how" in page.read_text()
    )
    assert "A: xfeat is better on 4 pairs" in " ".join(shown.split()) and page.read_text().startswith("<!doctype html>")
    assert run("eval", "calibrate", finished, *words, "--out", tmp_path / "c.json") == 2
    assert "a calibration needs at least 30" in capsys.readouterr().err
    assert not (tmp_path / "c.json").exists()


@pytest.mark.slow
def test_pictures_of_the_pairs_that_differ_most(
    finished: Path, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, pictures, page = tmp_path / "identity", tmp_path / "pictures", tmp_path / "compare.html"
    assert run("eval", "identity", "pairs", "--data", dataset, "--out", other, "--draws", "5", "--no-html") == 0
    words = ("--benchmark", "pairs", "--data", dataset, "--draws", "5", "--pictures", pictures, "--count", "2")
    assert run("eval", "compare", finished, other, *words, "--out", page) == 0
    files = sorted(pictures.iterdir())
    assert [file.name[:9] for file in files] == ["00_s00460", "01_s00460"]
    assert all(Image.open(file).size[0] == 960 for file in files)
    assert page.read_text().count("<img") == 2
    # a run compared with itself differs nowhere
    assert run("eval", "compare", finished, finished, *words) == 0
    assert "0 pictures" in capsys.readouterr().out
    described = json.loads((other / "run.json").read_text())
    for changed, says in (
        ({"weights_id": "others"}, "was made with others, and the weights here are"),
        ({"resize": [320, 240]}, "one picture cannot show photos of two sizes: the runs had --resize 320 240 and none"),
        ({"method": "orb"}, "cannot be loaded for pictures: there is no method 'orb'"),
        ({"resize": "large"}, "cannot be loaded for pictures"),
    ):
        (other / "run.json").write_text(json.dumps({**described, **changed}))
        assert run("eval", "compare", finished, other, *words) == 2
        assert says in " ".join(capsys.readouterr().err.split())


def test_a_comparison_shows_markup_of_a_run_as_text(finished: Path, dataset: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    described = json.loads((other / "run.json").read_text())
    (other / "run.json").write_text(json.dumps({**described, "method": "<img src=x onerror=alert(1)>"}))
    page = tmp_path / "compare.html"
    words = ("--benchmark", "pairs", "--data", dataset, "--out", page, "--draws", "5")
    assert run("eval", "compare", finished, other, *words) == 0
    html = page.read_text()
    assert "<img" not in html and html.count("&lt;img src=x onerror=alert(1)&gt;") >= 4
    assert "Content-Security-Policy" in html.partition("<title>")[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("xfeat", "pairs", "--data", "nowhere"), "'nowhere' is not a folder"),
        (("orb", "pairs", "--data", "SET"), "there is no method 'orb'"),
        (("xfeat-pnp", "pairs", "--data", "SET"), "localises in maps"),
        (("xfeat", "scannet", "--data", "SET"), "needs --scans"),
        (("xfeat", "aachen", "--data", "SET"), "needs --hloc"),
        (("xfeat", "pairs", "--data", "SET", "--parts", "s9"), "no scene 's9'"),
        (("identity", "pairs", "--data", "SET", "--polish", "matches"), "polish by matches: it is MicKey's"),
        (("xfeat", "pairs", "--data", "SET", "--depth-source", "guess"), "a depth source must be"),
        (("xfeat", "pairs", "--data", "SET", "--depth-source", "constant:-1"), "positive number of metres"),
        (("xfeat", "pairs", "--data", "SET", "--calibration", "none.json"), "none.json' does not exist"),
    ],
)
def test_wrong_use_is_one_sentence(
    words: tuple[str, ...], says: str, dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(dataset) if word == "SET" else word for word in words]
    assert run("eval", *given, "--out", tmp_path / "out") == 2
    error = capsys.readouterr().err
    assert says in error and len(error.strip().splitlines()) == 1


def test_an_unreadable_photo_is_a_failure_and_the_run_goes_on(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "val"
    shutil.copytree(dataset, copy)
    (copy / "s00460/seq1/frame_00001.jpg").write_bytes(b"no photo")
    assert run("eval", "identity", "pairs", "--data", copy, "--out", tmp_path / "out", "--draws", "5", "--no-html") == 1
    assert "frame_00001.jpg" in capsys.readouterr().err
    records = [json.loads(line) for line in (tmp_path / "out/records-0-of-1.jsonl").read_text().splitlines()]
    assert [record["success"] for record in records] == [True, False, True, True]


def test_queries_of_a_real_map(shared: Shared, tmp_path: Path) -> None:
    place = shared("data/eval/places/fountain_p11")
    out = tmp_path / "out"
    words = ("--data", place / "sparse", "--images", place, "--step", "5", "--references", "2")
    assert run("eval", "xfeat-pnp", "map", *words, "--out", out, "--no-html") == 0
    report = json.loads((out / "report.json").read_text())
    assert report["metrics"]["median rotation error (deg)"]["value"] < 0.5
    assert len((out / "poses.txt").read_text().splitlines()) == 3


@pytest.mark.slow
def test_torchrun_gives_the_records_of_one_process(dataset: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "two"
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        "-m",
        "metriloc",
    ]
    words = ["eval", "xfeat", "pairs", "--data", str(dataset), "--out", str(out), "--draws", "5", "--no-html"]
    done = subprocess.run([*command, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(list(out.glob("records-*-of-2.jsonl"))) == 2

    def poses(folder: Path) -> dict[str, object]:
        lines = [line for path in folder.glob("records-*.jsonl") for line in path.read_text().splitlines()]
        return {r["key"]: (r["q"], r["t"], r["confidence"]) for r in map(json.loads, lines)}

    assert poses(out) == poses(finished)
