"""SIGKILL at random moments: what is on disk stays whole, and going on ends as if nothing had happened.

    OMP_NUM_THREADS=1 python tools/kill_test.py --kills 15      # of each target

One line a target: kills, how many runs they were in, files that were looked at after a kill, and what was wrong.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import tyro
from kill_targets import Target, clear, make_inputs, slow_server, targets
from PIL import Image
from safetensors import safe_open

UNFINISHED = (".tmp", ".part", ".etag")
"""Names that say that a file may be half; ``<name>.new`` says so of a checkpoint's folder."""


@dataclass
class Outcome:
    """What came of one target."""

    kills: int = 0
    runs: int = 0
    files: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


def main(kills: int = 15, seconds: float = 600.0, only: str | None = None, seed: int = 0) -> int:
    """Args:
    kills: of each target.
    seconds: at most for each target.
    only: Name of one target.
    seed: Of the moments.
    """
    torch.set_num_threads(1)
    chance = random.Random(seed)
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_inputs(folder / "inputs")
        with slow_server(folder) as address:
            for target in targets(folder / "inputs", address):
                if only in (None, target.name):
                    outcome = disturb(target, folder / target.name, kills, seconds, chance)
                    wrong += len(outcome.wrong)
                    print(_line(target, outcome), flush=True)
    return 1 if wrong else 0


def _line(target: Target, outcome: Outcome) -> str:
    said = "; ".join(outcome.wrong[:3]) or "nothing wrong"
    counts = f"{outcome.kills} kills in {outcome.runs} runs of {outcome.seconds:.1f} s, {outcome.files} files"
    return f"{target.name}: {counts}: {said}"


def disturb(target: Target, folder: Path, kills: int, seconds: float, chance: random.Random) -> Outcome:
    """Kill the target until there were as many kills; each run goes on until it is done, and is compared."""
    outcome, until = Outcome(), time.monotonic() + seconds
    calm, rough = folder / "calm", folder / "rough"
    clear(calm)
    start = time.monotonic()
    if _finish(_begin(target, calm), None) not in (0, None):
        outcome.wrong.append("the undisturbed run failed")
        return outcome
    outcome.seconds = time.monotonic() - start
    wanted = repr(target.result(calm))
    while outcome.kills < kills and time.monotonic() < until:
        clear(rough)
        outcome.runs += 1
        # towards the end of a run it goes on from what was there, and is shorter
        for attempt in range(1000):
            enough = outcome.kills >= kills or attempt > 200
            moment = None if enough else chance.uniform(0, 1.05 * outcome.seconds / (1 + attempt % 4))
            code = _finish(_begin(target, rough), moment)
            if code is not None:
                break
            outcome.kills += 1
            outcome.wrong += _look(rough, outcome)
        if code not in (0, None):
            outcome.wrong.append(f"going on ended with exit code {code}")
        elif repr(target.result(rough)) != wanted:
            outcome.wrong.append("the result differs from that of the undisturbed run")
    return outcome


def _begin(target: Target, folder: Path) -> int:
    """The target in a child, which is in a group of its own; its words go to a file."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        os.setsid()
        log = os.open(folder.parent / f"{folder.name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            target.run(folder)
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
            # a photo without a pose is an answer, too
            code = 0 if target.name in ("relpose", "localize") and code == 1 else code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _finish(child: int, moment: float | None) -> int | None:
    """The exit code, or None for a child that was killed at ``moment`` (seconds)."""
    end = None if moment is None else time.monotonic() + moment
    while True:
        done, status = os.waitpid(child, os.WNOHANG if end is not None else 0)
        if done:
            return os.waitstatus_to_exitcode(status)
        if end is not None and time.monotonic() >= end:
            try:
                os.killpg(child, signal.SIGKILL)
            except ProcessLookupError:  # before it had a group
                os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
            return None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        time.sleep(0.002)


# -- what is on disk --------------------------------------------------------------------------------------------------
def _look(folder: Path, outcome: Outcome) -> Iterator[str]:
    """A sentence for every file that claims to be whole and is not."""
    for path in sorted(folder.rglob("*")):
        parts = path.relative_to(folder).parts
        if not path.is_file() or path.name.endswith(UNFINISHED) or any(part.endswith(".new") for part in parts):
            continue
        outcome.files += 1
        try:
            _read_whole(path)
        except (OSError, ValueError, RuntimeError, KeyError, EOFError, SyntaxError) as error:
            yield f"{'/'.join(parts)}: {type(error).__name__}: {str(error)[:80]}"


def _read_whole(path: Path) -> None:
    kind = path.suffix
    if kind == ".json":
        json.loads(path.read_text())
    elif kind == ".jsonl":
        for line in path.read_text().split("\n")[:-1]:  # the last may be cut; readers leave it out
            if line:
                json.loads(line)
    elif kind in (".jpg", ".png", ".gif"):
        with Image.open(path) as picture:
            picture.load()
    elif kind == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays:
                arrays[name].sum() if arrays[name].dtype.kind in "fiu" else arrays[name].shape
    elif kind == ".safetensors":
        with safe_open(path, framework="pt") as content:
            for name in content.keys():  # noqa: SIM118 - not a mapping
                content.get_tensor(name)
    elif kind in (".zip", ".metriloc"):
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                raise ValueError("damaged")
    elif kind == ".html" and not path.read_text().rstrip().endswith("</html>"):
        raise ValueError("has no end")


if __name__ == "__main__":
    raise SystemExit(tyro.cli(main))
