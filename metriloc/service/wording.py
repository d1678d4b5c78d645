"""What FastAPI and pydantic refuse, in sentences of this library: what was sent, and what it may be."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fastapi import Request
from starlette.exceptions import HTTPException

_SHOWN = 60
"""Characters of a value that a sentence repeats."""

# by the type that pydantic gives a mistake: what it lets through, from its context
_WANTED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "float_parsing": lambda _: "is a number",
    "float_type": lambda _: "is a number",
    "finite_number": lambda _: "is a finite number",
    "int_parsing": lambda _: "is a whole number",
    "int_type": lambda _: "is a whole number",
    "int_from_float": lambda _: "is a whole number",
    "int_parsing_size": lambda _: "is a whole number of fewer digits",
    "bool_parsing": lambda _: "is true or false",
    "bool_type": lambda _: "is true or false",
    "string_type": lambda _: "is text",
    "list_type": lambda _: "is one file or several",
    "greater_than": lambda limits: f"must be above {limits['gt']:g}",
    "greater_than_equal": lambda limits: f"must be at least {limits['ge']}",
    "less_than": lambda limits: f"must be below {limits['lt']:g}",
    "less_than_equal": lambda limits: f"must be at most {limits['le']}",
    "string_too_long": lambda limits: f"has at most {limits['max_length']} characters",
    "string_pattern_mismatch": lambda _: "is 32 digits and letters from a to f, as it was returned",
    "value_error": lambda _: "is a file (multipart/form-data)",  # of uploads; no other field has rules in Python
}


def mistake_in_words(mistake: Mapping[str, Any]) -> str:
    """One sentence about an error of pydantic."""
    where = next((str(part) for part in reversed(mistake["loc"]) if isinstance(part, str)), "the request")
    if mistake["type"] == "missing":
        return f"{where} is missing" if where != "body" else "the request has no form (multipart/form-data)"
    wanted = _WANTED.get(mistake["type"])
    rule = "cannot be that" if wanted is None else wanted(mistake.get("ctx", {}))
    return f"{where} {rule}, got {_shown(mistake.get('input'))}"


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return repr(value) if len(value) <= _SHOWN else f"{value[:_SHOWN]!r}... ({len(value)} characters)"
    return (
        repr(value) if isinstance(value, int | float) else "a file" if hasattr(value, "filename") else "something else"
    )


def refusal_in_words(request: Request, error: HTTPException) -> str:
    """One sentence about what Starlette refuses: addresses, methods, and bodies that are no forms."""
    if error.status_code == 404:
        return f"there is nothing at {request.url.path[:_SHOWN]!r}: /docs tells what there is"
    if error.status_code == 405:
        return f"{request.method} is not for this address: /docs tells what is"
    said = str(error.detail)
    if "Too many" in said:
        return "the form has too many parts"
    if "maximum size" in said:
        return "a field of the form is too large: only files may be"
    return "the body is no form (multipart/form-data) that can be read"
