"""The process that runs decoders of others: videos (PyAV) and ROS bags (rosbags, lz4, zstandard).

It reads one line of JSON from standard input and writes records to standard output, each a head of JSON and bytes: 4 and
8 bytes of lengths, then both. The last one has ``end`` or ``error``. Nothing of torch is loaded.
"""

from __future__ import annotations

import json
import os
import struct
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from typing import Any

from metriloc.children import end_with_the_parent

MAX_MEMORY = 8 * 2**30
"""Bytes of address space of the process; decoders reserve more than they use."""
Told = Iterator[tuple[Mapping[str, Any], bytes]]
JOBS = {"video": "metriloc.streams.native_video", "bag": "metriloc.streams.native_bag"}
"""Kind of job -> module with ``run(content)``, which yields heads and bytes and raises ValueError with a sentence."""


def main() -> None:
    """The process. Its argument is the kind of job."""
    content = json.loads(sys.stdin.buffer.readline())
    end_with_the_parent()
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever libraries print goes to the log
    _limit_memory()

    def tell(head: Mapping[str, Any], data: bytes = b"") -> None:
        words = json.dumps(head).encode()
        out.write(struct.pack("<IQ", len(words), len(data)) + words)
        out.write(data)
        out.flush()

    last: dict[str, Any] = {"end": True}
    try:
        run: Callable[[Mapping[str, Any]], Told] = import_module(JOBS[sys.argv[-1]]).run
        for head, data in run(content):
            tell(head, data)
    except MemoryError:
        last = {"error": f"'{content['path']}' needs more than {MAX_MEMORY >> 30} GiB of memory to be read"}
    except Exception as error:  # whatever a library raises is one sentence about this file
        said = " ".join(str(error).split()) or type(error).__name__
        last = {"error": said if str(content["path"]) in said else f"'{content['path']}' cannot be read: {said[:300]}"}
    tell(last)
    out.close()
    os._exit(0)  # not through destructors of libraries


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = MAX_MEMORY if hard == resource.RLIM_INFINITY else min(MAX_MEMORY, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
