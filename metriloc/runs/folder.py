"""The folder a run writes to: where a query's files are, and whether those of an earlier run may be kept."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from metriloc.io import InputError, prepare_output_folder, read_json
from metriloc.io.map_folders import find_model
from metriloc.runs.pose_files import checked_formats

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on


@dataclass(frozen=True)
class RunFolder:
    """Where a run writes. One query: everything in ``path``; many: each query in a folder of its own below it.

    formats: of the files of poses (``FORMATS``); those of the others are removed, since they would be of another run.
    """

    USUAL: ClassVar[tuple[str, ...]] = ()
    """The formats of a run that is not told any."""

    path: Path
    single: bool
    formats: tuple[str, ...] = ()

    @classmethod
    def prepare(cls, path: Path, *, single: bool, formats: Sequence[str] | None = None) -> Self:
        """Make the folder.

        - single: whether the run has one query.
        - formats: names of ``FORMATS``, the files of poses that are wanted beside the JSON; None for the usual ones.

        Raises InputError for a folder that cannot be written and for an unknown format.
        """
        wanted = checked_formats(cls.USUAL if formats is None else formats)
        prepare_output_folder(path)
        return cls(path, single, wanted)

    def query_folder(self, index: int, photo: Path) -> Path:
        """The folder of the query at a place of the command line (its number keeps equal names apart)."""
        # what the system lets a name be long, the stem and the number of it may exceed
        stem = os.fsdecode(os.fsencode(photo.stem)[:200])
        return self.path if self.single else self.path / f"{index:04d}_{stem}"


def fingerprint_of(header: Mapping[str, Any], parts: Iterable[bytes], files: Iterable[Path]) -> str:
    """Equal exactly when all of it is.

    What a run says of itself, other bytes, and the content of files.
    """
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    for part in (*parts, *(hashlib.sha256(file.read_bytes()).digest() for file in files)):
        digest.update(part)
    return digest.hexdigest()


def files_of_map(path: Path) -> list[Path]:
    """The files that a map is, which a run in it depends on."""
    return sorted({*path.glob("*"), *find_model(path).glob("*")}) if path.is_dir() else [path]


def stamps_of_files(files: Iterable[Path]) -> list[bytes]:
    """Name, size and time of each that is there: parts of a fingerprint where the content is too much to read."""
    known = [(os.fsencode(file.name), file.stat()) for file in files if file.is_file()]
    return [name + f" {status.st_size} {status.st_mtime_ns}".encode() for name, status in known]


def saved_entry(folder: Path, photo: Path, fingerprint: Callable[[], str]) -> dict[str, Any] | None:
    """The entry of a ``pose.json`` with the same fingerprint (photos, weights, settings).

    None when there is none.
    """
    file = folder / "pose.json"
    if not file.is_file() or not photo.is_file():
        return None
    try:
        content = read_json(file)
        entry = content["queries"][0]
        return entry if isinstance(entry, dict) and content["fingerprint"] == fingerprint() else None
    except (ValueError, KeyError, IndexError, TypeError):
        return None  # not a file of ours: compute again


def require_same_run(folder: Path, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Raises InputError naming the first setting in which an earlier run differs."""
    before, now = found["settings"] or {}, wanted["settings"]
    given = sorted({name for name in {*before, *now} if before.get(name) != now.get(name)})
    rest = sorted({*found, *wanted} - {"settings"})  # what follows from the settings comes after them
    for name, one, other in (
        *((name, before.get(name), now.get(name)) for name in given),
        *((name, found.get(name), wanted.get(name)) for name in rest),
    ):
        if one != other:
            told = f"{name}: {str(one)[:80]}, now {str(other)[:80]}"
            raise InputError(f"'{folder}' holds another run ({told}): give another --out, or leave out --resume")
