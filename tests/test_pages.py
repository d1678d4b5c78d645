"""Every HTML page that metriloc writes carries the one policy, before anything that it could forbid."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import metriloc
from metriloc.evaluation.page import comparison_page, render_page
from metriloc.evaluation.report import Report
from metriloc.evaluation.statistics import Interval
from metriloc.geometry import Camera
from metriloc.io.pages import policy_tag
from metriloc.page import (
    data_uri,
    document,
    escaped,
    figure,
    figures,
    line_chart,
    meter,
    rows_table,
    scrolled,
    spark_line,
    table,
)
from metriloc.training.pages import validation_page
from metriloc.training.validation import Picture, Validation
from metriloc.types import PoseEstimate, View
from metriloc.viz import QueryReport, RelposeReport, SoftwareFacts, relpose_report

HOSTILE = "<img src=x onerror=alert(document.domain)>\"'</title><script>alert(1)</script>"


def check_page(html: str) -> None:
    head = html.partition("</head>")[0]
    assert policy_tag() in head.partition("<title>")[0]
    assert "<script" not in html and "onerror=alert(document.domain)>" not in html and "<img src=x" not in html


def test_the_policy_forbids_all_but_pictures_and_style() -> None:
    rules = policy_tag().split('content="')[1]
    assert "default-src 'none'" in rules and "script-src" not in rules and "connect-src" not in rules
    assert "script-src 'sha256-" in policy_tag("let x;") and policy_tag("let x;") != policy_tag("let y;")


def test_comparisons_escape_what_runs_say(shared: Callable[[str], Path]) -> None:
    name = json.loads(shared("cases/attack/compare_xss_run.json").read_text())["method"]
    for text in (name, HOSTILE):
        html = comparison_page(text, [f"rotation: {text} is better"], [["metric", text], [text, "1"]])
        check_page(html)
        assert html.count("&lt;img src=x") == 5


def test_other_pages() -> None:
    check_page(document(HOSTILE, ""))
    picture = Picture(HOSTILE, np.zeros((4, 4, 3), np.uint8), HOSTILE)
    check_page(validation_page(HOSTILE, 3, Validation({HOSTILE: 1.0}, [picture]), {HOSTILE: [(1, 2.0), (3, 1.0)]}))


def test_no_page_is_written_without_the_policy() -> None:
    package = Path(metriloc.__file__).parent
    writers = [
        path
        for path in package.rglob("*")
        if path.suffix in (".py", ".html") and "<!doctype html" in path.read_text().lower()
    ]
    # the page of the service has its policy as a header (tests/service/test_api.py)
    written = sorted(path.relative_to(package).as_posix() for path in writers)
    assert written == ["page/document.py", "service/page/page.html"], "one page for all files"
    assert "policy_tag()" in (package / written[0]).read_text()


# -- one look ---------------------------------------------------------------------------------------------------------
def style_of(html: str) -> str:
    (found,) = re.findall(r"<style>(.*?)</style>", html, re.S)
    return str(found)


def pages() -> dict[str, str]:
    """A page of every kind that metriloc writes."""
    rows = [["metric", "value"], ["rotation", "1.5"]]
    picture = Picture("p", np.zeros((4, 4, 3), np.uint8), "n")
    view = View(torch.zeros(3, 6, 8), Camera.from_fov((8, 6), 1.0), name="a.jpg")
    failed = PoseEstimate.failure("degenerate")
    facts = SoftwareFacts("1", "m")
    return {
        "comparison": comparison_page("t", ["s"], rows),
        "evaluation": render_page(Report("t", {"method": "m"}, {"rotation": Interval(1.0, 0.5, 2.0)})),
        "training": validation_page("t", 1, Validation({"auc": 1.0}, [picture]), {"auc": [(1, 2.0), (3, 1.0)]}),
        "relpose": relpose_report(RelposeReport("t", view, (QueryReport(view, failed),), facts)),
    }


def test_every_page_has_the_same_style_in_light_and_dark() -> None:
    styles = {name: style_of(page) for name, page in pages().items()}
    assert len(set(styles.values())) == 1, styles.keys()
    style = styles["relpose"]
    assert "prefers-color-scheme: dark" in style and "@media (max-width: 34rem)" in style
    # colors are named once: what is drawn uses the names, so that nothing stays light in the dark
    rules = re.sub(r":root[^{]*\{[^}]*\}", "", style)
    assert not re.search(r"#[0-9a-fA-F]{3,8}\b", rules)


def test_every_table_scrolls_in_its_own_box_and_pictures_shrink() -> None:
    for name, page in pages().items():
        assert page.count("<table") == page.count('<div class="scroll"><table') > 0, name
        assert "width=device-width" in page, name
    style = style_of(pages()["relpose"])
    assert re.search(r"\.scroll \{[^}]*overflow-x: auto", style) and re.search(
        r"figure img \{[^}]*max-width: 100%", style
    )


def test_parts_escape_what_they_are_given() -> None:
    x = np.array([0.0, 1.0])
    parts = [table([[HOSTILE], [HOSTILE]]), rows_table([(HOSTILE, "")]), figure("", HOSTILE, HOSTILE)]
    parts.append(line_chart(HOSTILE, HOSTILE, HOSTILE, {HOSTILE: (x, x), "b": (x, x)}))
    for part in parts:
        assert "<img src=x" not in part and "<script" not in part and "&lt;script" in part


def test_curves_are_broken_where_numbers_are_missing_and_need_no_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    x = np.arange(6.0)
    chart = line_chart("t", "x", "y", {"": (x, np.array([1, 2, np.inf, 3, np.nan, 5]))})
    assert chart.count("<polyline") == 1 and chart.count("<circle") == 2 and "nan" not in chart and "inf" not in chart
    assert chart == line_chart("t", "x", "y", {"": (x, np.array([1, 2, np.inf, 3, np.nan, 5]))})
    assert "nothing to draw" in line_chart("t", "x", "y", {"": ([], [])})
    assert "<polyline" in line_chart("t", "x", "y", {"": ([0.0, 1.0], [2.0, 2.0])})
    assert spark_line([(1, 1.0)]) == "" and "1 to 3" in spark_line([(1, 1.0), (2, 3.0), (3, float("inf"))])


def test_the_ends_of_a_curve_are_where_the_numbers_on_the_axes_say() -> None:
    chart = line_chart("t", "x", "y", {"": ([0.0, 1.0], [0.0, 10.0])})
    (points,) = re.findall(r'<polyline points="([^"]+)"', chart)
    (x0, y0), (x1, y1) = (tuple(map(float, p.split(","))) for p in points.split())
    at = {
        text: (float(x), float(y)) for x, y, text in re.findall(r'<text x="([\d.]+)" y="([\d.]+)"[^>]*>([^<]+)<', chart)
    }
    assert at["0.0"][0] == x0 and at["1.0"][0] == x1
    assert at["0"][1] - 4 == y0 and at["10"][1] - 4 == y1 < y0


def test_parts_of_pages() -> None:
    assert escaped('<b>\x00"') == "&lt;b&gt;\\x00&quot;"
    assert data_uri(b"GIF", "gif") == "data:image/gif;base64,R0lG"
    assert figures([]) == "" and figures(["<i>"]) == '<div class="figures"><i></div>'
    assert figure("a", plot=True).startswith('<figure class="plot"><img') and figure("a").startswith("<figure><img")
    assert meter(0.5).endswith(" 0.50") and 'value="0.500"' in meter(0.5)
    assert scrolled("<table>") == '<div class="scroll"><table></div>'
