"""What responses hold, as the OpenAPI description tells it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class ProblemBody(BaseModel):
    """RFC 9457: what went wrong, in one sentence."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str


class AnchorBody(BaseModel):
    """An anchor. expires, created: seconds since 1970."""

    id: str
    photo: str
    size: list[int]
    focal_px: list[float]
    intrinsics_source: str
    method: str
    weights_id: str
    distance: float | None = None
    bytes: int
    created: float
    expires: float | None = None


class MapBody(BaseModel):
    """A map. unit: of its lengths."""

    id: str
    name: str
    photos: int
    points: int
    unit: str
    methods: list[str]
    method: str
    weights_id: str
    bytes: int
    created: float
    expires: float | None = None


class JobBody(BaseModel):
    """A job. state: waiting, running or done; status, answer: what the request would have been answered, when done."""

    id: str
    state: str
    created: float
    changed: float
    status: int | None = None
    answer: dict[str, Any] | None = None


def anchor_body(row: dict[str, Any]) -> AnchorBody:
    return AnchorBody(**{**row["facts"], "distance": row["facts"]["told"]["distance"]}, **_common(row))


def map_body(row: dict[str, Any]) -> MapBody:
    return MapBody(**row["facts"], **_common(row))


def _common(row: dict[str, Any]) -> dict[str, Any]:
    return {name: row[name] for name in ("id", "bytes", "created", "expires")}
