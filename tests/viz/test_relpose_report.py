"""The HTML report: one file, no request, no script but ours, every number shown."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import io
import json
import re
from html.parser import HTMLParser
from importlib import resources

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View
from metriloc.viz import Picture, QueryReport, RelposeReport, SoftwareFacts, relpose_report

HOSTILE = "</script><script>alert(1)</script>\"'<img src=x onerror=alert(2)>&\u2028\u202egpj.<!--\udcff.jpg"
TRUE = Pose(so3_exp(torch.tensor([0.0, -0.5, 0.0])), torch.tensor([1.0, 0.2, 0.3]))


class Elements(HTMLParser):
    """Every element with its attributes, and the text of the scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.elements and self.elements[-1][0] == "script" and self.get_starttag_text().startswith("<script"):
            self.scripts.append(data)
        self.text += data


def view(name: str) -> View:
    return View(torch.full((3, 48, 64), 0.5), Camera.from_fov((64, 48), 1.0), name=name, intrinsics_source="--fov <57>")


def estimate(metric: bool = True) -> PoseEstimate:
    xyz = torch.tensor([[0.1, 0.2, 4.0], [-0.5, 0.3, 5.0], [0.4, -0.2, 6.0]])
    camera = view("").camera
    nan = torch.full((3,), torch.nan)
    inliers = Correspondences(camera.project(xyz)[0], camera.project(TRUE.transform(xyz))[0], nan, nan, torch.ones(3))
    details = PairDetails(
        score=2.5,
        inliers=inliers,
        metric=metric,
        scale_source="depth map" if metric else "no depth map was given",
        timings={"matching <b>": 0.1234, "solver": 0.05},
    )
    pose = TRUE if metric else Pose(TRUE.R, TRUE.t / TRUE.distance())
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(0.71), (None,), (details,))


def report(*queries: QueryReport, name: str = "reference.jpg", warnings: tuple[str, ...] = ()) -> str:
    facts = SoftwareFacts("1.2.3", "mickey", "mickey-v1 (sha256 abc)", 7, "2025-01-31", warnings)
    return relpose_report(RelposeReport("Relative pose", view(name), queries, facts))


def picture(width: int = 40, height: int = 30) -> Picture:
    return Picture("Matches", np.full((height, width, 3), 90, np.uint8), "Left the reference.")


def scenes(html: str) -> list[dict]:
    return [json.loads(s) for s in re.findall(r'<script type="application/json">(.*?)</script>', html)]


def test_it_requests_nothing() -> None:
    html = report(
        QueryReport(view("a.jpg"), estimate(), (picture(),), TRUE), QueryReport(view("b.jpg"), estimate(metric=False))
    )
    assert not re.search(r"https?://|//[a-z]+\.[a-z]|@import|url\(|fetch\(|XMLHttp|WebSocket|import\(", html)
    for tag, attributes in Elements(html).elements:
        assert tag not in {"link", "iframe", "object", "embed", "base", "form"}
        assert (attributes.get("src") or "data:").startswith("data:image/jpeg;base64,") or "src" not in attributes
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") or name in {"srcset", "action", "data"} for name in attributes)


def test_the_policy_allows_exactly_our_script() -> None:
    html = report(QueryReport(view("a.jpg"), estimate()))
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)
    script = re.search(r"<script>(.*?)</script>", html, re.S)
    assert policy and script
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy[1] and "default-src 'none'" in policy[1]
    assert "unsafe-inline" not in policy[1].replace("style-src 'unsafe-inline'", "")


def test_hostile_names_stay_text() -> None:
    nasty = QueryReport(view(HOSTILE), estimate(), (Picture(HOSTILE, picture().rgb, HOSTILE),), TRUE)
    html = report(nasty, QueryReport(view("b"), PoseEstimate.failure("degenerate")), name=HOSTILE, warnings=(HOSTILE,))
    html.encode("utf-8")
    parsed = Elements(html)
    tags = [tag for tag, _ in parsed.elements]
    assert tags.count("script") == 2 and tags.count("img") == 1, "one scene, one viewer, one picture"
    assert "alert(1)" in parsed.text and "<img src=x onerror=alert(2)>" in parsed.text
    assert "\u2028" not in html and "\u202e" not in html and "<!--" not in html
    assert all("onerror" not in attributes for _, attributes in parsed.elements)


def test_json_cannot_leave_its_script() -> None:
    from metriloc.page import embedded_json

    text = embedded_json({"label": HOSTILE})
    assert not re.search(r"[<>&\u2028]|[^\x00-\x7f]", text)
    assert json.loads(text) == {"label": HOSTILE}
    with pytest.raises(ValueError, match="not JSON compliant"):
        embedded_json([float("nan")])


def test_numbers_are_there() -> None:
    html = report(QueryReport(view("a.jpg"), estimate(), (picture(),), TRUE))
    text = Elements(html).text
    assert "The second camera stood 1.06 m away, turned 29°, confidence 0.71 (uncalibrated)." in text
    assert "0.71 uncalibratedno calibration says what it means" in text
    for row in TRUE.matrix():
        assert " ".join(f"{float(v):9.6f}" for v in row) in text
    assert " ".join(f"{float(v):9.6f}" for v in TRUE.quaternion()) in text
    assert "query_from_reference" in text and "w x y z" in text and "x right, y down, z forward; metres" in text
    for expected in ("--fov <57>", "123 ms", "173 ms", "matching <b>", "3 (score 2.5)", "depth map", "64×48 px"):
        assert expected in text, expected
    for expected in ("1.2.3", "mickey-v1 (sha256 abc)", "2025-01-31", "7"):
        assert expected in text, expected


