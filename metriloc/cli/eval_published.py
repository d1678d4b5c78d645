"""``metriloc eval pixloc BENCHMARK --as-published``: PixLoc over a localization benchmark as it was published."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, cast

from metriloc.cli.eval_published_options import PublishedOptions
from metriloc.cli.terminal import EXIT_NO_POSE, progress_bar
from metriloc.datasets.visloc_files import VislocName, VislocPart
from metriloc.evaluation.benchmarks import BenchmarkOptions
from metriloc.evaluation.records import Record
from metriloc.evaluation.report import absolute_report, markdown_table, scenes_table, write_report
from metriloc.io import InputError, prepare_output_folder
from metriloc.overrides import flat, plain
from metriloc.runs.benchmark import POSES, RunChoice, lost, score_parts
from metriloc.runs.options import MethodSettings
from metriloc.runs.published import PublishedRun, PublishedSession, check_files, merged
from metriloc.training.processes import Worker, joined_processes, worker_from_environment

NAMED = 20
"""So many of them are named."""


def evaluate_published(
    benchmark: str,
    part: BenchmarkOptions,
    published: PublishedOptions,
    out: Path,
    how: MethodSettings,
    assignments: Sequence[str],
) -> int:
    """Run what is not done yet, and score or submit the poses; the exit code."""
    name = cast(VislocName, benchmark)
    parts, step = published.parts(name, part), 1 if part.step is None else part.step
    if step < 1:
        raise InputError(f"--step must be at least 1, got {step}")
    files = parts[0].files
    if published.eval_only:
        if files.withheld:
            raise InputError(f"the truth of {name} is not public: visuallocalization.net scores its results")
        return _scored(parts, out, {"method": "pixloc", "benchmark": name}, step, published.only_localized)
    choice = RunChoice(published.from_poses, published.inlier_ranking or published.hloc_logs is not None, step)
    wanted = PublishedRun(name, published.from_poses, published.inlier_ranking, tuple(assignments))
    check_files(parts, choice, wanted.settings())
    method, run = wanted.method(how.weights, cache=published.cache, device=how.device)
    worker = worker_from_environment()
    prepare_output_folder(out)
    description = {
        "method": "pixloc",
        "weights_id": method.weights_id,
        "benchmark": name,
        **asdict(choice),
        **flat(plain(run), "settings"),
        **flat(plain(asdict(files)), "files"),
        "seed": how.seed,
    }
    told = partial(_say, worker), partial(progress_bar, rank=worker.rank)
    session = PublishedSession(method, choice, description, out, worker, *told, how.seed)
    records = _records(session, parts, out)
    if worker.rank != 0:
        return 0
    code = _told(records, session.references)
    if files.withheld:
        file, count = merged(parts, out)
        print(f"the truth is not public: upload {file} ({count} poses) to visuallocalization.net")
        return code
    return max(code, _scored(parts, out, description, step, published.only_localized))


def _say(worker: Worker, text: str) -> None:
    if worker.rank == 0:
        print(text)


def _records(session: PublishedSession, parts: Sequence[VislocPart], out: Path) -> list[Record]:
    """Of all parts, by all processes."""
    try:
        with joined_processes("cpu") as processes:
            return [record for one in parts for record in session.do(one, processes.wait)]
    except KeyboardInterrupt:
        print(f"\nstopped; the same command goes on where it was ({out})", file=sys.stderr)
        raise


def _told(records: Sequence[Record], references: Sequence[str]) -> int:
    """Names the queries and photos of maps that could not be used; the exit code."""
    queries = [f"{record.key}: {record.reason}" for record in records if lost(record)]
    for what, bad in ((f"of {len(records)} queries", queries), ("of the maps' photos", references)):
        if bad:
            print(f"metriloc eval: {len(bad)} {what} could not be used:", file=sys.stderr)
            print("".join(f"  {sentence}\n" for sentence in bad[:NAMED]), end="", file=sys.stderr)
        if len(bad) > NAMED:
            print(f"  and {len(bad) - NAMED} more, see the folders of the parts", file=sys.stderr)
    return EXIT_NO_POSE if queries or references else 0


def _scored(
    parts: Sequence[VislocPart], out: Path, description: dict[str, Any], step: int, only_localized: bool
) -> int:
    files = [(part, out / part.name / POSES) for part in parts]
    score, scenes = score_parts(files, step, only_localized=only_localized)
    if only_localized:
        description = {**description, "only_localized": True}
    title = f"PixLoc on {description['benchmark']}"
    report = absolute_report(title, description, score, scenes)
    print(markdown_table(scenes_table(report.scenes)), end="")
    print(f"\nall {len(score.names)} queries:{score.as_text()}")
    print("written: " + ", ".join(str(file) for file in write_report(prepare_output_folder(out), report, None)))
    return 0
