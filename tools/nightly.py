"""The three published methods on the real photos of ``shared/data/eval``, in one command; compared with the last table.

    python tools/nightly.py ../shared/data/eval --out NIGHT       # goes on where it was stopped
    python tools/nightly.py ../shared/data/eval --out NIGHT --only nre

Prints the table for docs/results.md (date and commit in its heading; a person commits it there) and, for every number
that became worse than in the table there, a line. Exit code 1 when there is one. ``metriloc eval`` does the work: MicKey
on pairs, NRE and PixLoc on photos left out of the four maps, all with the weights that come with metriloc.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import tyro

from metriloc.cli.main import main as metriloc
from metriloc.cli.terminal import EXIT_INTERRUPTED
from metriloc.training.record import git_commit

RESULTS = Path(__file__).resolve().parents[1] / "docs" / "results.md"
HEADING = "## The three methods, run by `tools/nightly.py`"
HEAD = (
    "method",
    "set",
    "photos",
    "median rotation (deg)",
    "median position (m)",
    "median direction (deg)",
    "right (%)",
)
WORSE, POINTS = 1.1, 3.0
"""A median that grew by more than this factor, or a share that fell by more than so many points, is worse."""
_PAIRS = {"pairs": ("val", 40), "scannet_pairs": ("scannet_pairs/val", 1)}
"""Folders with pairs, and every so many queries of them; those of ScanNet are hard on purpose."""
_PLACES = {"fountain_p11": 2, "entry_p10": 2, "holo_a": 40, "kitchen": 15}
"""Every so many photos of each map are queries."""
_MEDIANS = ("median rotation error (deg)", "median center error (m)", "median direction error (deg)")
_RIGHT = {"pairs": ("angular precision (5 deg, direction 10 deg)", 100.0), "map": ("within 5 cm, 5 deg (%)", 1.0)}


@dataclass(frozen=True)
class Night:
    """One run of ``metriloc eval``."""

    method: str
    place: str
    benchmark: str
    words: tuple[str, ...]


def runs(data: Path) -> list[Night]:
    """What is run, of what is there. Raises ValueError for a folder with none of it."""
    found = []
    for name, (folder, step) in _PAIRS.items():
        if (data / folder).is_dir():
            found.append(Night("mickey", name, "pairs", ("--data", str(data / folder), "--step", str(step))))
    for method in ("nre", "pixloc"):
        for name, step in _PLACES.items():
            place = data / "places" / name
            if place.is_dir():
                words = ("--data", str(place / "sparse"), "--images", str(place), "--step", str(step))
                found.append(Night(method, name, "map", words))
    if not found:
        raise ValueError(f"'{data}' has neither val/ nor places/: give the folder of the real photos")
    return found


def measure(night: Night, out: Path) -> Mapping[str, object]:
    """The report of a run, which goes on where it was stopped. Raises RuntimeError for one that fails, KeyboardInterrupt."""
    folder = out / f"{night.method}_{night.place}"
    code = ended_with("eval", night.method, night.benchmark, *night.words, "--no-html", "--out", str(folder))
    if code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code not in (0, 1) or not (folder / "report.json").is_file():
        raise RuntimeError(f"{night.method} on {night.place} ended with {code}")
    content: Mapping[str, object] = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return content


def ended_with(*words: str) -> int:
    """The exit code of a command of metriloc, run here (programs are loaded once a night) and without what it prints."""
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            metriloc(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def row_of(night: Night, report: Mapping[str, object]) -> tuple[str, ...]:
    """A row of the table."""
    metrics: Mapping[str, Mapping[str, float]] = report["metrics"]  # type: ignore[assignment]
    run: Mapping[str, object] = report["run"]  # type: ignore[assignment]
    medians = [metrics.get(name, {}).get("value") for name in _MEDIANS]
    name, factor = _RIGHT[night.benchmark]
    share = metrics.get(name, {}).get("value")
    numbers = ["" if value is None else f"{value:.3g}" for value in medians]
    return night.method, night.place, str(run["tasks"]), *numbers, "" if share is None else f"{factor * share:.1f}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Markdown."""
    ruler = "|---|---|" + "--:|" * (len(HEAD) - 2)
    return [f"| {' | '.join(HEAD)} |", ruler, *(f"| {' | '.join(row)} |" for row in rows)]


def last_table(text: str) -> dict[tuple[str, str], tuple[str, ...]]:
    """(method, set) -> row of the table under the heading; empty where there is none."""
    section = text.partition(HEADING)[2].partition("\n## ")[0]
    found = {}
    for line in section.splitlines():
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if line.startswith("| ") and len(cells) == len(HEAD) and cells != HEAD:
            found[cells[0], cells[1]] = cells
    return found


def worse(rows: Sequence[Sequence[str]], before: Mapping[tuple[str, str], Sequence[str]]) -> list[str]:
    """A line for every number that became worse; runs over other photos are not compared."""
    lines = []
    for row in rows:
        old = before.get((row[0], row[1]))
        if old is None or old[2] != row[2]:
            continue
        for name, was, now in list(zip(HEAD, old, row, strict=True))[3:]:
            if not was:
                continue
            a, b = float(was), float(now) if now else math.nan
            fell = b < a - POINTS if name == HEAD[-1] else b > WORSE * a
            if fell or math.isnan(b):
                lines.append(f"worse: {row[0]} on {row[1]}: {name} {was} -> {now or 'nothing'}")
    return lines


def main(data: tyro.conf.Positional[Path], out: Path, only: tuple[str, ...] = (), results: Path = RESULTS) -> int:
    """Run, print the table, compare.

    Args:
        data: Folder of the real photos, with val/ and places/.
        out: Folder of the runs and of table.md; the same again goes on where it was stopped.
        only: Methods, or sets.
        results: Page with the table to compare with.
    """
    chosen = [night for night in runs(data) if not only or night.method in only or night.place in only]
    rows = []
    for number, night in enumerate(chosen, 1):
        print(f"{number}/{len(chosen)}: {night.method} on {night.place}", file=sys.stderr)
        rows.append(row_of(night, measure(night, out)))
    commit, changed = git_commit()
    made = f"{datetime.now(UTC).date().isoformat()}, {(commit or 'no commit')[:10]}{' with changes' if changed else ''}"
    told = [HEADING, f"`python tools/nightly.py ../shared/data/eval --out NIGHT` ({made})", "", *table(rows)]
    out.mkdir(parents=True, exist_ok=True)
    (out / "table.md").write_text("\n".join(told) + "\n", encoding="utf-8")
    print("\n".join(told))
    lines = worse(rows, last_table(results.read_text(encoding="utf-8")) if results.is_file() else {})
    print("\n".join(lines or ["nothing became worse"]))
    return 1 if lines else 0


def run() -> int:
    """The program: 2 for a wrong folder or a run that failed, 130 when it is stopped."""
    try:
        return tyro.cli(main)
    except (ValueError, RuntimeError, OSError) as error:
        print(f"nightly: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("nightly: stopped; the same command goes on where it was", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(run())
