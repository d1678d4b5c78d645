"""``metriloc eval table BENCHMARK``: matchers x depths, as the MicKey paper prints them (Tables 3 and 6)."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.choose import is_method, require_used
from metriloc.cli.eval_run import device_of, solved
from metriloc.cli.terminal import print_lines, text_table
from metriloc.evaluation.benchmarks import BenchmarkName, BenchmarkOptions, load_pairs
from metriloc.evaluation.depth_table import name_of
from metriloc.evaluation.paper_table import OWN_DEPTH, PaperRow, paper_results, paper_row, paper_table
from metriloc.evaluation.report import markdown_table
from metriloc.evaluation.scoring import score_pairs
from metriloc.io import InputError, prepare_output_folder, write_atomically
from metriloc.runs.options import MethodSettings

Names = Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")]
OWN_METRES = ("mickey", "identity")
"""Methods that take no depth: they are one row."""


def evaluate_table(
    benchmark: Annotated[tyro.conf.Positional[BenchmarkName], tyro.conf.arg(metavar="BENCHMARK")],
    part: Annotated[BenchmarkOptions, tyro.conf.arg(name="part")],
    methods: Names,
    out: Path,
    depths: Names = ("file",),
    how: Annotated[MethodSettings, tyro.conf.arg(name="settings")] = MethodSettings(),
) -> int:
    """Run every matcher with every depth over a benchmark of pairs and print one table; resumable.

    Estimates count as they are: nothing is withheld as doubtful, unless --calibration is given.

    Args:
        benchmark: mapfree, pairs, scannet or posed.
        part: Where the benchmark is and which part of it.
        methods: Matchers, such as aliked+lightglue loftr; also mickey, which has depth of its own and is one row.
        out: Folder with one run for each row, and table.md and table.json.
        depths: Sources of depth, as --depth-source names them: file (of ScanNet: true depth), file:dptkitti, metriloc-depth.
        how: Settings of all of them; --weights and --depth-source are not for tables.
    """
    if how.weights is not None and set(methods) != {"mickey"}:
        raise InputError(f"--weights {how.weights}: weights belong to one method; tables take mickey alone with them")
    if how.depth_source != MethodSettings().depth_source:
        raise InputError(f"--depth-source {how.depth_source}: a table takes --depths")
    wanted = combinations(methods, depths)
    # calibrations exist for some depths only, and withhold what they think failed: rows would not be alike
    how = replace(how, device=device_of(how.device, os.environ), calibration=how.calibration or "none")
    for method, depth in wanted:
        require_used(_settings_of(how, depth).choice(method, of_data=True))
    rows: list[PaperRow] = []
    for method, depth in wanted:
        row = _row(benchmark, part, method, depth, how, out)
        if row is not None:
            rows.append(row)
    if not rows:  # not the first process
        return 0
    table = paper_table(rows)
    content = {"benchmark": benchmark, "data": str(part.data), "rows": paper_results(rows)}
    write_atomically(out / "table.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    write_atomically(out / "table.md", markdown_table(table))
    note = (
        "AUC and precision: VCRE below 10 % of the diagonal; medians over estimates; ms: matches of a query and depths"
    )
    print_lines([*text_table(table), note, f"written to {out}: table.md, table.json"])
    return 0


def combinations(methods: tuple[str, ...], depths: tuple[str, ...]) -> list[tuple[str, str | None]]:
    """(method, depth), methods one after the other; depth None for one that has its own. Raises InputError for a name
    that is no method of pairs, and for lists that are empty."""
    if not methods or not depths:
        raise InputError("a table needs at least one of --methods and one of --depths")
    for method in methods:
        if not is_method(method):
            raise InputError(f"--methods {method}: there is no such method for pairs")
    own = {method: (None,) if method in OWN_METRES else depths for method in methods}
    return [(method, depth) for method, theirs in own.items() for depth in dict.fromkeys(theirs)]


def _settings_of(how: MethodSettings, depth: str | None) -> MethodSettings:
    return how if depth is None else replace(how, depth_source=depth)


def _row(
    benchmark: BenchmarkName, part: BenchmarkOptions, method: str, depth: str | None, how: MethodSettings, out: Path
) -> PaperRow | None:
    settings = _settings_of(how, depth)
    chosen = load_pairs(benchmark, part, settings.depth_files)
    if chosen.withheld:
        raise InputError(f"the truth of '{part.data}' is withheld: no table can be made of it")
    folder = prepare_output_folder(out) / folder_name(method, depth)
    records = solved(method, benchmark, part, chosen, folder, settings)
    if records is None:
        return None
    return paper_row(method, OWN_DEPTH if depth is None else name_of(depth), score_pairs(chosen.tasks, records))


def folder_name(method: str, depth: str | None) -> str:
    """The folder of one row: names with what folders cannot have replaced."""
    parts = (method,) if depth is None else (method, depth)
    return "__".join(re.sub(r"[^A-Za-z0-9.+-]", "_", part) for part in parts)
