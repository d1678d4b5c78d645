"""What a run shows on the terminal: a bar with the time left, and the lines of the log above it.

Where standard error is no terminal there is no bar, only the lines.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from metriloc.training.record import logger

Reporter: TypeAlias = Callable[[int, str], None]
"""Called after every step with the steps done and a few words about the last ones."""


@contextmanager
def on_the_terminal(total: int, start: int = 0) -> Iterator[Reporter]:
    """Show progress from step ``start`` to ``total``; yields what the loop calls after every step."""
    from rich.console import Console
    from rich.logging import RichHandler
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(file=sys.stderr)
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    bar = Progress(*columns, console=console, disable=not console.is_terminal, refresh_per_second=4)
    handler: logging.Handler = (
        RichHandler(console=console, show_path=False, show_level=False)
        if console.is_terminal
        else logging.StreamHandler(sys.stderr)
    )
    logger.addHandler(handler)
    propagate, logger.propagate = logger.propagate, False
    try:
        with bar:
            task = bar.add_task("", total=total, completed=start)
            yield lambda step, words: bar.update(task, completed=step, description=words)
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagate
