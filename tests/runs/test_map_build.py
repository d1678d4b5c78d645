"""What ``build_map`` is made of, on a map that is there already."""

from __future__ import annotations

from pathlib import Path

import pytest
from example_map import write_model

from metriloc.io.maps import read_map
from metriloc.mapping.build import Models
from metriloc.mapping.facts import read_facts
from metriloc.runs.map_build import MapFacts, install_map, no_bar, summary

pytest.importorskip("pycolmap", reason="maps are read by COLMAP")


def test_a_model_is_installed_with_its_facts(tmp_path: Path) -> None:
    write_model(tmp_path / "0")
    names = ["reference.jpg", "query.jpg"]
    models = Models(tmp_path, [{"folder": "0", "names": names, "error_px": 0.5, "points": 1}], ())
    facts = MapFacts("photos", given=3, registered=2, error_px=0.5, alone=("third.jpg",))
    installed = install_map(models, facts, tmp_path / "map", lambda scene: (None, ["no scale was given"]))
    assert installed.notes == ("no scale was given",) and installed.unit == "unit of the map"
    assert sorted(read_map(tmp_path / "map").names) == sorted(names)
    read = read_facts(tmp_path / "map")
    assert read is not None and (read.alone, read.notes) == (installed.alone, installed.notes)
    said = summary(installed, "map")
    assert said[0] == "map: 2 of 3 photos, mean reprojection error 0.50 px"
    assert "  no scale was given" in said and said[-1] == "1 photos could not be placed: third.jpg"


def test_nobody_looks_at_no_bar() -> None:
    with no_bar("photos") as progress:
        assert progress is None
