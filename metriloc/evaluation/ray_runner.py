"""The same run over several machines with Ray Data (extra ``ray``): each worker builds the method once and solves groups.

Records come back to the driver, which appends them to the run folder: the same records as from one process, since every
task has its own seed. A killed driver goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metriloc.evaluation.records import append_record, open_records, parse_record, read_records
from metriloc.evaluation.runner import Progress, start
from metriloc.evaluation.tasks import Solve
from metriloc.io import prepare_output_folder
from metriloc.ray_workers import work_with_ray


def run_with_ray(
    tasks: Sequence[Any],
    build: Callable[[], Solve],
    folder: str | os.PathLike[str],
    description: Mapping[str, Any],
    *,
    workers: int,
    seed: int = 0,
    gpus_per_worker: float = 0,
    progress: Progress | None = None,
) -> None:
    """``metriloc.evaluation.runner.run`` with ``workers`` Ray workers; ``build`` makes the solver in each of them.

    Machines are those of the Ray cluster that ``ray.init`` finds (RAY_ADDRESS), else this one; the data set must be at
    the same path on all. Raises ImportError, with the pip command, without Ray.
    """
    folder = prepare_output_folder(folder)
    start(tasks, folder, description, seed)
    done = read_records(folder, [task.key for task in tasks])
    groups: dict[str, list[Any]] = {}
    for task in tasks:
        if task.key not in done:
            groups.setdefault(task.group, []).append(task)
    count = len(done)
    if progress is not None:
        progress(count, len(tasks))
    if not groups:
        return
    answers = work_with_ray(
        _Solver(build, seed), list(groups.values()), workers=workers, gpus_per_worker=gpus_per_worker
    )
    with open_records(folder, "ray") as file:
        for answer in answers:
            for line in json.loads(answer):
                record = parse_record(line)
                if record is None:
                    raise RuntimeError(f"a worker sent what is no record: {line[:200]}")
                append_record(file, record)
                count += 1
            if progress is not None:
                progress(count, len(tasks))


@dataclass(frozen=True)
class _Solver:
    """Makes what solves a group of tasks, as text."""

    build: Callable[[], Solve]
    seed: int

    def __call__(self) -> Callable[[Sequence[Any]], str]:
        solve = self.build()
        return lambda tasks: json.dumps([json.dumps(asdict(solve(task, self.seed))) for task in tasks])
