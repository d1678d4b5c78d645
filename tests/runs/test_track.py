"""Folders of ``metriloc track`` with a stand-in for the tracker: lines as they come, resuming, bad frames, steady memory."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracles.stream_files import some_poses, write_photos

from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, read_tum, tum_line
from metriloc.runs.track import WARM_UP, run_track
from metriloc.runs.track_files import TrackFolder
from metriloc.runs.track_results import TrackedFrame, TrackRun, frame_in_words
from metriloc.streams.frames import Stream, StreamFrame
from metriloc.streams.pace import Pace
from metriloc.streams.source import StreamOptions, open_stream
from metriloc.streams.views import CameraOptions
from metriloc.types import (
    Frame,
    LocalizationDetails,
    PoseEstimate,
    TrackDetails,
    TrackNote,
    TrackState,
    TrackTrouble,
    View,
)

FORMATS = ("tum", "kitti", "colmap", "nerfstudio", "ros_covariance")
POSES = some_poses(12)


class StandIn:
    """Answers with the device's pose in a map; loses what has none."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def add_frame(self, frame: Frame) -> PoseEstimate:
        self.heard.append(frame.name)
        found = frame.photo is not None and frame.device_pose is not None
        notes = () if frame.device_pose is not None else (TrackNote(TrackTrouble.BAD_DEVICE_POSE, "no pose"),)
        state = TrackState.TRACKING if found else TrackState.LOST
        number = len(self.heard) - 1
        used = (number - 1, number) if number else (0,)
        track = TrackDetails(frame.name, number, frame.time, state, used, notes=notes)
        if not found:
            failed = PoseEstimate.failure("no_photo" if frame.photo is None else "flat_maps", LocalizationDetails())
            return replace(failed, track=track)
        assert frame.device_pose is not None
        return PoseEstimate(
            frame.device_pose,
            torch.tensor(True),
            torch.tensor(0.9),
            (None,),
            localization=(LocalizationDetails(unit="metre"),),
            covariance=1e-6 * torch.eye(6, dtype=torch.float64),
            track=track,
        )


def view() -> View:
    return View(torch.zeros(3, 8, 8), Camera(torch.tensor([8.0, 8]), torch.tensor([8.0, 8]), torch.tensor([3.5, 3.5])))


def stream(count: int, broken: tuple[int, ...] = (), without: tuple[int, ...] = ()) -> Stream:
    """Frames with device poses; some cannot be read, some have no pose."""

    def one(index: int) -> StreamFrame:
        def load() -> View:
            if index in broken:
                raise InputError(f"frame {index} is broken")
            return view()

        pose = None if index in without else POSES[index % len(POSES)]
        return StreamFrame(index, f"{index:03d}", 0.1 * index, load, None, pose)

    return Stream("test", lambda: (one(index) for index in range(count)), count)


def run(**settings: Any) -> TrackRun:
    return TrackRun("map", "test", "stand-in", "none", {"seed": 0, **settings})


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def test_every_frame_has_a_line_and_every_pose_its_place(tmp_path: Path) -> None:
    told: list[TrackedFrame] = []
    one = run()
    folder = TrackFolder.prepare(tmp_path, FORMATS)
    run_track(one, StandIn(), stream(8, broken=(2,), without=(5,)), folder=folder, told=told.append)
    entries = lines(tmp_path)
    assert [entry["index"] for entry in entries] == list(range(8)) and len(told) == 8
    assert [entry["success"] for entry in entries] == [i not in (2, 5) for i in range(8)]
    assert (
        entries[2]["error"] == "frame 2 is broken"
        and entries[2]["state"] == "lost"
        and "cam_from_world" not in entries[2]
    )
    assert entries[5]["reason"] == "flat_maps" and entries[0]["photo"] == "test#0"
    np.testing.assert_allclose(entries[3]["device_pose"], POSES[3].matrix().numpy(), atol=1e-12)
    times, poses = zip(*read_tum(tmp_path / "poses.tum.txt"), strict=True)
    assert times == pytest.approx([0.0, 0.1, 0.3, 0.4, 0.6, 0.7])
    torch.testing.assert_close(poses[2].matrix(), POSES[3].matrix(), rtol=0, atol=1e-7)
    first = json.loads((tmp_path / "poses.ros_covariance.jsonl").read_text().splitlines()[0])
    assert first["pose"]["covariance"][0] == pytest.approx(1e-6)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["frames"] == {
        "all": 8,
        "lost": 2,
        "tracking": 6,
        "unusable": 1,
        "with a pose": 6,
        "without metres": 0,
    }
    assert summary["notes"] == ["frame 2 is broken", "no pose"]
    words = [frame_in_words(frame.entry, frame.estimate, 8) for frame in told]
    assert words[2] == "002 (3 of 8, 0.200 s): lost, not used" and words[5].endswith("lost (flat_maps)")


