"""``metriloc eval METHOD BENCHMARK``: run a method over a benchmark and report; and compare, score and calibrate runs."""

from __future__ import annotations

import dataclasses
import os
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import numpy as np
import tyro

from metriloc.calibration import Kind, Target, save_calibration
from metriloc.choose import LOCALIZERS, LocalizerChoice, MethodChoice, MethodName, choose_localizer, choose_method
from metriloc.cli.options import MethodSettings
from metriloc.evaluation import calibration as calibrating
from metriloc.evaluation.absolute import score_absolute
from metriloc.evaluation.benchmarks import (
    BenchmarkName,
    BenchmarkOptions,
    PairBenchmark,
    QueryBenchmark,
    load_benchmark,
)
from metriloc.evaluation.mapfree import MapfreeScore, Mode, score_mapfree
from metriloc.evaluation.page import comparison_page, failure_figure, query_figure, render_page
from metriloc.evaluation.ray_runner import run_with_ray
from metriloc.evaluation.records import Record, read_run
from metriloc.evaluation.report import (
    Report,
    absolute_report,
    comparison_table,
    markdown_table,
    metrics_table,
    number,
    pair_report,
    write_report,
)
from metriloc.evaluation.runner import collect, process_group, run, worker_from_environment
from metriloc.evaluation.scoring import PairScores, score_pairs, within
from metriloc.evaluation.statistics import compare, wins
from metriloc.evaluation.submission import scene_text, write_submission, write_visloc
from metriloc.evaluation.tasks import PairSolver, QuerySolver, Solve
from metriloc.io import InputError, prepare_output_folder, write_atomically

EXIT_LOST = 1
"""Some photo could not be read, or an estimate is missing."""
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
    """Write report.html (needs matplotlib)."""


def evaluate(
    method: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="METHOD", help=_METHOD_HELP)],
    benchmark: Annotated[tyro.conf.Positional[BenchmarkName], tyro.conf.arg(metavar="BENCHMARK")],
    part: Annotated[BenchmarkOptions, tyro.conf.arg(name="part")],
    out: Path,
    how: Annotated[MethodSettings, tyro.conf.arg(name="settings")] = MethodSettings(),
    runs: Annotated[RunOptions, tyro.conf.arg(name="run")] = RunOptions(),
) -> int:
    """Run a method over a benchmark, resumable, and write its report and submission.

    Args:
        method: see above.
        benchmark: mapfree, pairs, scannet, 7scenes, cambridge, aachen, cmu, robotcar or map.
        part: Where the benchmark is and which part of it.
        out: Folder of the run; the same command again goes on where it stopped.
        how: Settings of the method.
        runs: How it is run.
    """
    chosen = load_benchmark(benchmark, part)
    out = prepare_output_folder(out)
    worker = worker_from_environment()
    build = _builder(method, chosen, replace(how, device=device_of(how.device, os.environ)))
    # what decides the numbers; where files are and who works on them does not
    settings = {k: v for k, v in dataclasses.asdict(how).items() if k not in ("seed", "device")}
    solve = build()
    described = {"method": method, "weights_id": _weights_of(solve), "benchmark": benchmark, **settings}
    if part.resize is not None:
        described["resize"] = list(part.resize)
    with process_group(worker) as wait, _progress(worker.rank) as progress:
        try:
            if runs.ray_workers:
                _require_picklable(build)
                run_with_ray(
                    chosen.tasks,
                    build,
                    out,
                    described,
                    workers=runs.ray_workers,
                    seed=how.seed,
                    gpus_per_worker=1 if how.device.startswith("cuda") else 0,
                    progress=progress,
                )
            else:
                run(chosen.tasks, solve, out, described, seed=how.seed, worker=worker, progress=progress)
        except KeyboardInterrupt:
            print(f"\nstopped; the same command goes on where it was ({out})", file=sys.stderr)
            raise
        wait()
    if worker.rank != 0:
        return 0
    records = collect(chosen.tasks, out)
    description = {**read_run(out), "data": str(part.data)}
    report, figures = _report(chosen, records, description, runs, out)
    files = write_report(out, report, render_page(report, figures) if runs.html else None)
    print(markdown_table(metrics_table(report.metrics)))
    print("written: " + ", ".join(str(file) for file in files))
    unreadable = [record for record in records if record.reason is not None and "'" in record.reason]
    for record in unreadable[:5]:
        print(f"warning: {record.key}: {record.reason}", file=sys.stderr)
    return EXIT_LOST if unreadable else 0


