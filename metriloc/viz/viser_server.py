"""A server of viser that keeps to itself: on this machine unless told otherwise, for pages of its own, and never shared.

viser (extra ``view``) is imported when a server is wanted, not before.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from metriloc.io import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PORT = 8080
"""Of a view that is not told one, or the next that is free."""
_TRIED = 100
_MISSING = 'the live view needs viser: pip install "metriloc[view]"'


def require_viser() -> Any:
    """The module. Raises ImportError with the pip command."""
    try:
        import viser
    except ImportError as error:
        raise ImportError(_MISSING) from error
    return viser


def start_server(host: str, port: int | None, title: str) -> Any:
    """Start a ``viser.ViserServer`` at a port. It may be the first free one from ``PORT`` on.

    Pages of other addresses cannot connect to one on this machine, and its button that would publish the view on the
    internet is gone. Raises ImportError without viser, and InputError for a port that is in use and a host that is not one
    of this machine.
    """
    viser = require_viser()
    chosen = free_port(host, port)
    with quiet_viser():
        server = viser.ViserServer(host=host, port=chosen, label=title, verbose=False)
    if chosen and server.get_port() != chosen:  # somebody took it in between
        stop_server(server)
        raise InputError(_in_use(host, chosen))
    server.request_share_url = lambda verbose=True: None
    server.gui.configure_theme(show_logo=False, show_share_button=False, control_width="large")
    if host in LOOPBACK:
        _refuse_strangers(server)
    return server


def stop_server(server: Any) -> None:
    """Ends it, without a word."""
    with quiet_viser():
        server.stop()


@contextmanager
def quiet_viser() -> Iterator[None]:
    """What viser prints of itself is not printed."""
    import rich

    console = rich.get_console()
    before, console.quiet = console.quiet, True
    try:
        yield
    finally:
        console.quiet = before


def free_port(host: str, port: int | None) -> int:
    """The port if it is free, or the first free one. The first is counted from ``PORT`` on, where no port is given.

    Raises InputError where it is not free, and where the host is none of this machine.
    """
    for candidate in range(PORT, PORT + _TRIED) if port is None else (port,):
        try:
            family = socket.getaddrinfo(host, candidate, type=socket.SOCK_STREAM)[0][0]
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((host, candidate))
            return candidate
        except PermissionError as error:
            raise InputError(f"port {candidate} may not be used by you: give one from 1024 on") from error
        except socket.gaierror as error:
            raise InputError(f"there is no host {host!r}: give 127.0.0.1, or an address of this machine") from error
        except OSError as error:
            if "assign" in str(error):
                raise InputError(f"{host!r} is no address of this machine: give 127.0.0.1, or one that is") from error
    raise InputError(_in_use(host, PORT if port is None else port))


def _in_use(host: str, port: int) -> str:
    return f"port {port} of {host} is in use: give another with --port, or end what uses it"


def _refuse_strangers(server: Any) -> None:
    """Closes connections that pages of other addresses open: any page in the browser could ask for the photos else."""
    own = re.compile(r"https?://(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
    websockets = server._websock_server

    @websockets.on_client_connect
    async def refuse(client: Any) -> None:
        connection = websockets._live_connections[client.client_id]
        origin = connection.request.headers.get("Origin")
        if origin is not None and not own.fullmatch(origin):
            await connection.close(1008, "pages of other addresses may not look")