def test_a_run_goes_on_where_it_was_killed(tmp_path: Path) -> None:
    folder = TrackFolder.prepare(tmp_path / "whole", FORMATS)
    run_track(run(), StandIn(), stream(12, broken=(3,)), folder=folder)

    def kill(frame: TrackedFrame) -> None:
        if frame.entry["index"] == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_track(
            run(), StandIn(), stream(12, broken=(3,)), folder=TrackFolder.prepare(tmp_path / "cut", FORMATS), told=kill
        )
    assert len(lines(tmp_path / "cut")) == 9 and (tmp_path / "cut" / "poses.tum.txt").is_file()
    with open(tmp_path / "cut" / "frames.jsonl", "ab") as file:
        file.write(b'{"index": 9, "query": "cut o')
    tracker = StandIn()
    one = run()
    run_track(one, tracker, stream(12, broken=(3,)), folder=TrackFolder.prepare(tmp_path / "cut", FORMATS), resume=True)
    assert tracker.heard == [
        f"{i:03d}" for i in range(9 - WARM_UP, 12)
    ]  # the last ones again, so that it knows where it was
    assert one.counts["all"] == 12
    for name in ("poses.tum.txt", "poses.kitti.txt", "poses.colmap/images.txt", "run.json"):
        assert (tmp_path / "cut" / name).read_text() == (tmp_path / "whole" / name).read_text(), name
    without = [{k: v for k, v in entry.items() if k != "seconds"} for entry in lines(tmp_path / "cut")]
    assert without == [{k: v for k, v in entry.items() if k != "seconds"} for entry in lines(tmp_path / "whole")]


def test_another_run_is_refused(tmp_path: Path) -> None:
    run_track(run(), StandIn(), stream(4), folder=TrackFolder.prepare(tmp_path))
    with pytest.raises(InputError, match=r"holds another run \(seed: 0, now 1\)"):
        run_track(run(seed=1), StandIn(), stream(4), folder=TrackFolder.prepare(tmp_path), resume=True)
    assert len(lines(tmp_path)) == 4
    with pytest.raises(InputError, match="holds a run already: --resume goes on with it"):
        run_track(run(seed=1), StandIn(), stream(2), folder=TrackFolder.prepare(tmp_path))
    assert len(lines(tmp_path)) == 4 and json.loads((tmp_path / "run.json").read_text())["settings"]["seed"] == 0
    live = Stream("standard input", lambda: iter(()), live=True)
    with pytest.raises(InputError, match="begins anew each time"):
        run_track(run(), StandIn(), live, folder=TrackFolder.prepare(tmp_path), resume=True)


