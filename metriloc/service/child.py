"""What runs in a process of ``Children``: one job after the other, until nobody is there who asks."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from metriloc.io import InputError
from metriloc.service.blobs import UnreachableError

_LOG = logging.getLogger("metriloc.service")


def serve_jobs(connection: Connection, make: Callable[[], Callable[[Any], Any]]) -> None:
    """Say how the start went; then take lists of jobs, and answer each as soon as it is done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the service, which ends us
    try:
        work = make()
    except Exception as error:
        hopeless = isinstance(error, InputError | ImportError)  # what is missing stays so
        connection.send(("hopeless" if hopeless else "failed", _sentence(error)))
        return
    try:
        connection.send(("ready", ""))
        while True:
            for content in connection.recv():
                connection.send(_answered(work, content))
    except (EOFError, OSError):
        return  # the service is gone


def _answered(work: Callable[[Any], Any], content: Any) -> tuple[str, Any]:
    try:
        return "done", work(content)
    except (InputError, MemoryError) as error:
        return "refused", _sentence(error)
    except UnreachableError as error:
        return "ended", _sentence(error)
    except Exception as error:
        _LOG.exception("a job failed")
        return "failed", _sentence(error)


def _sentence(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
