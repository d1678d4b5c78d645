"""A folder for files on their way, of one service; those of services that were killed are removed."""

from __future__ import annotations

import fcntl
import os
import secrets
import shutil
from pathlib import Path

from metriloc.io import prepare_output_folder


class Spool:
    """``path`` is empty at first, and gone after ``close``. Several services may have theirs below one parent."""

    def __init__(self, parent: Path) -> None:
        for other in parent.glob("*/lock") if parent.is_dir() else ():
            handle = os.open(other, os.O_RDWR)
            if _is_free(handle):
                shutil.rmtree(other.parent, ignore_errors=True)
            os.close(handle)
        self.path = prepare_output_folder(parent / secrets.token_hex(8))
        self._handle = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR)
        _is_free(self._handle)

    def close(self) -> None:
        """Remove it with all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._handle)


def _is_free(handle: int) -> bool:
    """Whether nobody else has the lock, which is ours then, until we close it or end."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
