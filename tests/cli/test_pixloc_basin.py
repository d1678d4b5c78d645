"""The convergence basin: starts have the errors that are wanted, and what counts as home."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
import torch

import metriloc
from metriloc.cli.main import main
from metriloc.evaluation.basin import BasinTry, basin
from metriloc.geometry import Pose
from metriloc.io import read_mapfree_poses
from metriloc.io.maps import map_from_view
from metriloc.types import PoseEstimate

EXAMPLE = Path(str(files("metriloc"))) / "data" / "example"


@dataclass
class Stays:
    """Answers with the start, moved by a share of the way to the truth."""

    truth: Pose
    name: str = "stays"
    weights_id: str = "none"
    finds: bool = True

    def localize(self, query: Any, scene: Any, references: Any, init: Any = None, **_: Any) -> PoseEstimate:
        if not self.finds:
            return PoseEstimate.failure("diverged")
        return PoseEstimate(init, torch.tensor(True), torch.tensor(1.0), (None,))


def case() -> tuple[Any, Any, Pose]:
    reference = metriloc.load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    truth = read_mapfree_poses(EXAMPLE / "poses.txt")["query.jpg"]
    assert truth is not None
    return metriloc.load_view(EXAMPLE / "query.jpg"), map_from_view(reference), truth


@pytest.mark.slow
def test_starts_have_the_errors_that_are_wanted() -> None:
    query, scene, truth = case()
    found = basin(Stays(truth), query, scene, ["reference.jpg"], truth, (2.0, 30.0), 6)
    assert [one.wanted for one in found] == [2.0] * 6 + [30.0] * 6
    for one in found:
        assert 0.4 * one.wanted < one.start < one.wanted
        assert one.end == pytest.approx(one.start, rel=1e-6)
    assert all(one.home() for one in found[:6]) and not any(one.home() for one in found[6:])
    assert found == basin(Stays(truth), query, scene, ["reference.jpg"], truth, (2.0, 30.0), 6)


def test_no_pose_is_not_home() -> None:
    query, scene, truth = case()
    (one,) = basin(Stays(truth, finds=False), query, scene, ["reference.jpg"], truth, (2.0,), 1)
    assert math.isinf(one.end) and not one.home() and not BasinTry(1, 1, 3.0).home()
    behind = Pose(truth.R, truth.t - torch.tensor([0.0, 0.0, 100.0]).to(truth.t))
    with pytest.raises(ValueError, match="no point"):
        basin(Stays(truth), query, scene, ["reference.jpg"], behind, (2.0,), 1)


@pytest.mark.slow
def test_the_command_counts_and_draws(tmp_path: Path, example_map: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "basin.html"
    scene = (example_map, EXAMPLE / "query.jpg", "--images", EXAMPLE, "--held-out")
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in ("pixloc", "basin", *scene, "--pixels", 4, 300, "--tries", 2, "--out", page)])
    assert not stop.value.code
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert next(row for row in rows if row and row[0] == "4")[1:3] == ["2", "100"]
    assert page.read_text().count("<svg") == 2
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in ("pixloc", "basin", example_map, EXAMPLE / "query.jpg", "--images", EXAMPLE)])
    assert stop.value.code == 2 and "true pose is not known" in capsys.readouterr().err
