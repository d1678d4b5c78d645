"""Downloads for users who have a network: resumed where they stopped, checked by SHA-256, never half in place."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from metriloc.io.files import InputError

CHUNK = 1 << 20
TIMEOUT_S = 30
MAX_BYTES = 8 * 1024**3
Progress = Callable[[int, int | None], None]
"""Called with the bytes that are here and the bytes there will be (None if the server does not say)."""


def cache_folder() -> Path:
    """Where downloaded weights live: METRILOC_CACHE, else ``~/.cache/metriloc`` (XDG_CACHE_HOME is honoured)."""
    if "METRILOC_CACHE" in os.environ:
        return Path(os.environ["METRILOC_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "metriloc"


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

    An interrupted download stays as ``<destination>.part`` and goes on from there if the server allows it. A wrong hash
    deletes the file. Raises InputError: offline, an address that is not https (http only to this machine), an answer
    that is not 200 or 206, a file over ``max_bytes``, a connection that broke (with how to go on), a wrong hash.
    """
    if destination.is_file():
        _check_hash(destination, sha256, url)
        return destination
    if is_offline(offline):
        raise InputError(f"'{destination}' is not here and metriloc is offline: fetch {url} and put it there")
    parts = urlsplit(url)
    local = parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    if parts.scheme != "https" and not local:
        raise InputError(f"{url!r} is not fetched: only https addresses are")
    destination.parent.mkdir(parents=True, exist_ok=True)
    part = destination.with_name(destination.name + ".part")
    try:
        _transfer(url, part, progress, max_bytes)
    except urllib.error.HTTPError as error:
        raise InputError(f"{url} could not be fetched: the server answers {error.code} {error.reason}") from error
    except (urllib.error.URLError, OSError) as error:
        reason = getattr(error, "reason", None) or error
        raise InputError(f"{url} could not be fetched ({reason}); run the same command again to go on") from error
    _check_hash(part, sha256, url)
    os.replace(part, destination)
    return destination


def _transfer(url: str, part: Path, progress: Progress | None, max_bytes: int) -> None:
    have = part.stat().st_size if part.is_file() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # the part is complete already, or of another file: the hash decides
            return
        raise
    with response:
        if response.status != 206:
            have = 0  # the server does not resume: begin again
        length = response.headers.get("Content-Length")
        total = have + int(length) if length is not None and length.isdigit() else None
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


def _check_hash(path: Path, sha256: str | None, url: str) -> None:
    if sha256 is None:
        return
    found = file_sha256(path)
    if found != sha256.lower():
        path.unlink()
        raise InputError(f"{url} has the SHA-256 {found}, not {sha256.lower()}: the file was deleted")
