"""What goes to the terminal: one line where one is meant, nothing that could steer it, progress, and exit codes."""

from __future__ import annotations

import importlib.util
import itertools
import signal
import sys
import textwrap
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

EXIT_NO_POSE = 1
"""Everything was done, but a photo has no pose or could not be used among many."""
EXIT_BAD_INPUT = 2
"""Wrong use, or a photo or file that cannot be used."""
EXIT_INTERRUPTED = 130
EXIT_TERMINATED = 143

_Item = TypeVar("_Item")


class Terminated(KeyboardInterrupt):
    """SIGTERM, where it is heard: ends the work as Ctrl+C does."""


class _Result(Protocol):
    @property
    def success(self) -> bool: ...

    @property
    def unusable(self) -> bool: ...


def exit_code(results: Sequence[_Result]) -> int:
    """What a command ends with that found poses of photos."""
    if any(result.unusable for result in results):
        return EXIT_BAD_INPUT
    return 0 if all(result.success for result in results) else EXIT_NO_POSE


def printable(text: object) -> str:
    """The text without control characters, line breaks or bytes that are no text; each is shown as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


COLUMNS = 80
"""What is printed for people fits in so many columns, but for names that are longer."""


def fitted(line: str) -> list[str]:
    """A line in lines of at most ``COLUMNS``, broken between words.

    What follows is indented by two more.
    """
    line = printable(line)
    indent = " " * (len(line) - len(line.lstrip(" ")))
    return textwrap.wrap(
        line,
        COLUMNS,
        subsequent_indent=f"{indent}  ",
        break_long_words=False,
        break_on_hyphens=False,
        replace_whitespace=False,
        drop_whitespace=True,
    ) or [""]


def print_lines(lines: Iterable[str]) -> None:
    """Lines on standard output, free of what could steer a terminal, those that are too long in several."""
    print("\n".join(part for line in lines for part in fitted(line)))


def text_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Cells under one another, names at the left and numbers at the right, within ``COLUMNS``: long names are broken."""
    if not rows:
        return []
    cells = [[printable(cell) for cell in row] for row in rows]
    # numbers are never broken; their heads and the names are
    widths = [max(len(row[k]) for row in cells[1:] or cells) for k in range(len(cells[0]))]
    heads = [max([len(word) for word in cell.split()] or [0]) for cell in cells[0]]
    widths = [max(pair) for pair in zip(widths, heads, strict=True)]
    widths[0] = max(12, min(max(len(row[0]) for row in cells), COLUMNS - sum(w + 2 for w in widths[1:])))
    lines = []
    for number, row in enumerate(cells):
        # names break at hyphens; numbers have some that belong to them
        parts = [
            textwrap.wrap(cell, width, break_on_hyphens=column == 0) or [""]
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for part in itertools.zip_longest(*parts, fillvalue=""):
            padded = [text.rjust(w) for text, w in zip(part[1:], widths[1:], strict=True)]
            lines.append("  ".join([part[0].ljust(widths[0]), *padded]).rstrip())
        if number == 0:
            lines.append("-" * (sum(widths) + 2 * (len(widths) - 1)))
    return lines


def complain(command: str, error: object) -> None:
    """One sentence on standard error."""
    print(f"metriloc {command}: {printable(' '.join(str(error).split()))}", file=sys.stderr)


@contextmanager
def hearing_sigterm() -> Iterator[None]:
    """Within, SIGTERM raises ``Terminated``, so that what is done is written; outside the main thread nothing is changed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    if importlib.util.find_spec("pycolmap") is not None:
        import pycolmap  # noqa: F401 - whose import takes the signal for itself: it must come before ours

    def end(number: int, frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not cut off what the first one lets finish
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def working(what: str) -> Iterator[None]:
    """Shows on standard error that something goes on, and for how long, until it is done; nothing where that is no
    terminal."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=sys.stdout.isatty()
    ) as spinner:
        spinner.add_task(what, total=None)
        yield


@contextmanager
def progress_bar(what: str, rank: int = 0) -> Iterator[Callable[[int, int], None] | None]:
    """Gives a function of (done, in all) that moves a bar on standard error; None where that is no terminal, and in all
    processes but the first (rank 0)."""
    if rank != 0 or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    # what is printed meanwhile belongs to standard output, also where that is a file
    shown = Progress(
        *columns,
        TextColumn("left"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        redirect_stdout=sys.stdout.isatty(),
    )
    with shown as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def counted(what: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """The items under a progress bar, where there are several and somebody looks."""
    if len(items) < 2:
        yield from items
        return
    with progress_bar(what) as progress:
        for done, item in enumerate(items):
            if progress is not None:
                progress(done, len(items))
            yield item


def numbered(what: str, items: Sequence[_Item]) -> Iterator[_Item]:
    """The items, each announced by its number, where a bar would fight with another one."""
    for number, item in enumerate(items, 1):
        if len(items) > 1 and sys.stderr.isatty():
            print(f"{what} {number} of {len(items)}", file=sys.stderr)
        yield item
