"""Reports: every number is there, text from outside is escaped, the page needs nothing else and repeats byte for byte."""

from __future__ import annotations

import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.datasets.sources import FramePair, PosedFrame
from metriloc.evaluation.absolute import AbsoluteScore, score_absolute
from metriloc.evaluation.page import failure_figure, query_figure, render_page
from metriloc.evaluation.records import Record
from metriloc.evaluation.report import (
    absolute_report,
    as_json,
    as_markdown,
    comparison_table,
    markdown_table,
    number,
    pair_report,
    worst_failures,
    write_report,
)
from metriloc.evaluation.scoring import score_pairs
from metriloc.evaluation.statistics import compare
from metriloc.evaluation.tasks import PairTask
from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.io import InputError


def make_tasks(folder: Path, n: int = 12) -> tuple[list[PairTask], list[Record]]:
    """Pairs of two made-up photos; one estimate in four is far off, one missing, one without metres."""
    g = torch.Generator().manual_seed(0)
    for name in ("a.jpg", "<b>.jpg"):
        pixels = (torch.rand(48, 64, 3, generator=g).numpy() * 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / name, "JPEG")
    camera = Camera.from_fov((64, 48), 1.0).to(torch.float64)
    tasks, records = [], []
    for i in range(n):
        w, t = 0.1 * torch.randn(2, 3, generator=g, dtype=torch.float64)
        truth = Pose(so3_exp(w), t + torch.tensor([0.0, 0.0, 0.3]))
        scene = f"scene {i % 2}"
        first = PosedFrame(scene, "a.jpg", folder / "a.jpg", camera, Pose.identity((), torch.float64))
        second = PosedFrame(scene, f"<b>{i}.jpg", folder / "<b>.jpg", camera, truth)
        tasks.append(PairTask(FramePair(first, second)))
        off = Pose(so3_exp(w + (0.8 if i % 4 == 0 else 0.002)), truth.t * (2 if i % 4 == 0 else 1.01))
        key = tasks[-1].key
        if i % 4 == 1:
            records.append(Record(key, False, 0.0, reason="too_few_matches"))
        else:
            values = tuple(off.quaternion().tolist()), tuple(off.t.tolist())
            records.append(Record(key, True, 0.9 - 0.05 * i, *values, metric=i % 4 != 3))
    return tasks, records


class Checker(HTMLParser):
    """Collects tags and whatever would be loaded from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.outside: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href") and value and not value.startswith(("data:", "#")):
                self.outside.append(value)


def test_pair_report_holds_all_and_escapes_what_comes_from_outside(tmp_path: Path) -> None:
    tasks, records = make_tasks(tmp_path)
    scores = score_pairs(tasks, records)
    report = pair_report("<xfeat> on pairs", {"method": "x|y"}, scores, records, draws=30, scannet=True)
    figures = [failure_figure(tasks[i], scores, i) for i in report.worst]
    page = render_page(report, figures)
    checker = Checker()
    checker.feed(page)
    assert checker.outside == [] and checker.tags.count("svg") == 4 and checker.tags.count("img") == len(figures) > 0
    assert "<xfeat>" not in page and "&lt;b&gt;" in page and "<script" not in page
    assert page == render_page(report, figures)
    text = as_markdown(report)
    assert "VCRE: how far apart virtual points" in text and "VCRE: how far apart virtual points" in page
    assert "x\\|y" in text and "too_few_matches" in text and "no metres" in text and "scene 1" in text
    data = json.loads(as_json(report))
    assert set(report.metrics) == set(data["metrics"]) and "calibration" in data
    assert data["metrics"]["estimates"]["value"] == 0.75
    files = write_report(tmp_path, report, page)
    assert [file.name for file in files] == ["report.json", "report.md", "report.html"]
    assert all(file.stat().st_size > 500 for file in files)


def test_scores_of_made_up_pairs(tmp_path: Path) -> None:
    tasks, records = make_tasks(tmp_path)
    scores = score_pairs(tasks, records)
    lost = np.arange(12) % 4 == 1
    assert np.isnan(scores.rotation_deg[lost]).all() and not scores.estimated[lost].any()
    unscaled = np.arange(12) % 4 == 3
    assert np.isnan(scores.center_m[unscaled]).all() and np.isfinite(scores.rotation_deg[unscaled]).all()
    good = np.arange(12) % 4 == 2
    assert (scores.rotation_deg[good] < 1).all() and (scores.center_m[good] < 0.05).all()
    right = scores.rotation_deg < 5
    worst = worst_failures(scores, right)
    assert worst == [0, 4, 8]  # the surest of the wrong ones first
    part = scores.subset(np.array([2, 2, 6]))
    assert part.keys == (scores.keys[2], scores.keys[2], scores.keys[6]) and part.estimate.shape == (3,)
    withheld = PairTask(FramePair(tasks[0].pair.frame0, PosedFrame("s", "x", tmp_path, tasks[0].pair.frame1.camera)))
    with pytest.raises(InputError, match="withheld"):
        score_pairs([withheld], records[:1])


def test_a_photo_that_cannot_be_read_is_a_sentence_in_the_page(tmp_path: Path) -> None:
    tasks, records = make_tasks(tmp_path)
    scores = score_pairs(tasks, records)
    (tmp_path / "<b>.jpg").unlink()
    assert "does not exist" in failure_figure(tasks[0], scores, 0)
    assert "does not exist" in query_figure(tasks[0].pair.frame1, "c")


def test_absolute_report_and_tables(generator: torch.Generator) -> None:
    w, t = torch.randn(2, 3, 3, dtype=torch.float64, generator=generator)
    truth = {f"s/{i}": Pose(R, x) for i, (R, x) in enumerate(zip(so3_exp(w), t, strict=True))}
    score: AbsoluteScore = score_absolute({"s/0": truth["s/0"], "s/1": truth["s/2"]}, truth)
    report = absolute_report("t", {}, score, ["s", "s", "z"])
    assert report.scenes["z"]["median center error (m)"] == float("inf") and report.worst[0] == 2
    assert "1 of 3 queries have no pose" in report.notes[0]
    assert json.loads(as_json(report))["scenes"]["z"]["median center error (m)"] is None
    assert number(float("nan")) == "—" and number(3.0) == "3" and number(0.123456) == "0.1235"
    assert markdown_table([]) == "" and number(float("inf")) == "inf"
    # a scene without any pose stopped the page and the Markdown with an OverflowError
    assert "<td>inf</td>" in render_page(report) and "| inf |" in as_markdown(report)


def test_comparison_table(tmp_path: Path) -> None:
    tasks, records = make_tasks(tmp_path)
    scores = score_pairs(tasks, records)
    table = comparison_table(compare(scores, scores, count=20), "a", "b")
    assert all(row[1] == row[2] and row[-1] == "no" for row in table[1:])


def test_the_page_needs_no_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks, records = make_tasks(tmp_path)
    report = pair_report("t", {}, score_pairs(tasks, records), records, draws=5)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert render_page(report).count("<svg") == len(report.curves) + 1
