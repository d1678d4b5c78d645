"""``metriloc eval compare A B``: two runs on the same pairs, number by number."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.choose import choose_method
from metriloc.cli.terminal import print_lines, printable, text_table
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
from metriloc.evaluation.tasks import PairSolver
from metriloc.io import InputError, write_atomically
from metriloc.io.arguments import require_number
from metriloc.runs.compared import compared_pictures, most_different
from metriloc.runs.options import MethodSettings
from metriloc.viz import Picture
from metriloc.viz.markup import picture_figure

MOST_PICTURES = 1000


def evaluate_compare(
    a: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="A")],
    b: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="B")],
    benchmark: BenchmarkName,
    part: Annotated[BenchmarkOptions, tyro.conf.arg(name="part")],
    out: Path | None = None,
    draws: int = 1000,
    pictures: Path | None = None,
    count: int = 6,
    device: str = "cpu",
) -> int:
    """Compare two runs pair by pair on the same benchmark.

    Args:
        a: Folder of a run.
        b: Folder of another run of the same pairs.
        benchmark: What both ran on.
        part: Where it is and which part of it.
        out: HTML file to write.
        draws: Bootstrap draws of the intervals.
        pictures: Folder for pictures of the pairs on which they differ most: the matches of both, and the cameras of
            both and the true one, green, in 3D. These pairs are solved again.
        count: How many pictures.
        device: Where those pairs are solved.
    """
    require_number("--count", count, 1, MOST_PICTURES, whole=True)
    chosen = load_pairs(benchmark, part)
    scores = [score_pairs(chosen.tasks, collect(chosen.tasks, folder)) for folder in (a, b)]
    names = [f"{label}: {read_run(folder)['method']}" for label, folder in (("A", a), ("B", b))]
    compared = compare(scores[0], scores[1], count=draws)
    sentences = [
        _wins(what, field, scores, names) for what, field in (("rotation", "rotation_deg"), ("position", "center_m"))
    ]
    print_lines([*text_table(comparison_table(compared, "A", "B")), *names, *sentences, *vcre_note(compared)])
    drawn: list[Picture] = []
    if pictures is not None:
        solvers = {name: _solver(folder, device, chosen.size) for name, folder in zip(names, (a, b), strict=True)}
        drawn = compared_pictures(
            [chosen.tasks[i] for i in most_different(scores[0], scores[1], count)], solvers, pictures
        )
        print(f"written to {printable(pictures)}: {len(drawn)} picture{'s' * (len(drawn) != 1)}")
    if out is not None:
        title, figures = f"{names[0]} against {names[1]}", [picture_figure(picture) for picture in drawn]
        told = [*sentences, *vcre_note(compared)]
        write_atomically(out, comparison_page(title, told, comparison_table(compared, *names), figures))
    return 0


def _solver(folder: Path, device: str, size: tuple[int, int] | None) -> tuple[PairSolver, int]:
    """The method of a run as ``run.json`` describes it, and its seed. size: of photos, where it says none.

    Raises InputError when the method cannot be loaded, or has other weights by now.
    """
    described = read_run(folder)
    known = {field.name for field in dataclasses.fields(MethodSettings)}
    try:
        settings = MethodSettings(**{name: value for name, value in described.items() if name in known})
        if described.get("resize") is not None:
            size = (int(described["resize"][0]), int(described["resize"][1]))
        method = choose_method(replace(settings, device=device).choice(described["method"]))
    except (TypeError, ValueError, LookupError) as error:
        raise InputError(f"the method of '{folder}' cannot be loaded for pictures: {error}") from error
    if method.weights_id != described["weights_id"]:
        was = f"'{folder}' was made with {described['weights_id']}, and the weights here are {method.weights_id}"
        raise InputError(f"{was}: pictures would be of another method")
    return PairSolver(method, size), settings.seed


def _wins(what: str, field: str, scores: list[PairScores], names: list[str]) -> str:
    first, second, ties = wins(getattr(scores[0], field), getattr(scores[1], field))
    return f"{what}: {names[0]} is better on {first} pair{'s' * (first != 1)}, {names[1]} on {second}, {ties} equal"
