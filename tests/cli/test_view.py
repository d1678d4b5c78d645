"""``metriloc view`` and ``metriloc map report`` from the outside: what they show, and what they refuse."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import metriloc
from metriloc.cli.live import shown_frames
from metriloc.cli.main import main
from metriloc.io import InputError
from metriloc.io.intrinsics import camera_as_dict
from metriloc.runs.viewed import open_viewed

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
needs_viser = pytest.mark.skipif(
    importlib.util.find_spec("viser") is None, reason="viser is not here: pip install viser"
)


@contextmanager
def started(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A process with its output in pipes, which does not outlive a failure."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, **pipes, text=True, env=environment) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in arguments])
    return int(stop.value.code or 0)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What relpose leaves of two queries, one of which has no pose."""
    folder = tmp_path_factory.mktemp("pair")
    (folder / "no.jpg").write_bytes(b"no photo")
    photos = (EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg", folder / "no.jpg")
    run("relpose", *photos, "--method", "xfeat", "--distance", "0.61", "--out", folder / "out")
    return folder / "out"


@pytest.fixture(scope="module")
def located(example_map: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What localize leaves of one query in the map of the example."""
    out = tmp_path_factory.mktemp("located") / "out"
    where = ("--images", EXAMPLE, "--method", "xfeat-pnp", "--no-html")
    assert run("localize", example_map, EXAMPLE / "query.jpg", "--held-out", *where, "--out", out) == 0
    return out


def test_a_result_of_relpose(pair: Path) -> None:
    viewed = open_viewed(pair)
    scene = viewed.scene
    assert viewed.title == "reference.jpg: 1 of 2 queries" and scene.is_pair and scene.metric
    assert [(f.role, f.label) for f in scene.frusta] == [("reference", "reference.jpg"), ("query", "query.jpg")]
    entry = json.loads((pair / "pose.json").read_text())["queries"][0]
    assert scene.baseline == pytest.approx(entry["distance"])
    assert all(f.thumbnail is not None for f in scene.frusta) and len(scene.points) > 50
    assert scene.probability is not None and len(scene.probability) == len(scene.points)
    facts = dict(scene.frusta[1].facts)
    assert entry["verdict"] in facts["confidence"] and " m" in facts["distance"]
    assert scene.frusta[1].look is not None
    assert [picture.title for picture in scene.frusta[1].look()] == ["query.jpg", "Inlier matches"]


def test_a_result_of_localize_stands_in_its_map(located: Path) -> None:
    viewed = open_viewed(located)
    frusta = viewed.scene.frusta
    assert [f.role for f in frusta].count("query") == 1 and len(frusta) == 3 and len(viewed.scene.points) > 500
    assert frusta[-1].spread is not None and viewed.title.endswith("1 of 1 queries")
    # the map's own camera of that photo stands where the photo was found
    own = next(f for f in frusta if f.label == "query.jpg" and f.role != "query")
    assert frusta[-1].center == pytest.approx(own.center, abs=0.03)
    content = json.loads((located / "poses.json").read_text())
    content["map"]["path"] = "gone"
    alone = located.parent / "alone"
    alone.mkdir()
    (alone / "poses.json").write_text(json.dumps(content))
    assert [f.role for f in open_viewed(alone).scene.frusta] == ["query"], "without its map the query alone is seen"


def test_a_map_with_and_without_its_photos(example_map: Path) -> None:
    assert [f.thumbnail is None for f in open_viewed(example_map).scene.frusta] == [True, True]
    viewed = open_viewed(example_map, EXAMPLE)
    assert [f.thumbnail is None for f in viewed.scene.frusta] == [False, False] and "2 photos" in viewed.title


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("none", None, "does not exist: give a result"),
        ("a.txt", "hello", "is neither a result"),
        ("pose.json", "{}", "was not written by metriloc relpose"),
        ("pose.json", "{", "is not JSON"),
        ("pose.json", '{"format": "metriloc-relpose-1", "queries": []}', "is damaged: KeyError 'reference'"),
        ("empty/", None, "is an empty folder"),
        ("run.json", '{"method": "xfeat"}', "is a run of metriloc eval, which keeps numbers and no scene"),
    ],
)
def test_what_is_nothing_to_see_is_named(tmp_path: Path, name: str, content: str | None, words: str) -> None:
    path = tmp_path / name
    if name.endswith("/"):
        path.mkdir()
    elif content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=words):
        open_viewed(tmp_path if name == "run.json" else path)


def test_damaged_results_are_named(pair: Path, tmp_path: Path) -> None:
    content = json.loads((pair / "pose.json").read_text())
    for key in ("camera", "photo"):
        broken = {**content, "reference": {k: v for k, v in content["reference"].items() if k != key}}
        (tmp_path / "pose.json").write_text(json.dumps(broken))
        with pytest.raises(InputError, match=f"is damaged: KeyError '{key}'"):
            open_viewed(tmp_path)
    (tmp_path / "pose.json").write_text(json.dumps({**content, "queries": content["queries"][1:]}))
    with pytest.raises(InputError, match="holds no pose: of 1 query none was found"):
        open_viewed(tmp_path)
    (tmp_path / "pose.json").write_text(json.dumps(content))
    (tmp_path / "points.npz").write_bytes(b"PK nonsense")
    with pytest.raises(InputError, match=r"points.npz' is not a usable .npz"):
        open_viewed(tmp_path)


def test_the_report_of_a_map(example_map: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("map", "report", example_map, "--images", EXAMPLE, "--out", tmp_path / "new" / "map.html") == 0
    assert "2 photos in one map" in (tmp_path / "new" / "map.html").read_text()
    capsys.readouterr()
    assert run("map", "report", example_map, "--out", tmp_path / "map.pdf") == 2
    assert "is no name for a page: give one that ends in .html" in capsys.readouterr().err
    assert run("map", "report", tmp_path, "--out", tmp_path / "map.html") == 2
    assert not (tmp_path / "map.html").exists()


def test_without_viser_the_command_to_run_is_named(
    pair: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "viser", None)
    photos = (EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg")
    for asked in (("view", pair), ("view", pair, "--save", tmp_path / "a.html"), ("relpose", *photos, "--live")):
        assert run(*asked) == 2
        assert 'pip install "metriloc[view]"' in capsys.readouterr().err


def test_save_wants_a_file(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("view", pair, "--save") == 2
    assert "--save has no file behind it" in capsys.readouterr().err


# -- with viser -------------------------------------------------------------------------------------------------------
@pytest.mark.extras
@needs_viser
def test_save_writes_files_and_serves_nothing(pair: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "scene.viser", tmp_path / "scene.html"]
    assert run("view", pair, "--save", *files) == 0
    shown = capsys.readouterr()
    assert shown.out.split() == ["written", "to", str(files[0]), "written", "to", str(files[1])] and not shown.err
    assert all(file.stat().st_size > 10_000 for file in files)
    for wrong, words in (
        (("--save", tmp_path / "scene.ply"), "ends in none of .viser, .html"),
        (("--save", tmp_path / "no" / "scene.viser"), "its folder is missing"),
        (("--save", files[0], "--port", "9000"), "--save serves nothing"),
        (("--images", tmp_path, "--save", files[0]), "is of maps"),
    ):
        assert run("view", pair, *wrong) == 2
        assert words in " ".join(capsys.readouterr().err.split())


@pytest.mark.extras
@needs_viser
def test_a_port_in_use_is_one_sentence(pair: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert run("view", pair, "--port", taken.getsockname()[1]) == 2
    assert "is in use: give another with --port" in capsys.readouterr().err


@pytest.mark.extras
@pytest.mark.slow
@needs_viser
def test_it_serves_on_this_machine_until_ctrl_c(pair: Path) -> None:
    import http.client

    environment = {
        **os.environ,
        "SSH_CONNECTION": "10.0.0.1 50000 10.0.0.2 22",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, "-m", "metriloc", "view", str(pair), "--port", "0"]
    with started(command, environment) as view:
        assert view.stderr is not None and view.stdout is not None
        first, tunnel = view.stderr.readline(), view.stderr.readline()
        port = int(first.split("until")[0].strip().rsplit(":", 1)[1])
        assert first.startswith("seen at http://127.0.0.1:") and f"ssh -L {port}:127.0.0.1:{port} 10.0.0.2" in tunnel
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/")
        answer = connection.getresponse()
        assert answer.status == 200 and answer.read(15).lower() == b"<!doctype html>"
        connection.close()
        view.send_signal(signal.SIGINT)
        assert view.wait(30) == 0
        assert view.stdout.read() == "reference.jpg: 1 of 2 queries\n" and view.stderr.read() == ""


# -- while it is found ------------------------------------------------------------------------------------------------
class Seen:
    """Stands for the live view: what was shown, without a server."""

    def __init__(self) -> None:
        self.scenes: list[Any] = []
        self.waited = False

    def show(self, scene: Any) -> None:
        self.scenes.append(scene)

    def wait(self) -> None:
        self.waited = True


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Seen:
    seen = Seen()
    monkeypatch.setattr("metriloc.cli.live.check_place", lambda host, port: None)
    monkeypatch.setattr("metriloc.cli.live.served", lambda host, port, title: nullcontext(seen))
    return seen


@pytest.mark.slow
def test_relpose_shows_every_query_as_it_is_found(live: Seen, tmp_path: Path) -> None:
    photos = (EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg", EXAMPLE / "reference.jpg")
    how = ("--method", "xfeat", "--distance", "0.61", "--live", "--out", tmp_path / "out")
    run("relpose", *photos, *how)
    assert live.waited and len(live.scenes[0].frusta) == 2 and len(live.scenes[0].points) > 50
    assert live.scenes[-1].frusta[1] is live.scenes[0].frusta[1], "what was sent is not made anew"
    look = live.scenes[0].frusta[1].look
    assert [picture.title for picture in look()] == ["query.jpg", "Inlier matches"]
    live.scenes.clear()
    run("relpose", *photos, *how, "--resume")
    kept = live.scenes[0]
    assert [f.label for f in kept.frusta] == ["reference.jpg", "query.jpg"] and len(kept.points) > 50


def test_localize_shows_the_map_first(live: Seen, example_map: Path, tmp_path: Path) -> None:
    how = ("--images", EXAMPLE, "--method", "xfeat-pnp", "--no-html", "--live", "--out", tmp_path)
    for resume in ((), ("--resume",)):
        live.scenes.clear()
        assert run("localize", example_map, EXAMPLE / "query.jpg", "--held-out", *how, *resume) == 0
        before, after = live.scenes
        assert [f.role for f in before.frusta].count("query") == 0 and len(before.points) > 500
        assert all(a is b for a, b in zip(before.frusta, after.frusta[:-1], strict=True)), (
            "what was sent is not made anew"
        )
        assert after.frusta[-1].role == "query" and after.frusta[-1].thumbnail is not None
        assert after.frusta[-1].spread is not None and after.frusta[-1].look()


def test_frames_of_a_stream_come_one_by_one(live: Seen) -> None:
    frames: list[Any] = []
    live.add_frame = frames.append  # type: ignore[attr-defined]
    reference = metriloc.load_view(EXAMPLE / "reference.jpg")
    show = shown_frames(live, reference, None)  # type: ignore[arg-type]
    assert [f.label for f in live.scenes[0].frusta] == ["reference.jpg"]
    pose = metriloc.Pose.identity().to_dict(to_frame="query camera", from_frame="reference camera")
    told = {"confidence": 0.9, "verdict": "reliable", "camera": camera_as_dict(reference.camera), "state": "tracking"}
    entry = {"index": 0, "query": "a.jpg", "photo": "-#0", "time": 1.5, "success": True, "query_from_reference": pose}
    show(SimpleNamespace(entry={**entry, **told}, view=reference))
    show(SimpleNamespace(entry={**entry, "success": False}, view=None))
    assert [(f.time, f.after_gap, f.thumbnail is not None) for f in frames] == [(1.5, True, True)]
    with pytest.raises(ValueError, match="give one"):
        shown_frames(live, None, None)  # type: ignore[arg-type]


def test_where_a_view_is_served_is_asked_with_the_view_alone(capsys: pytest.CaptureFixture[str]) -> None:
    photos = (EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg")
    assert run("relpose", *photos, "--live-port", "8081") == 2
    assert "--live-host and --live-port are about a view: give --live too" in capsys.readouterr().err


@pytest.mark.extras
@pytest.mark.slow
@needs_viser
def test_training_is_seen_until_ctrl_c(tmp_path: Path) -> None:
    small = ["training.steps=40", "training.epoch_steps=20", "training.device=cpu", "training.tensorboard=off"]
    command = [sys.executable, "-m", "metriloc", "train", "toy", "--out", str(tmp_path / "run"), "--set", *small]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command += ["--live", "--live-port", "0"]
    with started(command, environment) as train:
        assert train.stdout is not None and train.stderr is not None
        assert train.stdout.readline().startswith("finished at step 40 of 40")
        lines = [train.stderr.readline()]
        while "the view stays until Ctrl+C" not in lines[-1]:
            assert lines[-1], lines
            lines.append(train.stderr.readline())
        train.send_signal(signal.SIGINT)
        assert train.wait(60) == 0 and any("seen at http://127.0.0.1:" in line for line in lines)


@pytest.mark.extras
@needs_viser
def test_a_training_run_has_no_scene_to_save(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "metrics.jsonl").write_text("")
    assert run("view", tmp_path, "--save", tmp_path / "scene.html") == 2
    assert "is a training run, which has curves and no scene to save" in " ".join(capsys.readouterr().err.split())
