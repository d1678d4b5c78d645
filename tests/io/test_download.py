"""Downloads against a local server: resume, changed files, hashes, broken connections, offline."""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from metriloc.io import InputError
from metriloc.io.download import SUMS, SafeRedirects, cache_folder, fetch, is_offline

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
    (tmp_path / "w.part.etag").write_text(f'{server}/{page}\n"1"\n')
    assert fetch(f"{server}/{page}", tmp_path / "w").read_bytes() == CONTENT
    assert not list(tmp_path.glob("w.part*"))
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


# -- files that change between two tries ------------------------------------------------------------------------------
NEW = bytes(reversed(range(256))) * 4096


class Changing(BaseHTTPRequestHandler):
    """The first answer breaks off in CONTENT; those to a Range are as set here, others are NEW, whole."""

    asked: list[dict[str, str]] = []  # noqa: RUF012 - shared on purpose
    headers_of_first: dict[str, str] = {}  # noqa: RUF012
    headers_of_others: dict[str, str] = {}  # noqa: RUF012
    body: bytes = NEW
    status = 206
    protocol_version = "HTTP/1.0"

    def do_GET(self) -> None:
        Changing.asked.append({k: v for k, v in self.headers.items() if k in ("Range", "If-Range")})
        if len(Changing.asked) == 1:
            self.answer(200, {"Content-Length": str(len(CONTENT)), **Changing.headers_of_first}, CONTENT[:500_000])
        elif "Range" in self.headers and Changing.status != 200:
            self.answer(Changing.status, Changing.headers_of_others, Changing.body)
        else:
            self.answer(200, {"Content-Length": str(len(NEW)), "ETag": '"new"'}, NEW)

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture()
def changing() -> Iterator[str]:
    Changing.asked, Changing.headers_of_first, Changing.headers_of_others = [], {"ETag": '"old"'}, {}
    Changing.body, Changing.status = NEW, 206
    with ThreadingHTTPServer(("127.0.0.1", 0), Changing) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}/w"
        http.shutdown()


def break_off(url: str, folder: Path) -> int:
    """Bytes that are here after the first try."""
    with pytest.raises(InputError, match="run the same command again"):
        fetch(url, folder / "w")
    assert not (folder / SUMS).exists() and not (folder / "w").exists()
    return (folder / "w.part").stat().st_size


def whole_new_file(url: str, folder: Path) -> None:
    """The second try gives the new file, its hash is recorded, and nothing else is left."""
    assert fetch(url, folder / "w").read_bytes() == NEW
    assert (folder / SUMS).read_text() == f"{hashlib.sha256(NEW).hexdigest()}  w\n"
    assert sorted(p.name for p in folder.iterdir()) == [SUMS, "w"]


@pytest.mark.parametrize(
    ("first", "named"),
    [
        ({"ETag": '"old"'}, '"old"'),
        ({"Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, "Wed, 21 Oct 2015 07:28:00 GMT"),
        ({"ETag": 'W/"old"', "Last-Modified": "Wed, 21 Oct 2015 07:28:00 GMT"}, "Wed, 21 Oct 2015 07:28:00 GMT"),
    ],
)
def test_a_changed_file_starts_over(first: dict[str, str], named: str, changing: str, tmp_path: Path) -> None:
    Changing.headers_of_first, Changing.status = first, 200
    have = break_off(changing, tmp_path)
    whole_new_file(changing, tmp_path)
    assert Changing.asked[1] == {"Range": f"bytes={have}-", "If-Range": named}


@pytest.mark.parametrize("first", [{}, {"ETag": 'W/"weak"'}, {"ETag": "x" * 5000}])
def test_a_part_of_no_version_is_not_gone_on_with(first: dict[str, str], changing: str, tmp_path: Path) -> None:
    Changing.headers_of_first = first
    break_off(changing, tmp_path)
    whole_new_file(changing, tmp_path)
    assert Changing.asked[1:] == [{}]


def test_a_part_of_another_address_is_not_gone_on_with(changing: str, tmp_path: Path) -> None:
    break_off(changing, tmp_path)
    whole_new_file(changing + "?2", tmp_path)
    assert Changing.asked[1:] == [{}]


RIGHT = {"Content-Range": "bytes {have}-{last}/{total}", "Content-Length": "{left}", "ETag": '"old"'}


@pytest.mark.parametrize(
    "wrong",
    [
        {"ETag": '"new"'},  # ignores If-Range
        {"Content-Range": "bytes {have}-{last}/{more}"},
        {"Content-Range": "bytes {less}-{last}/{total}"},
        {"Content-Range": "bytes {have}-{less}/{total}"},
        {"Content-Range": "bytes {have}-{last}/*"},
        {"Content-Range": "bytes {have}-{last}/" + "9" * 5000},
        {"Content-Range": "cats"},
        {"Content-Length": "{less}"},
    ],
)
def test_ranges_that_do_not_fit_start_over(wrong: dict[str, str], changing: str, tmp_path: Path) -> None:
    have = break_off(changing, tmp_path)
    total = len(NEW)
    numbers = {"have": have, "last": total - 1, "total": total, "left": total - have, "more": total + 5, "less": 7}
    Changing.headers_of_others = {name: text.format(**numbers) for name, text in (RIGHT | wrong).items()}
    Changing.body = NEW[have:]
    whole_new_file(changing, tmp_path)
    assert len(Changing.asked) == 3 and Changing.asked[2] == {}


def test_the_same_version_goes_on(changing: str, tmp_path: Path) -> None:
    have, total = break_off(changing, tmp_path), len(CONTENT)
    Changing.headers_of_others = {
        name: text.format(have=have, last=total - 1, total=total, left=total - have) for name, text in RIGHT.items()
    }
    Changing.body = CONTENT[have:-1000]  # short once more, though the server closes properly
    with pytest.raises(InputError, match="run the same command again"):
        fetch(changing, tmp_path / "w")
    assert (tmp_path / "w.part").stat().st_size == total - 1000 and not (tmp_path / SUMS).exists()
    Changing.headers_of_others["Content-Range"] = f"bytes {total - 1000}-{total - 1}/{total}"
    Changing.headers_of_others["Content-Length"] = "1000"
    Changing.body = CONTENT[-1000:]
    assert fetch(changing, tmp_path / "w").read_bytes() == CONTENT
    assert sorted(p.name for p in tmp_path.iterdir()) == [SUMS, "w"]


def test_a_file_of_unknown_length_needs_the_publishers_hash(
    changing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Changing.answer
    monkeypatch.setattr(
        Changing, "answer", lambda self, status, _, body: original(self, status, {"Content-Length": "²"}, body)
    )
    Changing.asked.append({})  # the first answer is over
    with pytest.raises(InputError, match="does not say how long"):
        fetch(changing, tmp_path / "w")
    assert not (tmp_path / SUMS).exists() and not (tmp_path / "w").exists()
    sha256 = hashlib.sha256(NEW).hexdigest()
    assert fetch(changing, tmp_path / "w", sha256=sha256).read_bytes() == NEW


def test_leftovers_of_a_killed_run_go(server: str, tmp_path: Path) -> None:
    (tmp_path / "w").write_bytes(CONTENT)
    (tmp_path / "w.part.etag").write_text("x")
    fetch(f"{server}/file", tmp_path / "w", sha256=SHA256)
    assert [p.name for p in tmp_path.iterdir()] == ["w"]
