"""Runs over benchmarks: what is written of a failure, merged results, sources that are read once, shares of processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.datasets.sources import PosedFrame
from metriloc.evaluation.records import Record, record_of, unreadable
from metriloc.evaluation.runner import shard
from metriloc.evaluation.tasks import QueryTask
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.runs.benchmark import (
    POSES,
    PartTask,
    RunChoice,
    Sources,
    finished,
    lost,
    merge_results,
    read_results,
    with_start,
)
from metriloc.training.processes import Worker
from metriloc.types import LocalizationDetails, PoseEstimate, SfmMap, Stage


def pose() -> Pose:
    return Pose.from_tangent(torch.tensor([1.0, 2.0, 3.0, 0.1, -0.2, 0.3], dtype=torch.float64))


def test_a_failure_keeps_the_pose_it_started_from() -> None:
    details = LocalizationDetails(stages=(Stage("start", pose(), 1.0), Stage("scale 4, level 2", Pose.identity(), 0.5)))
    failure = PoseEstimate.failure("diverged", details)
    record = with_start(record_of("a", failure, 1.0), failure)
    assert not record.success and record.pose is not None and record.reason == "diverged" and not lost(record)
    torch.testing.assert_close(record.pose.matrix(), pose().matrix())
    nowhere = PoseEstimate.failure("too_few_matches")
    assert with_start(record_of("a", nowhere, 1.0), nowhere).pose is None
    unknown = Pose(torch.full((3, 3), torch.nan), torch.full((3,), torch.nan))
    lost_start = PoseEstimate.failure("non_finite", LocalizationDetails(stages=(Stage("start", unknown, 1.0),)))
    assert with_start(record_of("a", lost_start, 1.0), lost_start).pose is None
    found = PoseEstimate(pose(), torch.tensor(True), torch.tensor(0.5), (None,), localization=(details,))
    solved = with_start(record_of("a", found, 1.0), found)
    assert solved.success and solved.pose is not None
    torch.testing.assert_close(solved.pose.matrix(), pose().matrix())


def test_what_counts_as_lost() -> None:
    assert lost(unreadable("a", InputError("'a.jpg' is empty")))
    assert not lost(Record("a", True, 1.0)) and not lost(Record("a", False, 0.0, reason="flat_maps"))


def test_merged_results(tmp_path: Path) -> None:
    line = "1.0 0.0 0.0 0.0 0.1 0.2 0.30000000000000004"
    texts = {"a": f"x.jpg {line}\ny.jpg {line}\n", "b": "", "c": f"z.jpg {line}"}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    files = [tmp_path / f"{name}.txt" for name in texts]
    assert merge_results(files, tmp_path / "all.txt") == 3
    assert (tmp_path / "all.txt").read_text() == f"x.jpg {line}\ny.jpg {line}\nz.jpg {line}\n"
    assert list(read_results(tmp_path / "all.txt")) == ["x.jpg", "y.jpg", "z.jpg"]
    (tmp_path / "d.txt").write_text(f"y.jpg {line}\n")
    with pytest.raises(InputError, match=r"a.txt' and '.*d.txt' both hold a pose of 'y.jpg'"):
        merge_results([*files, tmp_path / "d.txt"], tmp_path / "again.txt")
    with pytest.raises(InputError, match=r"nowhere.txt' does not exist"):
        merge_results([tmp_path / "nowhere.txt"], tmp_path / "again.txt")
    assert not (tmp_path / "again.txt").exists()


def test_a_finished_part_is_known_by_its_poses_and_settings(tmp_path: Path) -> None:
    described = {"method": "pixloc", "weights_id": "w", "levels": None}
    assert not finished(tmp_path, described)
    (tmp_path / "run.json").write_text('{"method": "pixloc", "weights_id": "w", "levels": null, "tasks": 3}')
    assert not finished(tmp_path, described)
    (tmp_path / POSES).write_text("")
    assert finished(tmp_path, described)
    with pytest.raises(InputError, match=r"holds another run \(weights_id: 'w', now 'v'\)"):
        finished(tmp_path, {**described, "weights_id": "v"})


def test_sources_read_what_follows_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []
    monkeypatch.setattr("metriloc.runs.benchmark.read_log", lambda path: read.append(path) or {"of": path})
    sources = Sources()
    for path in ("a", "a", "b", "b", "a"):
        assert sources.log(Path(path)) == {"of": Path(path)}
    assert read == [Path("a"), Path("b"), Path("a")]  # only the last is kept


def test_processes_share_a_part_by_chunks(tmp_path: Path) -> None:
    camera = Camera.from_fov((64, 48), 1.0)
    empty, no = Pose.identity((0,)), torch.zeros(0, dtype=torch.long)
    scene = SfmMap((), (), empty, torch.zeros(0, 3), no, no, torch.zeros(0, 2))
    frames = [PosedFrame("night", f"{n}.jpg", tmp_path, camera) for n in range(40)]
    tasks = [PartTask(QueryTask(frame, scene, ()), n // 16) for n, frame in enumerate(frames)]
    shares = [shard(tasks, Worker(rank, 2)) for rank in range(2)]
    assert [len(share) for share in shares] == [24, 16]
    assert {task.key for share in shares for task in share} == {f"night/{n}.jpg" for n in range(40)}
    assert {task.chunk for task in shares[1]} == {1}


def test_which_choices_need_a_log() -> None:
    assert not RunChoice().uses_logs and RunChoice(logs=True).uses_logs and RunChoice(from_poses=True).uses_logs
