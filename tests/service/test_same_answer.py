"""The service says what the command line says, bit for bit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import metriloc
from metriloc.cli.main import main
from metriloc.runs.map_bundle import bundle_map

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
NAMES = ("reference.jpg", "query.jpg", "reference.depth.png", "poses.txt")
pytestmark = [pytest.mark.extras, pytest.mark.slow]


Printed = Callable[..., Any]


@pytest.fixture()
def printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Printed:
    """``printed(*arguments)`` -> what the command line prints in a folder of the photos, but for the seconds it took."""
    for name in NAMES:  # without the list of intrinsics beside them
        shutil.copy(EXAMPLE / name, tmp_path)
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Any:
        capsys.readouterr()
        with pytest.raises(SystemExit):
            main([*arguments, "--json"])
        return untimed(json.loads(capsys.readouterr().out))

    return run


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: untimed(part) for key, part in value.items() if key != "timings_s"}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def photo(name: str) -> tuple[str, tuple[str, bytes]]:
    return "photo", (name, (EXAMPLE / name).read_bytes())


def asked(client: Any, anchor: dict[str, str], told: dict[str, str], *photos: str) -> Any:
    """What the service says of photos at an anchor of the reference, but for the seconds it took."""
    files = [photo("reference.jpg")]
    if "depth" in anchor:
        files.append(("depth", photo(anchor["depth"])[1]))
    fields = {name: value for name, value in anchor.items() if name != "depth"}
    made = client.post("/v1/anchors", data=fields, files=files)
    assert made.status_code == 201, made.text
    found = client.post(f"/v1/anchors/{made.json()['id']}/poses", data=told, files=[photo(name) for name in photos])
    assert found.status_code == 200, found.text
    return untimed(found.json())


@pytest.mark.parametrize(
    ("method", "anchor", "told", "arguments"),
    [
        ("identity", {"fov": "67.5"}, {"fov": "67.5", "seed": "3"}, ["--fov", "67.5", "--seed", "3"]),
        ("identity", {"k": "480 481 319 239"}, {"k": "480,481,319,239"}, ["--k", "480", "481", "319", "239"]),
        ("identity", {"k": "480 481 319 239"}, {}, ["--k-ref", "480", "481", "319", "239"]),
        ("xfeat", {}, {"distance": "0.61"}, ["--distance", "0.61"]),
        ("xfeat", {"depth": "reference.depth.png"}, {}, ["--depth", "reference.depth.png"]),
    ],
    ids=["fov", "k", "k of the reference", "distance", "depth map"],
)
def test_two_photos(
    started: Callable[..., Any],
    printed: Printed,
    method: str,
    anchor: dict[str, str],
    told: dict[str, str],
    arguments: list[str],
) -> None:
    found = asked(started(method=method), anchor, told, "query.jpg")
    assert found == printed("relpose", "reference.jpg", "query.jpg", "--method", method, *arguments)
    assert found["queries"][0]["success"]


def test_a_bad_photo_among_others_costs_itself(started: Callable[..., Any], printed: Printed) -> None:
    found = asked(started(method="xfeat"), {}, {}, "query.jpg", "poses.txt")
    assert found == printed("relpose", "reference.jpg", "query.jpg", "poses.txt", "--method", "xfeat")
    assert "error" in found["queries"][1]


def test_a_photo_in_a_map(started: Callable[..., Any], printed: Printed, example_map: Path, tmp_path: Path) -> None:
    file = tmp_path / "room.metriloc"
    bundle_map(example_map, file, images=EXAMPLE, methods=("xfeat-pnp",), photos=False)
    client = started(method="identity")
    made = client.post("/v1/maps", files=[("bundle", (file.name, file.read_bytes()))])
    assert made.status_code == 201, made.text
    assert made.json()["method"] == "xfeat-pnp" and made.json()["name"] == "room.metriloc"
    sent = [photo("query.jpg"), photo("poses.txt")]
    found = client.post(f"/v1/maps/{made.json()['id']}/poses", data={"fov": "60", "seed": "5"}, files=sent)
    assert found.status_code == 200, found.text
    arguments = ["room.metriloc", "query.jpg", "poses.txt", "--fov", "60", "--seed", "5"]
    assert untimed(found.json()) == printed("localize", *arguments)
    assert found.json()["queries"][0]["success"] and "error" in found.json()["queries"][1]
