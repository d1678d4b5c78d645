"""Every example runs as it stands, is short, and says what it is about."""

from __future__ import annotations

import ast
import re
import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[1] / "examples").glob("*.py"))
QUICK = "01_two_photos.py"
"""The others load the same networks: for the slow half."""


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.name, marks=[] if p.name == QUICK else [pytest.mark.slow]) for p in EXAMPLES]
)
def test_example(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", [str(path)])
    runpy.run_path(str(path), run_name="__main__")
    printed = capsys.readouterr().out
    assert re.search(r"\d\.\d+ (m|m away)\b", printed), printed


def test_there_are_many_and_all_are_short() -> None:
    assert len(EXAMPLES) >= 8
    numbers = [path.name[:2] for path in EXAMPLES]
    assert numbers == sorted(set(numbers)), "two examples have the same number"
    for path in EXAMPLES:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) < 40, path.name
        first, _, rest = (ast.get_docstring(ast.parse(text)) or "").partition("\n")
        assert first and f"python examples/{path.name}" in rest, (
            f"{path.name} does not say what it is and how to run it"
        )
