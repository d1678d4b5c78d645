"""Frames to an H.264 video, by an ffmpeg executable: the one on the PATH, or the one that imageio-ffmpeg brings along."""

from __future__ import annotations

import importlib
import io
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from metriloc.io import InputError
from metriloc.viz.pictures import Rgb

MISSING_FFMPEG = "a video needs ffmpeg, which is not on the PATH: install it, or pip install 'metriloc[video]'"
_MAX_FPS = 60.0


def find_ffmpeg() -> str:
    """The executable. Raises InputError, one sentence with what to do, where there is none."""
    found = shutil.which("ffmpeg")
    if found is not None:
        return found
    try:
        brought = importlib.import_module("imageio_ffmpeg")
        return str(brought.get_ffmpeg_exe())
    except (ImportError, RuntimeError) as error:  # RuntimeError: it is installed, and has no executable
        raise InputError(MISSING_FFMPEG) from error


def encode_video(
    frames: Sequence[Rgb], *, fps: float | None = None, seconds: float | None = None, ffmpeg: str | None = None
) -> bytes:
    """An MP4 file of frames of one size. It is H.264, constant rate factor 23, yuv420p; an odd last row or column is
    cut off.

    fps: frames a second; or seconds: how long all frames last together (at most 60 frames a second, then it is longer);
    10 frames a second without either. ffmpeg: executable, by default ``find_ffmpeg()``. Raises InputError without ffmpeg
    and when it fails, ValueError for frames that make no video, and for both of fps and seconds.
    """
    sizes = {frame.shape for frame in frames}
    if len(sizes) != 1:
        raise ValueError(f"a video needs frames of one size, got {sorted(sizes) or 'none'}")
    height, width = (side - side % 2 for side in frames[0].shape[:2])
    if min(height, width) < 2:
        raise ValueError(f"frames of {frames[0].shape[1]} x {frames[0].shape[0]} pixels are too small for a video")
    if fps is not None and seconds is not None:
        raise ValueError(f"a video has a rate or a duration, got both: {fps} frames a second, {seconds} s")
    rate = min(_MAX_FPS, len(frames) / seconds) if seconds is not None else 10.0 if fps is None else fps
    if not 0 < rate < float("inf"):
        raise ValueError(f"a video needs a positive rate, got {rate} frames a second")
    command = [ffmpeg or find_ffmpeg(), "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24"]
    command += ["-s", f"{width}x{height}", "-framerate", f"{rate:.6f}", "-i", "-"]
    command += ["-c:v", "libx264", "-crf", "23", "-pix_fmt", "yuv420p", "-movflags", "+faststart"]
    data = b"".join(np.ascontiguousarray(frame[:height, :width]).tobytes() for frame in frames)
    with tempfile.TemporaryDirectory() as folder:
        # its index goes to the front when all is written, which a pipe does not allow
        file = Path(folder) / "video.mp4"
        done = subprocess.run([*command, str(file)], input=data, capture_output=True, check=False)
        if done.returncode != 0 or not file.is_file():
            words = done.stderr.decode(errors="replace").strip().splitlines() or ["no word of why"]
            raise InputError(f"ffmpeg ('{command[0]}') made no video: {words[-1][:200]}")
        return file.read_bytes()


def encode_gif(frames: Sequence[Rgb], *, fps: float = 10.0, last_ms: int | None = None) -> bytes:
    """A GIF of frames of one size. It begins again when it ends; needs no ffmpeg.

    last_ms: how long the last frame stays, in thousandths of a second; as long as the others by default. Raises
    ValueError without frames.
    """
    from PIL import Image

    if not frames:
        raise ValueError("a GIF needs a frame")
    each = max(20, round(1000 / fps))
    images = [Image.fromarray(frame) for frame in frames]
    durations = [each] * (len(images) - 1) + [each if last_ms is None else last_ms]
    file = io.BytesIO()
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
    return file.getvalue()
