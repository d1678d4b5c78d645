"""Damaged and hostile files for every reader: each gives data or one sentence, in seconds and in little memory.

    OMP_NUM_THREADS=1 python tools/fuzz_readers.py --inputs 100000

Readers run in children with a limit of memory; a crash, a hang, a traceback, more than one line, or a sentence that does
not name its file is a failure. One line a reader, then the failures, each with its seed.
"""

from __future__ import annotations

import json
import os
import random
import resource
import select
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import tyro
from fuzz_seeds import Reader, readers
from fuzz_stream_seeds import stream_readers

from metriloc.io import InputError

BATCH = 200
SECONDS = 20.0
MEMORY = 2**30
WORDS = (
    *("nan", "inf", "-inf", "1e999", "-1", "0", "1_0", "0x1f", "9" * 400, "9" * 5000, "1e-320", "\0", "\n", "\r", "\t"),
    *(
        " ",
        "#",
        "/",
        "..",
        "\\",
        "é",
        "\U0001f600",
        "\ufeff",
        "[" * 3000,
        "{" * 50,
        "'",
        '"',
        "a" * 5000,
        "<b>",
        "\x1b[2J",
    ),
)
VALUES = (
    None,
    True,
    False,
    -1,
    0,
    1e308,
    -1e308,
    10**400,
    float("nan"),
    float("inf"),
    "",
    "x",
    "\x1b",
    [],
    {},
    [[]],
    [1] * 50,
)
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 2**63 - 1, 2**64 - 1)


# -- mutation ---------------------------------------------------------------------------------------------------------
def mutate(data: bytes, kind: str, chance: random.Random) -> bytes:
    """A few changes of one file."""
    for _ in range(chance.choice((1, 1, 2, 3, 8))):
        if kind == "json" and chance.random() < 0.7:
            data = _other_json(data, chance)
        elif kind in ("json", "text") and chance.random() < 0.6:
            data = _other_text(data, chance)
        else:
            data = _other_bytes(data, chance)
    return data or b"\n"


