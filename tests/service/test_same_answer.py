"""The service says what the command line says, bit for bit."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import metriloc
from metriloc.cli.main import main

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
pytestmark = [pytest.mark.extras, pytest.mark.slow]


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What the command line prints in the folder of the photos, but for the seconds it took."""
    here = Path.cwd()
    capsys.readouterr()
    os.chdir(EXAMPLE)
    try:
        with pytest.raises(SystemExit):
            main([*arguments, "--json"])
    finally:
        os.chdir(here)
    return untimed(json.loads(capsys.readouterr().out))


def untimed(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: untimed(part) for key, part in value.items() if key != "timings_s"}
    return [untimed(part) for part in value] if isinstance(value, list) else value


def photo(name: str) -> tuple[str, tuple[str, bytes]]:
    return "photo", (name, (EXAMPLE / name).read_bytes())


@pytest.mark.parametrize(
    ("anchor", "asked", "arguments"),
    [
        ({}, {"seed": "3"}, ["--seed", "3"]),
        ({"fov": "67.5"}, {"fov": "67.5"}, ["--fov", "67.5"]),
        ({"k": "480 481 319.5 239.5"}, {"k": "480,481,319.5,239.5"}, ["--k", "480", "481", "319.5", "239.5"]),
        ({"distance": "0.61"}, {}, ["--distance", "0.61"]),
        ({}, {"distance": "0.61"}, ["--distance", "0.61"]),
        ({"depth": "reference.depth.png"}, {}, ["--depth", "reference.depth.png"]),
    ],
    ids=["seed", "fov", "k", "distance of the anchor", "distance asked", "depth map"],
)
def test_two_photos(
    started: Callable[..., Any],
    capsys: pytest.CaptureFixture[str],
    anchor: dict[str, str],
    asked: dict[str, str],
    arguments: list[str],
) -> None:
    client = started(method="xfeat")
    files = [photo("reference.jpg")]
    if "depth" in anchor:
        name = anchor.pop("depth")
        files.append(("depth", (name, (EXAMPLE / name).read_bytes())))
    made = client.post("/v1/anchors", data=anchor, files=files)
    assert made.status_code == 201, made.text
    found = client.post(f"/v1/anchors/{made.json()['id']}/poses", data=asked, files=[photo("query.jpg")])
    assert found.status_code == 200, found.text
    wanted = printed(capsys, "relpose", "reference.jpg", "query.jpg", "--method", "xfeat", *arguments)
    assert untimed(found.json()) == wanted
    assert wanted["queries"][0]["success"]


def test_a_bad_photo_among_others_costs_itself(started: Callable[..., Any], capsys: pytest.CaptureFixture[str]) -> None:
    client = started(method="xfeat")
    made = client.post("/v1/anchors", files=[photo("reference.jpg")]).json()
    sent = [photo("query.jpg"), ("photo", ("poses.txt", (EXAMPLE / "poses.txt").read_bytes()))]
    found = client.post(f"/v1/anchors/{made['id']}/poses", files=sent)
    wanted = printed(capsys, "relpose", "reference.jpg", "query.jpg", "poses.txt", "--method", "xfeat")
    assert untimed(found.json()) == wanted
    assert "error" in wanted["queries"][1]
