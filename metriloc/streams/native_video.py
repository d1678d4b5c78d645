"""In the process of its own: frames of a video file by PyAV, with their times and turned upright, as RGB bytes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from metriloc.streams.native import Told

MAX_VIDEO_MEGAPIXELS = 50
MAX_BAD_PACKETS = 1000
"""In a row, after which the rest of a video is given up."""


def run(job: Mapping[str, Any]) -> Told:
    """A head with ``frames`` (0 where the file does not say) first, then a record a frame: ``time`` in seconds (None where
    unknown), ``width``, ``height`` and the RGB bytes, or ``bad`` where a part of the file cannot be decoded.

    job: ``path``; ``upright``: turn frames as the file says that they are to be shown.
    """
    import av

    path = job["path"]
    try:
        container = av.open(path, mode="r", options={"protocol_whitelist": "file"})
    except (av.error.FFmpegError, ValueError) as error:
        raise ValueError(f"'{path}' is not a video that can be read: {_words(error)}") from error
    with container:
        if not container.streams.video:
            raise ValueError(f"'{path}' holds no video")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        _check_size(path, stream.codec_context.width, stream.codec_context.height)
        yield {"frames": int(stream.frames or 0)}, b""
        yield from _frames(av, container, stream, job)


def _frames(av: Any, container: Any, stream: Any, job: Mapping[str, Any]) -> Told:
    bad = 0
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            found = packet.decode()
            bad = 0
        except av.error.FFmpegError as error:
            bad += 1
            yield {"bad": _words(error)}, b""
            if bad >= MAX_BAD_PACKETS:
                raise ValueError(f"'{job['path']}': {bad} parts in a row cannot be decoded: {_words(error)}") from error
            continue
        for frame in found:
            _check_size(job["path"], frame.width, frame.height)
            if frame.is_corrupt:
                yield {"bad": "the frame is damaged", "time": _time(frame)}, b""
                continue
            rgb = frame.to_ndarray(format="rgb24")
            if job["upright"] and frame.rotation % 90 == 0:
                rgb = np.ascontiguousarray(np.rot90(rgb, frame.rotation // 90 % 4))
            yield {"time": _time(frame), "width": rgb.shape[1], "height": rgb.shape[0]}, rgb.tobytes()


def _time(frame: Any) -> float | None:
    return float(frame.time) if frame.time is not None and math.isfinite(frame.time) else None


def _check_size(path: str, width: int, height: int) -> None:
    if width * height > MAX_VIDEO_MEGAPIXELS * 1e6:
        raise ValueError(
            f"'{path}' has frames of {width}x{height} pixels; the limit is {MAX_VIDEO_MEGAPIXELS} megapixels"
        )


def _words(error: Exception) -> str:
    return " ".join(str(getattr(error, "strerror", None) or error).split())[:200] or type(error).__name__
