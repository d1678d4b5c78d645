"""What is in a folder already is not lost: models of others, maps of other photos."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metriloc.cli.main import main
from metriloc.geometry import Pose
from metriloc.io.maps import read_map
from metriloc.mapping.config import MapConfig
from metriloc.mapping.facts import read_facts
from metriloc.mapping.sources import ScaleOptions
from metriloc.runs.map_add import add_photos
from metriloc.runs.map_build import build_map

pytest.importorskip("pycolmap", reason="maps are made by COLMAP")
Write = Callable[..., Pose]
CONFIG = MapConfig(threads=1)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, write_photos: Write) -> Path:
    """Photos and their map."""
    folder = tmp_path_factory.mktemp("place")
    write_photos(folder / "photos", 4)
    scale = ScaleOptions(distances=(("00.png", "03.png", 0.9),))
    build_map(folder / "photos", folder / "map", config=CONFIG, scale=scale)
    return folder


@pytest.mark.parametrize(
    "names", [("cameras.txt",), ("cameras.bin", "images.bin", "points3D.bin"), ("sparse/0/images.bin",)]
)
def test_an_export_leaves_other_models_alone(
    place: Path, tmp_path: Path, names: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"of somebody else")
    before = content(tmp_path)
    assert run("map", "export", place / "map", "--out", tmp_path) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds another" in said and "give another --out, or delete it" in said
    assert content(tmp_path) == before


def test_an_export_is_not_written_over_a_map(place: Path) -> None:
    before = content(place / "map")
    assert run("map", "export", place / "map", "--out", place / "map") == 2
    assert run("map", "export", place / "map", "--out", place / "map" / "sparse") == 2
    assert content(place / "map") == before


@pytest.mark.parametrize(("form", "name"), [("colmap", "points3D.txt"), ("nerfstudio", "transforms.json")])
def test_an_export_is_written_again_unless_it_was_changed(place: Path, tmp_path: Path, form: str, name: str) -> None:
    command = ("map", "export", place / "map", "--out", tmp_path, "--format", form)
    assert run(*command) == 0
    before = content(tmp_path)
    assert run(*command) == 0 and content(tmp_path) == before
    (tmp_path / name).write_text("my own work")
    assert run(*command) == 2
    assert (tmp_path / name).read_text() == "my own work"


def test_a_map_of_other_photos_stays(
    place: Path, tmp_path: Path, write_photos: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path / "others", 3, texture_seed=9)
    before = content(place / "map")
    assert run("map", "build", tmp_path / "others", "--out", place / "map", "--threads", 1) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds a map of other photos" in said and "in metres" in said and "give another --out, or delete it" in said
    assert content(place / "map") == before


def test_a_model_of_another_maker_stays(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(place / "map" / "sparse", tmp_path / "sparse")
    (tmp_path / "sparse" / "map.json").unlink()
    before = content(tmp_path)
    assert run("map", "build", place / "photos", "--out", tmp_path, "--threads", 1) == 2
    assert "which metriloc did not make" in " ".join(capsys.readouterr().err.split())
    assert content(tmp_path) == before


def test_the_same_photos_are_mapped_again(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "map", tmp_path / "map")
    shutil.copytree(place / "photos", tmp_path / "photos")
    # as if both had moved
    facts = build_map(tmp_path / "photos", tmp_path / "map", config=CONFIG)
    assert facts.registered == 4 and facts.scale is None


def test_distances_that_contradict_each_other_are_told(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(place / "map" / "work", tmp_path / "map" / "work")
    arguments = ("--distance", "00.png", "01.png", 2, "--distance", "01.png", "02.png", 90)
    assert run("map", "build", place / "photos", "--out", tmp_path / "map", "--threads", 1, *arguments) == 0
    facts = read_facts(tmp_path / "map")
    assert facts is not None and facts.scale is not None and facts.scale.sigma > 1.5
    assert "within a factor of" in " ".join(capsys.readouterr().out.split())
    assert run("map", "info", tmp_path / "map") == 0
    assert "(90 m) and the distance of 00.png and 01.png (2 m) contradict" in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
@pytest.mark.parametrize("size", [(320, 240), (1, 1)])
def test_a_photo_that_shows_nothing_costs_itself_only(place: Path, tmp_path: Path, size: tuple[int, int]) -> None:
    shutil.copytree(place / "photos", tmp_path / "photos")
    shutil.copytree(place / "map", tmp_path / "map")
    Image.fromarray(np.full((size[1], size[0], 3), 128, np.uint8)).save(tmp_path / "photos" / "gray.png")
    added = add_photos(tmp_path / "map", tmp_path / "photos")
    (sentence,) = added.facts.left_out
    assert "gray.png" in sentence and "left out" in sentence
    assert added.facts.registered == 4 and added.facts.given == 5
    # what was left out once is left out again, with the same words
    facts = build_map(tmp_path / "photos", tmp_path / "map", config=CONFIG)
    assert facts.left_out == added.facts.left_out and len(read_map(tmp_path / "map")) == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--distance-sigma", -1), "distance_sigma must not be negative, got -1"),
        (("--distance-sigma", "nan"), "distance_sigma must be a finite number, got nan"),
        (("--positions-sigma", -3), "positions_sigma must be a positive number of metres"),
        (("--positions-sigma", "nan"), "positions_sigma must be a positive number of metres"),
        (("--camera-height", "nan"), "the height of the cameras must be"),
        (("--distance", "00.png", "00.png", 2.4), "which is one photo: name two"),
        (("--distance", "00.png", "photos/00.png", 2.4), "which is one photo: name two"),
        (("--distance", "00.png", "01.png", 1e9), "must be a positive number of metres, at most 1,000,000, got 1e+09"),
    ],
)
def test_metres_that_cannot_be_are_refused_before_the_work(
    place: Path, tmp_path: Path, arguments: tuple[object, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("map", "build", place / "photos", "--out", tmp_path / "map", *arguments) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "map").exists()