def test_errors_beside_a_true_pose() -> None:
    true = Pose(so3_exp(torch.tensor([0.0, 0.1, 0.0])) @ TRUE.R, TRUE.t)
    text = Elements(report(QueryReport(view("a.jpg"), estimate(), (), true))).text
    apart = float((TRUE.center() - true.center()).norm())
    assert f"error: rotation{np.degrees(0.1):.2f}°" in text and f"error: position{apart:.2f} m" in text
    assert "error:" not in Elements(report(QueryReport(view("a.jpg"), estimate()))).text


def test_a_failure_renders_without_a_pose() -> None:
    html = report(QueryReport(view("a.jpg"), PoseEstimate.failure("too_few_matches"), (picture(),), TRUE))
    text = Elements(html).text
    assert "No pose found: too few matches. The photos may not show the same place" in text
    assert "<canvas" not in html and "nan" not in text.replace("performance", "").lower()
    assert "Intrinsics" in text and "Matches." in text


def test_without_metres_it_never_says_metres() -> None:
    html = report(QueryReport(view("a.jpg"), estimate(metric=False), (), TRUE))
    text = Elements(html).text
    assert "Direction only: no metres because no depth map was given." in text
    assert "m away" not in text and "error: position" not in text and "error: direction" in text
    (scene,) = scenes(html)
    assert scene["metric"] is False and scene["baseline"] == 1.0


def test_the_scene_carries_photos_and_points() -> None:
    (scene,) = scenes(report(QueryReport(view("a.jpg"), estimate(), (), TRUE)))
    assert [f["role"] for f in scene["frusta"]] == ["reference", "query", "truth"]
    assert [bool(f["image"]) for f in scene["frusta"]] == [True, True, False]
    assert np.array(scene["points"]).shape == np.array(scene["colours"]).shape == (3, 3)
    assert scene["points"][1] == pytest.approx([-0.5, 0.3, 5.0], abs=2e-3)
    assert scene["baseline"] == pytest.approx(float(TRUE.distance()), rel=1e-4)


def test_pictures_are_embedded_and_reduced() -> None:
    html = report(QueryReport(view("a.jpg"), PoseEstimate.failure("degenerate"), (picture(1600, 400),)))
    (uri,) = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', html)
    assert Image.open(io.BytesIO(base64.b64decode(uri))).size == (1000, 250)
    assert 'width="1000" height="250"' in html


def test_many_queries_get_an_overview_with_links() -> None:
    html = report(
        QueryReport(view("a.jpg"), estimate()),
        QueryReport(view("b.jpg"), estimate(metric=False)),
        QueryReport(view("c.jpg"), PoseEstimate.failure("non_finite")),
    )
    identifiers = {a["id"] for _, a in Elements(html).elements if "id" in a}
    links = [a["href"] for tag, a in Elements(html).elements if tag == "a"]
    assert links == ["#query-1", "#query-2", "#query-3"] and {link[1:] for link in links if link} <= identifiers
    assert "direction only" in html and "no pose" in html
    assert 'class="overview"' not in report(QueryReport(view("a.jpg"), estimate()))


@pytest.mark.parametrize(
    ("judgement", "metric", "color"),
    [
        ("reliable", True, "found"),
        ("uncalibrated", True, "found"),
        ("reliable", False, "direction"),
        ("doubtful", True, "direction"),
        ("failed", True, "failed"),
        ("failed", False, "failed"),
    ],
)
def test_the_color_follows_the_judgement(judgement: str, metric: bool, color: str) -> None:
    meaning = "" if judgement == "uncalibrated" else "a <b> target"
    confidence = {"reliable": 0.95, "failed": 0.1}.get(judgement, 0.71)
    found = dataclasses.replace(
        estimate(metric),
        confidence=torch.tensor(confidence),
        probability_of=meaning,
        distance_interval=(1.0, 1.1) if metric else None,
    )
    entry = QueryReport(view("a.jpg"), found)
    html = report(entry, entry)
    assert html.count(f'<p class="verdict {color}">') == 2 and html.count(f'<tr class="{color}">') == 2
    text = Elements(html).text
    assert f"confidence {confidence:.2f} ({judgement}" in text
    if meaning:
        assert f"{confidence:.2f} {judgement}the probability of a <b> target" in text


def test_dollar_signs_and_an_empty_report() -> None:
    html = report(QueryReport(view("${title} $$5.jpg"), estimate()), name="$reference")
    assert "${title} $$5.jpg" in html and "$reference" in html
    assert "<h1>Relative pose</h1>" in report()


def test_batched_estimates_are_refused() -> None:
    batched = PoseEstimate.stack([estimate(), estimate()])
    with pytest.raises(ValueError, match=r"batch shape \(2,\) for 'a.jpg'"):
        report(QueryReport(view("a.jpg"), batched))


def test_details_may_be_missing() -> None:
    bare = dataclasses.replace(estimate(), details=())
    assert "1.06 m away" in report(QueryReport(view("a.jpg"), bare))


def test_the_viewer_can_stand_inside_a_script() -> None:
    script = resources.files("metriloc.viz").joinpath("viewer.js").read_text(encoding="utf-8")
    assert "</script" not in script.lower() and "<!--" not in script and "innerHTML" not in script
    assert len(script.splitlines()) <= 300