def _other_bytes(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    at, end = sorted((chance.randrange(len(changed) + 1), chance.randrange(len(changed) + 1)))
    what = chance.randrange(6)
    if what == 0 and at < len(changed):
        changed[at] ^= 1 << chance.randrange(8)
    elif what == 1:
        size = chance.choice((1, 2, 4, 8))
        number = chance.choice(NUMBERS) & ((1 << 8 * size) - 1)
        changed[at : at + size] = number.to_bytes(size, chance.choice(("little", "big")))
    elif what == 2:
        del changed[at : min(end, at + chance.choice((1, 4, 64, 10**6)))]
    elif what == 3:
        changed[at:at] = changed[at : min(end, at + 4096)]
    elif what == 4:
        del changed[max(at, 1) :]
    else:
        changed[at : at + 4] = chance.randbytes(4)
    return bytes(changed)


def _other_text(data: bytes, chance: random.Random) -> bytes:
    lines = data.split(b"\n")
    i = chance.randrange(len(lines))
    fields = lines[i].split(b" ")
    j = chance.randrange(len(fields))
    word = chance.choice(WORDS).encode()
    what = chance.randrange(5)
    if what == 0:
        fields[j] = word
    elif what == 1:
        fields.insert(j, word)
    elif what == 2:
        del fields[j]
    elif what == 3:
        lines.insert(i, lines[i])
    else:
        fields[j] += word
    lines[lines.index(lines[i])] = b" ".join(fields)
    return b"\n".join(lines)


def _other_json(data: bytes, chance: random.Random) -> bytes:
    try:
        top = json.loads(data)
    except (ValueError, RecursionError):
        return data
    places: list[tuple[Any, Any]] = []
    waiting = [top]
    while waiting:
        value = waiting.pop()
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            places.append((value, key))
            waiting.append(value[key])
    if not places:
        return data
    owner, key = chance.choice(places)
    what = chance.randrange(4)
    if what == 0 and isinstance(owner, dict):
        del owner[key]
    elif what == 1 and isinstance(owner, dict):
        owner[chance.choice(WORDS)] = chance.choice(VALUES)
    elif what == 2 and isinstance(owner, list):
        owner.insert(key, chance.choice(VALUES))
    else:
        owner[key] = chance.choice(VALUES)
    sys.set_int_max_str_digits(0)
    return json.dumps(top).encode()


# -- children ---------------------------------------------------------------------------------------------------------
def one(reader: Reader, folder: Path, seed: str) -> str:
    """What came of one input: ``data``, ``sentence``, or what was wrong."""
    chance = random.Random(seed)
    data = mutate(chance.choice(reader.seeds), reader.kind, chance)
    path = folder / reader.name
    path.write_bytes(data)
    try:
        reader.read(path)
    except (InputError, ValueError) as error:
        text = str(error)
        if not isinstance(error, InputError) and not reader.words:
            return f"{type(error).__name__}: {text[:150]}"
        if "\n" in text or len(text) > 1500:
            return f"not one sentence: {text[:150]!r}"
        named = reader.words or reader.name in text or str(folder) in text
        return "sentence" if named else f"names no file: {text[:150]}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:150]}"
    return "data"


def _child(reader: Reader, numbers: range, seed: int, out: int) -> None:
    sys.set_int_max_str_digits(4300)
    warnings.simplefilter("ignore")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "in"
        folder.mkdir()
        for name, data in (reader.beside or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        for number in numbers:
            said = one(reader, folder, f"{seed} {reader.title} {number}")
            sys.set_int_max_str_digits(4300)
            os.write(out, (json.dumps([number, said]) + "\n").encode())


def batch(reader: Reader, numbers: range, seed: int) -> list[tuple[int, str]]:
    """(number, what came of it) of each; the child is begun again behind an input that ended it."""
    found: list[tuple[int, str]] = []
    while len(numbers):
        into, out = os.pipe()
        child = os.fork()
        if not child:
            os.close(into)
            try:
                _child(reader, numbers, seed, out)
            finally:
                os._exit(0)
        os.close(out)
        text = b""
        while True:
            ready, _, _ = select.select([into], [], [], SECONDS)
            piece = os.read(into, 1 << 16) if ready else b""
            if not piece:
                break
            text += piece
        os.close(into)
        hung = not ready
        if hung:
            os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        done = [json.loads(line) for line in text.split(b"\n")[:-1]]
        found += [(number, said) for number, said in done]
        numbers = numbers[len(done) :]
        if len(numbers):
            how = f"hung for {SECONDS:g} s" if hung else f"ended the process (status {status})"
            found.append((numbers[0], how))
            numbers = numbers[1:]
    return found


def main(inputs: int = 10_000, seed: int = 0, only: str | None = None, show: int = 5) -> int:
    """Args:
    inputs: over all readers.
    seed: Of the mutations.
    only: Title of one reader.
    show: Failures of a reader that are printed.
    """
    torch.set_num_threads(1)
    chosen = [reader for reader in [*readers(), *stream_readers()] if only in (None, reader.title)]
    each = -(-inputs // len(chosen))
    wrong = 0
    for reader in chosen:
        start, kinds, first = time.monotonic(), Counter[str](), dict[str, int]()
        for begin in range(0, each, BATCH):
            for number, said in batch(reader, range(begin, min(begin + BATCH, each)), seed):
                kind = said if said in ("data", "sentence") else f"! {said}"
                kinds[kind] += 1
                first.setdefault(kind, number)
        bad = {kind: count for kind, count in kinds.items() if kind.startswith("!")}
        wrong += sum(bad.values())
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        counts = f"{kinds['data']} data, {kinds['sentence']} sentences, {sum(bad.values())} failures"
        print(f"{reader.title}: {counts}; {time.monotonic() - start:.1f} s; peak so far {peak:.0f} MB", flush=True)
        for kind in list(bad)[:show]:
            print(f"    {kind} (number {first[kind]}, {bad[kind]} times)", flush=True)
    print(f"{each * len(chosen)} inputs, {wrong} failures")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(tyro.cli(main))
