"""Tables 2, 6 and 7 of the MicKey paper by their commands, on one pair in ScanNet's layout: the bundled example."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metriloc
from metriloc.cli.main import main
from metriloc.io import read_mapfree_poses

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"

SIZE = (1296, 968)
"""Of the photos whose intrinsics ScanNet's list holds."""


def run(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    return int(stopped.value.code or 0)


@pytest.fixture()
def scannet(tmp_path: Path) -> tuple[str | Path, ...]:
    """A scan of two photos with the sensor's depth of the first, estimates of twice that, and the list of the pair."""
    scan = tmp_path / "scans/scene0707_00"
    for folder in ("color", "depth"):
        (scan / folder).mkdir(parents=True)
    for name, number in (("reference", 15), ("query", 30)):
        with Image.open(EXAMPLE / f"{name}.jpg") as photo:
            photo.resize(SIZE).save(scan / f"color/{number}.jpg")
    shutil.copy(EXAMPLE / "reference.depth.png", scan / "depth/15.png")
    with Image.open(EXAMPLE / "reference.depth.png") as depth:
        Image.fromarray(2 * np.asarray(depth).astype(np.uint16)).save(scan / "color/15.planercnn.png")
    x, y = SIZE[0] / 640, SIZE[1] / 480
    focal = [float(line.split()[1]) for line in (EXAMPLE / "intrinsics.txt").read_text().splitlines()[1:]]
    K = [(x * f, y * f, (SIZE[0] - 1) / 2, (SIZE[1] - 1) / 2) for f in focal]
    pose = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"].matrix().flatten().tolist()
    numbers = [n for fx, fy, cx, cy in K for n in (fx, 0, cx, 0, fy, cy, 0, 0, 1)] + pose
    names = [f"scene0707_00/color/{number}.jpg" for number in (15, 30)]
    words = [*names, "0", "0", *(f"{n:.9f}" for n in numbers)]
    (tmp_path / "pairs.txt").write_text(" ".join(words) + "\n")
    return "--data", tmp_path / "pairs.txt", "--scans", tmp_path / "scans"


@pytest.mark.slow
def test_pairs_are_evaluated(scannet: tuple[str | Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "run"
    words = ("--depth-source", "file:planercnn", "--out", out, "--draws", "5", "--no-html", "--calibration", "none")
    assert run("eval", "xfeat", "scannet", *scannet, *words) == 0
    metrics = json.loads((out / "report.json").read_text())["metrics"]
    assert metrics["median center error (m)"]["value"] == pytest.approx(0.6, abs=0.15)  # all is twice as far as it is


def test_photos_of_another_shape_are_told(
    scannet: tuple[str | Path, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every pair would be a failure in the table otherwise, and nobody would know why."""
    for photo in (tmp_path / "scans").glob("*/color/*.jpg"):
        with Image.open(photo) as image:
            image.resize((640, 400)).save(photo)
    assert run("eval", "xfeat", "scannet", *scannet, "--out", tmp_path / "run", "--draws", "5", "--no-html") == 1
    assert "warning: " in capsys.readouterr().err


@pytest.mark.slow
def test_matchers_with_depths_are_a_table(scannet: tuple[str | Path, ...], tmp_path: Path) -> None:
    out = tmp_path / "table"
    words = ("--methods", "xfeat", "--depths", "file", "file:planercnn", "--out", out)
    assert run("eval", "table", "scannet", *scannet, *words) == 0
    true, twice = json.loads((out / "table.json").read_text())["rows"]
    assert (true["depth"], twice["depth"]) == ("file", "planercnn") and true["metres"] < 0.1 < 0.45 < twice["metres"]


def test_depths_are_a_table(scannet: tuple[str | Path, ...], tmp_path: Path) -> None:
    assert run("eval", "depth", "file:planercnn", *scannet, "--out", tmp_path / "out") == 0
    (row,) = json.loads((tmp_path / "out/depth.json").read_text())["rows"]
    assert row["over_pixels"]["rel"] == pytest.approx(1, abs=1e-6) and row["over_pixels"]["delta1"] == 0
