"""Downloads for users who have a network: resumed, checked by SHA-256, never half in place.

Where the publisher gives no hash, the one of the first download is recorded in ``SHA256SUMS`` beside the file and holds
from then on. Only https is spoken (http to this machine, for tests), also after redirects. A part remembers in
``<name>.part.etag`` which version of which address it is of, and goes on with that version only.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from metriloc.io.files import InputError, read_text, write_atomically

CHUNK = 1 << 20
TIMEOUT_S = 30
MAX_BYTES = 8 * 1024**3
SUMS = "SHA256SUMS"
"""As ``sha256sum`` writes and checks it."""
Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes there will be (None if the server does not say)."""


def cache_folder() -> Path:
    """Where downloaded weights live: METRILOC_CACHE, else ``~/.cache/metriloc`` (XDG_CACHE_HOME is honoured)."""
    # empty means unset, as for every XDG variable
    if own := os.environ.get("METRILOC_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "metriloc"


def is_offline(offline: bool | None = None) -> bool:
    """Whether nothing may be fetched. It is the argument if given, else whether METRILOC_OFFLINE (or HF_HUB_OFFLINE) is
    set to anything but 0."""
    if offline is not None:
        return offline
    return any(os.environ.get(name, "0") not in ("", "0") for name in ("METRILOC_OFFLINE", "HF_HUB_OFFLINE"))


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fetch(
    url: str,
    destination: Path,
    *,
    sha256: str | None = None,
    offline: bool | None = None,
    progress: Progress | None = None,
    max_bytes: int = MAX_BYTES,
) -> Path:
    """Download ``url`` to ``destination``. A file that is there already is only checked.

    sha256: of the publisher; without one, the hash found first is recorded in ``SHA256SUMS`` and compared from then on.
    An interrupted download stays as ``<destination>.part`` and goes on from there if the server allows it and still has
    the same file; one with a wrong hash is deleted. Raises InputError: offline, an address that is not https (http only
    to this machine), an answer that is not 200 or 206, a file over ``max_bytes``, a connection that broke (with how to
    go on), a wrong hash, and, without ``sha256``, a server that does not say how long the file is.
    """
    if destination.is_file():
        _check_hash(destination, destination, sha256, url)
        _version_file(destination).unlink(missing_ok=True)  # of a run that was killed after the last step but one
        return destination
    if is_offline(offline):
        raise InputError(f"'{destination}' is not here and metriloc is offline: fetch {url} and put it there")
    _check_address(url)
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"'{destination}' cannot be written: {error.strerror or error}") from error
    with _told(url):
        _transfer(_Part(url, part, _version_file(destination), sha256 is not None), progress, max_bytes)
    _check_hash(part, destination, sha256, url)
    os.replace(part, destination)
    _version_file(destination).unlink(missing_ok=True)
    return destination


@contextmanager
def open_address(url: str, method: str = "GET") -> Iterator[http.client.HTTPResponse]:
    """The answer of a server, to be read inside of ``with``. Raises InputError as ``fetch``, for offline too."""
    if is_offline():
        raise InputError(f"metriloc is offline (METRILOC_OFFLINE or HF_HUB_OFFLINE is set): {url} is not asked")
    _check_address(url)
    with _told(url), _opened(urllib.request.Request(url, method=method)) as response:
        yield response


