"""Run a method over a benchmark: resumable, sharded over processes, the same records whatever the number of workers.

Tasks that share a reference stay with one worker. Workers of ``torchrun`` split the groups; a run that was killed goes
on with whatever number of workers the next one has, since all read each other's records first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metriloc.evaluation.records import (
    Record,
    append_record,
    fingerprint,
    open_records,
    open_run,
    read_records,
)
from metriloc.evaluation.tasks import Solve, Task, check_unique
from metriloc.io import InputError, prepare_output_folder
from metriloc.training.processes import Worker

Progress = Callable[[int, int], None]
"""(tasks done, tasks in all), of this worker."""


def shard(tasks: Sequence[Any], worker: Worker) -> list[Any]:
    """The tasks of one worker: whole groups, dealt in turn."""
    order: dict[str, int] = {}
    for task in tasks:
        order.setdefault(task.group, len(order))
    return [task for task in tasks if order[task.group] % worker.count == worker.rank]


def run(
    tasks: Sequence[Any],
    solve: Solve,
    folder: str | os.PathLike[str],
    description: Mapping[str, Any],
    *,
    seed: int = 0,
    worker: Worker | None = None,
    progress: Progress | None = None,
) -> None:
    """Do what of this worker's tasks is not done yet, appending a record for each to ``folder``.

    description: what decides the results (method, weights, settings); a folder of another run is refused. Ctrl+C loses
    the task in hand only. Raises InputError for a folder that cannot be used and for two tasks of one key.
    """
    worker = worker or Worker()
    folder = prepare_output_folder(folder)
    start(tasks, folder, description, seed)
    mine = shard(tasks, worker)
    done = read_records(folder, [task.key for task in mine])
    count = len(done)
    if progress is not None:
        progress(count, len(mine))
    with open_records(folder, f"{worker.rank}-of-{worker.count}") as file:
        for task in mine:
            if task.key in done:
                continue
            append_record(file, solve(task, seed))
            count += 1
            if progress is not None:
                progress(count, len(mine))


def start(tasks: Sequence[Task], folder: Path, description: Mapping[str, Any], seed: int) -> None:
    """Check the tasks and the folder, and say in it what is run."""
    if not tasks:
        raise InputError("the benchmark has no task")
    check_unique(tasks)
    keys = [task.key for task in tasks]
    open_run(folder, {**description, "seed": seed, "tasks": len(keys), "fingerprint": fingerprint(keys)})


def collect(tasks: Sequence[Any], folder: str | os.PathLike[str]) -> list[Record]:
    """The records of all tasks in their order. Raises InputError when some are not done."""
    keys = [task.key for task in tasks]
    records = read_records(Path(folder), keys)
    missing = [key for key in keys if key not in records]
    if missing:
        raise InputError(f"'{folder}': {len(missing)} of {len(keys)} tasks are not done, the first is {missing[0]!r}")
    return [records[key] for key in keys]
