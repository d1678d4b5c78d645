"""Verdicts of ``metriloc localize`` from the outside: words, files, exit codes; calibrations by file and by default."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import metriloc
from metriloc.calibration import Calibration, save_calibration
from metriloc.choose import LocalizerChoice, choose_localizer
from metriloc.cli.main import main
from metriloc.io import InputError
from metriloc.localizer import LOCALIZED
from metriloc.runs.localize_results import check_names

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["localize", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture
def model(example_map: Path) -> Path:
    return example_map


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))


def calibration(folder: Path, intercept: float, setup: str, weights_id: str = "") -> Path:
    """Of nre-xfeat: says the same whatever it sees."""
    method = choose_localizer(LocalizerChoice("nre-xfeat", calibration="none"))
    values = ("order",), (intercept, 0.0), method.name, weights_id or method.weights_id
    save_calibration(folder / "c.json", Calibration("logistic", LOCALIZED, *values, 100, "made up", setup))
    return folder / "c.json"


@pytest.fixture(scope="module")
def setup_of_nre_xfeat(example_map: Path) -> str:
    scene = metriloc.read_map(example_map, EXAMPLE)
    method = choose_localizer(LocalizerChoice("nre-xfeat", calibration="none"))
    found = method.localize(metriloc.load_view(EXAMPLE / "query.jpg"), scene, ["reference.jpg"])
    return found.localization[0].setup


def localized(model: Path, out: Path, *options: object) -> tuple[int, dict[str, Any]]:
    query = (model, EXAMPLE / "query.jpg", "--images", EXAMPLE, "--method", "nre-xfeat", "--held-out")
    code = run(*query, "--references", "reference.jpg", "--out", out, *options)
    (entry,) = json.loads((out / "poses.json").read_text())["queries"]
    return code, entry


@pytest.mark.slow
def test_what_failed_is_no_answer_anywhere(
    model: Path, setup_of_nre_xfeat: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = calibration(tmp_path, -5.0, setup_of_nre_xfeat)
    out = tmp_path / "out"
    code, entry = localized(model, out, "--calibration", file, "--max-side", 320)  # all four turns fail
    assert code == 1
    assert (entry["success"], entry["verdict"], entry["reason"]) == (False, "failed", "unsupported")
    assert entry["confidence"] == 0 and "2% of the depth" in entry["confidence_is_probability_of"]
    assert "cam_from_world" not in entry and "camera_center" not in entry and "from_truth" not in entry
    assert entry["statistics"]["inlier_ratio"] > 0.3  # why can still be read
    assert (out / "poses.txt").read_text() == "" and (out / "poses.tum.txt").read_text() == ""
    shown = " ".join(capsys.readouterr().out.split())
    assert "No pose found: too little speaks for any pose" in shown and "stood at" not in shown
    page = (out / "report.html").read_text()
    assert "too little speaks for any pose" in page and "stood at" not in page


@pytest.mark.slow
@pytest.mark.parametrize(("intercept", "verdict"), [(5.0, "reliable"), (0.5, "doubtful")])
def test_verdicts_are_told_and_written(
    model: Path,
    setup_of_nre_xfeat: str,
    tmp_path: Path,
    intercept: float,
    verdict: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = calibration(tmp_path, intercept, setup_of_nre_xfeat)
    code, entry = localized(model, tmp_path / "out", "--calibration", file)
    assert code == 0 and entry["success"] and entry["verdict"] == verdict
    assert (entry["doubts"] == []) == (verdict == "reliable")
    assert f"({verdict})" in " ".join(capsys.readouterr().out.split())
    assert len((tmp_path / "out" / "poses.txt").read_text().splitlines()) == 1
    page = (tmp_path / "out" / "report.html").read_text()
    assert verdict in page and "the probability of rotation below 2 degrees" in page


@pytest.mark.slow
def test_none_and_other_setups_are_uncalibrated(model: Path, tmp_path: Path) -> None:
    for options in (("none",), (calibration(tmp_path, 5.0, "other settings"),)):
        code, entry = localized(model, tmp_path / "out", "--calibration", *options)
        assert code == 0 and entry["verdict"] == "uncalibrated" and entry["confidence_is_probability_of"] is None


def test_a_calibration_of_other_weights_or_no_file_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    query = (model, EXAMPLE / "query.jpg", "--images", EXAMPLE, "--method", "nre-xfeat", "--held-out")
    file = calibration(tmp_path, 5.0, "", weights_id="xfeat-0000")
    assert run(*query, "--calibration", file) == 2
    assert "the calibration is for nre-xfeat xfeat-0000" in capsys.readouterr().err
    assert run(*query, "--calibration", "/nowhere/c.json") == 2
    assert "/nowhere/c.json" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("method", ["nre-xfeat", "pixloc", "xfeat-pnp"])
def test_what_comes_with_metriloc_tells_right_from_wrong(
    model: Path, tmp_path: Path, method: str, generator: torch.Generator
) -> None:
    """The example is right and called so; patches of noise, and a picture of something else, are no pose."""
    known = (model, "--images", EXAMPLE, "--method", method, "--references", "reference.jpg", "--no-html")
    assert run(*known, EXAMPLE / "query.jpg", "--held-out", "--out", tmp_path / "right") == 0
    (entry,) = json.loads((tmp_path / "right" / "poses.json").read_text())["queries"]
    assert entry["verdict"] in ("reliable", "doubtful") and entry["from_truth"]["rotation_deg"] < 2
    noise = (255 * torch.rand(30, 40, 3, generator=generator)).byte().numpy()
    Image.fromarray(noise).resize((640, 480)).save(tmp_path / "noise.png")
    mirrored = Image.open(EXAMPLE / "query.jpg").transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    mirrored.save(tmp_path / "mirrored.png")
    for name in ("noise", "mirrored"):
        assert run(*known, tmp_path / f"{name}.png", "--fov", 60, "--out", tmp_path / name) == 1
        (entry,) = json.loads((tmp_path / name / "poses.json").read_text())["queries"]
        assert entry["verdict"] == "failed" and (tmp_path / name / "poses.txt").read_text() == ""


def test_names_that_lists_cannot_tell_apart_are_refused_before_any_work() -> None:
    with pytest.raises(InputError, match=r"'a/my photo\.jpg' and 'b/my_photo\.jpg' are both 'my_photo\.jpg'"):
        check_names(["a/my photo.jpg", "b/my_photo.jpg"], "file")
    check_names(["a/my photo.jpg", "b/my_photo.jpg"], "folder/file")
