"""Seconds of the parts of a job, added up by name."""

from __future__ import annotations

import time
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager


@contextmanager
def timed(seconds: MutableMapping[str, float], part: str) -> Iterator[None]:
    """Add the seconds of the ``with`` block to an entry. They count also where it raises.

    >>> seconds = {}
    >>> with timed(seconds, "nothing"):
    ...     pass
    >>> list(seconds)
    ['nothing']
    """
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - start
