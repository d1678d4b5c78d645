"""``metriloc overlaps``: one scene or a folder of them, elsewhere if wanted, and not twice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from metriloc.cli.main import main
from metriloc.datasets import read_overlaps


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as stop:
        main(("overlaps", *arguments))
    return int(stop.value.code or 0)


def make_scene(folder: Path) -> None:
    """Three photos of a wall 2 m away, 2 m wide, 0.5 m apart: overlaps of 3/4 and 1/2."""
    (folder / "seq0").mkdir(parents=True)
    names = [f"seq0/frame_{i:05d}" for i in range(3)]
    (folder / "poses.txt").write_text("".join(f"{n}.jpg 1 0 0 0 {-0.5 * i} 0 0\n" for i, n in enumerate(names)))
    (folder / "intrinsics.txt").write_text("".join(f"{n}.jpg 80 80 39.5 29.5 80 60\n" for n in names))
    for name in names:
        Image.new("RGB", (80, 60)).save(folder / f"{name}.jpg")
        Image.fromarray(np.full((60, 80), 2000, dtype=np.uint16)).save(folder / f"{name}.depth.png")


def test_scenes_of_a_folder_into_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        make_scene(tmp_path / "data" / name)
    assert run(str(tmp_path / "data"), "--out", str(tmp_path / "out")) == 0
    assert "6 pairs share something, 6 of them" in capsys.readouterr().out
    for name in ("a", "b"):
        _, overlap, _ = read_overlaps(tmp_path / "out" / name / "overlaps.npz")
        assert sorted(overlap.tolist()) == pytest.approx([0.5] * 2 + [0.75] * 4, abs=0.03)
        assert not (tmp_path / "data" / name / "overlaps.npz").exists()
    before = (tmp_path / "out/a/overlaps.npz").stat().st_mtime_ns
    assert run(str(tmp_path / "data"), "--out", str(tmp_path / "out")) == 0
    assert "there already" in capsys.readouterr().out
    assert (tmp_path / "out/a/overlaps.npz").stat().st_mtime_ns == before
    assert run(str(tmp_path / "data/a"), "--again") == 0
    assert (tmp_path / "data/a/overlaps.npz").is_file()


def test_wrong_use_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(str(tmp_path / "nowhere")) == 2
    assert "nowhere' is not a folder" in capsys.readouterr().err
    make_scene(tmp_path)
    assert run(str(tmp_path), "--source", "sfm") == 2
    assert "no COLMAP model" in capsys.readouterr().err
