"""Map-free's multi-frame track: which frames, which device poses, and how it is scored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from oracles.stream_files import some_poses, write_photos

from metriloc.cli.main import main
from metriloc.datasets.mapfree import read_mapfree_scene
from metriloc.evaluation.benchmarks import BenchmarkOptions, PairBenchmark, load_benchmark
from metriloc.evaluation.mapfree import score_mapfree
from metriloc.evaluation.submission import scene_text, write_submission
from metriloc.evaluation.tasks import BurstSolver
from metriloc.geometry import Pose
from metriloc.io import InputError, mapfree_pose_line
from metriloc.types import PoseEstimate, View

QUERIES = 21
TRUTH = some_poses(QUERIES)


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scene with two whole blocks of ten queries and one frame more; the phone's poses as the data set has them."""
    root = tmp_path_factory.mktemp("mapfree") / "val"
    queries = [f"seq1/frame_{2 * i:05d}.jpg" for i in range(QUERIES)]  # numbers have gaps
    names = ["seq0/frame_00000.jpg", *queries]
    folder = write_photos(root / "s00460", names)
    poses = [Pose.identity(dtype=torch.float64), *TRUTH]
    (folder / "poses.txt").write_text(
        "".join(f"{mapfree_pose_line(n, p)}\n" for n, p in zip(names, poses, strict=True))
    )
    (folder / "intrinsics.txt").write_text("".join(f"{name} 60 60 31.5 23.5 64 48\n" for name in names))
    device = []
    for last in (9, 19):
        for i in range(last - 8, last + 1):
            if i != 15:  # one that the phone lost
                device.append(mapfree_pose_line(queries[i], TRUTH[i] @ TRUTH[last].inverse()))
    (folder / "poses_device.txt").write_text("\n".join(device) + "\n")
    return root


class Recorder:
    """Answers with the last device pose, and remembers what it was given."""

    def __init__(self, reference: View, seed: int) -> None:
        self.reference, self.seed = reference, seed
        self.given: list[tuple[str, Pose | None]] = []

    def add(self, photo: Any, device_pose: Pose | None = None, *, name: str = "") -> PoseEstimate:
        self.given.append((name, device_pose))
        return PoseEstimate.failure("too_few_matches")


def test_tasks_are_the_blocks_with_the_phones_own_tracking(split: Path) -> None:
    chosen = load_benchmark("mapfree", BenchmarkOptions(split, multi_frame=True))
    assert isinstance(chosen, PairBenchmark) and (chosen.first, chosen.step) == (9, 10)
    assert [task.pair.frame1.name for task in chosen.tasks] == ["seq1/frame_00018.jpg", "seq1/frame_00038.jpg"]
    begun: list[Recorder] = []

    def begin(reference: View, seed: int) -> Recorder:
        begun.append(Recorder(reference, seed))
        return begun[-1]

    class Method:
        name = weights_id = "none"

    solver = BurstSolver(Method(), begin)  # type: ignore[arg-type]
    record = solver(chosen.tasks[1], 0)
    assert not record.success and record.key == "s00460/seq0/frame_00000.jpg seq1/frame_00038.jpg"
    (tracker,) = begun
    assert tracker.reference.name == "s00460/seq0/frame_00000.jpg"
    assert [name for name, _ in tracker.given] == [f"seq1/frame_{2 * i:05d}.jpg" for i in range(11, 20)]
    assert [pose is None for _, pose in tracker.given] == [i == 15 for i in range(11, 20)]
    for (_, pose), i in zip(tracker.given, range(11, 20), strict=True):
        if pose is not None:
            expected = TRUTH[i] @ TRUTH[19].inverse()
            torch.testing.assert_close(pose.matrix(), expected.matrix(), rtol=0, atol=1e-8)


def test_a_photo_that_cannot_be_read_costs_itself_the_last_one_the_task(split: Path, tmp_path: Path) -> None:
    scene = read_mapfree_scene(split / "s00460")
    block = scene.evaluation_blocks()[0]
    assert len(block.queries) == 9
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in (split / "s00460").rglob("*"):
        if file.is_file():
            target = broken / file.relative_to(split / "s00460")
            target.parent.mkdir(exist_ok=True)
            target.write_bytes(file.read_bytes())
    (broken / "seq1/frame_00004.jpg").write_bytes(b"no photo")
    (broken / "seq1/frame_00038.jpg").write_bytes(b"no photo")
    first, second = load_benchmark("mapfree", BenchmarkOptions(broken, multi_frame=True)).tasks
    begun: list[Recorder] = []

    def begin(reference: View, seed: int) -> Recorder:
        begun.append(Recorder(reference, seed))
        return begun[-1]

    solver = BurstSolver(None, begin)  # type: ignore[arg-type]
    assert solver(first, 0).reason == "too_few_matches" and len(begun[0].given) == 8  # type: ignore[arg-type]
    assert "frame_00038.jpg" in str(solver(second, 0).reason)  # type: ignore[arg-type]


def test_only_the_positions_of_the_track_are_scored(split: Path, tmp_path: Path) -> None:
    queries = [f"seq1/frame_{2 * i:05d}.jpg" for i in range(QUERIES)]
    file = tmp_path / "submission.zip"
    found = {queries[9]: (TRUTH[9], 0.9), queries[10]: (TRUTH[3], 0.9)}  # the second one is not looked at
    write_submission(file, {"s00460": scene_text(found)})
    for mode in ("official", "clean"):
        score = score_mapfree(split, file, mode=mode, step=10, first=9)  # type: ignore[arg-type]
        assert score.total == 2 and score.failures == 1
        assert score.metrics["Average Median Translation Error"] < 1e-5
        assert [scene.frames for scene in score.scenes] == [(18,)]


def test_options_that_contradict(split: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="--multi-frame is a track of mapfree"):
        load_benchmark("pairs", BenchmarkOptions(split, multi_frame=True))
    with pytest.raises(InputError, match="leave out --step"):
        load_benchmark("mapfree", BenchmarkOptions(split, multi_frame=True, step=5))
    with pytest.raises(InputError, match="the phone's motion tells the metres"):
        load_benchmark("mapfree", BenchmarkOptions(split, multi_frame=True), "dptkitti")
    with pytest.raises(SystemExit) as stop:
        main(["eval", "score", "x.zip", "--data", str(split), "--multi-frame", "--step", "5"])
    assert stop.value.code == 2 and "contradict" in capsys.readouterr().err


def test_a_short_scene_has_no_block(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "s00001", ["seq0/frame_00000.jpg", "seq1/frame_00000.jpg"])
    identity = Pose.identity(dtype=torch.float64)
    names = ("seq0/frame_00000.jpg", "seq1/frame_00000.jpg")
    (folder / "poses.txt").write_text("".join(f"{mapfree_pose_line(name, identity)}\n" for name in names))
    (folder / "intrinsics.txt").write_text("".join(f"{name} 60 60 31.5 23.5 64 48\n" for name in names))
    with pytest.raises(InputError, match="has no 10 queries in a row"):
        load_benchmark("mapfree", BenchmarkOptions(tmp_path, multi_frame=True))
