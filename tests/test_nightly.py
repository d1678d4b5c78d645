"""tools/nightly.py: what it runs, its table, what counts as worse, and one real run that is compared with the next."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def nightly() -> ModuleType:
    spec = importlib.util.spec_from_file_location("nightly", ROOT / "tools" / "nightly.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["nightly"] = module
    spec.loader.exec_module(module)
    return module


ROW = ("nre", "kitchen", "15", "0.25", "0.006", "", "93.3")


def test_a_table_is_read_as_it_is_written(nightly: ModuleType) -> None:
    text = "\n".join(["# Results", nightly.HEADING, "words", "", *nightly.table([ROW]), "", "## Other", "| a | b |"])
    assert nightly.last_table(text) == {("nre", "kitchen"): ROW}
    assert nightly.last_table("# Results\n") == {}


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        (3, "0.30", "median rotation (deg) 0.25 -> 0.30"),
        (3, "0.26", None),
        (4, "", "median position (m) 0.006 -> nothing"),
        (6, "80.0", "right (%) 93.3 -> 80.0"),
        (6, "100.0", None),
        (2, "7", None),  # of other photos: not compared
    ],
)
def test_what_is_worse(nightly: ModuleType, place: int, value: str, line: str | None) -> None:
    row = (*ROW[:place], value, *ROW[place + 1 :])
    wanted = [] if line is None else [f"worse: nre on kitchen: {line}"]
    assert nightly.worse([row], {("nre", "kitchen"): ROW}) == wanted
    assert nightly.worse([row], {}) == []


def test_the_page_of_results_has_a_table_of_the_three_methods(
    nightly: ModuleType, shared: Callable[[str], Path]
) -> None:
    known = nightly.last_table(nightly.RESULTS.read_text(encoding="utf-8"))
    assert known.keys() <= {(night.method, night.place) for night in nightly.runs(shared("data/eval"))}
    assert {method for method, _ in known} == {"mickey", "nre", "pixloc"}
    with pytest.raises(ValueError, match="neither val/ nor places/"):
        nightly.runs(ROOT / "tools")


@pytest.mark.parametrize(
    ("happened", "code", "said"),
    [(ValueError("'x' has neither val/ nor places/"), 2, "neither val/"), (KeyboardInterrupt(), 130, "goes on where")],
)
def test_what_ends_it_is_one_sentence(
    nightly: ModuleType,
    happened: BaseException,
    code: int,
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def ended(_: object) -> None:
        raise happened

    monkeypatch.setattr(nightly.tyro, "cli", ended)
    assert nightly.run() == code
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


@pytest.mark.slow
def test_a_night_is_compared_with_the_one_before(
    nightly: ModuleType,
    shared: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nightly, "_PLACES", {"fountain_p11": 6})
    page = tmp_path / "results.md"
    given = (shared("data/eval"), tmp_path / "night", ("pixloc",), page)
    assert nightly.main(*given) == 0
    shown = (tmp_path / "night/table.md").read_text(encoding="utf-8")
    assert "nothing became worse" in capsys.readouterr().out and "| pixloc | fountain_p11 | 2 |" in shown
    page.write_text(shown)
    assert nightly.main(*given) == 0  # what is done is not run again
    page.write_text(shown.replace("| 100.0 |", "| 104.0 |"))
    assert nightly.main(*given) == 1
    assert "worse: pixloc on fountain_p11: right (%) 104.0 -> 100.0" in capsys.readouterr().out