def test_what_a_run_was_made_with_must_be_as_it_was(tmp_path: Path) -> None:
    device = tmp_path / "device.txt"
    device.write_text("0 0 0 0 0 0 0 1\n")
    for _ in range(2):
        one = run(device_poses=device)
        run_track(one, StandIn(), stream(3), folder=TrackFolder.prepare(tmp_path / "out"), resume=True)
        assert one.counts["all"] == 3
    device.write_text("0 1 0 0 0 0 0 1\n")
    with pytest.raises(InputError, match="what it was made with has changed"):
        one = run(device_poses=device)
        run_track(one, StandIn(), stream(3), folder=TrackFolder.prepare(tmp_path / "out"), resume=True)


def test_a_stream_without_frames_leaves_nothing(tmp_path: Path) -> None:
    run_track(run(), StandIn(), stream(0), folder=TrackFolder.prepare(tmp_path / "new" / "out"))
    assert not list(tmp_path.iterdir())
    (tmp_path / "mine.txt").write_text("kept")
    run_track(run(), StandIn(), stream(0), folder=TrackFolder.prepare(tmp_path))
    assert [file.name for file in tmp_path.iterdir()] == ["mine.txt"]


def test_what_a_tracker_raises_costs_one_frame(tmp_path: Path) -> None:
    class Raising(StandIn):
        def add_frame(self, frame: Frame) -> PoseEstimate:
            if frame.name == "001":
                raise RuntimeError("svd did not converge")
            return super().add_frame(frame)

    run_track(run(), Raising(), stream(3), folder=TrackFolder.prepare(tmp_path))
    assert [entry["success"] for entry in lines(tmp_path)] == [True, False, True]
    assert lines(tmp_path)[1]["error"] == "'001' could not be used: svd did not converge"


def test_a_stream_that_breaks_leaves_what_was_found(tmp_path: Path) -> None:
    def frames() -> Iterator[StreamFrame]:
        yield from stream(3)
        raise InputError("the video is damaged from here on")

    with pytest.raises(InputError, match="damaged from here on"):
        run_track(run(), StandIn(), Stream("test", frames), folder=TrackFolder.prepare(tmp_path))
    assert len(lines(tmp_path)) == 3 and len(read_tum(tmp_path / "poses.tum.txt")) == 3


def test_each_so_many_th_frame_and_dropped_ones(tmp_path: Path) -> None:
    tracker = StandIn()
    run_track(run(), tracker, stream(9), every=4, folder=TrackFolder.prepare(tmp_path))
    assert tracker.heard == ["000", "004", "008"] and [entry["index"] for entry in lines(tmp_path)] == [0, 4, 8]
    assert [entry["track"]["index"] for entry in lines(tmp_path)] == [0, 4, 8]  # numbers are those of the stream
    assert [entry["track"]["frames"] for entry in lines(tmp_path)] == [[0], [0, 4], [4, 8]]
    now = [0.0]

    class Slow(StandIn):
        def add_frame(self, frame: Frame) -> PoseEstimate:
            now[0] += 0.37
            return super().add_frame(frame)

    def sleep(seconds: float) -> None:
        now[0] += seconds

    slow, one = Slow(), run()
    run_track(one, slow, stream(12), pace=Pace(clock=lambda: now[0], sleep=sleep))
    assert slow.heard[:3] == ["000", "003", "007"] and one.counts["dropped"] == 12 - len(slow.heard)


@pytest.mark.slow
def test_memory_is_steady_over_2000_frames(tmp_path: Path) -> None:
    counts: list[int] = []

    def count(frame: TrackedFrame) -> None:
        if frame.entry["index"] in (500, 1999):
            gc.collect()
            counts.append(len(gc.get_objects()))

    class Forgetful(StandIn):
        def add_frame(self, frame: Frame) -> PoseEstimate:
            self.heard.clear()
            return super().add_frame(frame)

    frames = stream(2000, tuple(range(0, 2000, 7)), tuple(i for i in range(2000) if i % 10))
    run_track(run(), Forgetful(), frames, folder=TrackFolder.prepare(tmp_path), told=count)
    assert counts[1] - counts[0] < 1000  # one object kept of each frame would be 1499
    assert Counter(entry["success"] for entry in lines(tmp_path)) == {True: 171, False: 1829}


