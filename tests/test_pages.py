"""Every HTML page that metriloc writes carries the one policy, before anything that it could forbid."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

import metriloc
from metriloc.evaluation.page import comparison_page, document
from metriloc.io.pages import policy_tag
from metriloc.training.pages import validation_page
from metriloc.training.validation import Picture, Validation

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
    assert len(writers) >= 3
    for path in writers:
        assert ("${policy}" if path.suffix == ".html" else "policy_tag()") in path.read_text(), path
