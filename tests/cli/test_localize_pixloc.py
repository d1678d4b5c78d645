"""``metriloc localize --method pixloc`` from the outside: what it writes, and every failure told while the run goes on."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import metriloc
from metriloc.backbones.vgg import VGGConfig
from metriloc.cli.main import main
from metriloc.geometry import Camera, Pose
from metriloc.io import pose_from_dict, read_mapfree_poses
from metriloc.methods.pixloc import LocalizeConfig, NetworkConfig, PixLocNetwork, Settings, UNetConfig, save_pretrained

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
REFERENCE, QUERY = "reference.jpg", "query.jpg"
CAMERA = "PINHOLE 640 480 560 560 320 240"
Solve = Callable[..., tuple[int, list[dict[str, Any]], str]]


def write_map(folder: Path, points: int, images: tuple[str, ...] = (REFERENCE,), names: tuple[str, ...] = ()) -> Path:
    """A COLMAP model of the example's photos (under other names, if given): a wall two metres away, seen by all of them."""
    poses = read_mapfree_poses(EXAMPLE / "poses.txt")
    camera = Camera.from_colmap("PINHOLE", 640, 480, [560.0, 560.0, 320.0, 240.0])
    generator = torch.Generator().manual_seed(0)
    uv = torch.tensor([160.0, 120.0]) + torch.rand(points, 2, generator=generator) * torch.tensor([320.0, 240.0])
    base = poses[REFERENCE]
    assert base is not None
    xyz = base.inverse().transform(2 * camera.unproject(uv.double())[0])
    rows, tracks = [], [""] * points
    for number, (image, name) in enumerate(zip(images, names or images, strict=True), 1):
        pose = poses[image]
        assert isinstance(pose, Pose)
        at, seen = camera.project(pose.transform(xyz))
        numbers = " ".join(map(repr, [*pose.quaternion().tolist(), *pose.t.tolist()]))
        rows.append(f"{number} {numbers} 1 {name}")
        rows.append(
            " ".join(
                f"{x + 0.5} {y + 0.5} {p + 1 if s else -1}" for p, ((x, y), s) in enumerate(zip(at, seen, strict=True))
            )
        )
        tracks = [f"{t} {number} {p}" if s else t for p, (t, s) in enumerate(zip(tracks, seen.tolist(), strict=True))]
    folder.mkdir(parents=True)
    (folder / "cameras.txt").write_text(f"1 {CAMERA}\n")
    (folder / "images.txt").write_text("\n".join(rows) + "\n")
    lines = [f"{p + 1} {x} {y} {z} 9 9 9 0.1{tracks[p]}" for p, (x, y, z) in enumerate(xyz.tolist())]
    (folder / "points3D.txt").write_text("".join(f"{line}\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that has learned nothing."""
    folder = tmp_path_factory.mktemp("pixloc") / "weights"
    torch.manual_seed(0)
    light = NetworkConfig(UNetConfig(VGGConfig((1, 1, 1), (8, 8, 8)), (8, 8), (0, 1, 2), (8, 8, 8)))
    save_pretrained(PixLocNetwork(light), folder, Settings(config=LocalizeConfig(image_scales=(4,), min_track=1)))
    return folder


@pytest.fixture()
def solve(weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Solve:
    """``solve(model, *options)`` -> (exit code, entries, standard error)."""
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))

    def call(model: Path, *options: object, images: Path = EXAMPLE) -> tuple[int, list[dict[str, Any]], str]:
        given = [model, "--images", images, "--method", "pixloc", "--weights", weights, "--json", *options]
        with pytest.raises(SystemExit) as stop:
            main(["localize", *map(str, given)])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), json.loads(captured.out)["queries"] if captured.out else [], captured.err

    return call


def listed(folder: Path, *names: str) -> list[object]:
    (folder / "list.txt").write_text("".join(f"{name} {CAMERA}\n" for name in names))
    return ["--queries", folder / "list.txt", "--query-images", folder]


