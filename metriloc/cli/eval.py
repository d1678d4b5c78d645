"""``metriloc eval METHOD BENCHMARK``: run a method over a benchmark and report; and compare, score and calibrate runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.cli.eval_published import evaluate_published
from metriloc.cli.eval_published_options import PublishedOptions
from metriloc.cli.eval_run import device_of, solved
from metriloc.cli.made import Assignments
from metriloc.cli.terminal import EXIT_NO_POSE, hearing_sigterm, print_lines, text_table
from metriloc.evaluation.absolute import score_absolute
from metriloc.evaluation.benchmarks import (
    BenchmarkName,
    BenchmarkOptions,
    PairBenchmark,
    QueryBenchmark,
    load_benchmark,
)
from metriloc.evaluation.mapfree import MapfreeScore, Mode, score_mapfree
from metriloc.evaluation.page import failure_figure, query_figure, render_page
from metriloc.evaluation.records import Record, read_run
from metriloc.evaluation.report import (
    Report,
    absolute_report,
    metrics_table,
    number,
    pair_report,
    write_report,
)
from metriloc.evaluation.scoring import score_pairs, vcre_note
from metriloc.evaluation.submission import scene_text, write_submission, write_visloc
from metriloc.io import InputError
from metriloc.runs.options import MethodSettings

_METHOD_HELP = (
    "a relative method (mickey, xfeat, aliked+lightglue, ...) for pairs, or a localiser (xfeat-pnp, ...) for maps"
)


@dataclass(frozen=True)
class RunOptions:
    """How it is run."""

    ray_workers: int = 0
    """Run with so many Ray workers, on the machines Ray knows, instead of in this process (torchrun also works)."""
    draws: int = 1000
    """Bootstrap draws for the intervals."""
    html: bool = True
    """Write report.html."""


@hearing_sigterm()
def evaluate(
    method: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="METHOD", help=_METHOD_HELP)],
    benchmark: Annotated[tyro.conf.Positional[BenchmarkName], tyro.conf.arg(metavar="BENCHMARK")],
    part: Annotated[BenchmarkOptions, tyro.conf.arg(name="part")],
    out: Path,
    how: Annotated[MethodSettings, tyro.conf.arg(name="settings")] = MethodSettings(),
    runs: Annotated[RunOptions, tyro.conf.arg(name="run")] = RunOptions(),
    published: Annotated[PublishedOptions, tyro.conf.arg(name="published")] = PublishedOptions(),  # noqa: B008 - frozen
    set: Assignments = (),
) -> int:
    """Run a method over a benchmark, resumable, and write its report and submission.

    Args:
        method: see above.
        benchmark: mapfree, pairs, scannet, 7scenes, cambridge, aachen, cmu, robotcar or map.
        part: Where the benchmark is and which part of it.
        out: Folder of the run; the same command again goes on where it stopped.
        how: Settings of the method.
        runs: How it is run.
        published: Of --as-published alone.
        set: Set settings of a localizer, by our names or those of published config files, e.g. --set num_references=5.
    """
    published.check(method, benchmark)
    how, assignments = (
        replace(how, device=device_of(how.device, os.environ)),
        [one for several in set for one in several],
    )
    if published.as_published:
        if runs.ray_workers:
            raise InputError("--ray-workers: published runs are shared among processes by torchrun")
        return evaluate_published(benchmark, part, published, out, how, assignments)
    chosen = load_benchmark(benchmark, part, how.depth_files)
    records = solved(method, benchmark, part, chosen, out, how, assignments, ray_workers=runs.ray_workers)
    if records is None:
        return 0
    description = {**read_run(out), "data": str(part.data)}
    report, figures = _report(chosen, records, description, runs, out)
    files = write_report(out, report, render_page(report, figures) if runs.html else None)
    print_lines([*text_table(metrics_table(report.metrics)), *vcre_note(report.metrics)])
    print_lines([f"written to {out}: {', '.join(file.name for file in files)}"])
    unreadable = [record for record in records if record.is_unreadable]
    for record in unreadable[:5]:
        print(f"warning: {record.key}: {record.reason}", file=sys.stderr)
    return EXIT_NO_POSE if unreadable else 0


# -- reports ----------------------------------------------------------------------------------------------------------
def _report(
    chosen: PairBenchmark | QueryBenchmark,
    records: list[Record],
    description: Mapping[str, Any],
    runs: RunOptions,
    out: Path,
) -> tuple[Report, list[str]]:
    title = f"{description['method']} on {chosen.name}"
    if isinstance(chosen, QueryBenchmark):
        return _query_report(title, chosen, records, description, out)
    official = _mapfree_files(chosen, records, description, out)
    if chosen.withheld:
        note = f"The truth of this set is withheld: upload {out / 'submission.zip'} to the leaderboard."
        return Report(title, description, {}, notes=[note]), []
    scores = score_pairs(chosen.tasks, records)
    scannet = chosen.name == "scannet"
    report = pair_report(title, description, scores, records, draws=runs.draws, official=official, scannet=scannet)
    return report, [failure_figure(chosen.tasks[i], scores, i) for i in report.worst] if runs.html else []


def _mapfree_files(
    chosen: PairBenchmark, records: list[Record], description: Mapping[str, Any], out: Path
) -> list[MapfreeScore]:
    """``submission.zip`` for sets of Map-free's form, and what both scorers say of it where the truth is known."""
    if chosen.name not in ("mapfree", "pairs"):
        return []
    scenes: dict[str, dict[str, Any]] = {}
    for task, record in zip(chosen.tasks, records, strict=True):
        poses = scenes.setdefault(task.pair.scene, {})
        if record.pose is not None and record.metric:
            poses[task.pair.frame1.name] = (record.pose, record.confidence)
    write_submission(out / "submission.zip", {scene: scene_text(poses) for scene, poses in scenes.items()})
    root = chosen.tasks[0].pair.frame0.path.parents[2]
    whole = {path.parent.name for path in root.glob("*/poses.txt")} == set(scenes)
    # the thresholds in pixels are those of 540 x 720
    if chosen.withheld or not whole or chosen.name != "mapfree":
        return []
    modes: tuple[Mode, ...] = ("official", "clean")
    return [
        score_mapfree(root, out / "submission.zip", mode=mode, step=chosen.step, first=chosen.first) for mode in modes
    ]


def _query_report(
    title: str, chosen: QueryBenchmark, records: list[Record], description: Mapping[str, Any], out: Path
) -> tuple[Report, list[str]]:
    found = {task.key: record.pose for task, record in zip(chosen.tasks, records, strict=True)}
    named = [(task.frame.name, found[task.key]) for task in chosen.tasks]
    write_visloc(out / "poses.txt", [(name, pose) for name, pose in named if pose is not None], chosen.naming)
    if chosen.withheld:
        note = f"The truth of this set is withheld: upload {out / 'poses.txt'} to visuallocalization.net."
        return Report(title, description, {}, notes=[note]), []
    truth = {task.key: task.frame.cam_from_world for task in chosen.tasks if task.frame.cam_from_world is not None}
    estimates = {key: pose for key, pose in found.items() if pose is not None and key in truth}
    score = score_absolute(estimates, truth)
    tasks = {task.key: task for task in chosen.tasks}
    report = absolute_report(title, description, score, [tasks[name].frame.scene for name in score.names])
    captions = [
        f"{score.names[i]}: {number(score.center_m[i])} m, {number(score.rotation_deg[i])} degrees"
        for i in report.worst
    ]
    figures = [query_figure(tasks[score.names[i]].frame, text) for i, text in zip(report.worst, captions, strict=True)]
    return report, figures
