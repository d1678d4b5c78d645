"""A minute of twice the load that a service can bear (``benchmarks/service_load.py`` does it for longer)."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("httpx", reason="the service needs the extra serve")
pytest.importorskip("fastapi", reason="the service needs the extra serve")

ROOT = Path(__file__).resolve().parents[2]
pytestmark = [pytest.mark.extras, pytest.mark.slow]


def test_a_minute_of_twice_the_load(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """No answer is wrong, no status unexpected, no anchor lost, no memory taken; times are not for tests."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    monkeypatch.setattr(sys, "argv", ["service_load.py", "--seconds", "60", "--alone", "3", "--method", "identity"])
    from service_load import main

    code, said = main(), capsys.readouterr().out
    assert code == 0 and "wrong: 0" in said, said
    let_in = {line.split(":")[0]: int(line.split()[1]) for line in said.splitlines() if "let in" in line}
    assert let_in["anchor"] > 0 and let_in["pose"] > 0, said
