"""Models of the hub on the command line: by name, with their licence, beside the list of the other methods."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import metriloc
from metriloc.choose import HUB_METHOD, METHODS
from metriloc.cli.main import main

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
PHOTOS = (EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg")


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    return int(stop.value.code or 0)


def test_help_lists_every_method_and_the_hub(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("relpose", "--help") == 0
    told = "".join(capsys.readouterr().out.split())
    assert f"{{{','.join((*METHODS, HUB_METHOD))}}}" in told


@pytest.mark.parametrize("command", [("relpose", *PHOTOS), ("demo",)])
def test_a_wrong_method_is_one_sentence_with_the_list(
    command: tuple[object, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*command, "--method", "orb") == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "there is no method 'orb'" in told
    assert all(name in told for name in (*METHODS, HUB_METHOD))


def test_a_wrong_hub_name_is_one_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("relpose", *PHOTOS, "--method", "hub:nobody") == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run("relpose", *PHOTOS, "--method", "xfeat", "--depth-source", "hub:./gone") == 2
    assert "there is no folder 'gone'" in capsys.readouterr().err


@pytest.mark.hub
def test_relpose_prints_the_licence_and_names_the_weights(
    checkpoint: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    lightglue, depth = checkpoint("lightglue"), checkpoint("depth_pro")
    capsys.readouterr()
    photos = []  # copies, without the list of intrinsics that lies beside the photos
    for path in PHOTOS:
        photos.append(lightglue.parent / path.name)
        photos[-1].write_bytes(path.read_bytes())
    code = run("relpose", *photos, "--method", f"hub:{lightglue}", "--depth-source", f"hub:{depth}", "--json")
    out, err = capsys.readouterr()
    assert code in (0, 1)  # random weights
    assert [line for line in err.splitlines() if "licence" in line] == [
        f"metriloc relpose: hub:{lightglue}: licence by its card: magic-leap (other)",
        f"metriloc relpose: hub:{depth}: licence by its card: no licence stated",
    ]
    shown = json.loads(out)
    assert shown["weights_id"].startswith("lightglue-")
    told = [shown["reference"]["intrinsics_source"], *(q["intrinsics_source"] for q in shown["queries"])]
    assert len(told) == 2 and all("from the photo by hub:" in source for source in told)