@pytest.mark.slow
def test_failures_are_told_and_the_run_goes_on(solve: Solve, tmp_path: Path) -> None:
    """A photo that is absent, one that is no photo, a black one, a tiny one, and a good one after them all."""
    model = write_map(tmp_path / "sparse", 60)
    Image.new("RGB", (640, 480)).save(tmp_path / "black.png")
    (tmp_path / "broken.jpg").write_text("no photo")
    shutil.copy(EXAMPLE / REFERENCE, tmp_path / "good.jpg")
    options = listed(tmp_path, "absent.jpg", "broken.jpg", "black.png", "good.jpg")
    code, found, error = solve(model, *options, "--references", REFERENCE, "--out", tmp_path / "out")
    assert code == 2 and [entry["success"] for entry in found] == [False, False, False, True], found[3]
    assert "absent.jpg" in found[0]["error"] and "broken.jpg" in found[1]["error"] and "absent.jpg" in error
    assert found[2]["reason"] in ("flat_maps", "diverged", "too_few_points", "non_finite")
    # the query is the reference: it stays where it began, and does not fail for the last digits of its cost
    first, last = (pose_from_dict(found[3]["stages"][i]["cam_from_world"]) for i in (0, -1))
    assert float((first.center() - last.center()).norm()) < 1e-3 and found[3]["reason"] is None
    assert (tmp_path / "out" / "0003_good" / "report.html").is_file()
    assert "No pose found" in (tmp_path / "out" / "0002_black" / "report.html").read_text()


@pytest.mark.parametrize(
    ("points", "reason", "words"),
    [(0, "too_few_points", "see 0 points, 10 are needed"), (9, "too_few_points", "see 9 points, 10 are needed")],
)
def test_a_map_with_too_few_points(points: int, reason: str, words: str, solve: Solve, tmp_path: Path) -> None:
    model = write_map(tmp_path / "sparse", points)
    out = tmp_path / "out"
    code, (entry,), _ = solve(model, EXAMPLE / QUERY, "--references", REFERENCE, "--out", out)
    assert (code, entry["success"], entry["reason"]) == (1, False, reason)
    assert any(words in message for message in entry["messages"]), entry["messages"]
    assert "No pose found" in (out / "report.html").read_text()
    code, (entry,), _ = solve(model, EXAMPLE / QUERY)  # references looked for
    assert (code, entry["reason"]) == (1, reason)


def test_ten_points_begin_and_nine_in_view_do_not(solve: Solve, tmp_path: Path) -> None:
    model = write_map(tmp_path / "sparse", 10)
    code, (entry,), _ = solve(model, EXAMPLE / REFERENCE, "--references", REFERENCE)
    assert code == 0 and entry["num_points"] == 10
    # from where nothing is in view there is no way back
    (tmp_path / "init.txt").write_text(f"{REFERENCE} 0 0 1 0 0 0 0\n")
    code, (entry,), _ = solve(model, EXAMPLE / REFERENCE, "--references", REFERENCE, "--init", tmp_path / "init.txt")
    assert (code, entry["reason"]) == (1, "too_few_points")
    assert "too few points of the references are in view" in entry["messages"][-1]


def test_a_reference_without_points_and_one_that_is_absent(solve: Solve, tmp_path: Path) -> None:
    """The others serve; with none left there is a reason."""
    photos = tmp_path / "photos"
    photos.mkdir()
    shutil.copy(EXAMPLE / REFERENCE, photos)
    model = write_map(tmp_path / "sparse", 60, (REFERENCE, QUERY))
    code, (entry,), _ = solve(model, EXAMPLE / REFERENCE, "--references", QUERY, REFERENCE, images=photos)
    assert code in (0, 1) and entry["references"] == [REFERENCE] and "query.jpg" in entry["messages"][0]
    code, (entry,), _ = solve(model, EXAMPLE / REFERENCE, "--references", QUERY, images=photos)
    assert (code, entry["reason"]) == (1, "no_reference") and "query.jpg" in entry["messages"][0]
    code, (entry,), _ = solve(model, EXAMPLE / REFERENCE, images=photos)  # looked for among what can be read
    assert code == 0 and entry["references"] == [REFERENCE]
    empty = write_map(tmp_path / "empty", 60, (REFERENCE, QUERY))
    lines = (empty / "images.txt").read_text().splitlines()
    (empty / "images.txt").write_text("\n".join([lines[0], lines[1], lines[2], ""]) + "\n")
    rows = (empty / "points3D.txt").read_text().splitlines()
    (empty / "points3D.txt").write_text("".join(re.sub(r" 2 \d+$", "", row) + "\n" for row in rows))
    code, (entry,), _ = solve(empty, EXAMPLE / QUERY, "--references", QUERY)
    assert (code, entry["reason"]) == (1, "too_few_points") and "see 0 points" in entry["messages"][0]
    code, (entry,), _ = solve(empty, EXAMPLE / REFERENCE, "--references", QUERY, REFERENCE)
    assert entry["references"] == [QUERY, REFERENCE] and entry["num_points"] == 60


