"""``metriloc pixloc confidences`` and ``damping``: a film of what is trusted, and the learned factors."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import metriloc
from metriloc.cli.main import main
from metriloc.methods.pixloc import PixLoc
from metriloc.viz.damping import damping_picture

EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["pixloc", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.mark.slow
def test_a_film_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for name in ("query.jpg", "reference.jpg"):
        shutil.copy(EXAMPLE / name, tmp_path / "photos")
    film = tmp_path / "film.gif"
    assert run("confidences", tmp_path / "photos", "--out", film, "--side", 160, "--fps", 5) == 0
    assert "2 photos at 5 a second" in capsys.readouterr().out
    with Image.open(film) as frames:
        assert frames.n_frames == 2 and frames.size == (160, 120) and frames.info["duration"] == 200
        first = np.asarray(frames.convert("RGB"), float)
        frames.seek(1)
        assert np.abs(first - np.asarray(frames.convert("RGB"), float)).mean() > 1
    Image.new("RGB", (64, 200)).save(tmp_path / "photos" / "tall.jpg")
    assert run("confidences", tmp_path / "photos", "--out", film, "--side", 160) == 2
    assert "another shape" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--out", "film.avi"), "called .mp4 or .gif"),
        (("--out", "film.gif", "--fps", "0"), "--fps must be"),
        (("--out", "film.gif", "--weights", "pixloc-gaussian"), "have no confidences"),
    ],
)
def test_films_that_cannot_be(arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("confidences", EXAMPLE / "query.jpg", *arguments) == 2
    assert words in capsys.readouterr().err


def test_an_mp4_without_ffmpeg_is_refused_before_any_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("metriloc.viz.video.shutil.which", lambda name: None)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    assert run("confidences", tmp_path / "nowhere.jpg", "--out", tmp_path / "film.mp4") == 2
    assert "needs ffmpeg" in capsys.readouterr().err


def test_damping_is_that_of_the_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("damping", "--out", tmp_path / "damping.png") == 0
    shown = capsys.readouterr().out.splitlines()
    extractor = PixLoc.from_pretrained("pixloc-small").extractor
    for level in range(extractor.num_levels):
        factors = extractor.damping(level)
        assert factors is not None
        (row,) = [line.split() for line in shown if line.startswith(f"level {level}")]
        assert row[2:] == [f"{value:.3g}" for value in factors.tolist()]
    assert Image.open(tmp_path / "damping.png").size[0] > 500
    assert run("damping", "--weights", "pixloc-gaussian") == 2
    assert "no learned damping" in capsys.readouterr().err


def test_longer_bars_are_larger_factors() -> None:
    picture = damping_picture([("level 0", [1e-6, 1e-3, 1.0, 1e2, 1e4, 1e5])], -6, 5)
    blue = (picture == (86, 156, 214)).all(-1).sum(1)
    lengths = [blue[14 + 18 * k + 8] for k in range(6)]
    assert lengths == sorted(lengths) and lengths[-1] == 421 and lengths[0] <= 2
    with pytest.raises(ValueError, match="six positive"):
        damping_picture([("level 0", [0.0] * 6)], -6, 5)
