"""Runs: resumed where they were killed, split over processes and Ray workers, always the same records."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metriloc.evaluation.records import Record, parse_record, read_records, record_of
from metriloc.evaluation.runner import collect, run, shard
from metriloc.evaluation.tasks import seed_of
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.training.processes import Worker, worker_from_environment
from metriloc.types import Correspondences, PairDetails, PoseEstimate

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Toy:
    """A task that needs no photos."""

    key: str
    group: str


TASKS = [Toy(f"s{i // 4}/q{i}", f"s{i // 4}") for i in range(22)]
DESCRIPTION = {"method": "toy", "weights_id": "none"}


def solve(task: Toy, seed: int) -> Record:
    """A pose that only the task and the seed decide; every seventh task fails."""
    number = seed_of(task.key, seed)
    if number % 7 == 0:
        return Record(task.key, False, 0.0, reason="degenerate")
    return Record(task.key, True, number % 1000 / 1000, (1.0, 0.0, 0.0, 0.0), (number % 97 / 10, 0.0, 0.0))


def build() -> object:
    return solve


def keys(folder: Path) -> list[str]:
    lines = [line for path in folder.glob("records-*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line)["key"] for line in lines]


def test_a_run_is_complete_and_in_order(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    run(TASKS, solve, tmp_path, DESCRIPTION, progress=lambda done, total: seen.append((done, total)))
    assert collect(TASKS, tmp_path) == [solve(task, 0) for task in TASKS]
    assert seen[0] == (0, 22) and seen[-1] == (22, 22)


@pytest.mark.parametrize("stop", [0, 1, 13])
def test_a_killed_run_goes_on_and_counts_nothing_twice(tmp_path: Path, stop: int) -> None:
    calls: list[str] = []

    def interrupted(task: Toy, seed: int) -> Record:
        if len(calls) == stop:
            raise KeyboardInterrupt
        calls.append(task.key)
        return solve(task, seed)

    with pytest.raises(KeyboardInterrupt):
        run(TASKS, interrupted, tmp_path, DESCRIPTION)
    with pytest.raises(InputError, match=f"{22 - stop} of 22 tasks are not done"):
        collect(TASKS, tmp_path)
    # the last line was cut off by the kill
    path = tmp_path / "records-0-of-1.jsonl"
    if stop:
        path.write_bytes(path.read_bytes()[:-9])
    again: list[str] = []

    def counting(task: Toy, seed: int) -> Record:
        again.append(task.key)
        return solve(task, seed)

    run(TASKS, counting, tmp_path, DESCRIPTION)
    assert collect(TASKS, tmp_path) == [solve(task, 0) for task in TASKS]
    assert len(again) == 22 - max(stop - 1, 0)


def test_workers_share_the_work_by_groups_and_agree_with_one(tmp_path: Path) -> None:
    parts = [shard(TASKS, Worker(rank, 3)) for rank in range(3)]
    assert sorted(task.key for part in parts for task in part) == sorted(task.key for task in TASKS)
    assert not {t.group for t in parts[0]} & {t.group for t in parts[1]}
    for rank in range(3):
        run(TASKS, solve, tmp_path, DESCRIPTION, worker=Worker(rank, 3))
    assert collect(TASKS, tmp_path) == [solve(task, 0) for task in TASKS]
    # another number of workers finds everything done
    run(TASKS, solve, tmp_path, DESCRIPTION, worker=Worker(0, 2))
    assert len(keys(tmp_path)) == 22


def test_another_run_is_refused_by_name(tmp_path: Path) -> None:
    run(TASKS, solve, tmp_path, DESCRIPTION)
    with pytest.raises(InputError, match="weights_id: 'none', now 'other'"):
        run(TASKS, solve, tmp_path, {**DESCRIPTION, "weights_id": "other"})
    with pytest.raises(InputError, match="seed"):
        run(TASKS, solve, tmp_path, DESCRIPTION, seed=1)
    with pytest.raises(InputError, match=r"fingerprint|tasks"):
        run(TASKS[:-1], solve, tmp_path, DESCRIPTION)
    with pytest.raises(InputError, match="twice"):
        run([*TASKS, TASKS[0]], solve, tmp_path / "b", DESCRIPTION)
    (tmp_path / "b" / "run.json").write_text("{}")
    with pytest.raises(InputError, match="describes no run"):
        run(TASKS, solve, tmp_path / "b", DESCRIPTION)
    with pytest.raises(InputError, match="no task"):
        run([], solve, tmp_path / "c", DESCRIPTION)


def test_seeds_differ_by_task_and_by_seed() -> None:
    assert len({seed_of(task.key, seed) for task in TASKS for seed in range(5)}) == 110
    assert seed_of("a", 0) == seed_of("a", 0)


def test_worker_from_environment() -> None:
    assert worker_from_environment({}) == Worker(0, 1)
    assert worker_from_environment({"RANK": "2", "WORLD_SIZE": "4"}) == Worker(2, 4)
    assert worker_from_environment({"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "1"}).local_rank == 1
    with pytest.raises(InputError, match="RANK"):
        worker_from_environment({"RANK": "x"})
    with pytest.raises(ValueError, match="4 of 4"):
        Worker(4, 4)


@pytest.mark.slow
def test_two_processes_of_torchrun_wait_for_each_other(tmp_path: Path) -> None:
    script = tmp_path / "job.py"
    script.write_text(
        f"import sys; sys.path[:0] = [{str(ROOT)!r}, {str(Path(__file__).parent)!r}]\n"
        "from test_runs import TASKS, DESCRIPTION, solve\n"
        "from metriloc.evaluation.runner import collect, run\n"
        "from metriloc.training.processes import joined_processes, worker_from_environment\n"
        "worker = worker_from_environment()\n"
        "with joined_processes('cpu') as processes:\n"
        f"    run(TASKS, solve, {str(tmp_path / 'run')!r}, DESCRIPTION, worker=worker)\n"
        "    processes.wait()\n"
        f"if worker.rank == 0: print(len(collect(TASKS, {str(tmp_path / 'run')!r})))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=120, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip().splitlines()[-1] == "22"
    assert collect(TASKS, tmp_path / "run") == [solve(task, 0) for task in TASKS]
    assert len(list((tmp_path / "run").glob("records-*-of-2.jsonl"))) == 2


@pytest.mark.slow
def test_two_ray_workers_agree_with_one_process(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed (extra ray)")
    # Ray's workers import by name: give them what they need by value
    import ray.cloudpickle as cloudpickle

    from metriloc.evaluation.ray_runner import run_with_ray

    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        seen: list[tuple[int, int]] = []
        progress = lambda done, total: seen.append((done, total))  # noqa: E731
        run(TASKS[:8], solve, tmp_path / "one", DESCRIPTION)
        run_with_ray(TASKS, build, tmp_path / "ray", DESCRIPTION, workers=2, progress=progress)  # type: ignore[arg-type]
        assert collect(TASKS, tmp_path / "ray") == [solve(task, 0) for task in TASKS]
        assert seen[-1] == (22, 22) and len(keys(tmp_path / "ray")) == 22
        # nothing is left to do
        run_with_ray(TASKS, build, tmp_path / "ray", DESCRIPTION, workers=2)  # type: ignore[arg-type]
        assert len(keys(tmp_path / "ray")) == 22
    finally:
        import ray

        ray.shutdown()


def estimate(success: bool) -> PoseEstimate:
    details = PairDetails(3.0, Correspondences.empty(), metric=False, statistics={"inliers": 3.0})
    if not success:
        return PoseEstimate.failure("degenerate", details)
    pose = Pose(torch.eye(3), torch.tensor([1.0, 2.0, 3.0]))
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(0.25), (None,), (details,))


def test_records_keep_what_an_estimate_says() -> None:
    kept = record_of("k", estimate(True), 1.5)
    assert kept.t == (1.0, 2.0, 3.0) and kept.confidence == 0.25 and not kept.metric and kept.seconds == 1.5
    assert kept.statistics == {"inliers": 3.0}
    lost = record_of("k", estimate(False), 1.0)
    assert lost.pose is None and lost.reason == "degenerate" and not lost.success


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.integers(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.fixed_dictionaries(
        {},
        optional={
            name: _JSON
            for name in ("key", "success", "confidence", "q", "t", "metric", "reason", "seconds", "statistics")
        },
    )
)
def test_no_record_line_breaks_the_reader(entry: dict[str, object]) -> None:
    record = parse_record(json.dumps(entry))
    assert record is None or record.pose is None or bool(record.pose.is_finite())
    assert parse_record(json.dumps(entry)[:-1]) is None


def test_records_of_other_tasks_do_not_count(tmp_path: Path) -> None:
    run(TASKS, solve, tmp_path, DESCRIPTION)
    assert set(read_records(tmp_path, ["s0/q0"])) == {"s0/q0"}
    (tmp_path / "records-9-of-10.jsonl").write_bytes(b"\xff\xfe{}\n[]\n{\n")
    assert len(read_records(tmp_path)) == 22
