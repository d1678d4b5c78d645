"""Frames at their own speed, by a clock that the test moves."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.streams.frames import Stream, StreamFrame
from metriloc.streams.pace import Pace
from metriloc.types import View


def frame(index: int, time: float | None) -> StreamFrame:
    def load() -> View:
        camera = Camera(torch.tensor([4.0, 4]), torch.tensor([4.0, 4]), torch.tensor([1.5, 1.5]))
        return View(torch.zeros(3, 4, 4), camera)

    return StreamFrame(index, f"{index}", time, load)


class Clock:
    """Seconds that pass only when somebody sleeps or works."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def taken(times: list[float | None], work: float) -> tuple[list[int], int, float]:
    """Numbers of the frames that were taken by somebody who works so long on each, how many were dropped, and when."""
    clock = Clock()
    pace = Pace(clock=clock, sleep=clock.sleep)
    stream = Stream("test", lambda: (frame(i, time) for i, time in enumerate(times)))
    numbers = []
    for one in pace.frames(stream):
        numbers.append(one.index)
        clock.now += work
    return numbers, pace.dropped, clock.now - 1000.0


def test_a_fast_machine_waits_for_every_frame() -> None:
    numbers, dropped, seconds = taken([5.0 + 0.1 * i for i in range(10)], 0.01)
    assert numbers == list(range(10)) and dropped == 0 and seconds == pytest.approx(0.91)


def test_a_slow_machine_drops_what_is_over() -> None:
    numbers, dropped, seconds = taken([0.1 * i for i in range(21)], 0.37)
    assert numbers[0] == 0 and numbers[1:4] == [3, 7, 11] and dropped == 21 - len(numbers)
    assert 2.0 <= seconds <= 2.0 + 2 * 0.37  # the last frame is always taken


def test_clocks_that_jump_begin_anew() -> None:
    numbers, dropped, seconds = taken([0.0, 0.1, 900.0, 900.1, 50.0, 50.1], 0.01)
    assert numbers == list(range(6)) and dropped == 0 and seconds < 1.0
    assert taken([None, None], 0.1)[0] == [0, 1]


def test_of_a_live_stream_the_newest_frame_counts() -> None:
    read_on, first = threading.Event(), threading.Event()

    def frames() -> Iterator[StreamFrame]:
        yield frame(0, 0.0)
        first.wait(10)
        for i in range(1, 6):
            yield frame(i, 0.1 * i)
        read_on.set()

    pace, numbers = Pace(), []
    for one in pace.frames(Stream("live", frames, live=True)):
        numbers.append(one.index)
        if one.index == 0:
            first.set()
            assert read_on.wait(10)  # all others come while this one is worked on
    assert numbers == [0, 5] and pace.dropped == 4


def test_an_error_of_a_live_stream_is_raised_where_frames_are_taken() -> None:
    def frames() -> Iterator[StreamFrame]:
        yield frame(0, 0.0)
        raise InputError("the stream is broken")

    with pytest.raises(InputError, match="the stream is broken"):
        list(Pace().frames(Stream("live", frames, live=True)))
