"""Archives of data sets: zip and tar, unpacked below one folder, whatever paths they name.

Only plain files are written, each whole or not at all; a file that is there with its size is kept, so that a killed run
goes on. Links and devices are passed over. Archives inside of a zip are unpacked where they lie (7-Scenes).
"""

from __future__ import annotations

import gzip
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from metriloc.io.archives import CHUNK, ZIP_DAMAGE, open_zip
from metriloc.io.files import InputError, prepare_output_folder, require_file

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz")
MAX_FILES = 1_000_000
MAX_UNPACKED_BYTES = 256 * 2**30
MAX_NAME_BYTES = 1024
MAX_READ = 16 * 2**20
_JUNK = ("Thumbs.db", ".DS_Store")


@dataclass(frozen=True)
class Unpacked:
    """What came out.

    Files written, kept (they were here), and entries passed over because they are no plain files.
    """

    written: int = 0
    kept: int = 0
    passed_over: int = 0

    def __add__(self, other: Unpacked) -> Unpacked:
        return Unpacked(self.written + other.written, self.kept + other.kept, self.passed_over + other.passed_over)


@dataclass(frozen=True)
class _Entry:
    name: str
    size: int
    plain: bool
    open: Callable[[], IO[bytes] | None]


def is_archive(name: str) -> bool:
    """Whether a file of this name is unpacked."""
    return name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path, progress: Callable[[int], None] = lambda files: None) -> Unpacked:
    """Unpack a zip or tar below a folder. The zips in it are unpacked beside themselves.

    progress hears the number of files so far. Raises InputError for a damaged or encrypted archive, a path that leads
    out of the folder, and more than this module's limits of files and bytes; what was written until then stays.
    """
    total, inner = _unpack(archive, folder, progress)
    for path in inner:  # and none of those in them: archives of archives have no end
        total += _unpack(path, path.parent, progress)[0]
    return total


def _unpack(archive: Path, folder: Path, progress: Callable[[int], None]) -> tuple[Unpacked, list[Path]]:
    """What came out, and the zips among it."""
    require_file(archive)
    prepare_output_folder(folder)
    total, inner = Unpacked(), []
    try:
        with _entries(archive) as entries:
            for done, entry in enumerate(_within_limits(entries, archive), 1):
                target = _target(folder, entry.name, archive)
                if target is None or not entry.plain:
                    total += Unpacked(passed_over=0 if target is None else 1)
                    continue
                total += _write(entry, target, archive)
                inner += [target] if target.suffix.lower() == ".zip" else []
                progress(done)
    except (*ZIP_DAMAGE, tarfile.TarError) as error:
        raise InputError(
            f"'{archive}' is damaged, or cannot be unpacked into '{folder}' ({' '.join(str(error).split())[:200]}): "
            "delete it to get it again"
        ) from error
    except RuntimeError as error:  # encrypted
        raise InputError(f"'{archive}' cannot be unpacked: {error}") from error
    return total, inner


def _within_limits(entries: Iterator[_Entry], archive: Path) -> Iterator[_Entry]:
    left = MAX_UNPACKED_BYTES
    for number, entry in enumerate(entries):
        left -= entry.size
        if left < 0 or number == MAX_FILES:
            raise InputError(f"'{archive}' holds more than {MAX_FILES} files or {MAX_UNPACKED_BYTES} bytes")
        yield entry


def _target(folder: Path, name: str, archive: Path) -> Path | None:
    """Where an entry goes; None for what nobody needs."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    wrong = name.startswith(("/", "\\")) or ".." in parts or any(":" in part for part in parts)
    if wrong or not name.isprintable() or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise InputError(f"'{archive}' holds {name[:200]!r}, which is no path below a folder: it is not unpacked")
    if not parts or parts[-1] in _JUNK or "__MACOSX" in parts or name.endswith("/"):
        return None
    return folder.joinpath(*parts)


def _write(entry: _Entry, target: Path, archive: Path) -> Unpacked:
    if target.is_file() and target.stat().st_size == entry.size:
        return Unpacked(kept=1)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    try:
        source = entry.open()
        if source is None:
            raise InputError(f"'{archive}' holds no bytes of {entry.name!r}")
        with source, open(part, "wb") as file:
            shutil.copyfileobj(_Short(source, entry.size, archive), file, CHUNK)
        if part.stat().st_size != entry.size:
            raise InputError(f"{entry.name!r} in '{archive}' ends before its {entry.size} bytes")
        os.replace(part, target)
    finally:
        part.unlink(missing_ok=True)
    return Unpacked(written=1)


class _Short:
    """A source that refuses to give more than an archive said it would."""

    def __init__(self, source: IO[bytes], size: int, archive: Path) -> None:
        self._source, self._left, self._archive = source, size, archive

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise InputError(f"'{self._archive}' holds a file that is longer than it says")
        return data


@contextmanager
def _entries(archive: Path) -> Iterator[Iterator[_Entry]]:
    name = archive.name.lower()
    if name.endswith(".zip"):
        with open_zip(archive) as content:
            yield (_of_zip(content, entry) for entry in content.infolist())
        return
    if not name.endswith(SUFFIXES):
        raise InputError(f"'{archive}' is no archive that is unpacked: {', '.join(SUFFIXES)}")
    with open(archive, "rb") as raw:
        packed = name.endswith("gz")
        source: IO[bytes] = gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[assignment]
        with tarfile.open(fileobj=_Careful(source), mode="r:") as tar:
            yield (_of_tar(tar, entry) for entry in tar if not entry.isdir())


def _of_zip(content: zipfile.ZipFile, entry: zipfile.ZipInfo) -> _Entry:
    kind = entry.external_attr >> 28  # of Unix modes: 8 is a plain file, 10 a link, 0 not told
    return _Entry(entry.filename, entry.file_size, kind in (0, 8) or entry.is_dir(), lambda: content.open(entry))


def _of_tar(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> _Entry:
    return _Entry(entry.name, entry.size if entry.isreg() else 0, entry.isreg(), lambda: tar.extractfile(entry))


class _Careful(io.RawIOBase):
    """Refuses to give tarfile a header of gigabytes, which it would take in one piece."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= MAX_READ:
            raise tarfile.ReadError(f"a header of {size} bytes; at most {MAX_READ} are read")
        return self._source.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._source.seek(offset, whence)

    def tell(self) -> int:
        return self._source.tell()

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True
