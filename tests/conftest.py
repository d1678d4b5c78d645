"""Shared fixtures: where the reference data lies, and threads pinned so that results repeat."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch

# small tensors gain nothing from threads, and on a busy machine threads that wait for each other cost minutes
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("METRILOC_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """``shared("golden/mickey/kabsch.safetensors")`` -> its path; skips the test, saying why, when it is absent."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"reference data not here: {path} (set METRILOC_SHARED)")
        return path

    return find


@pytest.fixture()
def generator() -> torch.Generator:
    """A seeded CPU generator."""
    return torch.Generator().manual_seed(0)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture()
def serve() -> Iterator[Callable[[Path], str]]:
    """``serve(folder)`` -> the address of a server of this machine that lists and gives what is in it."""
    with ExitStack() as open_servers:

        def start(folder: Path) -> str:
            http = open_servers.enter_context(
                ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder)))
            )
            open_servers.callback(http.shutdown)
            threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
            return f"http://127.0.0.1:{http.server_port}"

        yield start
