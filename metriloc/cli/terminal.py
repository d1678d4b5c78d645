"""What goes to the terminal: one line where one is meant, nothing that could steer it, progress, and exit codes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

EXIT_NO_POSE = 1
"""Everything was done, but a photo has no pose or could not be used among many."""
EXIT_BAD_INPUT = 2
"""Wrong use, or a photo or file that cannot be used."""
EXIT_INTERRUPTED = 130

_Item = TypeVar("_Item")


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


def show(lines: Iterable[str]) -> None:
    """Lines on standard output, each of them one line whatever it holds."""
    print("\n".join(printable(line) for line in lines))


def complain(command: str, error: object) -> None:
    """One sentence on standard error."""
    print(f"metriloc {command}: {printable(' '.join(str(error).split()))}", file=sys.stderr)


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
    with Progress(*columns, TextColumn("left"), TimeRemainingColumn(), console=Console(stderr=True)) as bar:
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