@pytest.mark.parametrize("size", [(2, 2), (6, 100), (40, 30)])
def test_photos_that_are_too_small(size: tuple[int, int], solve: Solve, tmp_path: Path) -> None:
    model = write_map(tmp_path / "sparse", 60)
    Image.open(EXAMPLE / QUERY).resize(size).save(tmp_path / "small.png")
    code, (entry,), _ = solve(model, tmp_path / "small.png", "--fov", 60, "--references", REFERENCE)
    assert (code, entry["success"]) == (1, False) and entry["reason"] and entry["messages"]


@pytest.mark.slow
def test_files_of_an_alignment(
    solve: Solve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Pictures, the GIF, the viewer's folder with its turn, a video by what is called ffmpeg, and none of an earlier run."""
    (tmp_path / "bin").mkdir()
    script = tmp_path / "bin" / "ffmpeg"
    script.write_text(
        f"#!{sys.executable}\nimport sys\nsys.stdin.buffer.read()\nopen(sys.argv[-1], 'wb').write(b'mp4')\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    model, out = write_map(tmp_path / "sparse", 60), tmp_path / "out"
    options = ["--references", REFERENCE, "--out", out, "--iterations", 12]
    solve(model, EXAMPLE / QUERY, *options, "--video", "--video-fps", 8, "--viewer-up", "7scenes")
    assert (out / "alignment.mp4").read_bytes() == b"mp4"
    names = {"cost.jpg", "points.jpg", "features.jpg", "confidences.jpg", "alignment.gif", "report.html"}
    assert names < {path.name for path in out.iterdir()}
    (entry,) = json.loads((out / "poses.json").read_text())["queries"]
    record = json.loads((out / "alignment.json").read_text())
    stages = [stage["name"] for stage in entry["stages"][1:]]
    assert list(dict.fromkeys(record["stage"]))[: len(stages)] == stages
    assert {len(values) for values in record.values()} == {len(record["stage"])}
    assert max(record["index"]) < 12
    turned = json.loads((out / "viewer" / "dump.json").read_text())["p3d"]["xyz"]
    page = (out / "report.html").read_text()
    for title in ("Features", "Confidence", "Convergence", "Alignment"):
        assert f"<b>{title}." in page
    solve(model, EXAMPLE / QUERY, *options)
    assert not (out / "alignment.mp4").exists()
    plain = json.loads((out / "viewer" / "dump.json").read_text())["p3d"]["xyz"]
    assert [[x, -y, -z] for x, y, z in plain] == turned
    solve(model, EXAMPLE / QUERY, *options, "--no-html", "--video")
    left = {path.name for path in out.iterdir() if path.is_file()}
    assert left == {"alignment.mp4", "pose.json", "poses.json", "poses.txt", "poses.tum.txt"}
    assert not any((out / "viewer").iterdir())
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    code, _, error = solve(model, EXAMPLE / QUERY, *options, "--video")
    assert code == 2 and error.count("\n") == 1 and "needs ffmpeg" in error


@pytest.mark.slow
def test_going_on_minds_lists_and_options(solve: Solve, tmp_path: Path) -> None:
    """Another camera in the list, another option of pixloc: computed again."""
    model, out = write_map(tmp_path / "sparse", 60), tmp_path / "out"
    for name in ("a.jpg", "b.jpg"):
        shutil.copy(EXAMPLE / REFERENCE, tmp_path / name)
    options = [*listed(tmp_path, "a.jpg", "b.jpg"), "--references", REFERENCE, "--out", out, "--no-html"]

    def stamps() -> list[int]:
        return [(out / folder / "pose.json").stat().st_mtime_ns for folder in ("0000_a", "0001_b")]

    solve(model, *options)
    first = stamps()
    solve(model, *options, "--resume")
    assert stamps() == first
    (tmp_path / "list.txt").write_text((tmp_path / "list.txt").read_text().replace("560 560", "561 561"))
    solve(model, *options, "--resume")
    second = stamps()
    assert all(a != b for a, b in zip(first, second, strict=True))
    solve(model, *options, "--resume", "--iterations", 3)
    assert all(a != b for a, b in zip(second, stamps(), strict=True))
