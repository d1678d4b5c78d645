"""What every request passes before the API sees it: host, origin, token, rate, and the size and time of its body."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from limits import RateLimitItem, parse
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from metriloc.io import InputError
from metriloc.service.audit import Audit
from metriloc.service.config import MEBIBYTE, ServiceConfig
from metriloc.service.metrics import Metrics
from metriloc.service.problems import NO_DATABASE, Problem, problem_response
from metriloc.service.records import Records
from metriloc.service.tokens import Token, who_sends

OPEN_PATHS = ("/", "/healthz", "/readyz", "/docs", "/openapi.json")
"""Looked at without a token, as what is below ``/page/``: they tell nothing of what is stored."""
MAP_PATIENCE = 10
"""Times longer that a map may take to arrive than another body."""
HEADERS: Mapping[str, str] = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
}
"""Of every response that does not say otherwise itself."""
_WRITES = ("POST", "PUT", "PATCH", "DELETE")
_CLOSE = {"connection": "close"}


@dataclass(frozen=True)
class Caller:
    """Who asks. token: None where none is needed."""

    name: str
    token: Token | None = None


def parse_rate(text: str) -> RateLimitItem:
    """``600/minute``. Raises InputError for what is no rate."""
    try:
        return parse(text)
    except ValueError as error:
        raise InputError(f"--rate is NUMBER/second, NUMBER/minute or NUMBER/hour, got {text!r}") from error


class Guard:
    """ASGI middleware around the whole API."""

    def __init__(self, app: ASGIApp, config: ServiceConfig, records: Records, metrics: Metrics, audit: Audit) -> None:
        self.app, self.config, self.records, self.metrics, self.audit = app, config, records, metrics, audit
        self._limiter = MovingWindowRateLimiter(MemoryStorage())
        self._rate = parse_rate(config.rate)
        self._uploads = 0
        self._hosts = {name.lower() for name in (*config.hosts, config.host, "localhost", "127.0.0.1", "[::1]")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A request."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, told = time.perf_counter(), {"status": 500}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                told["status"] = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        caller = Caller("nobody")
        try:
            caller = await self._admitted(scope)
            scope.setdefault("state", {})["caller"] = caller
            await self._served(scope, receive, send_guarded)
        except Problem as problem:
            refused = problem_response(problem.status_code, str(problem.detail), problem.headers)
            await refused(scope, receive, send_guarded)
        finally:
            route = getattr(scope.get("route"), "path", "none")
            self.metrics.requested(route, told["status"])
            self.audit.write(caller.name, scope, route, told["status"], time.perf_counter() - begun)

    # -- who ----------------------------------------------------------------------------------------------------------
    async def _admitted(self, scope: Scope) -> Caller:
        headers = Headers(scope=scope)
        self._check_host(headers.get("host", ""))
        _check_origin(scope["method"], headers)
        address = (scope.get("client") or ("unknown", 0))[0]
        caller = Caller(str(address))
        open_path = scope["path"] in OPEN_PATHS or scope["path"].startswith("/page/")
        if self.config.needs_token and not open_path:
            caller = await self._bearer(headers.get("authorization", ""), str(address))
        who = caller.token.id if caller.token is not None else caller.name
        if not open_path and not await self._limiter.hit(self._rate, who):
            wait = max(1, round(self._rate.get_expiry() / self._rate.amount))
            raise Problem(429, f"more than {self.config.rate} requests: come again later", retry_after=str(wait))
        return caller

    def _check_host(self, host: str) -> None:
        """Against pages of strangers whose name leads here (DNS rebinding), where no token protects."""
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        if (self.config.hosts or not self.config.needs_token) and name.lower() not in self._hosts:
            raise Problem(421, "the service is not called so: start it with --hosts NAME", **_CLOSE)

    async def _bearer(self, sent: str, address: str) -> Caller:
        kind, _, text = sent.partition(" ")
        token = None
        if kind.lower() == "bearer" and text:
            try:
                token = await run_in_threadpool(who_sends, self.records, text.strip())
            except sa.exc.OperationalError:
                raise Problem(503, NO_DATABASE, retry_after="5") from None
        if token is None:
            if not await self._limiter.hit(self._rate, "wrong", address):  # of guesses
                raise Problem(429, "too many requests without a good token", retry_after="60")
            said = (
                "this token is not, or no longer, good" if sent else "this needs a token: Authorization: Bearer TOKEN"
            )
            raise Problem(401, said, www_authenticate="Bearer", **_CLOSE)
        return Caller(token.name, token)

    # -- what ---------------------------------------------------------------------------------------------------------
    async def _served(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in _WRITES:
            await self.app(scope, receive, send)
            return
        if self._uploads >= self.config.uploads:
            self.metrics.refused()
            raise Problem(503, "too many uploads at a time: come again in 1 s", retry_after="1", **_CLOSE)
        is_map = scope["path"].rstrip("/") == "/v1/maps"
        most = (self.config.map_mebibytes if is_map else self.config.body_mebibytes) * MEBIBYTE
        seconds = self.config.body_seconds * (MAP_PATIENCE if is_map else 1)
        stated = Headers(scope=scope).get("content-length", "0")
        if not stated.isdigit() or int(stated) > most:
            raise _too_large(most)
        self._uploads += 1
        try:
            await self.app(scope, _bounded(receive, most, seconds), send)
        finally:
            self._uploads -= 1


def _check_origin(method: str, headers: Headers) -> None:
    """Against forms of strangers' pages that are sent here: no page but our own may change anything."""
    origin, host = headers.get("origin"), headers.get("host", "")
    foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
    if method in _WRITES and (foreign or headers.get("sec-fetch-site", "none") in ("cross-site", "same-site")):
        raise Problem(403, "pages of other sites may not send requests to this service", **_CLOSE)


def _bounded(receive: Receive, most: int, seconds: float) -> Receive:
    """The body of a request, as far as it comes in time and is not too large."""
    end, taken, whole = time.monotonic() + seconds, 0, False

    async def bounded() -> Message:
        nonlocal taken, whole
        if whole:
            return await receive()  # waits for the client to leave
        try:
            message = await asyncio.wait_for(receive(), max(0.001, end - time.monotonic()))
        except asyncio.TimeoutError:
            raise Problem(408, f"the request did not arrive within {seconds:g} s", **_CLOSE) from None
        if message["type"] == "http.request":
            taken += len(message.get("body", b""))
            whole = not message.get("more_body", False)
        if taken > most:
            raise _too_large(most)
        return message

    return bounded


def _too_large(most: int) -> Problem:
    return Problem(413, f"the request is larger than {most // MEBIBYTE} MiB", **_CLOSE)
