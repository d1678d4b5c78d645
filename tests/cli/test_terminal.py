"""What people read in a terminal: 80 columns, short names, and nothing that steers it."""

from __future__ import annotations

import dataclasses
import io
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
import torch

from metriloc.cli.terminal import COLUMNS, fitted, print_lines, progress_bar, text_table, working
from metriloc.geometry import Camera, Pose, so3_exp
from metriloc.runs.relpose_results import pair_result, relpose_summary
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View
from metriloc.wording import short_names, without_folders

LONG = Path("/data/of/somebody/with/a/deep/tree/of/folders/and/photos/of/the/summer/of/2024/query.jpg")


class Seen:
    """Features of a photo of which only the photo is asked."""

    view = View(
        torch.zeros(3, 6, 8),
        Camera.from_fov((8, 6), 1.0),
        name=str(LONG),
        intrinsics_source=f"{LONG.parent}/intrinsics.txt:3 (query)",
    )


@pytest.mark.parametrize("metric", [True, False])
def test_the_summary_of_a_pair_fits_and_shows_the_short_name(metric: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Lines of up to 170 columns began with the whole path."""
    truth = Pose(so3_exp(torch.tensor([0.0, 0.3, 0.1])), torch.tensor([-1.0, 0.2, 12.3]))
    messages = ("the query lies on its side, and was turned by 90 degrees to the left before it was matched",)
    details = PairDetails(
        1.0, Correspondences.empty(), metric, "the predicted depth of the reference", messages=messages
    )
    found = PoseEstimate(truth, torch.tensor(True), torch.tensor(0.5), (None,), (details,))
    found = dataclasses.replace(found, probability_of="rotation below 5 degrees, direction below 10 degrees")
    result = pair_result(LONG, found, Seen(), truth.double())  # type: ignore[arg-type]
    print_lines(relpose_summary(result))
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= COLUMNS
    assert shown.startswith("query.jpg: ") and str(LONG.parent) not in shown and "intrinsics.txt:3" in shown
    assert "error: 0.00 degrees in rotation" in shown and (", 0.0 cm in position" in shown) == metric
    assert result.entry["query"] == str(LONG), "files keep the whole path"
    assert result.entry["from_truth"]["center_m"] == (pytest.approx(0, abs=1e-5) if metric else None)


def test_lines_are_broken_between_words_and_steer_nothing() -> None:
    assert fitted("  " + "word " * 30)[1].startswith("    word")
    assert fitted("a\x1b[2Jb\nc") == ["a\\x1b[2Jb\\nc"]
    assert fitted("x" * 200) == ["x" * 200], "a name is never broken"
    assert fitted("") == [""]


def test_tables_fit_with_long_names_and_never_break_a_number() -> None:
    rows = [
        ["metric", "A", "B", "difference", "95 % interval", "clear"],
        ["Map-free (official): Average Median Translation Error", "0.1234", "0.22", "0.1", "0.003189 to 0.8866", "yes"],
        ["short", "1", "2", "1", "", "no"],
    ]
    lines = text_table(rows)
    assert max(map(len, lines)) <= COLUMNS and any("0.003189 to 0.8866" in line for line in lines)
    assert " ".join(line[:12].strip() for line in lines[2:-1]).startswith("Map-free")
    assert lines[0].index("clear") == lines[2].index("yes") - 2, "numbers stand at the right under their head"
    assert text_table([]) == []


def test_short_names_are_the_shortest_tails_that_tell_apart() -> None:
    paths = ["/d/a/1.jpg", "/d/b/1.jpg", "/d/b/2.jpg", "x/a/1.jpg", "3.jpg", "3.jpg"]
    assert short_names(paths) == {
        "/d/a/1.jpg": "d/a/1.jpg", "/d/b/1.jpg": "b/1.jpg", "/d/b/2.jpg": "2.jpg", "x/a/1.jpg": "x/a/1.jpg", "3.jpg": "3.jpg"
    }  # fmt: skip
    assert short_names(["1.jpg", "a/1.jpg"]) == {"1.jpg": "1.jpg", "a/1.jpg": "a/1.jpg"}
    assert without_folders("in my photos/k.txt:1", ["my photos/a.jpg", "b.jpg", "/c.jpg"]) == "in k.txt:1"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("shown", [lambda: progress_bar("photos"), lambda: working("looking")])
def test_what_is_printed_under_a_bar_still_goes_to_a_file(
    shown: Callable[[], AbstractContextManager[object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """``metriloc relpose ... > poses.txt``: the bar is on the terminal, the poses are in the file."""
    out, terminal = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", terminal)
    with shown():
        sys.stdout.write("a pose\n")
    assert out.getvalue() == "a pose\n" and "a pose" not in terminal.getvalue()


def test_nobody_looking_no_spinner(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = io.StringIO()
    monkeypatch.setattr(sys, "stderr", nobody)
    with working("looking"):
        pass
    assert nobody.getvalue() == ""
