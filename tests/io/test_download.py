"""Downloads against a local server: resume, hashes, broken connections, offline; and safe unpacking."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metriloc.io import InputError
from metriloc.io.download import SUMS, SafeRedirects, cache_folder, extract_members, fetch, is_offline

CONTENT = bytes(range(256)) * 4096  # 1 MiB
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(BaseHTTPRequestHandler):
    """/file supports ranges, /plain does not, /cut breaks off in the middle the first time, the others misbehave."""

    requests: list[tuple[str, str | None]] = []  # noqa: RUF012 - shared on purpose
    cut_done = False

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        Handler.requests.append((self.path, wanted))
        if self.path in ("/file", "/plain", "/cut", "/liar"):
            self.send_content(wanted)
        elif self.path == "/chunked":
            self.protocol_version = "HTTP/1.1"
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"1000\r\n" + CONTENT[:300])
        elif self.path == "/garbage":
            self.wfile.write(b"no HTTP\r\n\r\n")
        elif self.path.startswith("/to/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.end_headers()
        else:
            self.send_error(404)

    def send_content(self, wanted: str | None) -> None:
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.path != "/plain" else 0
        if start >= len(CONTENT):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(CONTENT)}")
            self.end_headers()
            return
        sent = 0 if self.path == "/liar" else start  # a range, but not the one asked for
        body = CONTENT[sent:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        if start:
            self.send_header("Content-Range", f"bytes {sent}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        if self.path == "/cut" and not Handler.cut_done:
            Handler.cut_done = True
            body = body[:300_000]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture()
def server() -> Iterator[str]:
    Handler.requests, Handler.cut_done = [], False
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
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
    assert Handler.requests == [("/file", f"bytes={len(CONTENT)}-")]


@pytest.mark.parametrize(("page", "part"), [("file", CONTENT + b"of something else"), ("liar", CONTENT[:1000])])
def test_parts_that_cannot_go_on_begin_again(page: str, part: bytes, server: str, tmp_path: Path) -> None:
    # without a hash of the publisher nothing but the server's own words tells
    (tmp_path / "w.part").write_bytes(part)
    assert fetch(f"{server}/{page}", tmp_path / "w").read_bytes() == CONTENT
    assert [wanted for _, wanted in Handler.requests] == [f"bytes={len(part)}-", None]


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


def test_without_a_published_hash_the_first_one_is_recorded(server: str, tmp_path: Path) -> None:
    path = fetch(f"{server}/file", tmp_path / "w")
    assert (tmp_path / SUMS).read_text() == f"{SHA256}  w\n"
    fetch(f"{server}/file", tmp_path / "second")
    assert (tmp_path / SUMS).read_text() == f"{SHA256}  second\n{SHA256}  w\n"
    assert fetch(f"{server}/file", path, offline=True) == path

    path.write_bytes(b"changed")
    with pytest.raises(InputError, match="delete it") as caught:
        fetch(f"{server}/file", path)
    assert SHA256 in str(caught.value) and hashlib.sha256(b"changed").hexdigest() in str(caught.value)
    assert path.read_bytes() == b"changed"  # it may be the user's own: only a download is deleted

    path.unlink()
    (tmp_path / SUMS).write_text(f"{'0' * 64}  w\n")
    with pytest.raises(InputError, match="recorded in"):
        fetch(f"{server}/file", path)
    assert not path.exists() and not (tmp_path / "w.part").exists()
    (tmp_path / SUMS).write_text("nonsense\n")
    with pytest.raises(InputError, match=SUMS):
        fetch(f"{server}/file", path)


@pytest.mark.parametrize("page", ["chunked", "garbage"])
def test_broken_answers_are_one_sentence(page: str, server: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="run the same command again") as caught:
        fetch(f"{server}/{page}", tmp_path / "w")
    assert "\n" not in str(caught.value) and not (tmp_path / "w").exists()


def test_redirects_stay_on_https(server: str, tmp_path: Path) -> None:
    assert fetch(f"{server}/to/{server}/file", tmp_path / "w", sha256=SHA256).read_bytes() == CONTENT
    for target in ("http://example.org/w", "ftp://127.0.0.1/w"):
        with pytest.raises(InputError, match="only https"):
            fetch(f"{server}/to/{target}", tmp_path / "other")
    with pytest.raises(InputError, match="302"):  # urllib itself refuses
        fetch(f"{server}/to/file:///etc/passwd", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    # a server elsewhere must not send us to services of this machine
    elsewhere = urllib.request.Request("https://example.org/w")
    with pytest.raises(InputError, match="only https"):
        SafeRedirects().redirect_request(elsewhere, None, 302, "", {}, f"{server}/file")


def test_refusals(server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="404"):
        fetch(f"{server}/absent", tmp_path / "w")
    with pytest.raises(InputError, match="limit"):
        fetch(f"{server}/file", tmp_path / "w", max_bytes=1000)
    for url in ("http://example.org/w", "file:///etc/passwd", "ftp://127.0.0.1/w", "https://[x/"):
        with pytest.raises(InputError, match="https"):
            fetch(url, tmp_path / "w")
    (tmp_path / "in the way").write_text("a file")
    with pytest.raises(InputError, match="cannot be written"):
        fetch(f"{server}/file", tmp_path / "in the way" / "w")
    count = len(Handler.requests)
    monkeypatch.setenv("METRILOC_OFFLINE", "1")
    with pytest.raises(InputError, match="offline"):
        fetch(f"{server}/file", tmp_path / "w")
    assert len(Handler.requests) == count


def test_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRILOC_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.setenv("METRILOC_CACHE", "~/own")
    assert cache_folder() == Path.home() / "own"
    monkeypatch.setenv("METRILOC_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "metriloc"
    monkeypatch.delenv("METRILOC_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert not is_offline() and is_offline(True)
    monkeypatch.setenv("METRILOC_OFFLINE", "0")
    assert not is_offline()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as content:
        for name, data in members.items():
            content.writestr(name, data)
    return path


def test_zip_members_come_out_by_bare_name_only(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"x/../../evil/mickey.ckpt": b"weights", "y/config.yaml": b"c", "/abs": b""})
    (tmp_path / "out").mkdir()
    written = extract_members(path, ("mickey.ckpt", "config.yaml"), tmp_path / "out")
    assert [p.read_bytes() for p in written] == [b"weights", b"c"]
    assert {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()} == {
        "a.zip",
        "out/mickey.ckpt",
        "out/config.yaml",
    }


def test_bad_archives(tmp_path: Path) -> None:
    cases = [
        ({"other": b""}, "0 files named"),
        ({"a/mickey.ckpt": b"1", "b/mickey.ckpt": b"2"}, "2 files named"),
        ({"mickey.ckpt": b"12345"}, "limit"),
    ]
    for members, message in cases:
        path = archive(tmp_path / "a.zip", members)
        with pytest.raises(InputError, match=message):
            extract_members(path, ("mickey.ckpt",), tmp_path, max_bytes=4)
    (tmp_path / "b.zip").write_bytes(b"no zip")
    with pytest.raises(InputError, match="not a zip"):
        extract_members(tmp_path / "b.zip", ("x",), tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        extract_members(tmp_path / "absent.zip", ("x",), tmp_path)


@pytest.mark.parametrize("damage", ["encrypted", "method", "content", "size", "truncated"])
def test_damaged_archives_leave_nothing(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        content.writestr("m.ckpt", b"abc" * 1000)
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\x01\x02")  # the central directory's copy of the header
    if damage == "encrypted":
        data[6] |= 1
        data[entry + 8] |= 1
    elif damage == "method":
        data[8] = data[entry + 10] = 99
    elif damage == "content":
        data[40] ^= 0xFF
    elif damage == "size":
        data[entry + 24 : entry + 28] = (1).to_bytes(4, "little")
    elif damage == "truncated":
        del data[-30:]
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.zip") as caught:
        extract_members(path, ("m.ckpt",), tmp_path)
    assert "\n" not in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]
