"""``metriloc track`` with the tracker itself on the bundled photos: a folder, standard input, a map; wrong use."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import metriloc
from metriloc.cli.main import main
from metriloc.io import read_mapfree_poses, read_tum, tum_line
from metriloc.runs.viewed import open_viewed
from metriloc.runs.viewed_track import TrackPlace, track_of_folder

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
REFERENCE, QUERY = EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["track", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture()
def walk(tmp_path: Path) -> Path:
    """Two photos as a stream, the second at the place of the reference, with what a device says of them."""
    folder = tmp_path / "walk"
    folder.mkdir()
    shutil.copy(QUERY, folder / "0.jpg")
    shutil.copy(REFERENCE, folder / "1.jpg")
    poses = read_mapfree_poses(EXAMPLE / "poses.txt")
    lines = [tum_line(time, poses[name]) for time, name in ((0.0, "query.jpg"), (0.1, "reference.jpg"))]  # type: ignore[arg-type]
    (tmp_path / "device.txt").write_text("\n".join(lines) + "\n")
    sizes = "560 560 319.5 239.5 640 480", "520 520 319.5 239.5 640 480"
    (tmp_path / "intrinsics.txt").write_text("".join(f"{i}.jpg {numbers}\n" for i, numbers in enumerate(sizes)))
    return folder


@pytest.mark.slow
def test_a_walk_against_a_photo_and_going_on(
    walk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    shown: list[Any] = []
    view = SimpleNamespace(show=shown.append, add_frame=shown.append, wait=lambda: None)
    monkeypatch.setattr("metriloc.cli.live.check_place", lambda host, port: None)
    monkeypatch.setattr("metriloc.cli.live.served", lambda host, port, title: nullcontext(view))
    command = (REFERENCE, walk, "--method", "xfeat", "--fps", "10", "--device-poses", tmp_path / "device.txt")
    command = (*command, "--intrinsics", tmp_path / "intrinsics.txt", "--k-ref", 520, 520, 319.5, 239.5, "--out", out)
    command = (*command, "--depth", EXAMPLE / "reference.depth.png", "--max-side", 320)
    assert run(*command, "--format", "tum", "kitti", "--live") == 0
    reference, *frames = shown  # seen live, and afterwards
    assert [f.role for f in reference.frusta] == ["reference"] and [f.time for f in frames] == [0.0, 0.1]
    assert all(f.thumbnail is not None for f in frames)
    afterwards = open_viewed(out).scene.frusta
    assert [f.label for f in afterwards] == ["reference.jpg", "0.jpg", "1.jpg"]
    assert afterwards[1].center == pytest.approx(frames[0].center)
    told = capsys.readouterr()
    assert "2 of 2 frames have a pose; all could be read" in told.out and "0.jpg (1 of 2, 0.000 s): found" in told.out
    entries = [json.loads(line) for line in (out / "frames.jsonl").read_text().splitlines()]
    assert [entry["state"] for entry in entries] == ["found", "tracking"] and entries[0]["camera"]["K"][0][0] == 280
    poses = read_tum(out / "poses.tum.txt")
    assert [time for time, _ in poses] == [0.0, 0.1]
    assert float(poses[1][1].center().norm()) < 0.05  # at the reference's own place
    assert len((out / "poses.kitti.txt").read_text().splitlines()) == 2
    before = (out / "frames.jsonl").read_text()
    assert run(*command, "--resume") == 0 and (out / "frames.jsonl").read_text() == before
    assert run(*command, "--resume", "--every", 2) == 2
    assert "holds another run (every: 1, now 2)" in capsys.readouterr().err
    assert run_eval(out, tmp_path / "device.txt") == 0


def run_eval(out: Path, truth: Path) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["eval", "trajectory", str(out), "--truth", str(truth)])
    return int(stop.value.code or 0)


@pytest.mark.slow
def test_jpegs_on_standard_input_become_lines_of_json(
    walk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = (walk / "0.jpg").read_bytes()

    class Pipe:
        buffer = io.BytesIO(data[:5000] + data)

    monkeypatch.setattr(sys, "stdin", Pipe())
    cameras = ("--k", 560, 560, 319.5, 239.5, "--k-ref", 520, 520, 319.5, 239.5)
    assert run(REFERENCE, "-", "--method", "xfeat", "--fps", 1, *cameras, "--max-side", 320, "--json") == 0
    told = capsys.readouterr()
    first, second = (json.loads(line) for line in told.out.splitlines())
    assert first["error"].startswith("frame_000000 of standard input is cut off") and not first["success"]
    assert second["success"] and second["time"] == 1.0 and second["photo"] == "standard input#1"
    assert "1 of 2 frames have a pose; 1 could not be used" in told.err


def test_a_stream_without_frames_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Pipe:
        buffer = io.BytesIO(b"no photo")

    monkeypatch.setattr(sys, "stdin", Pipe())
    assert run(REFERENCE, "-", "--method", "xfeat", "--fps", 1, "--k", 560, 560, 319.5, 239.5) == 2
    told = capsys.readouterr()
    assert "held no frame" in told.err and not told.out


class Seen:
    """Stands for the live view: what was shown, without a server."""

    def __init__(self) -> None:
        self.scenes: list[Any] = []
        self.frames: list[Any] = []

    def show(self, scene: Any) -> None:
        self.scenes.append(scene)

    def add_frame(self, frame: Any) -> None:
        self.frames.append(frame)

    def wait(self) -> None:
        """Nobody looks."""


@pytest.mark.slow
def test_a_walk_in_a_map_seen_live(
    walk: Path, example_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, seen = tmp_path / "out", Seen()
    monkeypatch.setattr("metriloc.cli.live.check_place", lambda host, port: None)
    monkeypatch.setattr("metriloc.cli.live.served", lambda host, port, title: nullcontext(seen))
    command: tuple[Any, ...] = (example_map, walk, "--images", EXAMPLE, "--method", "xfeat-pnp", "--fps", 10)
    command = (*command, "--device-poses", tmp_path / "device.txt", "--intrinsics", tmp_path / "intrinsics.txt")
    assert run(*command, "--out", out, "--format", "tum", "ros_covariance", "--live") == 0
    assert len(seen.scenes) == 1 and [frame.time for frame in seen.frames] == [0.0, 0.1]
    place = TrackPlace(seen.scenes[0], metriloc.Pose.identity(dtype=torch.float64))
    assert [frame.time for frame in track_of_folder(out, place).frusta[-2:]] == [0.0, 0.1]
    truth = read_mapfree_poses(EXAMPLE / "poses.txt")
    poses = [pose for _, pose in read_tum(out / "poses.tum.txt")]
    for pose, name in zip(poses, ("query.jpg", "reference.jpg"), strict=True):
        expected = truth[name]
        assert expected is not None and float(pose.center_distance(expected)) < 0.1
    seen = open_viewed(out)
    assert seen.title.endswith("2 of 2 frames") and [f.role for f in seen.scene.frusta][-2:] == ["query", "query"]
    assert len(seen.scene.frusta) == 4 and seen.scene.frusta[-1].spread is not None and len(seen.scene.points) > 500
    (line, *_) = (out / "poses.ros_covariance.jsonl").read_text().splitlines()
    assert json.loads(line)["header"]["frame_id"] == "map"
    assert torch.isfinite(torch.tensor(json.loads(line)["pose"]["covariance"])).all()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((REFERENCE, "gone"), "'gone' does not exist: SOURCE is"),
        (("gone.jpg", EXAMPLE), "gone.jpg"),
        ((REFERENCE, EXAMPLE, "--resume"), "--resume goes on with an earlier run: give its --out"),
        ((REFERENCE, EXAMPLE, "--photos"), "--photos keeps photos in --out"),
        ((REFERENCE, EXAMPLE, "--format", "tum"), "names files of --out"),
        ((REFERENCE, EXAMPLE, "--fps", 0), "--fps 0 must be above 0"),
        ((REFERENCE, EXAMPLE, "--every", 0), "--every"),
        ((REFERENCE, EXAMPLE, "--frames", 0), "--frames"),
        ((REFERENCE, EXAMPLE, "--k-size", 3, 4), "--k-size 3 4 says nothing without --k"),
        ((REFERENCE, EXAMPLE, "--device-gap", -1), "--device-gap -1"),
        ((REFERENCE, EXAMPLE, "--device-poses", "gone.txt"), "'gone.txt' does not exist"),
        ((REFERENCE, EXAMPLE, "--topic", "/camera"), f"--topic /camera is about a ROS bag, and '{EXAMPLE}' is none"),
        ((REFERENCE, EXAMPLE, "--device-axes", "ros"), "--device-axes ros is about the poses of --device-poses"),
        ((REFERENCE, EXAMPLE, "--device-offset", 2), "--device-offset 2.0 is about the poses of --device-poses"),
        ((REFERENCE, "a.bag", "--no-device-poses", "--device-topic", "/odom"), "--no-device-poses does without"),
        ((REFERENCE, "a.bag", "--no-device-poses", "--device-mount", "m.txt"), "--device-mount m.txt is about the"),
        ((REFERENCE, EXAMPLE, "--device-poses", REFERENCE), "is not a text file"),
        ((REFERENCE, EXAMPLE, "--no-device-poses", "--device-poses", "a.txt"), "contradict"),
        ((REFERENCE, EXAMPLE, "--images", EXAMPLE), "--images"),
        ((REFERENCE, EXAMPLE, "--method", "mickey2"), "mickey2"),
        ((EXAMPLE, EXAMPLE, "--depth", "a.png"), "--depth is about a reference photo"),
        ((EXAMPLE, EXAMPLE, "--frames", 5), "--frames 5 is about a stream against a photo"),
    ],
)
def test_wrong_use_is_one_sentence(
    arguments: tuple[object, ...], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*arguments) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1


CHILD = """
import sys, time
sys.path[:0] = [{root!r}, {tests!r}, {runs!r}]
from types import SimpleNamespace
from test_track import StandIn, stream
import metriloc.cli.track as command
from metriloc.cli.main import main
import pycolmap  # as maps do, which takes SIGTERM for itself

