"""Files by their hash: on a disk, or wherever fsspec reaches (S3 and the like)."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from metriloc.io import InputError
from metriloc.io.download import file_sha256

_LOG = logging.getLogger("metriloc.service")
MISSING_FSSPEC = 'features at a URL need fsspec and its package for the address: pip install "metriloc[serve]" s3fs'


class UnreachableError(Exception):
    """Files are kept elsewhere, and that cannot be reached now."""


class Blobs(Protocol):
    """Files called by the SHA-256 of what is in them. Must be picklable: processes with models read them, too.

    All of it raises UnreachableError where files are kept elsewhere, and that cannot be reached.
    """

    def put(self, file: Path, digest: str) -> None:
        """Keep a file, which is gone from where it was then. Whole and on the disk when it returns."""
        ...

    def path(self, digest: str) -> Path:
        """A file of this machine with that content. Raises KeyError where there is none."""
        ...

    def delete(self, digest: str) -> None:
        """Forget it; nothing happens where there is none."""
        ...

    def digests(self) -> Iterator[str]:
        """All that are kept."""
        ...


def digest_of(file: Path) -> str:
    """The name that a file has among blobs; what is in it is on the disk then."""
    with open(file, "rb+") as opened:
        os.fsync(opened.fileno())
    return file_sha256(file)


@dataclass(frozen=True)
class FolderBlobs:
    """On this machine's disk. folder: of all of them; files are moved there from the same disk."""

    folder: Path

    def put(self, file: Path, digest: str) -> None:
        place = self._place(digest)
        if not place.parent.is_dir():
            place.parent.mkdir(parents=True, exist_ok=True)
            _sync_folder(self.folder)
        os.replace(file, place)
        _sync_folder(place.parent)

    def path(self, digest: str) -> Path:
        place = self._place(digest)
        if not place.is_file():
            raise KeyError(digest)
        return place

    def delete(self, digest: str) -> None:
        self._place(digest).unlink(missing_ok=True)

    def digests(self) -> Iterator[str]:
        yield from (file.name for file in self.folder.glob("??/*"))

    def _place(self, digest: str) -> Path:
        return self.folder / digest[:2] / digest


@dataclass(frozen=True)
class RemoteBlobs:
    """At a URL, with copies on this machine's disk. url: a folder as fsspec knows it; copies: of what is read."""

    url: str
    copies: FolderBlobs

    def check(self) -> None:
        """Raises InputError where fsspec knows no such address."""
        self._remote()

    def _remote(self) -> tuple[Any, str]:
        """The file system and the folder. Raises InputError where fsspec knows no such address."""
        try:
            from fsspec.core import url_to_fs

            return url_to_fs(self.url)
        except (ImportError, ValueError) as error:
            raise InputError(f"--blobs {self.url}: {MISSING_FSSPEC} ({error})") from error

    @contextlib.contextmanager
    def _reached(self) -> Iterator[tuple[Any, str]]:
        """The file system and the folder; each has errors of its own."""
        found = self._remote()
        try:
            yield found
        except FileNotFoundError:
            raise
        except Exception as error:
            _LOG.error("%s: %s", self.url, error)
            raise UnreachableError(f"files cannot be reached now ({type(error).__name__})") from error

    def put(self, file: Path, digest: str) -> None:
        with self._reached() as (system, root):
            system.makedirs(root, exist_ok=True)
            system.put_file(str(file), f"{root}/{digest}")
        self.copies.put(file, digest)

    def path(self, digest: str) -> Path:
        try:
            return self.copies.path(digest)
        except KeyError:
            pass
        part = self.copies.folder / f"{secrets.token_hex(8)}.part"
        part.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._reached() as (system, root):
                system.get_file(f"{root}/{digest}", str(part))
            if file_sha256(part) != digest:
                raise InputError(f"the stored file {digest} is damaged")
            self.copies.put(part, digest)
        except FileNotFoundError:
            raise KeyError(digest) from None
        finally:
            part.unlink(missing_ok=True)
        return self.copies.path(digest)

    def delete(self, digest: str) -> None:
        with contextlib.suppress(FileNotFoundError), self._reached() as (system, root):
            system.rm_file(f"{root}/{digest}")
        self.copies.delete(digest)

    def digests(self) -> Iterator[str]:
        with self._reached() as (system, root):
            system.invalidate_cache()  # other machines write there, too
            found = system.ls(root, detail=False) if system.isdir(root) else []
        yield from (str(name).rsplit("/", 1)[-1] for name in found)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
