"""Downloads against a local server: resume, hashes, broken connections, offline."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metriloc.io import InputError
from metriloc.io.download import cache_folder, fetch, is_offline

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/file supports ranges, /plain does not, /cut breaks off in the middle the first time."""

    requests: list[tuple[str, str | None]] = []  # noqa: RUF012 - shared on purpose
    cut_done = False

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Handler.requests.append((self.path, wanted))
        if self.path not in ("/file", "/plain", "/cut"):
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.path != "/plain" else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = CONTENT[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.path == "/cut" and not Handler.cut_done:
            Handler.cut_done = True
            self.wfile.write(body[:300_000])
            return
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture()
def server() -> Iterator[str]:
    Handler.requests, Handler.cut_done = [], False
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


def test_download_reports_progress_and_is_checked(server: str, tmp_path: Path) -> None:
    seen: list[tuple[int, int | None]] = []
    path = fetch(f"{server}/file", tmp_path / "a" / "w", sha256=SHA256, progress=lambda *p: seen.append(p))
    assert path.read_bytes() == CONTENT and seen[-1] == (len(CONTENT), len(CONTENT))
    fetch(f"{server}/file", path, sha256=SHA256)
    assert len(Handler.requests) == 1  # it is here: nothing is asked again
    assert [p.name for p in path.parent.iterdir()] == ["w"]


@pytest.mark.parametrize("page", ["file", "plain"])
def test_resume_from_a_part(page: str, server: str, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT[:500_000])
    path = fetch(f"{server}/{page}", tmp_path / "w", sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert Handler.requests == [(f"/{page}", "bytes=500000-")]


def test_complete_part_only_needs_its_name(server: str, tmp_path: Path) -> None:
    (tmp_path / "w.part").write_bytes(CONTENT)
    assert fetch(f"{server}/file", tmp_path / "w", sha256=SHA256).read_bytes() == CONTENT


def test_broken_connection_keeps_the_part_and_goes_on(server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run the same command again"):
        fetch(f"{server}/cut", tmp_path / "w", sha256=SHA256)
    assert not (tmp_path / "w").exists() and 0 < (tmp_path / "w.part").stat().st_size < len(CONTENT)
    assert fetch(f"{server}/cut", tmp_path / "w", sha256=SHA256).read_bytes() == CONTENT
    assert Handler.requests[-1][1] is not None


def test_wrong_hash_deletes(server: str, tmp_path: Path) -> None:
    wrong = "0" * 64
    with pytest.raises(InputError) as caught:
        fetch(f"{server}/file", tmp_path / "w", sha256=wrong)
    assert SHA256 in str(caught.value) and wrong in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_refusals(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="404"):
        fetch(f"{server}/absent", tmp_path / "w")
    with pytest.raises(InputError, match="limit"):
        fetch(f"{server}/file", tmp_path / "w", max_bytes=1000)
    for url in ("http://example.org/w", "file:///etc/passwd", "ftp://127.0.0.1/w"):
        with pytest.raises(InputError, match="https"):
            fetch(url, tmp_path / "w")
    count = len(Handler.requests)
    monkeypatch.setenv("METRILOC_OFFLINE", "1")
    with pytest.raises(InputError, match="offline"):
        fetch(f"{server}/file", tmp_path / "w")
    assert len(Handler.requests) == count


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("METRILOC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "metriloc"
    monkeypatch.delenv("METRILOC_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert not is_offline() and is_offline(True)
    monkeypatch.setenv("METRILOC_OFFLINE", "0")
    assert not is_offline()