def device_of(device: str, environment: Mapping[str, str]) -> str:
    """``cuda`` means one GPU for each process of ``torchrun`` on a machine (LOCAL_RANK); other devices stay."""
    rank = environment.get("LOCAL_RANK")
    return f"cuda:{rank}" if device == "cuda" and rank is not None else device


# -- methods ----------------------------------------------------------------------------------------------------------
def _builder(method: str, chosen: PairBenchmark | QueryBenchmark, how: MethodSettings) -> Callable[[], Solve]:
    if isinstance(chosen, QueryBenchmark):
        if method not in LOCALIZERS:
            raise InputError(f"{chosen.name} needs a localiser, not {method!r}: one of {', '.join(LOCALIZERS)}")
        return partial(_query_solver, LocalizerChoice(method, how.weights, how.device, calibration=how.calibration))
    if method in LOCALIZERS:
        raise InputError(f"{method} localises in maps; {chosen.name} needs a relative method such as xfeat")
    if method not in get_args(MethodName):
        raise InputError(f"there is no method {method!r}: one of {', '.join(get_args(MethodName))}")
    return partial(_pair_solver, how.choice(cast(MethodName, method)), chosen.size)


def _pair_solver(choice: MethodChoice, size: tuple[int, int] | None) -> Solve:
    return PairSolver(choose_method(choice), size)


def _query_solver(choice: LocalizerChoice) -> Solve:
    return QuerySolver(choose_localizer(choice))


def _weights_of(solve: Solve) -> str:
    return str(getattr(solve, "method").weights_id)  # noqa: B009 - both solvers have it, the protocol need not


def _require_picklable(build: Callable[[], Solve]) -> None:
    try:
        pickle.dumps(build)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"this method cannot be sent to Ray workers: {error}") from error


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
    return [score_mapfree(root, out / "submission.zip", mode=mode, step=chosen.step) for mode in modes]


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


# -- the other commands -----------------------------------------------------------------------------------------------
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
    chosen = _pairs_of(benchmark, part)
    scores = [score_pairs(chosen.tasks, collect(chosen.tasks, folder)) for folder in (a, b)]
    names = [f"{label}: {read_run(folder)['method']}" for label, folder in (("A", a), ("B", b))]
    table = comparison_table(compare(scores[0], scores[1], count=draws), *names)
    sentences = [
        _wins(what, field, scores, names) for what, field in (("rotation", "rotation_deg"), ("position", "center_m"))
    ]
    print(markdown_table(table))
    print("\n".join(sentences))
    if out is not None:
        write_atomically(out, comparison_page(f"{names[0]} against {names[1]}", sentences, table))
    return 0


def _wins(what: str, field: str, scores: list[PairScores], names: list[str]) -> str:
    first, second, ties = wins(getattr(scores[0], field), getattr(scores[1], field))
    return f"{what}: {names[0]} is better on {first} pairs, {names[1]} on {second}, {ties} equal"


def evaluate_score(
    submission: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SUBMISSION.zip")],
    data: Path,
    mode: Literal["official", "clean", "both"] = "both",
    step: int = 5,
    vcre_threshold: float = 90.0,
) -> int:
    """Score a Map-free submission here, exactly as published (official) or with the known defects fixed (clean).

    Args:
        submission: The zip one would upload.
        data: Folder of the split, with poses.txt and intrinsics.txt of each scene.
        mode: Which scorer; official alone also says each warning as often as the published one.
        step: Every step-th query counts.
        vcre_threshold: Pixels; 10 % of the diagonal of 540 x 720 by default.
    """
    modes: tuple[Mode, ...] = ("official", "clean") if mode == "both" else (mode,)
    scores = [score_mapfree(data, submission, mode=m, step=step, vcre_threshold=vcre_threshold) for m in modes]
    rows = [["metric", *modes]]
    rows += [[name, *(number(score.metrics[name]) for score in scores)] for name in scores[0].metrics]
    rows.append(["failures", *(f"{score.failures} of {score.total}" for score in scores)])
    print(markdown_table(rows))
    distinct = dict.fromkeys(warning for score in scores for warning in score.about_submission)
    for warning in scores[0].warnings if mode == "official" else distinct:
        print(warning, file=sys.stderr)
    return 0