@contextmanager
def _told(url: str) -> Iterator[None]:
    """What goes wrong with a connection, as one sentence."""
    try:
        yield
    except urllib.error.HTTPError as error:
        raise InputError(f"{url} could not be fetched: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error or type(error).__name__).split())
        raise InputError(f"{url} could not be fetched ({reason}); run the same command again to go on") from error


def _opened(request: urllib.request.Request) -> http.client.HTTPResponse:
    response: http.client.HTTPResponse = urllib.request.build_opener(SafeRedirects).open(request, timeout=TIMEOUT_S)
    return response


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses that ``fetch`` would take itself.

    Urllib alone goes from https to http.
    """

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        _check_address(newurl, local=req.type == "http")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_address(url: str, *, local: bool = True) -> None:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise InputError(f"{url!r} is not an address: {error}") from error
    here = local and parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not here:
        raise InputError(f"{url!r} is not fetched: only https addresses are")


# -- parts ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class _Part:
    """What is here of a file. hashed: the publisher's SHA-256 is known, so that a wrong mixture would be found."""

    url: str
    path: Path
    version_file: Path
    hashed: bool

    def start(self) -> tuple[int, str | None]:
        """Bytes to go on from, and the version (ETag or date) they are of; 0 when nothing could tell a mixture."""
        have = self.path.stat().st_size if self.path.is_file() else 0
        version = self._version() if have else None
        return (have, version) if version is not None or self.hashed else (0, None)

    def _version(self) -> str | None:
        if not self.version_file.is_file():
            return None
        url, _, version = self.version_file.read_text("utf-8", "replace").rstrip("\n").partition("\n")
        return version if url == self.url and version and version.isprintable() else None

    def begin(self, headers: Message[str, str]) -> None:
        """Empties the part, then notes its version: killed in between, an empty part is of any version."""
        self.path.write_bytes(b"")
        version = _version_of(headers)
        if version is None:
            self.version_file.unlink(missing_ok=True)
        else:
            write_atomically(self.version_file, f"{self.url}\n{version}\n")


def _version_file(destination: Path) -> Path:
    return destination.with_name(destination.name + ".part.etag")


def _version_of(headers: Message[str, str]) -> str | None:
    """What If-Range may name: a strong ETag, else the date of the last change."""
    tag = headers.get("ETag", "").strip()
    found = tag if tag.startswith('"') else headers.get("Last-Modified", "").strip()
    return found if found and found.isascii() and found.isprintable() and len(found) < 1000 else None


def _transfer(part: _Part, progress: Progress | None, max_bytes: int) -> None:
    response, have = _open(part, *part.start())
    if response is None:
        return
    with response:
        length = _count(response.headers.get("Content-Length"))
        total = _range_total(response, have) if have else length
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        if total is None and not chunked and not part.hashed:
            raise InputError(f"{part.url} is not fetched: the server does not say how long the file is")
        if (total or 0) > max_bytes:
            raise InputError(f"{part.url} has {total} bytes; the limit is {max_bytes}")
        if not have:
            part.begin(response.headers)
        with open(part.path, "ab") as file:
            while chunk := response.read(CHUNK):
                have += len(chunk)
                if have > max_bytes:
                    raise InputError(f"{part.url} sends more than the limit of {max_bytes} bytes")
                file.write(chunk)
                if progress is not None:
                    progress(have, total)
    if total is not None and have != total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


def _open(part: _Part, have: int, version: str | None) -> tuple[http.client.HTTPResponse | None, int]:
    """The answer to read, and the byte it goes on from: ``have`` or 0. No answer when the server has no more bytes."""
    asked = {"Range": f"bytes={have}-"} if have else {}
    if version is not None:
        asked["If-Range"] = version
    try:
        response = _opened(urllib.request.Request(part.url, headers=asked))
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{have}" and _same_version(error.headers, version):
            return None, have
        return _open(part, 0, None)  # the part is longer than the file: it was of another one
    if response.status == 200:
        return response, 0
    ours = have and response.status == 206 and _range_total(response, have) is not None
    if ours and _same_version(response.headers, version):
        return response, have
    status = response.status
    response.close()
    if not have:
        raise OSError(f"the server answers {status}")
    return _open(part, 0, None)  # another range than the one asked for would be appended in the wrong place


def _same_version(headers: Message[str, str], version: str | None) -> bool:
    """Whether an answer is of the version asked for; one that names none, or another kind of name, is believed."""
    found = _version_of(headers)
    return version is None or found is None or found == version or found.startswith('"') != version.startswith('"')


def _range_total(response: http.client.HTTPResponse, have: int) -> int | None:
    """Bytes of the whole file, if the answer is what follows the first ``have`` of them up to the end; else None."""
    match = re.fullmatch(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18})", response.headers.get("Content-Range", ""))
    if match is None:
        return None
    first, last, total = map(int, match.groups())
    length = _count(response.headers.get("Content-Length"))
    right = first == have and last == total - 1 and length in (None, total - have)
    return total if right else None


def _count(text: str | None) -> int | None:
    """A length of a header; None for what is none (also for one that no file has)."""
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def _check_hash(path: Path, destination: Path, sha256: str | None, url: str) -> None:
    """``path`` is the finished part, or ``destination`` itself."""
    found = file_sha256(path)
    sums = destination.with_name(SUMS)
    recorded = _read_sums(sums) if sha256 is None else {}
    expected = sha256 or recorded.setdefault(destination.name, found)
    if found != expected.lower():
        if sha256 is None and path == destination:
            raise InputError(
                f"'{path}' has the SHA-256 {found}, not {expected} as recorded in '{sums}': delete it to fetch it again"
            )
        path.unlink()
        _version_file(destination).unlink(missing_ok=True)
        origin = "" if sha256 else f" as recorded in '{sums}'"
        raise InputError(f"{url} has the SHA-256 {found}, not {expected.lower()}{origin}: the file was deleted")
    if sha256 is None:
        write_atomically(sums, "".join(f"{digest}  {name}\n" for name, digest in sorted(recorded.items())))


def _read_sums(path: Path) -> dict[str, str]:
    """File name -> SHA-256; nothing when there is no file."""
    if not path.is_file() or path.stat().st_size == 0:
        return {}
    lines = [line.split(maxsplit=1) for line in read_text(path).splitlines() if line.strip()]
    if any(len(line) != 2 for line in lines):
        raise InputError(f"'{path}' is not a list of SHA-256 and file names")
    return {name.removeprefix("*"): digest for digest, name in lines}
