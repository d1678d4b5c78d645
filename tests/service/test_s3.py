"""Files in an S3: moto's server, which speaks its protocol on this machine."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("httpx", reason="the service needs the extra serve")
pytest.importorskip("fastapi", reason="the service needs the extra serve")
s3fs = pytest.importorskip("s3fs", reason="S3 needs s3fs")
moto = pytest.importorskip("moto.server", reason='S3 is tested by moto (pip install "moto[server]" s3fs)')

from service.running import Running, free_port  # noqa: E402

from metriloc.service.blobs import FolderBlobs, RemoteBlobs, UnreachableError, digest_of  # noqa: E402
from metriloc.service.records import sqlite_url  # noqa: E402

pytestmark = [pytest.mark.extras, pytest.mark.slow]
URL = "s3://anchors/features"


@pytest.fixture()
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An S3, which all processes that are started find by their environment."""
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=free_port(), verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{host}:{port}"),
        ("AWS_ACCESS_KEY_ID", "somebody"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield
    server.stop()
    s3fs.S3FileSystem.clear_instance_cache()


def photo() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), dtype=np.uint8)).save(file, "JPEG")
    return file.getvalue()


def test_files_go_to_an_s3_and_come_back(store: None, tmp_path: Path) -> None:
    here, there = (RemoteBlobs(URL, FolderBlobs(tmp_path / name)) for name in ("here", "there"))
    file = tmp_path / "file"
    file.write_bytes(b"features")
    digest = digest_of(file)
    here.copies.folder.mkdir()
    assert list(here.digests()) == list(there.digests()) == []
    here.put(file, digest)
    assert there.path(digest).read_bytes() == b"features" and list(there.digests()) == [digest]
    there.delete(digest)
    assert list(here.digests()) == []
    with pytest.raises(KeyError):
        there.path(digest)


def test_an_s3_that_is_not_there(store: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(UnreachableError, match=r"files cannot be reached now \(EndpointConnectionError\)"):
        RemoteBlobs(URL, FolderBlobs(tmp_path)).path("0" * 64)


def test_two_services_over_one_store_are_one(store: None, tmp_path: Path) -> None:
    shared = ("--database", sqlite_url(tmp_path / "rows.db"), "--blobs", URL)
    services = [Running(tmp_path / name, *shared) for name in ("one", "two")]
    try:
        one, two = (service.wait() for service in services)
        made = one.anchor(photo())
        assert made.status_code == 201, made.text
        at = f"/v1/anchors/{made.json()['id']}"
        found = two.http.post(f"{at}/poses", files=[("photo", ("a.jpg", photo()))])
        assert found.status_code == 200 and found.json()["queries"][0]["success"], found.text
        assert two.http.delete(at).status_code == 204 and one.http.get(at).status_code == 404
        assert list(RemoteBlobs(URL, FolderBlobs(tmp_path / "none")).digests()) == []
    finally:
        for service in services:
            service.close()
