"""Points of one photo or two to choose in a browser, box plots of stages: where marks stand, what is told, a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose
from metriloc.page import document
from metriloc.page.charts import box_chart
from metriloc.types import DenseFeatures, LocalizationDetails, PointMaps, PoseEstimate, SfmMap, Stage, Trace, View
from metriloc.viz.chooser import chooser_script
from metriloc.viz.localized import LocalizedQuery
from metriloc.viz.point_chooser import point_chooser
from metriloc.viz.stage_errors import stage_errors
from metriloc.viz.two_views import two_view_figure

CAMERA = Camera(torch.tensor([80.0, 60.0]), torch.tensor([70.0, 70.0]), torch.tensor([39.5, 29.5])).to(torch.float64)
UV = torch.tensor([[10.0, 12.0], [40.0, 30.0], [70.0, 50.0]], dtype=torch.float64)
IDENTITY = Pose.identity(dtype=torch.float64)
MOVED = Pose(torch.eye(3, dtype=torch.float64), torch.tensor([0.1, 0.0, 0.0], dtype=torch.float64))


def entry(*, maps: bool = True, truth: Pose | None = IDENTITY) -> LocalizedQuery:
    """Three points two metres away; P3P puts them 3.5 pixels to the right, the last stage where they belong."""
    xyz = CAMERA.unproject(UV)[0] * 2
    stages = (Stage("p3p", MOVED, 3.0, 0.2), Stage("fine", IDENTITY, -9.0, 0.6))
    index = torch.arange(3)
    scene = SfmMap(("a.jpg",), (CAMERA,), Pose.identity((1,), torch.float64), xyz, 0 * index, index, UV)
    values = torch.zeros(3, 60, 80)
    values[index, UV[:, 1].long(), UV[:, 0].long()] = torch.tensor([3.0, 2.0, 1.0])
    kept = PointMaps(
        "coarse", values, torch.zeros(3, 2, dtype=torch.long), (80, 60), 4.0, CAMERA, index, xyz, values.amax((1, 2))
    )
    details = LocalizationDetails(("a.jpg",), 3, stages)
    estimate = PoseEstimate(
        IDENTITY,
        torch.tensor(True),
        torch.tensor(0.8),
        (None,),
        localization=(details,),
        trace=Trace(stages, maps=(kept,) if maps else ()),
    )
    return LocalizedQuery(View(torch.zeros(3, 60, 80), CAMERA, name="q.jpg"), estimate, scene, truth)


def words_of(html: str) -> list[str]:
    found = re.search(r'<script type="application/json">(.*?)</script>', html)
    assert found is not None
    return list(json.loads(found[1]))


def places_of(html: str, stage: int) -> np.ndarray:
    layer = html.split(f'<g data-stage="{stage}"')[1].split("</g>")[0]
    return np.array([[float(v) for v in place.split()] for place in re.findall(r"translate\(([^)]*)\)", layer)])


def in_a_browser(folder: Path, figure: str, act: str = "") -> str:
    """The page as a browser has it that was asked for the second point. act: what is done in it by script."""
    file = folder / "page.html"
    file.write_text(document("a", figure, script=chooser_script() + act), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    address = f"{file.as_uri()}#point-2"
    return subprocess.run(
        [*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True
    ).stdout


def test_marks_stand_where_the_stages_put_the_points() -> None:
    html = point_chooser(entry(), maps=False)
    assert re.findall(r'data-stage="\d">.*?</svg>(\w+)</label>', html) == ["truth", "p3p", "fine"]
    np.testing.assert_allclose(places_of(html, 0), UV, atol=0.06)
    np.testing.assert_allclose(places_of(html, 1), UV + torch.tensor([3.5, 0.0]), atol=0.06)
    assert html.count("<line ") == 3  # from P3P to the last stage


def test_what_is_told_of_a_point() -> None:
    html = point_chooser(entry(), maps=False)
    assert words_of(html)[1] == "Point 2 of 3. Support 0.50. From truth: p3p 3.5 px, fine 0.0 px."
    without = point_chooser(entry(maps=False, truth=None), maps=False)
    assert words_of(without)[0] == "Point 1 of 3. From fine: p3p 3.5 px."


def test_every_point_carries_its_maps() -> None:
    pytest.importorskip("matplotlib")
    html = point_chooser(entry())
    assert (
        html.count("<img hidden data-point=") == 3
        and len(set(re.findall(r'hidden data-point="\d" src="([^"]*)', html))) == 3
    )
    assert "<img hidden" not in point_chooser(entry(maps=False))


def test_nothing_to_choose_is_no_figure() -> None:
    empty = LocalizedQuery(entry().query, PoseEstimate.failure("no_reference"), entry().scene)
    assert point_chooser(empty) == "" and stage_errors(empty) == ""


def test_the_figure_is_well_formed() -> None:
    class Balance(HTMLParser):
        open: list[str]

        def handle_starttag(self, tag: str, attrs: object) -> None:
            if tag not in ("img", "input", "path", "line"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            if tag not in ("path", "line"):
                assert self.open.pop() == tag

    parser = Balance()
    parser.open = []
    parser.feed(point_chooser(entry(), maps=False))
    assert parser.open == []


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no browser (chromium)")
def test_a_browser_shows_the_point_that_the_address_names(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    shown = in_a_browser(tmp_path, point_chooser(entry()))
    assert "Point 2 of 3. Support 0.50." in re.sub(r"<script.*?</script>", "", shown, flags=re.S)
    assert re.findall(r'<path data-point="(\d)"[^>]*class="chosen"', shown) == ["1"] * 3
    images = re.findall(r'<img( hidden="")? data-point="(\d)"', shown)
    assert [number for hidden, number in images if not hidden] == ["1"]


def test_boxes_of_the_stages() -> None:
    assert "p3p median 3.5" in stage_errors(entry()) and "Points, from truth" in stage_errors(entry())
    assert "Points, from fine" in stage_errors(entry(truth=None))
    values = np.linspace(1, 100, 100)
    html = box_chart("<t>", "px", {"a": values, "b": values / 10, "none": [np.nan]})
    assert "&lt;t&gt;" in html and "a median 50.5" in html and "b median 5.05" in html and "none" not in html
    boxes = re.findall(r'<g class="line\d">(.*?)</g>', html)
    medians = [float(re.findall(r'points="[\d.]+,([\d.]+) ', box)[4]) for box in boxes]
    ends = [float(re.findall(r'points="[\d.]+,([\d.]+) ', box)[5]) for box in boxes]
    assert medians[0] < medians[1] and all(middle < low for middle, low in zip(medians, ends, strict=True))
    assert box_chart("t", "px", {"a": [0.0]}) == "" and box_chart("t", "px", {}) == ""


# -- two photos ---------------------------------------------------------------------------------------------------------
XYZ = CAMERA.unproject(UV)[0] * 2


def two_views(seen: bool = False, xyz: torch.Tensor = XYZ) -> str:
    """Both cameras stand at one place; the start puts points 3.5 pixels to the right."""
    views = [View(torch.zeros(3, 60, 80), CAMERA, name=name) for name in ("a.jpg", "<b>.jpg")]
    stages = [Stage("start", MOVED, np.nan), Stage("result", IDENTITY, np.nan)]
    maps = torch.rand(4, 15, 20, generator=torch.Generator().manual_seed(0))
    looked = DenseFeatures("a", (maps, maps[:, ::2, ::2]), (maps[0], maps[0, ::2, ::2]))
    given = (looked, looked) if seen else None
    return two_view_figure(views[0], views[1], stages, IDENTITY, xyz, given, "a.jpg <b>.jpg")


def test_points_stand_in_both_photos() -> None:
    html = two_views()
    assert re.findall(r'data-stage="\d">.*?</svg>([\w ]+)</label>', html) == [
        "points of the reference",
        "truth",
        "start",
        "result",
    ]
    for stage, shift in enumerate((0, 0, 3.5, 0)):
        np.testing.assert_allclose(places_of(html, stage), UV + torch.tensor([shift, 0.0]), atol=0.06)
    assert words_of(html)[1] == "Point 2 of 3. From truth: start 3.5 px, result 0.0 px."
    assert "<b>a.jpg &lt;b&gt;.jpg</b>" in html and "<select" not in html


def test_points_that_the_query_does_not_see_are_told() -> None:
    behind = XYZ.clone()
    behind[0, 2] = -1
    assert words_of(two_views(xyz=behind))[0] == "Point 1 of 3. Not in the photo under truth."
    assert two_views(xyz=XYZ[:0]) == ""


def test_what_the_network_saw_can_be_shown() -> None:
    pytest.importorskip("matplotlib")
    html = two_views(seen=True)
    names = ["photo", "features of level 0", "features of level 1", "what is trusted"]
    assert re.findall(r"<option>(.*?)</option>", html) == names
    assert re.findall(r'data-layer="(.*?)"', html) == 2 * names
    assert html.count('width="80" height="60"') == 2 * len(names)  # what lies below the points has one size


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="there is no browser (chromium)")
def test_a_browser_marks_a_point_in_both_photos_and_shows_what_was_seen(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    act = (
        'const chosen = document.querySelector("select"); chosen.value = "what is trusted";'
        'chosen.dispatchEvent(new Event("change"));'
        "const box = document.querySelector(\"input[data-stage='2']\"); box.checked = false;"
        'box.dispatchEvent(new Event("change"));'
    )
    shown = in_a_browser(tmp_path, two_views(seen=True), act)
    assert "Point 2 of 3. From truth: start 3.5 px" in re.sub(r"<script.*?</script>", "", shown, flags=re.S)
    assert re.findall(r'<path data-point="(\d)"[^>]*class="chosen"', shown) == ["1"] * 4
    images = re.findall(r'data-layer="([^"]*)"( hidden="")?', shown)
    assert [name for name, hidden in images if not hidden] == ["what is trusted"] * 2
    assert re.findall(r'<g data-stage="(\d)"[^>]*class="off"', shown) == ["2"]
