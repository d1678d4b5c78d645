"""Processes of our own that run compiled code of others: started, and told in a few words how they ended.

Such code can end a process without a word. Here it ends one that holds nothing. Nothing of torch is loaded.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import IO

_TAIL = 300
_READ = 1 << 16
_PARENT = Path(__file__).resolve().parents[1]


def child_command(module: str, *arguments: str) -> list[str]:
    """The command that runs ``main()`` of a module in another process. The module is one of this very package, the
    process one of its own."""
    code = f"import sys; sys.path.insert(0, {str(_PARENT)!r}); from {module} import main; main()"
    return [sys.executable, "-c", code, *arguments]


def how_it_ended(code: int) -> str:
    """An exit status in words. ``was ended by SIGSEGV``, ``ended with code 1``."""
    try:
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    except ValueError:
        return f"ended with code {code}"


def end(process: subprocess.Popen[bytes]) -> None:
    """Kill a child that still runs. Our ends of its pipes are closed."""
    if process.poll() is None:
        process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def last_words(log: IO[bytes]) -> str:
    """What a child said last. It is what an exception that nobody caught said, else the end of what was printed,
    without the stack."""
    log.seek(0, 2)
    log.seek(max(0, log.tell() - _READ))
    text = log.read().decode("utf-8", "replace")
    thrown = [line.partition("what():")[2] for line in text.split("\n") if "what():" in line]
    words = thrown[-1] if thrown else text.partition("*** Aborted at")[0]
    return " ".join(words.split())[-_TAIL:]


def end_with_the_parent() -> None:
    """Of a child. End as soon as standard input closes, because then nobody waits for it."""
    threading.Thread(target=_wait_for_the_end, daemon=True).start()


def _wait_for_the_end() -> None:
    # file descriptor, not sys.stdin: its lock would hold up the end of the process
    while os.read(0, 4096):
        pass
    os._exit(3)
