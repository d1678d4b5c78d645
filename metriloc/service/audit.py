"""Who asked for what and when, as lines of JSON; no photo, no name of a file, no answer."""

from __future__ import annotations

import json
import logging
import time
from logging.handlers import RotatingFileHandler
from pathlib import Path

from starlette.types import Scope

_BYTES, _FILES = 16 * 2**20, 8
"""Of a file, and how many are kept."""


class Audit:
    """The audit log of a service, in a file that is followed by another when it is full."""

    def __init__(self, file: Path) -> None:
        self._handler = RotatingFileHandler(file, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8")

    def write(self, caller: str, scope: Scope, route: str, status: int, seconds: float) -> None:
        """A request: the caller is the name of a token, or an address; of the path only its route and ids."""
        entry = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "caller": caller,
            "method": scope["method"],
            "route": route,
            **{name: str(value)[:32] for name, value in scope.get("path_params", {}).items()},
            "status": status,
            "ms": round(1000 * seconds, 1),
        }
        line = json.dumps(entry)
        self._handler.emit(logging.LogRecord("audit", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Close the file."""
        self._handler.close()
