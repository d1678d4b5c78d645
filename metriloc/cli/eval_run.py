"""One method over one benchmark: what ``metriloc eval`` and ``metriloc eval table`` have in common."""

from __future__ import annotations

import dataclasses
import pickle
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from metriloc.adjust import adjusted
from metriloc.choose import (
    HUB_METHOD,
    LOCALIZERS,
    METHODS,
    LocalizerChoice,
    MethodChoice,
    choose_localizer,
    choose_method,
    is_method,
)
from metriloc.cli.terminal import complain, progress_bar
from metriloc.datasets.mapfree import BLOCK
from metriloc.evaluation.benchmarks import BenchmarkOptions, PairBenchmark, QueryBenchmark
from metriloc.evaluation.ray_runner import run_with_ray
from metriloc.evaluation.records import Record
from metriloc.evaluation.runner import collect, run
from metriloc.evaluation.tasks import BurstSolver, PairSolver, QuerySolver, Solve
from metriloc.io import InputError, prepare_output_folder
from metriloc.methods.matching.hub_models import licenses_of
from metriloc.runs.options import MethodSettings
from metriloc.tracking import Tracker
from metriloc.training.processes import joined_processes, worker_from_environment
from metriloc.types import View


def solved(
    method: str,
    benchmark: str,
    part: BenchmarkOptions,
    chosen: PairBenchmark | QueryBenchmark,
    out: Path,
    how: MethodSettings,
    assignments: Sequence[str] = (),
    *,
    ray_workers: int = 0,
) -> list[Record] | None:
    """Do what is not done yet in the folder ``out``; the records of all tasks, None for all but the first process."""
    worker = worker_from_environment()
    build = builder(method, chosen, how, assignments)
    solve = build()
    out = prepare_output_folder(out)
    described = _description(method, weights_of(solve), benchmark, part, how, assignments)
    with joined_processes("cpu") as processes, progress_bar("pairs", worker.rank) as progress:
        try:
            if ray_workers:
                require_picklable(build)
                run_with_ray(
                    chosen.tasks,
                    build,
                    out,
                    described,
                    workers=ray_workers,
                    seed=how.seed,
                    gpus_per_worker=1 if how.device.startswith("cuda") else 0,
                    progress=progress,
                )
            else:
                run(chosen.tasks, solve, out, described, seed=how.seed, worker=worker, progress=progress)
        except KeyboardInterrupt:
            print(f"\nstopped; the same command goes on where it was ({out})", file=sys.stderr)
            raise
        processes.wait()
    return collect(chosen.tasks, out) if worker.rank == 0 else None


def _description(
    method: str,
    weights_id: str,
    benchmark: str,
    part: BenchmarkOptions,
    how: MethodSettings,
    assignments: Sequence[str],
) -> dict[str, Any]:
    """What decides the numbers; where files are and who works on them does not."""
    settings = {k: v for k, v in dataclasses.asdict(how).items() if k not in ("seed", "device")}
    described = {"method": method, "weights_id": weights_id, "benchmark": benchmark, **settings}
    if assignments:
        described["set"] = list(assignments)
    return described | {
        name: value
        for name, value in (
            ("resize", part.resize),
            ("max_overlap", part.max_overlap),
            ("multi_frame", part.multi_frame),
        )
        if value
    }


def device_of(device: str, environment: Mapping[str, str]) -> str:
    """``cuda`` means one GPU for each process of ``torchrun`` on a machine (LOCAL_RANK); other devices stay."""
    rank = environment.get("LOCAL_RANK")
    return f"cuda:{rank}" if device == "cuda" and rank is not None else device


def builder(
    method: str, chosen: PairBenchmark | QueryBenchmark, how: MethodSettings, assignments: Sequence[str]
) -> Callable[[], Solve]:
    if isinstance(chosen, QueryBenchmark):
        if method not in LOCALIZERS:
            raise InputError(f"{chosen.name} needs a localiser, not {method!r}: one of {', '.join(LOCALIZERS)}")
        choice = LocalizerChoice(method, how.weights, how.device, calibration=how.calibration, runtime=how.runtime)
        return partial(_query_solver, choice, tuple(assignments))
    if method in LOCALIZERS:
        raise InputError(f"{method} localises in maps; {chosen.name} needs a relative method such as xfeat")
    if not is_method(method):
        raise InputError(f"there is no method {method!r}: one of {', '.join((*METHODS, HUB_METHOD))}")
    if assignments:
        raise InputError(f"--set {assignments[0]}: it sets localizers; {method} is a relative method")
    for line in licenses_of(method, how.depth_source):
        complain("eval", line)
    choice_of_pairs = how.choice(method, of_data=True)
    return partial(_burst_solver if chosen.multi_frame else _pair_solver, choice_of_pairs, chosen.size)


def _burst_solver(choice: MethodChoice, size: tuple[int, int] | None) -> Solve:
    method = choose_method(choice)
    return BurstSolver(method, partial(_burst_tracker, method), size)


def _burst_tracker(method: Any, reference: View, seed: int) -> Tracker:
    return Tracker(reference, method=method, frames=BLOCK, seed=seed)


def _pair_solver(choice: MethodChoice, size: tuple[int, int] | None) -> Solve:
    return PairSolver(choose_method(choice), size)


def _query_solver(choice: LocalizerChoice, assignments: Sequence[str]) -> Solve:
    return QuerySolver(adjusted(choose_localizer(choice), assignments))


def weights_of(solve: Solve) -> str:
    return str(getattr(solve, "method").weights_id)  # noqa: B009 - both solvers have it, the protocol need not


def require_picklable(build: Callable[[], Solve]) -> None:
    try:
        pickle.dumps(build)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"this method cannot be sent to Ray workers: {error}") from error
