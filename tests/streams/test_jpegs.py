"""JPEGs one after another: whole, broken, cut off, with thumbnails, in any pieces."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oracles.stream_files import color
from PIL import Image

from metriloc.io import InputError
from metriloc.streams import jpegs
from metriloc.streams.jpegs import jpeg_stream, split_jpegs
from metriloc.streams.views import CameraOptions


def jpeg(index: int, **options: object) -> bytes:
    data = io.BytesIO()
    Image.fromarray(color(index)).save(data, "JPEG", **options)
    return data.getvalue()


def with_thumbnail(index: int) -> bytes:
    """A photo whose APP1 segment holds another one, as phones write it."""
    whole, inside = jpeg(index), b"Exif\0\0" + jpeg(9)
    return whole[:2] + b"\xff\xe1" + (len(inside) + 2).to_bytes(2, "big") + inside + whole[2:]


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[i : i + size] for i in range(0, len(data), size))


PHOTOS = [jpeg(0), jpeg(1, progressive=True), with_thumbnail(2), jpeg(3, restart_marker_rows=1)]


@pytest.mark.parametrize("size", [1, 7, 4096, 10**6])
def test_photos_come_apart_whatever_the_pieces(size: int) -> None:
    stray = b"--frame\r\nContent-Type: image/jpeg\r\n\r\n"
    found = list(split_jpegs(pieces(stray.join(PHOTOS), size)))
    assert found == [(photo, "") for photo in PHOTOS]


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_cut_off_photo_costs_itself_alone(data: st.DataObject) -> None:
    first, second, third = PHOTOS[0], PHOTOS[1], PHOTOS[3]
    cut = data.draw(st.integers(20, len(second) - 1))
    found = list(split_jpegs(pieces(first + second[:cut] + third + first, 512)))
    whole = [photo for photo, why in found if not why]
    assert whole == [first, third, first]


def test_a_cut_within_a_table_leaves_the_next_photo_whole() -> None:
    table = PHOTOS[0].find(b"\xff\xdb") + 30
    found = list(split_jpegs(iter([PHOTOS[0][:table] + PHOTOS[1] + PHOTOS[3]])))
    assert [why == "" for _, why in found] == [False, True, True] and found[1][0] == PHOTOS[1]


@given(st.binary(max_size=3000))
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_survived(noise: bytes) -> None:
    found = list(split_jpegs(pieces(noise + PHOTOS[0], 64)))
    assert found and sum(len(photo) for photo, _ in found) <= len(noise) + len(PHOTOS[0])


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpegs, "MAX_JPEG_BYTES", 5000)
    monkeypatch.setattr(jpegs, "MAX_STRAY_BYTES", 20_000)
    endless = b"\xff\xd8\xff\xda\x00\x04xx" + b"a" * 9000
    found = list(split_jpegs(pieces(endless + PHOTOS[0], 1000)))
    assert "larger than the limit" in found[0][1] and len(found[0][0]) <= 6000 and found[-1] == (PHOTOS[0], "")
    with pytest.raises(InputError, match="without a JPEG"):
        list(split_jpegs(pieces(b"x" * 30_000, 1000)))


def test_the_time_of_a_frame_is_that_of_its_arrival() -> None:
    ticks = iter([50.0, 50.0, 50.5, 51.5])
    pipe = io.BytesIO(b"".join(PHOTOS[:3]))
    frames = list(jpeg_stream(pipe, CameraOptions(fov=60.0), clock=lambda: next(ticks)))
    assert [frame.time for frame in frames] == [0.0, 0.5, 1.5]
    np.testing.assert_allclose(255 * frames[1].load().image[:, 20, 40].numpy(), color(1)[20, 40], atol=6)


def test_a_pipe_is_read_as_it_fills_and_a_broken_photo_names_itself() -> None:
    reading, writing = os.pipe()
    os.write(writing, PHOTOS[0] + PHOTOS[0][:400] + PHOTOS[3])
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        frames = list(jpeg_stream(pipe, CameraOptions(fov=60.0), fps=2.0))
    assert [frame.time for frame in frames] == [0.0, 0.5, 1.0]
    with pytest.raises(InputError, match="frame_000001 of standard input is"):
        frames[1].load()
    assert frames[2].load().size == (64, 48)
