"""Data sets of others, brought to where ``metriloc eval`` and the recipes read them: listed, fetched, unpacked.

A download that was killed goes on; an archive stays in ``archives/`` with a note that it was unpacked, and once it is
noted it may be deleted.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from metriloc.datasets.downloads import MAPFREE_SPLITS, PIXLOC_SERVER, Asset
from metriloc.datasets.visloc_files import VISLOC_FILES
from metriloc.io import InputError, write_atomically
from metriloc.io.download import Progress, fetch, is_offline
from metriloc.io.listing import RemoteFile, remote_file, remote_files
from metriloc.io.unpack import is_archive, unpack

ARCHIVES = "archives"
_NOTE = ".unpacked"


@dataclass(frozen=True)
class Planned:
    """A file to get. target: where it goes (an archive: under ``archives/``); into: where an archive is unpacked."""

    file: RemoteFile
    target: Path
    into: Path | None = None

    @property
    def note(self) -> Path:
        """Says that an archive was unpacked."""
        return self.target.with_name(self.target.name + _NOTE)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do but to check a hash."""
        if self.into is not None:
            return self.note.is_file()
        return self.target.is_file() and self.file.size in (None, self.target.stat().st_size)


def plan(
    assets: Sequence[Asset], out: Path, server: str = PIXLOC_SERVER, found: Callable[[int], None] = lambda count: None
) -> list[Planned]:
    """Ask the server for files and sizes of all parts that have an address.

    - out: folder of the data set.
    - found: hears how many files of a folder are known so far.

    Raises InputError offline, and as ``metriloc.io.listing``.
    """
    wanted = [asset for asset in assets if asset.address is not None]
    if wanted and is_offline():
        raise InputError(
            "metriloc is offline (METRILOC_OFFLINE or HF_HUB_OFFLINE is set) and asks no server: fetch "
            f"{', '.join(server + str(asset.address) for asset in wanted[:3])} elsewhere, and give archives to --unpack"
        )
    planned: list[Planned] = []
    for asset in wanted:
        address = server.rstrip("/") + "/" + str(asset.address)
        files = remote_files(address, found) if address.endswith("/") else [remote_file(address)]
        planned += [_place(file, out, asset.place) for file in files]
    return planned


def _place(file: RemoteFile, out: Path, place: str) -> Planned:
    below = PurePosixPath(place) / file.name
    if is_archive(file.name):
        return Planned(file, out / ARCHIVES / below, out / below.parent)
    return Planned(file, out / below)


def require_space(planned: Sequence[Planned], out: Path) -> None:
    """Raises InputError when the disk has less room than what is left to get."""
    left = sum(one.file.size or 0 for one in planned if not one.done and not one.target.is_file())
    folder = next(path for path in (out.absolute(), *out.absolute().parents) if path.exists())
    free = shutil.disk_usage(folder).free
    if left > free:
        raise InputError(
            f"{left / 2**30:.1f} GiB are to be fetched, and '{folder}' has room for {free / 2**30:.1f} GiB"
        )


def get(
    planned: Planned, progress: Progress | None = None, unpacked: Callable[[int], None] = lambda files: None
) -> None:
    """Fetch a file, check it, unpack it. Raises InputError as ``fetch`` and ``unpack``."""
    if planned.done:
        return
    fetch(planned.file.url, planned.target, progress=progress, max_bytes=max(planned.file.size or 0, 2**33))
    if planned.into is not None:
        unpack(planned.target, planned.into, unpacked)
        write_atomically(planned.note, f"unpacked into {planned.into}; the archive may be deleted\n")


def missing_files(name: str, parts: Sequence[str], out: Path) -> list[str]:
    """What ``metriloc eval`` would not find yet.

    A line a part and file, with the place where it is looked for.
    """
    if name == "mapfree":
        return [f"{split} scenes: {out / split}" for split in MAPFREE_SPLITS if not any((out / split).glob("s*"))]
    if name not in VISLOC_FILES:
        return []
    files = VISLOC_FILES[name]  # type: ignore[index]
    lines = []
    for part in (files.part(one, out, out) for one in parts or files.parts):
        for what in ("query_images", "reference_images", "reference_sfm", "retrieval", "ground_truth"):
            path = part.path(what)
            if path is not None and not path.exists():
                lines.append(f"{part.name}: {what.replace('_', ' ')}: {path}")
    return lines
