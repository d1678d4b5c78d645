"""Videos: times, rotation, damage, and a decoder that dies."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from oracles.stream_files import SIZE, color, write_video

from metriloc.io import InputError
from metriloc.streams import child, video
from metriloc.streams.source import StreamOptions, open_stream
from metriloc.streams.views import CameraOptions

FOV = StreamOptions(CameraOptions(fov=60.0))


def pixels(frame: object) -> np.ndarray:
    return 255 * frame.load().image.permute(1, 2, 0).numpy()  # type: ignore[attr-defined,no-any-return]


@pytest.mark.extras
def test_frames_of_a_variable_rate_keep_their_times(tmp_path: Path) -> None:
    file = write_video(tmp_path / "walk.mp4", [0, 33, 66, 200, 233])
    frames = list(open_stream(file, FOV))
    assert [f.time for f in frames] == pytest.approx([0, 0.033, 0.066, 0.2, 0.233], abs=1e-3)
    assert [f.name for f in frames][:2] == ["walk_000000", "walk_000001"]
    for index, frame in enumerate(frames):
        assert abs(float(pixels(frame)[20, 40].mean()) - color(index)[20, 40].mean()) < 6  # the codec loses some
    assert [f.time for f in open_stream(file, StreamOptions(FOV.camera, fps=10.0))] == pytest.approx(
        [0, 0.1, 0.2, 0.3, 0.4]
    )


@pytest.mark.extras
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_frames_are_turned_as_the_file_says(tmp_path: Path, rotation: int) -> None:
    (frame,) = open_stream(write_video(tmp_path / "turned.mp4", [0], rotation), FOV)
    turned = np.rot90(color(0), rotation // 90).astype(float)  # a display matrix turns against the clock
    found = pixels(frame)
    assert found.shape == turned.shape and float(np.abs(found - turned).mean()) < 12


@pytest.mark.extras
def test_a_damaged_part_costs_its_own_frames(tmp_path: Path) -> None:
    file = write_video(tmp_path / "walk.mp4", list(range(0, 1000, 40)))
    data = bytearray(file.read_bytes())
    start = data.find(b"mdat") + 8
    data[start + 2500 : start + 3300] = b"\xa5" * 800
    file.write_bytes(data)
    frames = list(open_stream(file, FOV))
    good = 0
    for frame in frames:
        try:
            good += frame.load().size == SIZE
        except InputError as error:
            assert "cannot be decoded" in str(error)
    assert 1 <= good <= 25 and len(frames) <= 50


@pytest.mark.extras
def test_what_is_no_video_is_one_sentence(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="needs PyAV: pip install 'metriloc[video]'")
    for content, said in ((b"nothing like a video" * 50, "is not a video that can be read"), (b"", "is empty")):
        (tmp_path / "x.mp4").write_bytes(content)
        with pytest.raises(InputError, match=rf"x\.mp4' {said}"):
            list(open_stream(tmp_path / "x.mp4", FOV))
    with pytest.raises(InputError, match="--intrinsics"):
        open_stream(write_video(tmp_path / "y.mp4", [0]), StreamOptions(CameraOptions(intrinsics=Path("a.txt"))))


def test_without_the_extra_the_command_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.mp4").write_bytes(b"x")
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'metriloc\[video\]'"):
        open_stream(tmp_path / "x.mp4", FOV)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the process that reads it was ended by SIGSEGV"),
        ("import sys; sys.stderr.write('no room'); sys.exit(1)", "ended with code 1: no room"),
        ("import time; time.sleep(60)", "nothing came of it for 0.2 seconds"),
        (r"import sys; sys.stdout.buffer.write(b'\xff' * 12); sys.stdout.flush()", "a record of"),
    ],
)
def test_a_decoder_that_dies_or_hangs_ends_the_stream_with_one_sentence(
    code: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "child_command", lambda *_: [sys.executable, "-c", code])
    if "sleep" in code:
        monkeypatch.setattr(child, "MAX_SILENCE_S", 0.2)
    with pytest.raises(InputError, match=rf"'a\.mp4': .*{said}"):
        list(child.read_records("video", {"path": "a.mp4"}))
