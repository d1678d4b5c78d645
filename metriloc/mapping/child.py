"""Starts the process that runs COLMAP's code, hears how far it is, and says in one sentence how it ended.

Compiled code can end a process without a word. Here it ends one that holds nothing: what was finished is on disk.
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metriloc.children import child_command, end, how_it_ended, last_words
from metriloc.io.files import InputError
from metriloc.io.undistortion import MISSING_PYCOLMAP

_FULL = (
    "disk is full",
    "disk full",
    "disk I/O error",
    "No space left on device",
    "File too large",
    "quota exceeded",
    "No registered database factory succeeded",  # no database can be opened for writing
)
"""What COLMAP, SQLite and systems say of a disk that takes no more."""


@dataclass(frozen=True)
class NativeJob:
    """kind: of ``native.JOBS``. content: what it takes, as plain numbers and words."""

    kind: str
    content: Mapping[str, Any]


def require_pycolmap() -> None:
    """Raises ImportError, with the pip command, where COLMAP is not here.

    It is not loaded into this process.
    """
    from importlib.util import find_spec

    if find_spec("pycolmap") is None:
        raise ImportError(MISSING_PYCOLMAP)


def run_native(job: NativeJob, progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Run a job in a process of its own, which ends when this one does.

    Returns the job's answer. Raises InputError with one sentence when it refuses its input, fails, or crashes, and
    ImportError without pycolmap. Interrupting this process (Ctrl+C) stops the other one.
    """
    require_pycolmap()
    command = child_command("metriloc.mapping.native", job.kind)
    with tempfile.TemporaryFile("w+b") as log:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            last, answer = _heard(process, job, progress)
            code = process.wait()
        finally:
            # our end of its standard input closes with us, which ends it as well
            end(process)
        said = last_words(log)
    if code == 0 and answer is not None and "error" not in answer:
        return answer
    why = said if answer is None else str(answer.get("error", ""))
    if "out" in job.content and any(sign in why for sign in _FULL):
        raise InputError(
            f"'{Path(job.content['out']).parent}' cannot be written (is the disk full?): make room, and the same command "
            "goes on from there"
        )
    raise InputError(why if answer is not None and code == 0 else _how_it_ended(job, code, last, said))


def _heard(
    process: subprocess.Popen[bytes], job: NativeJob, progress: Callable[[int, int], None] | None
) -> tuple[str, dict[str, Any] | None]:
    """What it was at last, and its answer."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(json.dumps(job.content).encode() + b"\n")
        process.stdin.flush()  # and stays open: its end means ours
    except BrokenPipeError:
        pass
    last, answer = "", None
    for line in process.stdout:
        try:
            said = json.loads(line)
        except ValueError:
            continue  # the library speaks there too
        if "answer" in said:
            answer = said["answer"]
        last = said.get("at", last)
        if progress is not None and "done" in said:
            progress(said["done"], said["total"])
    return last, answer


def _how_it_ended(job: NativeJob, code: int, last: str, tail: str) -> str:
    at = f" at {last}" if last else ""
    said = f": {tail}" if tail else ""
    kept = "what was finished is kept, so the same command goes on from there"
    return f"COLMAP ({job.kind}) {how_it_ended(code)}{at}; {kept}{said}"
