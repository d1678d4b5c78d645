"""``metriloc eval compare A B``: two runs on the same pairs, number by number."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.terminal import print_lines, text_table
from metriloc.evaluation.benchmarks import (
    BenchmarkName,
    BenchmarkOptions,
    load_pairs,
)
from metriloc.evaluation.page import comparison_page
from metriloc.evaluation.records import read_run
from metriloc.evaluation.report import comparison_table
from metriloc.evaluation.runner import collect
from metriloc.evaluation.scoring import PairScores, score_pairs, vcre_note
from metriloc.evaluation.statistics import compare, wins
from metriloc.io import write_atomically


def evaluate_compare(
    a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")],
    b: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="B")],
    benchmark: BenchmarkName,
    part: Annotated[BenchmarkOptions, tyro.conf.arg(name="part")],
    out: Path | None = None,
    draws: int = 1000,
) -> int:
    """Compare two runs pair by pair on the same benchmark.

    Args:
        a: Folder of a run.
        b: Folder of another run of the same pairs.
        benchmark: What both ran on.
        part: Where it is and which part of it.
        out: HTML file to write.
        draws: Bootstrap draws of the intervals.
    """
    chosen = load_pairs(benchmark, part)
    scores = [score_pairs(chosen.tasks, collect(chosen.tasks, folder)) for folder in (a, b)]
    names = [f"{label}: {read_run(folder)['method']}" for label, folder in (("A", a), ("B", b))]
    compared = compare(scores[0], scores[1], count=draws)
    sentences = [
        _wins(what, field, scores, names) for what, field in (("rotation", "rotation_deg"), ("position", "center_m"))
    ]
    print_lines([*text_table(comparison_table(compared, "A", "B")), *names, *sentences, *vcre_note(compared)])
    if out is not None:
        title = f"{names[0]} against {names[1]}"
        write_atomically(
            out, comparison_page(title, [*sentences, *vcre_note(compared)], comparison_table(compared, *names))
        )
    return 0


def _wins(what: str, field: str, scores: list[PairScores], names: list[str]) -> str:
    first, second, ties = wins(getattr(scores[0], field), getattr(scores[1], field))
    return f"{what}: {names[0]} is better on {first} pairs, {names[1]} on {second}, {ties} equal"
