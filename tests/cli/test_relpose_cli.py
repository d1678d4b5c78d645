"""``metriloc relpose`` from the outside: answers, files, bad input, exit codes, and the same answer everywhere."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import metriloc
from metriloc.backbones.dinov2 import DinoV2Config
from metriloc.calibration import Calibration, Metres, Target, save_calibration
from metriloc.cli.main import main
from metriloc.methods.matching.model import FeatureMatching
from metriloc.methods.mickey import MicKey, MicKeyConfig, MicKeyNetwork
from metriloc.runs import relpose_files

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
REFERENCE, QUERY, DEPTH = EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg", EXAMPLE / "reference.depth.png"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["relpose", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def mickey_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small MicKey with random weights: it runs, and knows nothing."""
    torch.manual_seed(0)
    config = MicKeyConfig(backbone=DinoV2Config(64, 2, 4), blocks=(48, 40, 32, 24), descriptor_dim=32)
    network = MicKeyNetwork(config)
    with torch.no_grad():
        # random heads put everything within centimetres of the camera, where all points are inliers of anything
        network.depth_head.output.weight.mul_(50)
    folder = tmp_path_factory.mktemp("weights")
    MicKey(network).save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_json_tells_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(REFERENCE, QUERY, "--method", "matching", "--depth", DEPTH, "--json", "--seed", 3) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["seed"] == 3 and shown["metriloc_version"] == metriloc.__version__
    assert shown["method"] == "matching" and shown["weights_id"].startswith("xfeat-")
    assert shown["confidence"]["calibrated"]
    assert "intrinsics.txt" in shown["reference"]["intrinsics_source"]
    (query,) = shown["queries"]
    assert query["success"] and query["metric"] and "depth map" in query["scale_source"]
    pose = query["query_from_reference"]
    assert pose["translation_unit"] == "metre"
    assert len(pose["quaternion_wxyz"]) == 4 and len(pose["matrix"]) == 4
    assert 0 < query["confidence"] <= 1
    assert query["verdict"] in ("reliable", "doubtful") and (query["verdict"] == "reliable") == (query["doubts"] == [])
    assert "rotation below 5 degrees" in query["confidence_is_probability_of"]
    low, high = query["distance_interval_90"]
    assert low <= query["distance"] <= high < 2 * low and low < 0.61 < high
    assert query["num_inliers"] > 100


@pytest.mark.slow
def test_output_folder_of_one_query(tmp_path: Path) -> None:
    assert run(REFERENCE, QUERY, "--depth", DEPTH, "--out", tmp_path / "out") == 0
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names >= {"pose.json", "report.html", "poses.tum.txt", "poses.mapfree.txt", "matches.jpg"}
    assert names >= {"reference.score.jpg", "query.score.jpg", "reference.depth.jpg"}
    assert not [name for name in names if name.endswith(".tmp")]
    assert Image.open(tmp_path / "out" / "scene.png").size == (960, 720)
    query = json.loads((tmp_path / "out" / "pose.json").read_text())["queries"][0]
    entry = query["query_from_reference"]
    line = (tmp_path / "out" / "poses.mapfree.txt").read_text().split()
    assert float(line[8]) == query["confidence"]  # as in the submissions of metriloc eval
    assert [float(x) for x in line[1:5]] == pytest.approx(entry["quaternion_wxyz"], abs=1e-6)
    assert [float(x) for x in line[5:8]] == pytest.approx(entry["translation"], abs=1e-6)
    tum = (tmp_path / "out" / "poses.tum.txt").read_text().split()
    R = torch.tensor(entry["matrix"])[:3, :3]
    center = -R.T @ torch.tensor(entry["translation"])
    assert [float(x) for x in tum[1:4]] == pytest.approx(center.tolist(), abs=1e-5)
    assert Image.open(tmp_path / "out" / "matches.jpg").size[0] > 600


