"""The service on an address: uvicorn, with connections closed that send nothing."""

from __future__ import annotations

import asyncio
import logging
import socket
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from metriloc.choose import LOCALIZERS
from metriloc.io import InputError
from metriloc.service.app import create_app
from metriloc.service.config import ServiceConfig
from metriloc.service.guards import parse_rate
from metriloc.service.storage import open_storage
from metriloc.service.tokens import tokens_of


class _Impatient(H11Protocol):
    """HTTP/1.1 that waits so long for the first lines of a request, and no longer."""

    seconds: float
    _clock: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._stop()

    def _watch(self) -> None:
        """The time runs while no request is known whole, and none is answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop()
        elif self._clock is None:
            self._clock = self.loop.call_later(self.seconds, self._late)

    def _stop(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _late(self) -> None:
        self._clock = None
        if (self.cycle is None or self.cycle.response_complete) and not self.transport.is_closing():
            self.transport.close()


def check_address(config: ServiceConfig) -> None:
    """Raises InputError for an address that others reach while there is no token, that is taken, or none; and for a rate
    or a localizer that is none."""
    parse_rate(config.rate)
    if config.localizer is not None and config.localizer not in LOCALIZERS:
        raise InputError(f"--localizer {config.localizer} is none: one of {', '.join(LOCALIZERS)}")
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        socket.create_server((config.host, config.port), family=family).close()
    except OSError as error:
        raise InputError(f"--host {config.host} --port {config.port}: {error.strerror or error}") from error
    if not config.needs_token:
        return
    records, _ = open_storage(config)
    try:
        if not any(token.alive for token in tokens_of(records)):
            why = "--require-token" if config.is_local else f"--host {config.host} is reached by others"
            raise InputError(f"{why}, and there is no token: make one first (metriloc serve token add NAME)")
    finally:
        records.close()


def run_server(config: ServiceConfig, ready: Callable[[], None] = lambda: None) -> None:
    """Serve until the process is told to stop. ready: called when its models are there. Raises InputError for what cannot
    be."""
    check_address(config)
    # processes that are killed are replaced, this one, too, and nothing leaks: nobody need be warned
    warnings.filterwarnings("ignore", "resource_tracker: process died unexpectedly", UserWarning)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s: %(message)s")
    app = create_app(config)
    desk = app.state.desk
    try:
        desk.start()
        desk.wait()
    except BaseException:  # also Ctrl+C
        desk.close()
        raise
    ready()
    tempfile.tempdir = str(desk.spool)  # where bodies lie that are too large for memory
    settings = uvicorn.Config(
        app,
        host=config.host,
        port=config.port,
        http=type("_Impatient", (_Impatient,), {"seconds": config.header_seconds}),
        ws="none",
        access_log=False,  # the audit log has them
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        limit_concurrency=config.connections,
        timeout_keep_alive=15,
        timeout_graceful_shutdown=round(config.shutdown_seconds),
        h11_max_incomplete_event_size=32 * 1024,
    )
    uvicorn.Server(settings).run()
