"""``--format`` of relpose and localize on the bundled photos: files, resuming, wrong names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import metriloc
from metriloc.cli.main import main
from metriloc.datasets.nerfstudio import read_nerfstudio
from metriloc.runs import pose_files

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"
FORMATS = {name: files for name, files in pose_files.FORMATS.items() if name != "rosbag"}  # needs an extra
REFERENCE, QUERY, DEPTH = EXAMPLE / "reference.jpg", EXAMPLE / "query.jpg", EXAMPLE / "reference.depth.png"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main([*map(str, arguments)])
    return int(stop.value.code or 0)


def files_in(out: Path) -> set[str]:
    return {str(path.relative_to(out)) for path in out.rglob("poses.*") if path.is_file()} | {
        str(path.relative_to(out)) for path in out.glob("poses.*/*")
    }


@pytest.mark.slow
def test_relpose_writes_every_format_and_resumes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    common = ["relpose", REFERENCE, QUERY, "--method", "matching", "--depth", DEPTH, "--out", out]
    assert run(*common, "--format", *FORMATS) == 0
    assert files_in(out) == {file for files in FORMATS.values() for file in files}
    entry = json.loads((out / "pose.json").read_text())["queries"][0]
    expected = np.array(entry["query_from_reference"]["matrix"])
    axes = np.diag([1.0, -1.0, -1.0, 1.0])
    kitti = np.vstack([np.loadtxt(out / "poses.kitti.txt").reshape(3, 4), [0, 0, 0, 1]])
    np.testing.assert_allclose(kitti, np.linalg.inv(expected), atol=1e-6)
    (view,) = json.loads((out / "poses.opengl.json").read_text())["views"]
    np.testing.assert_allclose(view["view_matrix"], axes @ expected @ axes, atol=1e-6)
    posed = read_nerfstudio(out / "poses.nerfstudio")
    # its world has OpenGL axes; the photos are found from where the file is
    np.testing.assert_allclose(posed.cam_from_world[1].matrix().numpy() @ axes, expected, atol=1e-6)
    assert [(posed.folder / name).resolve() for name in posed.names] == [REFERENCE.resolve(), QUERY.resolve()]
    assert posed.cameras[1].K[0].tolist() == [560, 0, 319.5]
    capsys.readouterr()
    before = (out / "report.html").stat().st_mtime_ns
    assert run(*common, "--format", "ros", "tum", "--resume") == 0
    assert "kept from the earlier run" in capsys.readouterr().out
    assert files_in(out) == {"poses.ros.jsonl", "poses.tum.txt"}
    assert (out / "report.html").stat().st_mtime_ns == before


def test_poses_without_metres_are_in_no_file(tmp_path: Path) -> None:
    assert run("relpose", REFERENCE, QUERY, "--method", "matching", "--out", tmp_path, "--format", *FORMATS) == 0
    assert json.loads((tmp_path / "pose.json").read_text())["queries"][0]["metric"] is False
    assert all((tmp_path / file).read_text() == "" for file in ("poses.kitti.txt", "poses.tum.txt", "poses.ros.jsonl"))
    assert json.loads((tmp_path / "poses.opengl.json").read_text())["views"] == []
    assert "query.jpg" not in (tmp_path / "poses.colmap/images.txt").read_text()


def test_localize_writes_every_format(example_map: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path / "cache"))
    pycolmap = pytest.importorskip("pycolmap")
    out = tmp_path / "out"
    common = ["localize", example_map, QUERY, "--images", EXAMPLE, "--held-out", "--method", "xfeat-pnp", "--no-html"]
    assert run(*common, "--out", out, "--format", *FORMATS) == 0
    assert files_in(out) == {file for files in FORMATS.values() for file in files} | {"poses.txt", "poses.json"}
    expected = json.loads((out / "poses.json").read_text())["queries"][0]["cam_from_world"]["matrix"]
    (image,) = pycolmap.Reconstruction(str(out / "poses.colmap")).images.values()
    np.testing.assert_allclose(image.cam_from_world().matrix(), np.array(expected)[:3], atol=1e-6)
    posed = read_nerfstudio(out / "poses.nerfstudio").cam_from_world[0].matrix()
    np.testing.assert_allclose(posed.numpy(), expected, atol=1e-6)
    assert json.loads((out / "poses.ros.jsonl").read_text())["unit"] == "unit of the map"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--format", "tum", "bundler", "--out", "out"], "no pose format 'bundler': one of tum, mapfree, colmap, "),
        (["--format", "kitti"], "--format kitti names files of --out: give a folder"),
    ],
)
@pytest.mark.parametrize("command", [["relpose", REFERENCE, QUERY], ["localize", EXAMPLE, QUERY]])
def test_wrong_formats_are_one_sentence(
    command: list[object], given: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [str(tmp_path / "out") if word == "out" else word for word in given]
    assert run(*command, *given) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
