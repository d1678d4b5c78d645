"""The bar of a download."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from metriloc.io.download import Progress


@contextmanager
def transfer_bar(title: str) -> Iterator[Progress]:
    """Gives what ``metriloc.io.download.fetch`` tells its progress to: a bar on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    columns = (title.replace("[", "\\["), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=Console(stderr=True))
    task = bar.add_task(title, total=None)

    def progress(done: int, total: int | None) -> None:
        bar.start()  # nothing is drawn of what never begins
        bar.update(task, completed=done, total=total)

    try:
        yield progress
    finally:
        if bar.live.is_started:
            bar.stop()
