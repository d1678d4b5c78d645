"""The same run over several machines with Ray Data (extra ``ray``): each worker builds the method once and solves groups.

Records come back to the driver, which appends them to the run folder: the same records as from one process, since every
task has its own seed. A killed driver goes on where it stopped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from metriloc.evaluation.records import append_record, open_records, parse_record, read_records
from metriloc.evaluation.runner import Progress, start
from metriloc.evaluation.tasks import Solve
from metriloc.io import prepare_output_folder

MISSING_RAY = 'runs over machines need Ray: pip install "metriloc[ray]"'


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
    try:
        import ray
    except ImportError as error:
        raise ImportError(MISSING_RAY) from error
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
    ray.init(ignore_reinit_error=True, include_dashboard=False, log_to_driver=False)
    rows = _solved(ray, (build, list(groups.values()), seed), workers, gpus_per_worker)
    with open_records(folder, "ray") as file:
        for row in rows:
            for line in json.loads(row["records"]):
                record = parse_record(line)
                if record is None:
                    raise RuntimeError(f"a worker sent what is no record: {line[:200]}")
                append_record(file, record)
                count += 1
            if progress is not None:
                progress(count, len(tasks))


def _solved(ray: Any, work: tuple[Any, list[list[Any]], int], workers: int, gpus: float) -> Iterator[Mapping[str, Any]]:
    """The records of each group, as they are done. work: what makes the solver, the groups, the seed."""
    ray.data.DataContext.get_current().enable_progress_bars = False
    count = len(work[1])
    rows = ray.data.from_items([{"group": i} for i in range(count)], override_num_blocks=count)
    solved = rows.map_batches(
        _GroupSolver,
        fn_constructor_args=(ray.put(work),),
        batch_size=1,
        concurrency=workers,
        num_gpus=gpus or None,
    )
    return iter(solved.iter_rows())


class _GroupSolver:
    """Lives in a Ray worker."""

    def __init__(self, reference: Any) -> None:
        import ray

        build, self._groups, self._seed = ray.get(reference)
        self._solve: Solve = build()

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[str]]:
        found = []
        for group in batch["group"]:
            records = [self._solve(task, self._seed) for task in self._groups[int(group)]]
            found.append(json.dumps([json.dumps(asdict(record)) for record in records]))
        return {"records": found}
