"""Videos by an ffmpeg executable: what it is given, what is done with its answers, and, where there is one, the file."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from metriloc.io import InputError
from metriloc.viz.video import MISSING_FFMPEG, encode_video, find_ffmpeg

FRAMES = [np.full((21, 33, 3), 12 * n, np.uint8) for n in range(8)]


def pretend(folder: Path, answer: str = "") -> str:
    """An executable that notes its arguments and input beside itself, and writes a file of its input's length."""
    script = folder / "ffmpeg"
    script.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "here, data = pathlib.Path(__file__).parent, sys.stdin.buffer.read()\n"
        "(here / 'arguments').write_text('\\n'.join(sys.argv[1:])); (here / 'input').write_bytes(data)\n"
        f"answer = {answer!r}\n"
        "if answer:\n    sys.stderr.write(answer); sys.exit(1)\n"
        "pathlib.Path(sys.argv[-1]).write_bytes(b'video')\n"
    )
    script.chmod(0o755)
    return str(script)


@pytest.mark.parametrize(
    ("speed", "rate"), [({}, 10.0), ({"fps": 25.0}, 25.0), ({"seconds": 4.0}, 2.0), ({"seconds": 0.01}, 60.0)]
)
def test_what_ffmpeg_is_given(speed: dict[str, float], rate: float, tmp_path: Path) -> None:
    assert encode_video(FRAMES, **speed, ffmpeg=pretend(tmp_path)) == b"video"
    arguments = (tmp_path / "arguments").read_text().split("\n")
    given = dict(itertools.pairwise(arguments))
    assert given["-s"] == "32x20" and float(given["-framerate"]) == rate  # H.264 wants even sides
    assert given["-c:v"] == "libx264" and given["-crf"] == "23" and arguments.count("-pix_fmt") == 2
    expected = b"".join(frame[:20, :32].tobytes() for frame in FRAMES)
    assert (tmp_path / "input").read_bytes() == expected


def test_what_cannot_be_a_video(tmp_path: Path) -> None:
    ffmpeg = pretend(tmp_path)
    with pytest.raises(ValueError, match="one size, got none"):
        encode_video([], ffmpeg=ffmpeg)
    with pytest.raises(ValueError, match="one size"):
        encode_video([FRAMES[0], FRAMES[0][:10]], ffmpeg=ffmpeg)
    with pytest.raises(ValueError, match="33 x 1 pixels are too small"):
        encode_video([FRAMES[0][:1]], ffmpeg=ffmpeg)
    with pytest.raises(ValueError, match="got both"):
        encode_video(FRAMES, fps=3, seconds=3, ffmpeg=ffmpeg)
    with pytest.raises(ValueError, match="positive rate"):
        encode_video(FRAMES, fps=0, ffmpeg=ffmpeg)
    with pytest.raises(InputError, match="made no video: Unknown encoder 'libx264'"):
        encode_video(FRAMES, ffmpeg=pretend(tmp_path, "warning\nUnknown encoder 'libx264'\n"))


def test_no_ffmpeg_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError) as caught:
        find_ffmpeg()
    assert str(caught.value) == MISSING_FFMPEG and "metriloc[video]" in MISSING_FFMPEG
    pretend(tmp_path)
    assert find_ffmpeg() == str(tmp_path / "ffmpeg")


def test_a_real_video(tmp_path: Path) -> None:
    try:
        ffmpeg = find_ffmpeg()
    except InputError:
        pytest.skip("there is no ffmpeg here")
    file = tmp_path / "v.mp4"
    file.write_bytes(encode_video(FRAMES, fps=5))
    command = [ffmpeg, "-loglevel", "error", "-i", str(file), "-f", "rawvideo", "-pix_fmt", "gray", "-"]
    decoded = np.frombuffer(subprocess.run(command, capture_output=True, check=True).stdout, np.uint8)
    gray = decoded.reshape(8, 20, 32).mean((1, 2))
    np.testing.assert_allclose(gray, [12 * n for n in range(8)], atol=3)
