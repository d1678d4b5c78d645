"""A service of this process, with the models in processes of their own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the service needs the extra serve")
pytest.importorskip("httpx", reason="the client needs the extra serve")


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Any]]:
    """``started(method="xfeat")`` -> a test client of a service with these settings, one of each for all tests."""
    from starlette.testclient import TestClient

    from metriloc.service.app import create_app
    from metriloc.service.config import ServiceConfig

    known: dict[str, TestClient] = {}
    with ExitStack() as running:

        def start(**settings: Any) -> TestClient:
            key = repr(sorted(settings.items()))
            if key not in known:
                data: Path = tmp_path_factory.mktemp("service")
                app = create_app(ServiceConfig(**{"data": data, "threads": 1, **settings}))
                known[key] = running.enter_context(TestClient(app, base_url="http://localhost"))
                wait_until_ready(known[key])
            return known[key]

        yield start


def wait_until_ready(client: Any, seconds: float = 300) -> None:
    """Until the models are in memory."""
    end = time.monotonic() + seconds
    while client.get("/readyz").status_code != 200:
        assert time.monotonic() < end, client.get("/readyz").text
        time.sleep(0.1)
