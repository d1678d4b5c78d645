"""Downloads for users who have a network, and unpacking them: resumed, checked by SHA-256, never half in place.

Where the publisher gives no hash, the one of the first download is recorded in ``SHA256SUMS`` beside the file and holds
from then on. Only https is spoken (http to this machine, for tests), also after redirects.
"""

from __future__ import annotations

import hashlib
import http.client
import lzma
import os
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from metriloc.io.files import InputError, read_text, require_file, write_atomically

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
    """The argument if given, else whether METRILOC_OFFLINE (or HF_HUB_OFFLINE) is set to anything but 0."""
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
    """Download ``url`` to ``destination``; a file that is there already is only checked.

    sha256: of the publisher; without one, the hash found first is recorded in ``SHA256SUMS`` and compared from then on.
    An interrupted download stays as ``<destination>.part`` and goes on from there if the server allows it; one with a
    wrong hash is deleted. Raises InputError: offline, an address that is not https (http only to this machine), an
    answer that is not 200 or 206, a file over ``max_bytes``, a connection that broke (with how to go on), a wrong hash.
    """
    if destination.is_file():
        _check_hash(destination, destination, sha256, url)
        return destination
    if is_offline(offline):
        raise InputError(f"'{destination}' is not here and metriloc is offline: fetch {url} and put it there")
    _check_address(url)
    part = destination.with_name(destination.name + ".part")
    try:
        destination.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"'{destination}' cannot be written: {error.strerror or error}") from error
    try:
        _transfer(url, part, progress, max_bytes)
    except urllib.error.HTTPError as error:
        raise InputError(f"{url} could not be fetched: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        reason = " ".join(str(getattr(error, "reason", None) or error or type(error).__name__).split())
        raise InputError(f"{url} could not be fetched ({reason}); run the same command again to go on") from error
    _check_hash(part, destination, sha256, url)
    os.replace(part, destination)
    return destination


class SafeRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to addresses that ``fetch`` would take itself; urllib alone goes from https to http."""

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


def _transfer(url: str, part: Path, progress: Progress | None, max_bytes: int) -> None:
    response, have = _open(url, part.stat().st_size if part.is_file() else 0)
    if response is None:
        return
    with response:
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None and length.isdecimal() else None
        if (total or 0) > max_bytes:
            raise InputError(f"{url} has {total} bytes; the limit is {max_bytes}")
        with open(part, "ab" if have else "wb") as file:
            while chunk := response.read(CHUNK):
                have += len(chunk)
                if have > max_bytes:
                    raise InputError(f"{url} sends more than the limit of {max_bytes} bytes")
                file.write(chunk)
                if progress is not None:
                    progress(have, total)
    if total is not None and have < total:
        raise OSError(f"the connection ended after {have} of {total} bytes")


def _open(url: str, have: int) -> tuple[http.client.HTTPResponse | None, int]:
    """The answer to read, and the byte it goes on from: ``have`` or 0. No answer when the server has no more bytes."""
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.build_opener(SafeRedirects).open(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:
            raise
        error.close()
        if error.headers.get("Content-Range") == f"bytes */{have}":
            return None, have
        return _open(url, 0)  # the part is longer than the file: it was of another one
    if response.status == 200:
        return response, 0
    if have and response.status == 206 and response.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
        return response, have
    status = response.status
    response.close()
    if not have:
        raise OSError(f"the server answers {status}")
    return _open(url, 0)  # another range than the one asked for would be appended in the wrong place


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


def extract_members(archive: Path, members: tuple[str, ...], folder: Path, max_bytes: int = 4 * 1024**3) -> list[Path]:
    """Take files out of a zip by their bare names, whatever folders the archive puts them in.

    Only the names asked for are written, straight into ``folder``, so that no path of the archive is ever used. Raises
    InputError for a damaged or encrypted archive, a missing or repeated member, and one over ``max_bytes``.
    """
    require_file(archive)
    try:
        with zipfile.ZipFile(archive) as content:
            return [_extract(content, _member(content, name, max_bytes), folder / name) for name in members]
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError) as error:
        raise InputError(f"'{archive}' is not a zip archive, or is damaged: delete it and get it again") from error
    except (RuntimeError, OSError) as error:  # encrypted, or packed in a way that zipfile does not know; a full disk
        raise InputError(f"'{archive}' cannot be unpacked into '{folder}': {' '.join(str(error).split())}") from error


def _member(content: zipfile.ZipFile, name: str, max_bytes: int) -> zipfile.ZipInfo:
    entries = [entry for entry in content.infolist() if not entry.is_dir()]
    if len(entries) > 1000:
        raise InputError(f"'{content.filename}' holds {len(entries)} files; a weights archive has a few")
    found = [entry for entry in entries if entry.filename.rsplit("/", 1)[-1] == name]
    if len(found) != 1:
        raise InputError(f"'{content.filename}' holds {len(found)} files named {name!r}, not one")
    if found[0].file_size > max_bytes:
        raise InputError(f"{name!r} in '{content.filename}' has {found[0].file_size} bytes; the limit is {max_bytes}")
    return found[0]


def _extract(content: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path) -> Path:
    part = target.with_name(target.name + ".part")
    left = entry.file_size
    try:
        with content.open(entry) as source, open(part, "wb") as file:
            while chunk := source.read(CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise InputError(f"{entry.filename!r} is longer than its archive says")
                file.write(chunk)
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return target
