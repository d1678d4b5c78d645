"""What ``map.json`` says reaches everybody: metres, contradictions, damage; and maps that hold nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import metriloc
from metriloc.cli.main import main
from metriloc.mapping.facts import MapFacts, ScaleFacts, facts_text
from metriloc.opened_map import open_map
from metriloc.runs.localize_results import LocalizeRun
from metriloc.runs.queries import QueryPhoto

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
DISPUTED = ScaleFacts(1.9, ({"said": "2 m between a and b", "share": 1.0},), (("the long tape", "the short tape"),))
Make = Callable[[ScaleFacts | None], Path]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0)


@pytest.fixture()
def make(example_map: Path, tmp_path: Path) -> Make:
    """The example's map with a map.json of such a scale."""

    def made(scale: ScaleFacts | None) -> Path:
        model = tmp_path / "map" / "sparse"
        shutil.copytree(example_map, model)
        facts = MapFacts(str(EXAMPLE), 2, 2, 0.5, scale=scale)
        (model / "map.json").write_text(facts_text(facts, model))
        return model.parent

    return made


def localized(place: Path, tmp_path: Path) -> dict[str, Any]:
    query = tmp_path / "query.jpg"
    shutil.copyfile(EXAMPLE / "query.jpg", query)
    out = tmp_path / "result"
    arguments = (place, query, "--fov", "60", "--method", "xfeat-pnp", "--out", out, "--no-html")
    assert run("localize", *arguments) == 0
    content: dict[str, Any] = json.loads((out / "poses.json").read_text())
    return content


def test_poses_in_a_map_in_metres_are_in_metres(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = localized(make(ScaleFacts(0.01)), tmp_path)
    (entry,) = content["queries"]
    assert entry["cam_from_world"]["translation_unit"] == "metre" and content["conventions"]["lengths"] == "metres"
    assert {stage["cam_from_world"]["translation_unit"] for stage in entry["stages"]} == {"metre"}
    assert not any("contradict" in doubt for doubt in entry["doubts"])
    assert " m, y " in " ".join(capsys.readouterr().out.split())


def test_poses_in_a_map_without_metres_are_in_its_units(make: Make, tmp_path: Path) -> None:
    content = localized(make(None), tmp_path)
    assert content["queries"][0]["cam_from_world"]["translation_unit"] == "unit of the map"
    assert content["conventions"]["lengths"] == "units of the map"


def test_metres_that_contradict_themselves_are_told_by_everybody(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place, said = make(DISPUTED), "the long tape and the short tape contradict each other about the scale"
    assert run("map", "info", place) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert said in told and "within a factor of 6.7" in told
    assert run("map", "check", place) == 1
    assert said in " ".join(capsys.readouterr().out.split())
    (entry,) = localized(place, tmp_path)["queries"]
    assert entry["verdict"] == "doubtful" and any(said in doubt for doubt in entry["doubts"])
    assert said in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("text", ["[]", "{}", "NaN", '{"format": 1', '{"format": 1, "scale": {"sigma": NaN}}'])
@pytest.mark.parametrize("command", [("localize",), ("map", "info")])
def test_a_damaged_map_json_is_named(
    make: Make, text: str, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    place = make(None)
    (place / "sparse" / "map.json").write_text(text)
    photos = [EXAMPLE / "query.jpg"] if command == ("localize",) else []
    assert run(*command, place, *photos) == 2
    assert "map.json" in capsys.readouterr().err


def test_a_scale_that_is_no_number_is_refused(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    place = make(ScaleFacts(float("nan")))
    assert run("localize", place, EXAMPLE / "query.jpg") == 2
    assert "map.json' is damaged" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize("command", [("localize",), ("map", "info"), ("map", "check")])
def test_an_empty_map_is_called_empty(
    tmp_path: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("cameras", "images", "points3D"):
        (tmp_path / f"{name}.txt").touch()
    photos = [EXAMPLE / "query.jpg", "--images", EXAMPLE] if command == ("localize",) else []
    assert run(*command, tmp_path, *photos) == 2
    assert "is empty (0 photos with a pose, 0 points)" in " ".join(capsys.readouterr().err.split())


def test_another_scale_is_another_run(make: Make, tmp_path: Path) -> None:
    place, photo = make(ScaleFacts(0.01)), QueryPhoto(EXAMPLE / "query.jpg", "query.jpg")

    def fingerprint() -> str:
        run = LocalizeRun(str(place), open_map(place).scene, "nre", "w", {}, "file")
        return run.fingerprint(photo)

    before = fingerprint()
    assert fingerprint() == before
    facts = MapFacts(str(EXAMPLE), 2, 2, 0.5, scale=ScaleFacts(0.011))
    (place / "sparse" / "map.json").write_text(facts_text(facts, place / "sparse"))
    assert fingerprint() != before
