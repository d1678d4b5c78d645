"""The client: what it sends, how long it waits, and what it says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

httpx = pytest.importorskip("httpx", reason="the client needs the extra serve")

import metriloc  # noqa: E402
from metriloc.service.client import ServiceError  # noqa: E402

pytestmark = pytest.mark.extras


def client(answer: Callable[[Any], Any], **settings: Any) -> metriloc.Client:
    http = httpx.Client(transport=httpx.MockTransport(answer))
    return metriloc.Client("http://service/", http=http, **settings)


def test_it_comes_again_when_it_is_told_to(tmp_path: Path) -> None:
    bodies: list[bytes] = []

    def answer(request: Any) -> Any:
        bodies.append(request.read())
        if len(bodies) < 3:
            return httpx.Response(503, headers={"Retry-After": "0"}, json={"detail": "too many requests wait"})
        return httpx.Response(201, json={"id": "ab"})

    file = tmp_path / "door.jpg"
    file.write_bytes(b"pixels")
    assert client(answer).add_anchor(file, fov=60, distance=0.5) == "ab"
    assert len(bodies) == 3 and all(b"pixels" in body and b'filename="door.jpg"' in body for body in bodies)
    bodies.clear()
    with pytest.raises(ServiceError, match=r"too many requests wait \(503\)") as busy:
        client(answer, patience=-1).add_anchor(b"pixels")
    assert busy.value.retry_after == 0


def test_it_sends_its_token_and_goes_through_pages() -> None:
    asked: list[Any] = []

    def answer(request: Any) -> Any:
        asked.append(request)
        after = request.url.params["after"]
        return httpx.Response(200, json=[{"id": "a"}, {"id": "b"}] if after == "" else [])

    assert [one["id"] for one in client(answer, token="metriloc_x").anchors()] == ["a", "b"]
    assert [request.url.params["after"] for request in asked] == ["", "b"]
    assert asked[0].headers["authorization"] == "Bearer metriloc_x" and str(asked[0].url).startswith(
        "http://service/v1/"
    )


def test_an_answer_that_is_none_is_said() -> None:
    def answer(request: Any) -> Any:
        return httpx.Response(502, text="<html>a proxy")

    with pytest.raises(ServiceError, match=r"http://service/v1/maps.* answered Bad Gateway \(502\)"):
        client(answer).maps()
