"""Zip archives of strangers: opened with a bounded table of contents, and files taken out by bare names only."""

from __future__ import annotations

import io
import lzma
import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from metriloc.io.files import InputError, require_file

CHUNK = 1 << 20
MAX_ENTRIES = 1000
MAX_DIRECTORY_BYTES = 4 * 2**20
"""Of an archive's table of contents: 40,000 files with names as ours."""


ZIP_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    UnicodeDecodeError,
    NotImplementedError,
    OSError,
)
"""What zipfile raises on damaged archives."""


class _CarefulFile(io.FileIO):
    """Refuses to read a table of contents beyond the limit; zipfile takes it in one piece."""

    opening = True

    def read(self, size: int | None = -1) -> bytes:
        if self.opening and size is not None and size > MAX_DIRECTORY_BYTES:
            raise zipfile.BadZipFile(f"a table of contents of {size} bytes; at most {MAX_DIRECTORY_BYTES} are read")
        return super().read(-1 if size is None else size)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip file to read. It is a ``zipfile.ZipFile``, which raises BadZipFile also for a table of contents that is
    huge or no text, or that holds a file without a name."""
    with _CarefulFile(path) as file:
        try:
            archive = zipfile.ZipFile(file)
        except (ValueError, struct.error, OverflowError, NotImplementedError) as error:
            raise zipfile.BadZipFile(f"its table of contents: {error}") from error
        with archive:
            file.opening = False
            if not all(archive.namelist()):
                raise zipfile.BadZipFile("its table of contents: a file without a name")
            yield archive


def extract_members(archive: Path, members: tuple[str, ...], folder: Path, max_bytes: int = 4 * 1024**3) -> list[Path]:
    """Take files out of a zip by their bare names. It does not matter what folders the archive puts them in.

    Only the names asked for are written, straight into ``folder``, so that no path of the archive is ever used. Raises
    InputError for a damaged or encrypted archive, a missing or repeated member, and one over ``max_bytes``.
    """
    require_file(archive)
    try:
        with open_zip(archive) as content:
            return [_extract(content, _member(content, archive, name, max_bytes), folder / name) for name in members]
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, UnicodeDecodeError, EOFError) as error:
        raise InputError(
            f"'{archive}' is not a zip archive, or is damaged ({error}): delete it and get it again"
        ) from error
    except (RuntimeError, OSError) as error:  # encrypted, or packed in a way that zipfile does not know; a full disk
        raise InputError(f"'{archive}' cannot be unpacked into '{folder}': {' '.join(str(error).split())}") from error


def _member(content: zipfile.ZipFile, archive: Path, name: str, max_bytes: int) -> zipfile.ZipInfo:
    entries = [entry for entry in content.infolist() if not entry.is_dir()]
    if len(entries) > MAX_ENTRIES:
        raise InputError(f"'{archive}' holds {len(entries)} files; a weights archive has a few")
    found = [entry for entry in entries if entry.filename.rsplit("/", 1)[-1] == name]
    if len(found) != 1:
        raise InputError(f"'{archive}' holds {len(found)} files named {name!r}, not one")
    if found[0].file_size > max_bytes:
        raise InputError(f"{name!r} in '{archive}' has {found[0].file_size} bytes; the limit is {max_bytes}")
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
