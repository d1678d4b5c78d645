"""Who is let in: whoever is answered in time, on a clock of our own."""

from __future__ import annotations

import heapq
import random

import pytest

from metriloc.service.admission import FullError, Room

SECONDS = {"short": 0.5, "long": 4.0}


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def knowing(workers: int = 1, most: int | None = None) -> tuple[Room, Clock]:
    """A room that has seen one of each kind."""
    clock = Clock()
    room = Room(workers, most, clock)
    for kind, seconds in SECONDS.items():
        visit = room.enter(kind)
        clock.now += seconds
        room.leave(visit, True)
    return room, clock


def test_who_would_wait_for_long_comes_again_when_told() -> None:
    room, clock = knowing()
    first = room.enter("long")
    clock.now += 1  # three seconds are left
    for kind, seconds in (("long", 1), ("short", 3)):
        with pytest.raises(FullError) as full:
            room.enter(kind)
        assert full.value.seconds == seconds
    clock.now += 1
    second = room.enter("long")  # waits two, half of what it takes
    assert first.started == 100 + 4.5 and second.started is None and not room.is_idle
    with pytest.raises(FullError):
        room.enter("long")
    clock.now += 2
    room.leave(first, True)
    assert second.started == clock.now
    room.leave(second, False)
    assert room.is_idle


def test_a_request_of_many_photos_may_wait_as_long_as_it_takes_itself() -> None:
    room, _ = knowing()
    room.enter("long")
    room.enter("long", photos=2)  # which wait four of their eight seconds
    with pytest.raises(FullError):
        room.enter("long", photos=5)  # for twelve of twenty


def test_who_takes_longer_than_expected_is_not_expected_at_once() -> None:
    room, clock = knowing()
    room.enter("short")
    clock.now += 20
    with pytest.raises(FullError):
        room.enter("short")
    room.enter("long", photos=3)


def test_so_many_may_wait_where_that_is_said() -> None:
    room, _ = knowing(workers=2, most=1)
    for _ in range(3):
        room.enter("short")
    with pytest.raises(FullError):
        room.enter("short")
    room.enter("short", bounded=False)  # a job, which waits for nobody


def test_several_workers() -> None:
    room, clock = knowing(workers=2)
    room.enter("long")
    assert room.is_idle
    room.enter("short")
    clock.now += 0.3
    room.enter("short")  # waits for the other short one
    with pytest.raises(FullError):
        room.enter("short")
    room.enter("long")  # 0.7 s


@pytest.mark.parametrize("workers", [1, 3])
def test_twice_the_capacity(workers: int) -> None:
    """Each is done within twice its own time, none of both kinds is left out, and the workers are seldom idle."""
    chance, (room, clock) = random.Random(0), knowing(workers)
    free, leaving, counter = [clock.now] * workers, [], 0
    took: dict[str, list[float]] = {kind: [] for kind in SECONDS}
    worked, begin, mean = 0.0, clock.now, sum(SECONDS.values()) / 2
    for _ in range(4000):
        clock.now += chance.expovariate(2 * workers / mean)
        while leaving and leaving[0][0] <= clock.now:
            at, _, visit = heapq.heappop(leaving)
            later, clock.now = clock.now, at
            room.leave(visit, True)
            clock.now = later
        kind = chance.choice(list(SECONDS))
        try:
            visit = room.enter(kind)
        except FullError:
            continue
        seconds = SECONDS[kind] * chance.uniform(0.9, 1.1)
        done = max(heapq.heappop(free), clock.now) + seconds
        heapq.heappush(free, done)
        counter += 1
        heapq.heappush(leaving, (done, counter, visit))
        took[kind].append((done - clock.now) / SECONDS[kind])
        worked += seconds
    for ratios in took.values():
        assert len(ratios) > 100 and sorted(ratios)[int(0.99 * len(ratios))] < 2
    assert worked > 0.6 * workers * (clock.now - begin)
