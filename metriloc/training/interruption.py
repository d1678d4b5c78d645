"""Ctrl+C and SIGTERM as a wish: the step is finished, the run saved, and only then does it end.

A second Ctrl+C, a second or more after the first, interrupts at once. (Within that second it is the same one: torchrun
passes on to its processes what the terminal has sent them already.)
"""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType
from typing import Any

_SAME_REQUEST_S = 1.0


class StopRequest:
    """A context in which the two signals are only noted. ``signal_name`` is empty until one came.

    Outside the main thread, where Python allows no signal handlers, it notes nothing.
    """

    def __init__(self) -> None:
        self.signal_name = ""
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        now = time.monotonic()
        if self.signal_name and number == signal.SIGINT and now - self._since > _SAME_REQUEST_S:
            raise KeyboardInterrupt
        if not self.signal_name:
            self.signal_name, self._since = signal.Signals(number).name, now