@pytest.mark.slow
def test_many_queries_and_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a.jpg", "b.jpg"):
        small(QUERY, tmp_path / name)
    small(REFERENCE, tmp_path / "reference.jpg")
    broken = tmp_path / "broken.jpg"
    broken.write_text("no photo")
    queries = [tmp_path / "a.jpg", broken, tmp_path / "b.jpg"]
    how = ["--fov", 60, "--distance", 0.6, "--method", "matching", "--out", tmp_path / "out"]
    common = [tmp_path / "reference.jpg", *queries, *how]
    assert run(*common) == 2
    assert "broken.jpg" in capsys.readouterr().err
    content = json.loads((tmp_path / "out" / "pose.json").read_text())
    assert [q["success"] for q in content["queries"]] == [True, False, True]
    assert "error" in content["queries"][1]
    reports = sorted(p.parent.name for p in (tmp_path / "out").glob("*/report.html"))
    assert reports == ["0000_a", "0002_b"]
    before = (tmp_path / "out" / "0000_a" / "report.html").stat().st_mtime_ns
    assert run(*common, "--resume") == 2
    assert "kept from the earlier run" in capsys.readouterr().out
    assert (tmp_path / "out" / "0000_a" / "report.html").stat().st_mtime_ns == before
    again = json.loads((tmp_path / "out" / "pose.json").read_text())
    assert again["queries"][0] == content["queries"][0]
    broken.unlink()
    assert run(*common, "--resume") == 2
    assert "broken.jpg" in capsys.readouterr().err
    # other settings are another run, other queries are not
    kept = (tmp_path / "out" / "pose.json").read_bytes()
    assert run(*common, "--resume", "--seed", 1) == 2
    assert "holds another run (seed: 0, now 1)" in capsys.readouterr().err
    assert (tmp_path / "out" / "pose.json").read_bytes() == kept
    small(QUERY, tmp_path / "c.jpg")
    more = [tmp_path / "reference.jpg", tmp_path / "c.jpg", tmp_path / "b.jpg", *common[4:], "--resume"]
    assert run(*more) == 0
    assert "kept 1 pose of earlier queries" in capsys.readouterr().out
    names = [Path(q["query"]).name for q in json.loads((tmp_path / "out" / "pose.json").read_text())["queries"]]
    assert names == ["a.jpg", "c.jpg", "b.jpg"]
    assert len((tmp_path / "out" / "poses.tum.txt").read_text().splitlines()) == 3


@pytest.mark.slow
def test_the_folder_of_one_query_is_not_given_to_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Path(shutil.copy(QUERY, tmp_path / "other.jpg"))
    common = ["--method", "xfeat", "--out", tmp_path / "out", "--resume"]
    assert run(REFERENCE, QUERY, *common) == 0
    before = (tmp_path / "out" / "pose.json").read_bytes()
    assert run(REFERENCE, other, *common) == 2 and "holds the pose of" in capsys.readouterr().err
    assert run(REFERENCE, QUERY, *common, "--distance", 1) == 2
    assert "holds another run (distance: None, now 1.0)" in capsys.readouterr().err
    assert (tmp_path / "out" / "pose.json").read_bytes() == before


def test_a_photo_of_one_pixel_is_the_same_with_and_without_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "dot.png")
    for more in ([], ["--out", tmp_path / "out"]):
        assert run(REFERENCE, tmp_path / "dot.png", "--method", "xfeat", *more) == 1
        assert "matches" in capsys.readouterr().out
    assert (tmp_path / "out" / "pose.json").is_file()


def camera_of(name: str) -> list[str]:
    for line in (EXAMPLE / "intrinsics.txt").read_text().splitlines():
        if line.startswith(name):
            return line.split()[1:5]
    raise AssertionError(name)


@pytest.mark.slow
def test_without_scale_the_result_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(REFERENCE, QUERY, "--json", "--method", "matching") == 0
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    assert query["metric"] is False and "depth" in query["scale_source"]
    assert query["distance"] == pytest.approx(1, abs=1e-5)
    assert run(REFERENCE, QUERY, "--json", "--distance", 2.5) == 0
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    assert query["metric"] is True and query["distance"] == pytest.approx(2.5, abs=1e-5)


