"""Streams and training runs as they are seen afterwards: from what their folders hold."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import metriloc
from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.io import InputError
from metriloc.io.intrinsics import camera_as_dict
from metriloc.runs.viewed import open_viewed
from metriloc.runs.viewed_training import MAX_PICTURES, TrainingSeen, is_training_run
from metriloc.training.pages import validation_page
from metriloc.training.validation import Picture, Validation

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
CAMERA = camera_as_dict(Camera.from_colmap("PINHOLE", 640, 480, (520.0, 520.0, 320.0, 240.0)).to(torch.float64))
DOUBLE = torch.float64


def line(index: int, x: float, **changes: Any) -> dict[str, Any]:
    pose = Pose(so3_exp(torch.tensor([0.0, 0.1 * x, 0.0], dtype=DOUBLE)), torch.tensor([-x, 0.0, 0.0], dtype=DOUBLE))
    return {
        "index": index,
        "query": f"f{index}.jpg",
        "photo": str(EXAMPLE / "query.jpg"),
        "time": 0.1 * index,
        "state": "tracking",
        "success": True,
        "confidence": 0.9,
        "verdict": "reliable",
        "query_from_reference": pose.to_dict(to_frame="query camera", from_frame="reference camera"),
        "covariance": (1e-4 * torch.eye(6)).tolist(),
        "camera": CAMERA,
        "track": {"notes": [{"trouble": "clock_jump", "said": "the clock leapt"}]},
        **changes,
    }


@pytest.fixture
def track(tmp_path: Path) -> Callable[..., Path]:
    """A folder of ``metriloc track`` against the photo of the example, with these lines."""

    def write(*entries: dict[str, Any], reference: dict[str, Any] | None = None, target: Path | None = None) -> Path:
        header = {
            "format": "metriloc-track-1",
            "target": str(target or EXAMPLE / "reference.jpg"),
            "settings": {},
            "conventions": {"lengths": "metres"},
            "reference": reference or {"camera": CAMERA},
        }
        (tmp_path / "run.json").write_text(json.dumps(header))
        (tmp_path / "frames.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
        return tmp_path

    return write


def test_a_stream_is_a_way_that_breaks_where_it_was_lost(track: Callable[..., Path]) -> None:
    lost = {"index": 2, "query": "f2.jpg", "photo": "gone.jpg", "time": 0.2, "success": False, "state": "lost"}
    unusable = {**lost, "index": 3, "error": "no photo"}
    entries = (line(0, 0.0, state="found"), line(1, 0.1), lost, unusable, line(4, 0.4, time=None, state="relocalised"))
    viewed = open_viewed(track(*entries))
    reference, *frames = viewed.scene.frusta
    assert viewed.title == "reference.jpg: 3 of 5 frames" and reference.role == "reference" and reference.time is None
    assert [frame.time for frame in frames] == [0.0, pytest.approx(0.1), 4.0]
    assert [frame.after_gap for frame in frames] == [True, False, True]
    assert [frame.color is None for frame in frames] == [False, True, False]
    assert frames[1].center == pytest.approx(Pose.identity(dtype=DOUBLE).center().numpy() + _center(0.1), abs=1e-9)
    assert frames[1].spread == pytest.approx(1e-4 * np.eye(3)) and frames[1].thumbnail is not None
    assert ("note", "the clock leapt") in frames[1].facts


def _center(x: float) -> np.ndarray:
    R = so3_exp(torch.tensor([0.0, 0.1 * x, 0.0], dtype=DOUBLE))
    return (-R.mT @ torch.tensor([-x, 0.0, 0.0], dtype=DOUBLE)).numpy()


def test_a_stream_in_a_map(track: Callable[..., Path], tmp_path: Path) -> None:
    gone = track(line(0, 0.0), target=tmp_path / "no map")
    header = json.loads((gone / "run.json").read_text())
    (gone / "run.json").write_text(json.dumps({**header, "reference": None}))
    with pytest.raises(InputError, match="no map"):
        open_viewed(gone)


def test_a_frame_that_is_being_written_is_left_out(track: Callable[..., Path]) -> None:
    folder = track(line(0, 0.0), line(1, 0.1))
    with open(folder / "frames.jsonl", "a") as file:
        file.write('{"index": 2, "que')
    assert open_viewed(folder).title.endswith("2 of 2 frames")


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ((), "is empty"),
        ((line(0, 0.0, success=False),), "holds no pose: none of 1 frames"),
        ((line(0, 0.0, covariance=[[1.0]]),), r"has shape \[1, 1\]"),
        ((line(0, 0.0, covariance="x"),), "is damaged"),
        ((line(0, 0.0, photo=3, verdict=None, confidence="x"),), "is damaged"),
        (([1],), "line 1, is no frame"),
    ],
)
def test_damaged_streams_are_named(track: Callable[..., Path], entries: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        open_viewed(track(*entries))


def test_other_runs_are_told_from_streams(track: Callable[..., Path]) -> None:
    folder = track(line(0, 0.0))
    (folder / "run.json").write_text('{"method": "xfeat"}')
    with pytest.raises(InputError, match="was not written by metriloc track"):
        open_viewed(folder)


# -- training ---------------------------------------------------------------------------------------------------------
def test_curves_and_pictures_of_a_training_run(tmp_path: Path) -> None:
    assert not is_training_run(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    metrics = tmp_path / "metrics.jsonl"
    lines = [
        {"kind": "train", "step": 10, "lr": 0.1, "loss": 2.0},
        {"kind": "validation", "step": 10, "auc": None},
        {"kind": "train", "step": 20, "lr": 0.1, "loss": 1.0},
    ]
    metrics.write_text("".join(json.dumps(entry) + "\n" for entry in lines) + '{"kind": "tr')
    assert is_training_run(tmp_path)
    seen = TrainingSeen(tmp_path)
    curves = seen.curves()
    assert curves is not None and list(curves) == ["train loss", "validation auc", "train lr"]
    assert curves["train loss"] == ([10.0, 20.0], [2.0, 1.0]) and math.isnan(curves["validation auc"][1][0])
    assert seen.curves() is None, "nothing is new"
    assert seen.pictures() is None
    rgb = np.zeros((4, 6, 3), np.uint8)
    rgb[:2] = (250, 10, 20)
    pictures = tuple(Picture(f"a <b> {n}", rgb) for n in range(MAX_PICTURES + 3))
    (tmp_path / "validation").mkdir()
    (tmp_path / "validation" / "step_00000020.html").write_text(validation_page("t", 20, Validation({}, pictures), {}))
    found = seen.pictures()
    assert found is not None and found[0] == "validation at step 20" and len(found[1]) == MAX_PICTURES
    assert found[1][0].title == "a <b> 0" and (found[1][0].rgb == rgb).all()
    assert seen.pictures() is None
    broken = '<img src="data:image/png;base64,AAAA" alt="x">'
    (tmp_path / "validation" / "step_00000030.html").write_text(broken)
    assert seen.pictures() is None
