"""Who is let in: a request that is to be answered in less than twice the time that it takes with nobody else there."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass

PATIENCE = 0.5
"""Part of the time that a request takes alone for which it may wait: the rest of twice that time is for what varies."""
UNNOTICED_S = 0.03
"""A wait that nobody notices, however short the request."""
_UNKNOWN_S = 1.0  # what has not been seen yet is expected to take
_OVERDUE = 0.2  # part of the time that one is at work, beyond what was expected, that it will be still
_NEWEST = 0.2  # weight of the last request in what is usual


class FullError(Exception):
    """There is no room. seconds: after which there will be."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"come again in {seconds} s")
        self.seconds = seconds


@dataclass(eq=False)
class Visit:
    """A request that was let in. expected: seconds of work; started: when that began; None while it waits."""

    kind: str
    photos: int
    expected: float
    started: float | None = None


class Room:
    """Requests in the order they came in; so many at a time are worked on. Not for several threads.

    most: how many may wait, however long that takes; None for those that are answered in time.
    """

    def __init__(self, workers: int, most: int | None = None, clock: Callable[[], float] = time.perf_counter) -> None:
        self._workers, self._most, self._clock = workers, most, clock
        self._inside: list[Visit] = []
        self._usual: dict[str, float] = {}

    @property
    def is_idle(self) -> bool:
        """Whether somebody who comes now need not wait."""
        return len(self._inside) < self._workers

    def enter(self, kind: str, photos: int = 1, bounded: bool = True) -> Visit:
        """Let one in. kind: those of one kind take as long for a photo. Raises FullError where ``bounded``."""
        visit = Visit(kind, photos, photos * self._usual.get(kind, _UNKNOWN_S))
        if bounded and not self.is_idle:
            wait = self._wait()
            too_long = wait - max(PATIENCE * visit.expected, UNNOTICED_S)
            waiting = len(self._inside) - self._workers
            if too_long > 0 if self._most is None else waiting >= self._most:
                raise FullError(max(1, math.ceil(too_long if self._most is None else wait)))
        self._inside.append(visit)
        self._start()
        return visit

    def leave(self, visit: Visit, answered: bool) -> None:
        """Let one out. answered: whether the time it took is that of others of its kind."""
        self._inside.remove(visit)
        if answered and visit.started is not None:
            took = (self._clock() - visit.started) / visit.photos
            self._usual[visit.kind] = took + (1 - _NEWEST) * (self._usual.get(visit.kind, took) - took)
        self._start()

    def _start(self) -> None:
        for visit in self._inside[: self._workers]:
            if visit.started is None:
                visit.started = self._clock()

    def _wait(self) -> float:
        """Seconds until one who comes now would be worked on."""
        now = self._clock()
        free = [0.0] * max(0, self._workers - len(self._inside))
        for visit in self._inside[: self._workers]:
            elapsed = 0.0 if visit.started is None else now - visit.started
            free.append(max(visit.expected - elapsed, _OVERDUE * elapsed))
        heapq.heapify(free)
        for visit in self._inside[self._workers :]:
            heapq.heapreplace(free, free[0] + visit.expected)
        return free[0]
