"""Folders of a map: where stages keep what they made, and how a finished folder takes the place of an older one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from metriloc.io.files import InputError, prepare_output_folder


@dataclass(frozen=True)
class Workplace:
    """The folder in a map where stages keep what they made."""

    folder: Path

    @classmethod
    def prepare(cls, out: Path) -> Workplace:
        """Make it. Raises InputError when it cannot be written."""
        work = cls(out / "work")
        for folder in (work.features, work.matches, work.models):
            prepare_output_folder(folder)
        return work

    @property
    def features(self) -> Path:
        """Keypoints, a file a photo."""
        return self.folder / "features"

    @property
    def matches(self) -> Path:
        """Matches, a file a photo."""
        return self.folder / "matches"

    @property
    def models(self) -> Path:
        """COLMAP's databases and models."""
        return self.folder / "models"

    def tidy(self, kept: str) -> None:
        """Forget databases and models but those of one name, and what runs left that were ended."""
        for path in self.models.iterdir():
            if not path.name.startswith(kept) or path.name.endswith(".tmp"):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def install(make: Callable[[Path], None], target: Path) -> None:
    """Put a folder that ``make`` fills in the place of an older one: whole, or the older one stays.

    Ended between two renames there is neither; ``recover`` puts the older one back.
    """
    recover(target)
    fresh, old = (target.with_name(f".{target.name}.{os.getpid()}.{what}") for what in ("new", "old"))
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    try:
        make(fresh)
        if target.exists():
            os.rename(target, old)
        os.rename(fresh, target)
    except OSError as error:
        raise InputError(f"'{target}' cannot be written: {error.strerror or error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
        if target.exists():
            for leftover in (
                *target.parent.glob(f".{target.name}.*.old"),
                *target.parent.glob(f".{target.name}.*.new"),
            ):
                shutil.rmtree(leftover, ignore_errors=True)


def recover(target: Path) -> None:
    """Put back what a run had moved aside that was ended before it put the new folder there."""
    if not target.exists():
        for old in sorted(target.parent.glob(f".{target.name}.*.old"))[-1:]:
            os.rename(old, target)
