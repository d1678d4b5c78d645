"""Starts the process that decodes videos and reads bags, and takes its records one by one.

Compiled decoders can end a process without a word, hang, or ask for all memory. Here it is a process that holds nothing:
the stream ends with one sentence, and what came before counts.
"""

from __future__ import annotations

import json
import os
import select
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

from metriloc.children import child_command, end, how_it_ended, last_words
from metriloc.io import InputError

MAX_SILENCE_S = 60
"""Seconds without a record, after which the process counts as hanging."""
MAX_HEAD_BYTES = 4 * 2**20
MAX_RECORD_BYTES = 2**30
"""Of one record: a frame of 50 megapixels has 150 MB."""


@dataclass(frozen=True, eq=False)
class Record:
    """What the process says: plain numbers and words, and bytes."""

    head: Mapping[str, Any]
    data: bytes


def read_records(kind: str, content: Mapping[str, Any]) -> Iterator[Record]:
    """The records of a job of ``native.JOBS``, as they come; the process ends when nobody asks for more.

    Raises InputError with one sentence where it refuses its input, crashes, or says nothing for a minute.
    """
    with tempfile.TemporaryFile("w+b") as log:
        command = child_command("metriloc.streams.native", kind)
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)
        try:
            assert process.stdin is not None and process.stdout is not None
            try:
                process.stdin.write(json.dumps(content).encode() + b"\n")
                process.stdin.flush()  # and stays open: its end means ours
            except BrokenPipeError:
                pass
            while True:
                record = _record(process.stdout, str(content["path"]))
                if record is None:
                    said = f": {tail}" if (tail := last_words(log)) else ""
                    how = how_it_ended(process.wait())
                    raise InputError(f"'{content['path']}': the process that reads it {how}{said}")
                if "error" in record.head:
                    raise InputError(str(record.head["error"]))
                if record.head.get("end"):
                    return
                yield record
        finally:
            end(process)


def _record(stream: IO[bytes], path: str) -> Record | None:
    """The next record; None where the process ended without a last one."""
    head = _exactly(stream, 12, path)
    if head is None:
        return None
    length, size = struct.unpack("<IQ", head)
    if length > MAX_HEAD_BYTES or size > MAX_RECORD_BYTES:
        raise InputError(f"'{path}': a record of {size} bytes; at most {MAX_RECORD_BYTES} are read")
    words, data = _exactly(stream, length, path), _exactly(stream, size, path)
    return None if words is None or data is None else Record(json.loads(words), data)


def _exactly(stream: IO[bytes], count: int, path: str) -> bytes | None:
    """So many bytes; None at the end of the stream. Raises InputError after a minute without any."""
    number, parts = stream.fileno(), []
    deadline = time.monotonic() + MAX_SILENCE_S
    while count > 0:
        ready, _, _ = select.select([number], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise InputError(f"'{path}': nothing came of it for {MAX_SILENCE_S} seconds, so reading was stopped")
        part = os.read(number, min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
        deadline = time.monotonic() + MAX_SILENCE_S
    return b"".join(parts)
