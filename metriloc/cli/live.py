"""``--live``: what a command finds is seen in a browser while it is found."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metriloc.io import InputError
from metriloc.io.arguments import require_number

if TYPE_CHECKING:
    from metriloc.viz.live import LiveView


@dataclass(frozen=True)
class LiveOptions:
    """Seen live in a browser (extra view)."""

    live: bool = False
    """Show what is found in 3D while it is found; Ctrl+C ends the view."""
    live_host: str = "127.0.0.1"
    """Address the view is served at; others than this machine see it where it is 0.0.0.0."""
    live_port: int | None = None
    """Port of the view; by default 8080, or the next that is free."""

    @contextmanager
    def opened(self, title: str) -> Iterator[LiveView | None]:
        """The view, if it is wanted; after the work it stays until Ctrl+C, after an error it ends."""
        if not self.live:
            if self.live_host != "127.0.0.1" or self.live_port is not None:
                raise InputError("--live-host and --live-port are about a view: give --live too")
            yield None
            return
        with served(self.live_host, self.live_port, title) as view:
            yield view
            view.wait()


@contextmanager
def served(host: str, port: int | None, title: str) -> Iterator[LiveView]:
    """A view, announced on standard error with how to reach it."""
    from metriloc.viz.live import LiveView
    from metriloc.viz.viser_server import LOOPBACK

    if port is not None:
        require_number("port", port, 0, 65535, whole=True)
    if host not in LOOPBACK:
        print(f"warning: whoever reaches {host} sees the photos; nothing asks for a password", file=sys.stderr)
    with LiveView(host, port, title) as view:
        print(f"seen at {view.url} until Ctrl+C", file=sys.stderr)
        if "SSH_CONNECTION" in os.environ and host in LOOPBACK:
            machine = os.environ["SSH_CONNECTION"].split()[2:3] or ["MACHINE"]
            tunnel = f"ssh -L {view.port}:127.0.0.1:{view.port} {machine[0]}"
            print(f"from your own machine: {tunnel}, then open {view.url} there", file=sys.stderr)
        yield view
