"""Photos -> map: what was rendered comes out, at any interruption, and what cannot be mapped is one sentence."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.cli.main import main
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.maps import load_map_view, read_map
from metriloc.mapping.child import NativeJob, run_native
from metriloc.mapping.config import MapConfig
from metriloc.mapping.facts import read_facts
from metriloc.mapping.sources import ScaleOptions
from metriloc.runs.map_build import build_map
from metriloc.solvers.similarity import fit_similarity

pytest.importorskip("pycolmap", reason="maps are made by COLMAP")
Write = Callable[..., Pose]
CONFIG = MapConfig(threads=1)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, write_photos: Write) -> tuple[Path, Pose]:
    folder = tmp_path_factory.mktemp("photos")
    return folder, write_photos(folder, 5)


@pytest.fixture(scope="module")
def built(photos: tuple[Path, Pose], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, poses = photos
    out = tmp_path_factory.mktemp("map")
    metres = float(poses[0].center_distance(poses[4]))
    build_map(folder, out, config=CONFIG, scale=ScaleOptions(distances=(("00.png", "04.png", metres),)))
    return out


def same_models(a: Path, b: Path) -> bool:
    files = ("cameras.bin", "images.bin", "points3D.bin")
    return all((a / "sparse" / f).read_bytes() == (b / "sparse" / f).read_bytes() for f in files)


def test_a_rendered_place_comes_out_in_metres(photos: tuple[Path, Pose], built: Path) -> None:
    _, poses = photos
    scene, facts = read_map(built), read_facts(built)
    assert facts is not None and facts.scale is not None
    assert scene.names == tuple(f"{n:02d}.png" for n in range(5)) and facts.registered == facts.given == 5
    fit = fit_similarity(scene.cam_from_world.center(), poses.center())
    assert fit is not None and fit.rms < 0.01
    assert abs(fit.scale - 1) < 0.01 and 0 < facts.scale.sigma < 0.02
    ours, true = (pose.R @ pose.R[0].mT for pose in (scene.cam_from_world, poses))
    assert float(Pose(ours, poses.t).angle_to(Pose(true, poses.t)).rad2deg().max()) < 0.1
    errors = [scene.cameras[n].project(scene.cam_from_world[n].transform(scene.xyz))[0] for n in range(5)]
    seen = [scene.observations_of(n) for n in range(5)]
    residuals = torch.cat([errors[n][scene.point_index[seen[n]]] - scene.uv[seen[n]] for n in range(5)])
    assert float(residuals.mean(0).abs().max()) < 0.1 and float(residuals.norm(dim=-1).median()) < 1.0


def test_localize_finds_model_and_photos_at_once(built: Path, photos: tuple[Path, Pose]) -> None:
    scene = read_map(built)
    assert scene.folder is not None and scene.folder.resolve() == photos[0].resolve()
    view = load_map_view(scene, 0)
    assert view.size == (320, 240)
    # known intrinsics stay as they are
    assert scene.cameras[0].f.tolist() == pytest.approx([300, 300]) and scene.cameras[0].c.tolist() == pytest.approx(
        [159.5, 119.5]
    )


@pytest.mark.slow
def test_photos_are_found_where_both_have_moved(built: Path, photos: tuple[Path, Pose], tmp_path: Path) -> None:
    shutil.copytree(photos[0], tmp_path / "here" / "photos")
    build_map(tmp_path / "here" / "photos", tmp_path / "here" / "map", config=CONFIG)
    (tmp_path / "here").rename(tmp_path / "there")
    scene = read_map(tmp_path / "there" / "map")
    assert scene.folder == (tmp_path / "there" / "photos").resolve()
    facts = read_facts(tmp_path / "there" / "map")
    assert facts is not None and facts.scale is None and facts.unit == "unit of the map"


def test_a_second_run_computes_nothing_and_gives_the_same(
    built: Path, photos: tuple[Path, Pose], tmp_path: Path
) -> None:
    again = tmp_path / "again"
    shutil.copytree(built / "work", again / "work")
    before = {p: p.stat().st_mtime_ns for p in (again / "work").rglob("*") if p.is_file()}
    metres = float(photos[1][0].center_distance(photos[1][4]))
    build_map(photos[0], again, config=CONFIG, scale=ScaleOptions(distances=(("00.png", "04.png", metres),)))
    assert {p: p.stat().st_mtime_ns for p in (again / "work").rglob("*") if p.is_file()} == before
    assert same_models(built, again)


@pytest.mark.slow
def test_files_that_are_not_whole_are_made_again(built: Path, photos: tuple[Path, Pose], tmp_path: Path) -> None:
    again = tmp_path / "again"
    shutil.copytree(built / "work", again / "work")
    for name in ("features", "matches"):
        file = sorted((again / "work" / name).glob("*.safetensors"))[0]
        file.write_bytes(file.read_bytes()[:100])
    for path in (again / "work" / "models").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    metres = float(photos[1][0].center_distance(photos[1][4]))
    build_map(photos[0], again, config=CONFIG, scale=ScaleOptions(distances=(("00.png", "04.png", metres),)))
    assert same_models(built, again)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_killed_at_any_moment_nothing_is_lost(built: Path, photos: tuple[Path, Pose], tmp_path: Path) -> None:
    out = tmp_path / "map"
    metres = float(photos[1][0].center_distance(photos[1][4]))
    arguments = ["map", "build", str(photos[0]), "--out", str(out), "--threads", "1"]
    arguments += ["--distance", "00.png", "04.png", str(metres)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    started = time.monotonic()
    for stage in ("features/*.safetensors", "matches/*.safetensors", "models/*"):
        process = subprocess.Popen([sys.executable, "-m", "metriloc", *arguments], env=environment)
        while process.poll() is None and not list((out / "work").glob(stage)):
            time.sleep(0.01)
            assert time.monotonic() - started < 300
        process.send_signal(signal.SIGKILL)
        process.wait()
    main_ends(arguments, 0)
    assert same_models(built, out)
    assert not list(out.rglob("*.tmp"))


def main_ends(arguments: list[str], code: int) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == code


def test_a_crash_of_compiled_code_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starter = 'import os, signal; print(\'{"at": "photo 3"}\', flush=True); os.kill(os.getpid(), signal.SIGABRT)'
    monkeypatch.setattr("metriloc.mapping.child.child_command", lambda *_: [sys.executable, "-c", starter])
    with pytest.raises(InputError, match=r"COLMAP \(map\) was ended by SIGABRT at photo 3; what was finished is kept"):
        run_native(NativeJob("map", {}))


@pytest.mark.slow
def test_photos_that_cannot_be_mapped(
    tmp_path: Path, photos: tuple[Path, Pose], capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(folder: Path, said: str) -> None:
        with pytest.raises(InputError, match=said):
            build_map(folder, tmp_path / "map", config=CONFIG)

    refused(tmp_path / "none", "is not a folder of photos")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", "holds no photos")
    copies = tmp_path / "copies"
    copies.mkdir()
    for n in range(5):
        shutil.copy(photos[0] / "00.png", copies / f"{n}.png")
    refused(copies, "has 1 usable .*is a copy of '0.png'")
    noise = tmp_path / "noise"
    noise.mkdir()
    for n in range(2):
        values = np.random.default_rng(n).integers(0, 255, (240, 320, 3)).astype(np.uint8)
        Image.fromarray(values).save(noise / f"{n}.png")
    refused(noise, "could be put together")


@pytest.mark.slow
def test_what_is_no_photo_costs_itself_only(
    tmp_path: Path, photos: tuple[Path, Pose], write_photos: Write, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "mixed photos"
    shutil.copytree(photos[0], folder / "a place")
    (folder / "a place" / "note.jpg").write_text("not a photo")
    shutil.copy(folder / "a place" / "00.png", folder / "copy.png")
    write_photos(folder / "other place", 3, texture_seed=77)
    main_ends(["map", "build", str(folder), "--out", str(tmp_path / "map"), "--threads", "1"], 1)
    facts = read_facts(tmp_path / "map")
    assert facts is not None and facts.registered == 5 and facts.given == 10 and len(facts.left_out) == 2
    rest = {name for names in facts.others for name in names} | set(facts.alone)
    assert rest == {f"other place/{n:02d}.png" for n in range(3)}
    text = capsys.readouterr().out
    assert "is a copy of" in text and "note.jpg' is not an image" in text and "units of the map" in text
    assert set(read_map(tmp_path / "map").names) == {f"a place/{n:02d}.png" for n in range(5)}


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_photos_that_are_stored_turned(
    tmp_path: Path, photos: tuple[Path, Pose], built: Path, orientation: int
) -> None:
    """The same upright photos, one of them stored turned: the map has its stored pixels, and the same cameras' places."""
    folder = tmp_path / "photos"
    shutil.copytree(photos[0], folder)
    turned = {3: 2, 6: 1, 8: 3}[orientation]
    pixels = np.rot90(np.asarray(Image.open(folder / "01.png")), turned)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(pixels)).save(folder / "01.png", exif=exif)
    build_map(folder, tmp_path / "map", config=CONFIG)
    scene, straight = read_map(tmp_path / "map"), read_map(built)
    assert len(scene) == 5
    fit = fit_similarity(scene.cam_from_world.center(), straight.cam_from_world.center())
    assert fit is not None and fit.rms < 0.01
    view = load_map_view(scene, 1)
    assert view.size == ((240, 320) if orientation != 3 else (320, 240))


def test_info_check_and_export(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from metriloc.datasets.nerfstudio import read_nerfstudio

    main_ends(["map", "info", str(built), "--json"], 0)
    told = json.loads(capsys.readouterr().out)
    assert told["photos"] == 5 and told["unit"] == "metre" and told["made"]["registered"] == 5
    main_ends(["map", "check", str(built)], 0)
    assert "lengths are in metres" in capsys.readouterr().out
    main_ends(["map", "export", str(built), "--out", str(tmp_path / "text")], 0)
    scene = read_map(built)
    torch.testing.assert_close(read_map(tmp_path / "text").xyz, scene.xyz)
    main_ends(["map", "export", str(built), "--out", str(tmp_path / "ns"), "--format", "nerfstudio"], 0)
    posed = read_nerfstudio(tmp_path / "ns")
    torch.testing.assert_close(posed.cam_from_world.t, scene.cam_from_world.t)
    torch.testing.assert_close(posed.cameras[0].c.double(), scene.cameras[0].c.double())
    head, _, body = (tmp_path / "ns" / "points.ply").read_bytes().partition(b"end_header\n")
    assert f"element vertex {len(scene.xyz)}".encode() in head and len(body) == 15 * len(scene.xyz)
