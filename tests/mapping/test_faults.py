"""What goes wrong is one sentence, and nothing half written counts as done."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from metriloc.cli.main import main
from metriloc.geometry import Pose
from metriloc.io.maps import read_map
from metriloc.mapping.config import MapConfig
from metriloc.runs.map_build import build_map

pytest.importorskip("pycolmap", reason="maps are made by COLMAP")
Write = Callable[..., Pose]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, write_photos: Write) -> Path:
    folder = tmp_path_factory.mktemp("place")
    write_photos(folder / "photos", 3)
    return folder


@pytest.fixture(scope="module")
def built(place: Path) -> Path:
    build_map(place / "photos", place / "map", config=MapConfig(threads=1))
    return place / "map"


def refused(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as ended:
        main(["map", "build", str(folder), "--out", str(out)])
    assert ended.value.code == 2 and not (out / "sparse").exists()
    said = capsys.readouterr().err.strip()
    assert said.count("metriloc map build: ") == 1
    return " ".join(said.split())


def test_one_photo_alone(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "one").mkdir()
    shutil.copy(place / "photos" / "00.png", tmp_path / "one")
    said = refused(tmp_path / "one", tmp_path / "map", capsys)
    assert "a map needs two photos that show the same" in said and "has 1 usable" in said


def test_fifty_copies_of_one_photo(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "copies").mkdir()
    for n in range(50):
        shutil.copy(place / "photos" / "00.png", tmp_path / "copies" / f"{n:02d}.png")
    said = refused(tmp_path / "copies", tmp_path / "map", capsys)
    assert "has 1 usable" in said and "01.png' is a copy of '00.png'" in said and len(said) < 400


def test_a_folder_without_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "readme.txt").write_text("no photo")
    assert "holds no photos" in refused(tmp_path / "notes", tmp_path / "map", capsys)


def test_text_among_the_photos_is_passed_over(place: Path, built: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "readme.txt").write_text("no photo")
    (tmp_path / "photos" / "called.jpg").write_text("no photo")
    shutil.copytree(built / "work", tmp_path / "map" / "work")
    facts = build_map(tmp_path / "photos", tmp_path / "map", config=MapConfig(threads=1))
    (sentence,) = facts.left_out
    assert "called.jpg" in sentence and facts.registered == 3 and facts.given == 4


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
@pytest.mark.parametrize(
    ("kept", "limit", "said"),
    [
        ((), 50_000, "features/"),
        (("features", "matches"), 100_000, "cannot be written (is the disk full?): make room"),
        (("features", "matches", "database"), 20_000, "cannot be written (is the disk full?): make room"),
        (("features", "matches", "database", "model"), 20_000, "is the disk full?"),
    ],
)
def test_a_full_disk(place: Path, built: Path, tmp_path: Path, kept: tuple[str, ...], limit: int, said: str) -> None:
    """As a limit on the size of files, which needs no rights: keypoints, database, model and map do not fit in turn."""
    out = tmp_path / "map"
    for name in kept[:2]:
        shutil.copytree(built / "work" / name, out / "work" / name)
    (out / "work" / "models").mkdir(parents=True, exist_ok=True)
    for path in (built / "work" / "models").iterdir():
        if path.suffix == ".db" and "database" in kept:
            shutil.copy(path, out / "work" / "models")
        elif path.is_dir() and "model" in kept:
            shutil.copytree(path, out / "work" / "models" / path.name)
    command = [
        sys.executable,
        "-m",
        "metriloc",
        "map",
        "build",
        str(place / "photos"),
        "--out",
        str(out),
        "--threads",
        "1",
    ]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "COLUMNS": "1000"}
    ended = subprocess.run(
        command,
        env=environment,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    words = " ".join(ended.stderr.split())
    assert ended.returncode == 2 and words.count("metriloc map build: ") == 1 and said in words, words
    assert "Traceback" not in words and not (out / "sparse").exists()
    # with room, the same command ends as if nothing had happened
    build_map(place / "photos", out, config=MapConfig(threads=1))
    for name in ("cameras.bin", "images.bin", "points3D.bin"):
        assert (out / "sparse" / name).read_bytes() == (built / "sparse" / name).read_bytes()
    assert len(read_map(out)) == 3 and not list((out / "work").rglob("*.tmp*"))
