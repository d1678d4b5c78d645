"""Errors as RFC 9457 problems: a status, a title, and one sentence; never a traceback or a path of the server."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

NO_DATABASE = "the database cannot be reached now"
MEDIA_TYPE = "application/problem+json"


class Problem(HTTPException):
    """What a request is told instead of an answer. detail: one sentence."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        named = {name.replace("_", "-").title(): value for name, value in headers.items()}
        super().__init__(status, detail, named or None)


def problem_response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The response of a problem."""
    try:
        title = HTTPStatus(status).phrase
    except ValueError:
        title = "Error"
    content = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    return Response(json.dumps(content), status, dict(headers or {}), MEDIA_TYPE)


async def on_http_error(request: Request, error: Exception) -> Response:
    """A handler of FastAPI, also for what it raises itself."""
    assert isinstance(error, HTTPException)
    return problem_response(error.status_code, str(error.detail), error.headers)


async def on_wrong_request(request: Request, error: Exception) -> Response:
    """A handler of FastAPI for forms and addresses that do not fit: the first thing that is wrong, in words."""
    assert isinstance(error, RequestValidationError)
    return problem_response(422, _in_words(error.errors()))


async def on_defect(request: Request, error: Exception) -> Response:
    """A handler of FastAPI for what should not have happened; the log tells more."""
    return problem_response(500, "the service failed on this request; its log tells more")


def _in_words(errors: Sequence[Any]) -> str:
    first = errors[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or str(first["loc"][0])
    return f"{where}: {first['msg']}"