@dataclass(frozen=True)
class TargetOptions:
    """When a pose counts as right; by default rotation below 5 degrees and direction below 10."""

    rotation_deg: float | None = 5.0
    """Degrees."""
    direction_deg: float | None = 10.0
    """Degrees between true and estimated translation; for poses without metres."""
    center_m: float | None = None
    """Metres between true and estimated camera."""
    vcre_fraction: float | None = None
    """VCRE as a fraction of the diagonal, 0.1 in the MicKey paper."""
    near_m: float | None = None
    """Metres within which a position counts as in the right direction."""


def evaluate_calibrate(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    benchmark: BenchmarkName,
    part: Annotated[BenchmarkOptions, tyro.conf.arg(name="part")],
    out: Path,
    target: Annotated[TargetOptions, tyro.conf.arg(name="target")] = TargetOptions(),
    kind: Kind = "logistic",
    statistics: tuple[str, ...] | None = None,
) -> int:
    """Fit the confidence of a method on a run, so that it becomes a probability.

    Args:
        folder: Folder of the run; its photos must be none that the result is judged on.
        benchmark: What it ran on.
        part: Where it is and which part of it.
        out: File to write; name it calibration.json beside MicKey's weights to have it used.
        target: When a pose counts as right.
        kind: Logistic regression on statistics of the solver, or isotonic regression on one.
        statistics: Which; all that the run has by default.
    """
    chosen = _pairs_of(benchmark, part)
    records = collect(chosen.tasks, folder)
    scores = score_pairs(chosen.tasks, records)
    bounds = Target(**dataclasses.asdict(target))
    right = within(bounds, scores)
    described = read_run(folder)
    name = "matching" if described["method"] not in ("mickey", "identity") else described["method"]
    trained_on = f"{benchmark} {part.data.resolve().name}"
    source = calibrating.FitSource(name, described["weights_id"], trained_on, _setup_of(records, folder))
    fitted = calibrating.fit_calibration(records, right, source, target=bounds, kind=kind, statistics=statistics)
    save_calibration(out, fitted)
    found = [i for i, record in enumerate(records) if record.success]
    before = [records[i].confidence for i in found]
    after = [fitted.probability(records[i].confidence, records[i].statistics) for i in found]
    print(f"{len(found)} estimates, {int(right.sum())} right ({bounds})")
    for label, values in (("before", before), ("after, on the same pairs", after)):
        error = calibrating.expected_calibration_error(np.array(values), right[found])
        print(f"expected calibration error {label}: {error:.3f}")
    print(f"written: {out}")
    return 0


def _setup_of(records: Sequence[Record], folder: Path) -> str:
    """What made the poses of a run besides the weights; one calibration fits one setup."""
    setups = sorted({record.setup for record in records if record.success})
    if len(setups) > 1:
        raise InputError(f"'{folder}' holds poses of {len(setups)} setups ({'; '.join(setups)}): run each by itself")
    return setups[0] if setups else ""


def _pairs_of(benchmark: BenchmarkName, part: BenchmarkOptions) -> PairBenchmark:
    chosen = load_benchmark(benchmark, part)
    if not isinstance(chosen, PairBenchmark):
        raise InputError(f"{benchmark} has queries in maps; this command takes pairs (mapfree, pairs, scannet)")
    return chosen


def _progress(rank: int) -> Any:
    """Of the first worker, on a terminal; elsewhere nothing."""
    if rank != 0 or not sys.stderr.isatty():
        return nullcontext(None)
    from metriloc.cli.terminal import progress_bar

    return progress_bar("pairs")