@pytest.mark.slow
def test_mickey_with_random_weights_is_honest(
    mickey_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(REFERENCE, QUERY, "--weights", mickey_folder, "--json", "--out", tmp_path / "out", "--polish", "matches")
    assert code in (0, 1)
    shown = json.loads(capsys.readouterr().out)
    assert shown["method"] == "mickey" and shown["weights_id"].startswith("mickey-")
    assert shown["queries"][0]["confidence"] < 0.2
    # nobody has found out how often these weights are right
    assert shown["confidence"] == {"calibrated": False}
    assert shown["queries"][0]["verdict"] == ("uncalibrated" if code == 0 else "failed")
    assert (tmp_path / "out" / "query.depth.jpg").is_file()


@pytest.mark.slow
def test_same_seed_same_answer_everywhere(mickey_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = MicKey.from_pretrained(mickey_folder)
    view0, view1 = metriloc.load_view(REFERENCE), metriloc.load_view(QUERY)
    alone = model.relative_pose(view0, view1, seed=5)
    batch = model.relative_poses(view0, [view0, view1], seed=5)
    assert torch.equal(alone.pose.R, batch.pose.R[1]) and torch.equal(alone.pose.t, batch.pose.t[1])
    assert torch.equal(alone.confidence, batch.confidence[1])
    run(REFERENCE, QUERY, "--weights", mickey_folder, "--json", "--seed", 5)
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    assert query["query_from_reference"]["matrix"] == alone.pose.matrix().tolist()
    assert query["confidence"] == float(alone.confidence)
    other = model.relative_pose(view0, view1, seed=6)
    assert not torch.equal(alone.pose.t, other.pose.t)


def test_cached_reference_gives_the_same_answer(mickey_folder: Path) -> None:
    model = MicKey.from_pretrained(mickey_folder)
    view0, view1 = metriloc.load_view(REFERENCE), metriloc.load_view(QUERY)
    features = model.extract(view0)
    assert torch.equal(model.relative_pose(features, view1).pose.t, model.relative_pose(view0, view1).pose.t)


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def jpeg(**options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (320, 240), "grey").save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "arguments", "expected"),
    [
        (b"", [], "bad.jpg"),
        (b"just text, no photo", [], "bad.jpg"),
        (jpeg()[:500], [], "bad.jpg"),
        (png_header(12000, 9000), [], "megapixel"),
        (None, [], "bad.jpg"),
        (jpeg(), ["--k", "500", "500", "160"], ""),
        (jpeg(), ["--k", "-500", "500", "160", "120"], "-500"),
        (jpeg(), ["--k", "500", "500", "160", "120", "--k-query", "1", "1", "1", "1"], "contradict"),
        (jpeg(), ["--intrinsics", "missing.txt"], "missing.txt"),
        (jpeg(), ["--fov", "190"], "190"),
        (jpeg(), ["--depth", "missing.png"], "missing.png"),
        (jpeg(), ["--distance", "-1"], "-1"),
        (jpeg(), ["--weights", "no-such-weights"], "no-such-weights"),
        (jpeg(), ["--weights", "mickey"], "metriloc weights get mickey"),
        (jpeg(), ["--method", "mickey", "--distance", "2"], "distance"),
        (jpeg(), ["--resize", "0", "10"], "0"),
        (jpeg(), ["--device", "abacus"], "abacus"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(
    content: bytes | None,
    arguments: list[str],
    expected: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))
    bad = tmp_path / "bad.jpg"
    if content is not None:
        bad.write_bytes(content)
    assert run(REFERENCE, bad, "--out", tmp_path / "out", *arguments) != 0
    shown = capsys.readouterr()
    assert expected in shown.err + shown.out
    assert "Traceback" not in shown.err
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_depth_in_other_units(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    millimetres = np.asarray(Image.open(DEPTH)).astype(np.uint32)
    assert millimetres.max() < 13_000
    tum = tmp_path / "tum.png"
    Image.fromarray((5 * millimetres).astype(np.uint16)).save(tum)
    found = []
    for arguments in (["--depth", DEPTH], ["--depth", tum, "--depth-scale", "5000"]):
        assert run(REFERENCE, QUERY, "--method", "matching", *arguments, "--json", "--seed", 3) == 0
        (query,) = json.loads(capsys.readouterr().out)["queries"]
        found.append(query["query_from_reference"]["matrix"])
    assert np.allclose(found[0], found[1], rtol=0, atol=1e-5)
    assert run(REFERENCE, QUERY, "--depth-scale", "5000") == 2
    assert "5000 units a metre says nothing without a depth map" in capsys.readouterr().err


def test_output_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert run(REFERENCE, QUERY, "--out", tmp_path / "file") == 2
    message = capsys.readouterr().err
    assert str(tmp_path / "file") in message and message.count("\n") == 1
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.slow
def test_unusual_images_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import numpy as np

    photo, modes = Image.open(QUERY), ("L", "CMYK", "RGBA", "I;16", "P")
    paths = [tmp_path / f"{mode[0]}.{'jpg' if mode in ('L', 'CMYK') else 'png'}" for mode in modes]
    for mode, path in zip(modes, paths, strict=True):
        if mode == "I;16":
            Image.fromarray(np.asarray(photo.convert("L")).astype("uint16") * 257).save(path)
        else:
            photo.convert(mode).save(path)
    known = ["--k-ref", *camera_of("reference.jpg"), "--k-query", *camera_of("query.jpg")]
    assert run(REFERENCE, *paths, "--depth", DEPTH, *known, "--method", "matching", "--json") == 0
    found = {Path(q["query"]).name: q["success"] for q in json.loads(capsys.readouterr().out)["queries"]}
    assert found == {path.name: True for path in paths}


def test_blank_photo_has_no_pose(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "blank.jpg"
    path.write_bytes(jpeg())
    assert run(REFERENCE, path, "--json", "--method", "matching") == 1
    shown = capsys.readouterr()
    (query,) = json.loads(shown.out)["queries"]
    assert query["success"] is False and query["reason"] == "too_few_matches" and query["confidence"] == 0
    assert query["verdict"] == "failed"
    assert "query_from_reference" not in query
    assert "warning" in shown.err  # the focal length of the blank photo is a guess


def judged_by(folder: Path) -> list[object]:
    """Options for matching with the depth map, judged by the calibration of a folder."""
    return ["--method", "matching", "--depth", DEPTH, "--calibration", folder / "c.json", "--out", folder / "out"]


@pytest.mark.slow
def test_the_verdict_of_a_calibrated_confidence_is_everywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights_id = metriloc.FeatureMatching.from_pretrained().weights_id
    doubter = Calibration(
        "logistic",
        Target(),
        ("inliers",),
        (0.0, 0.0),
        "matching",
        weights_id,
        99,
        "nothing",
        "solver auto (joint fit), depth map",
        metres=Metres(0.9, 1.1),
    )
    save_calibration(tmp_path / "c.json", doubter)
    options = judged_by(tmp_path)
    assert run(REFERENCE, QUERY, *options) == 0  # there is a pose; how far to trust it is the verdict's business
    printed = capsys.readouterr().out
    # a folder is named whole, however long its name is
    lines = [line for line in printed.splitlines() if not line.startswith("written to ")]
    assert max(map(len, lines)) <= 80 and str(EXAMPLE) not in printed
    shown = " ".join(printed.split())
    assert "confidence 0.50 (doubtful)" in shown and "not enough speaks for this pose" in shown
    assert "the probability of rotation below 5 degrees; reliable from 0.9, failed below 0.2" in shown
    content = json.loads((tmp_path / "out" / "pose.json").read_text())
    assert content["queries"][0]["verdict"] == "doubtful"
    assert content["queries"][0]["confidence_is_probability_of"] == "rotation below 5 degrees"
    assert content["confidence"]["calibrations"][0]["source"] == "nothing"
    html = (tmp_path / "out" / "report.html").read_text()
    assert '<p class="verdict direction">' in html and "doubtful<br>the probability of rotation below 5 degrees" in html
    # the same photos under another calibration are another result
    save_calibration(tmp_path / "c.json", dataclasses.replace(doubter, parameters=(5.0, 0.0)))
    assert run(REFERENCE, QUERY, *options, "--resume") == 2
    assert "holds another run" in capsys.readouterr().err
    assert run(REFERENCE, QUERY, *options) == 0
    assert "confidence 0.99 (reliable)" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "pose.json").read_text())["queries"][0]["verdict"] == "reliable"


@pytest.mark.slow
def test_what_is_probably_wrong_is_no_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights_id = metriloc.FeatureMatching.from_pretrained().weights_id
    setup = "solver auto (joint fit), depth map"
    never = Calibration("logistic", Target(), ("inliers",), (-9.0, 0.0), "matching", weights_id, 99, "nothing", setup)
    save_calibration(tmp_path / "c.json", never)
    options = judged_by(tmp_path)
    assert run(REFERENCE, QUERY, *options) == 1
    shown = capsys.readouterr().out
    assert "No pose found: too little speaks for any pose" in shown and "away" not in shown
    assert (tmp_path / "out" / "poses.tum.txt").read_text() == ""
    assert (tmp_path / "out" / "poses.mapfree.txt").read_text() == ""
    (query,) = json.loads((tmp_path / "out" / "pose.json").read_text())["queries"]
    assert query["reason"] == "unsupported" and "query_from_reference" not in query
    html = (tmp_path / "out" / "report.html").read_text()
    assert "stood" not in html and "<canvas" not in html


@pytest.mark.slow
def test_one_k_for_photos_of_two_sizes_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = tmp_path / "small.jpg"
    photo = Image.open(QUERY)
    photo.resize((photo.width // 2, photo.height // 2)).save(small)
    k = camera_of("query.jpg")
    assert run(REFERENCE, small, "--method", "matching", "--k", *k) == 2
    message = capsys.readouterr().err
    assert "--k is for photos of one size" in message and "small.jpg" in message and "--k-size" in message
    # said which it is for, it is scaled to each
    size = [str(side) for side in Image.open(REFERENCE).size]
    assert run(REFERENCE, small, "--method", "matching", "--k", *k, "--k-size", *size, "--json") in (0, 1)
    shown = json.loads(capsys.readouterr().out)
    K = shown["queries"][0]["camera"]["K"]
    assert K[0][0] == pytest.approx(float(k[0]) / 2) and shown["reference"]["camera"]["K"][0][0] == float(k[0])
    assert run(REFERENCE, QUERY, "--k-size", *size) == 2
    assert "says nothing without --k" in capsys.readouterr().err


@pytest.mark.slow
def test_what_is_said_of_the_camera_wins_and_both_photos_tell(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = []
    for path in (REFERENCE, QUERY):
        photo = Image.open(path)
        exif = photo.getexif()
        exif.get_ifd(0x8769)[0xA405] = 28
        paths.append(tmp_path / path.name)
        photo.save(paths[-1], exif=exif, quality=95)
    assert run(*paths, "--method", "matching", "--fov", 60) in (0, 1)
    shown = " ".join(capsys.readouterr().out.split())  # lines are wrapped
    assert shown.count("horizontal field of view of 60 degrees, as stated") == 2
    assert shown.count("EXIF 35-mm equivalent focal length 28 mm") == 2
    assert run(*paths, "--method", "matching") in (0, 1)
    assert "field of view" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_guessed_focal_length_is_a_doubt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for path in (REFERENCE, QUERY):
        shutil.copy(path, tmp_path / path.name)
    arguments = [tmp_path / "reference.jpg", tmp_path / "query.jpg", "--depth", DEPTH, "--json", "--method", "matching"]
    assert run(*arguments) == 0
    (query,) = json.loads(capsys.readouterr().out)["queries"]
    assert query["verdict"] == "doubtful" and sum("is a guess" in doubt for doubt in query["doubts"]) == 2


# -- one bad photo among many -----------------------------------------------------------------------------------------
ODD_NAMES = ("new\nline #\x1b[31m\t.jpg", "-quo\"te's \U0001f600.jpg", "l" * 250 + ".jpg")


def small(photo: Path, target: Path) -> None:
    with Image.open(photo) as image:
        image.resize((320, 320 * image.height // image.width)).save(target, "JPEG")


@pytest.mark.slow
def test_photos_with_odd_names_keep_their_poses(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    latin = Path(os.fsdecode(b"caf\xe9.jpg"))
    names = [Path(name) for name in ODD_NAMES] + [latin]
    small(REFERENCE, Path("reference.jpg"))
    for name in names:
        small(QUERY, name)
    out = tmp_path / "out"
    given = [f"./{name}" if str(name).startswith("-") else name for name in names]
    assert run("reference.jpg", *given, "--fov", 60, "--distance", 0.6, "--method", "matching", "--out", out) == 0
    shown = capsys.readouterr()
    assert "\x1b" not in shown.out + shown.err and "new\nline" not in shown.out
    entries = json.loads((out / "pose.json").read_text())["queries"]
    assert len(entries) == len(names) and all(entry["success"] for entry in entries)
    assert len((out / "poses.mapfree.txt").read_text("utf-8").splitlines()) == len(names)
    assert len(list(out.glob("*/report.html"))) == len(names)


@pytest.mark.slow
def test_one_bad_photo_does_not_cost_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (1, 1)).save(tmp_path / "one.png")
    Image.new("RGB", (4000, 1)).save(tmp_path / "line.png")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "text\n.jpg").write_text("no photo")
    bad = [tmp_path / name for name in ("one.png", "line.png", "folder.jpg", "text\n.jpg", "absent.jpg")]
    out = tmp_path / "out"
    assert run(REFERENCE, QUERY, *bad, QUERY, "--fov", 60, "--distance", 0.6, "--out", out, "--method", "matching") == 2
    entries = json.loads((out / "pose.json").read_text())["queries"]
    assert [entry["success"] for entry in entries] == [True, *[False] * len(bad), True]
    said = capsys.readouterr().err.splitlines()
    assert len([line for line in said if line.startswith("metriloc relpose: ")]) >= 3
    assert "Traceback" not in "".join(said)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("at", "error"),
    [
        ("extract", ValueError("of\ntwo lines")),
        ("relative_pose", RuntimeError("kernel size")),
        ("drawing", ValueError("of\ntwo lines")),
    ],
)
def test_a_method_that_fails_on_one_photo_keeps_the_others(
    at: str, error: Exception, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        small(QUERY, tmp_path / name)

    def failing(original: Any, where: int) -> Any:
        def call(*arguments: Any, **words: Any) -> Any:
            if "b.jpg" in str(getattr(getattr(arguments[where], "view", arguments[where]), "name", "")):
                raise error
            return original(*arguments, **words)

        return call

    if at == "drawing":
        monkeypatch.setattr(relpose_files, "draw_pictures", failing(relpose_files.draw_pictures, 2))
    else:
        monkeypatch.setattr(FeatureMatching, at, failing(getattr(FeatureMatching, at), 1 if at == "extract" else 2))
    out = tmp_path / "out"
    photos = [tmp_path / name for name in ("a.jpg", "b.jpg", "c.jpg")]
    small(REFERENCE, tmp_path / "reference.jpg")
    how = ["--fov", 60, "--distance", 0.6, "--method", "matching", "--out", out]
    assert run(tmp_path / "reference.jpg", *photos, *how) == 2
    assert [entry["success"] for entry in json.loads((out / "pose.json").read_text())["queries"]] == [True, False, True]
    (said,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("metriloc relpose: ")]
    assert "b.jpg' could not be used: " in said