class Slow(StandIn):
    reference, localizer, unit = None, SimpleNamespace(scene=None), "metre"

    def add_frame(self, frame):
        time.sleep(0.02)
        return super().add_frame(frame)

command._opened = lambda *_: (Slow(), SimpleNamespace(name="stand-in", weights_id="none"))
command.open_stream = lambda *_: stream(2000)
main(["track", "map", "photos", "--out", {out!r}])
"""


@pytest.mark.slow
def test_sigterm_is_one_sentence_and_leaves_what_was_found(tmp_path: Path) -> None:
    tests = Path(__file__).resolve().parents[1]
    code = CHILD.format(root=str(tests.parent), tests=str(tests), runs=str(tests / "runs"), out=str(tmp_path / "out"))
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen([sys.executable, "-c", code], **pipes)
    assert process.stdout is not None
    for _ in range(10):
        process.stdout.readline()
    process.terminate()
    _, said = process.communicate(timeout=60)
    assert process.returncode == 143 and said.splitlines()[-1] == "metriloc track: ended by SIGTERM"
    assert "SIGTERM" not in "".join(said.splitlines()[:-1]) and "@" not in said  # no stack
    entries = (tmp_path / "out" / "frames.jsonl").read_text().splitlines()
    assert len(entries) >= 10 and [json.loads(line)["index"] for line in entries] == list(range(len(entries)))
    assert 10 <= json.loads((tmp_path / "out" / "summary.json").read_text())["frames"]["all"] == len(entries)