def test_photos_of_sources_without_files_are_kept(tmp_path: Path) -> None:
    run_track(run(), StandIn(), stream(2), folder=TrackFolder.prepare(tmp_path, ["nerfstudio"], photos=True))
    frames = json.loads((tmp_path / "poses.nerfstudio" / "transforms.json").read_text())["frames"]
    files = [(tmp_path / "poses.nerfstudio" / frame["file_path"]).resolve() for frame in frames]
    assert files == [tmp_path / "photos" / "000.jpg", tmp_path / "photos" / "001.jpg"] and all(
        f.is_file() for f in files
    )


CHILD = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}, {here!r}]
from pathlib import Path
from test_track import StandIn, run, stream
from metriloc.runs.track import run_track
from metriloc.runs.track_files import TrackFolder

class Slow(StandIn):
    def add_frame(self, frame):
        time.sleep(0.02)
        return super().add_frame(frame)

def told(frame):
    print(frame.entry["index"], flush=True)

run_track(run(), Slow(), stream(500), folder=TrackFolder.prepare(Path({out!r})), told=told)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_kill_at_any_moment_leaves_every_finished_frame(tmp_path: Path, how: signal.Signals) -> None:
    here = Path(__file__).resolve()
    code = CHILD.format(root=str(here.parents[2]), tests=str(here.parents[1]), here=str(here.parent), out=str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    for _ in range(10):
        finished = int(process.stdout.readline())
    os.kill(process.pid, how)
    process.stdout.close()
    process.wait(60)
    assert [entry["index"] for entry in lines(tmp_path)][: finished + 1] == list(range(finished + 1))
    if how == signal.SIGINT:
        assert len(read_tum(tmp_path / "poses.tum.txt")) >= finished + 1


@pytest.mark.extras
def test_evo_reads_the_files_of_a_run(tmp_path: Path) -> None:
    evo = pytest.importorskip("evo.tools.file_interface", reason="needs evo")
    run_track(run(), StandIn(), stream(8, without=(5,)), folder=TrackFolder.prepare(tmp_path, ["tum", "kitti"]))
    found = [POSES[i].inverse() for i in range(8) if i != 5]
    stamped = evo.read_tum_trajectory_file(tmp_path / "poses.tum.txt")
    np.testing.assert_allclose(stamped.timestamps, [0.1 * i for i in range(8) if i != 5], atol=1e-9)
    for path in (stamped, evo.read_kitti_poses_file(tmp_path / "poses.kitti.txt")):
        assert path.check()[0]
        np.testing.assert_allclose(path.poses_se3, [pose.matrix().numpy() for pose in found], atol=1e-7)


def test_a_folder_of_photos_with_poses_of_a_file(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", [f"{i}.jpg" for i in range(4)])
    (photos / "2.jpg").write_bytes(b"no photo")
    (tmp_path / "device.txt").write_text("\n".join(tum_line(0.5 * i, POSES[i]) for i in range(4)))
    options = StreamOptions(CameraOptions(fov=60.0), fps=2.0, device_poses=tmp_path / "device.txt")
    run_track(
        run(), StandIn(), open_stream(photos, options), folder=TrackFolder.prepare(tmp_path / "out", ["nerfstudio"])
    )
    frames = json.loads((tmp_path / "out" / "poses.nerfstudio" / "transforms.json").read_text())["frames"]
    assert [Path(frame["file_path"]).name for frame in frames] == ["0.jpg", "1.jpg", "3.jpg"]
    found = Pose.from_matrix(torch.tensor(frames[1]["transform_matrix"], dtype=torch.float64))
    same = Pose.from_convention(found, "nerfstudio", keep_world=True)
    torch.testing.assert_close(same.matrix(), POSES[1].matrix(), rtol=0, atol=1e-7)
