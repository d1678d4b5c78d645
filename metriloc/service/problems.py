"""Errors as RFC 9457 problems: a status, a title, and one sentence; never a traceback or a path of the server."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from metriloc.service.wording import mistake_in_words, refusal_in_words

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
    said = str(error.detail) if isinstance(error, Problem) else refusal_in_words(request, error)
    return problem_response(error.status_code, said, error.headers)


async def on_wrong_request(request: Request, error: Exception) -> Response:
    """A handler of FastAPI for forms and addresses that do not fit: the first thing that is wrong, in words."""
    assert isinstance(error, RequestValidationError)
    return problem_response(422, mistake_in_words(error.errors()[0]))


async def on_defect(request: Request, error: Exception) -> Response:
    """A handler of FastAPI for what should not have happened; the log tells more."""
    return problem_response(500, "the service failed on this request; its log tells more")
