"""Files of the user: the one error class for them, reading text, and writing without ever leaving half a file.

Everything that is wrong with a file is an ``InputError`` whose message is one sentence naming the file and the value.
"""

from __future__ import annotations

import json
import math
import os
import re
import secrets
from pathlib import Path
from typing import Any

MAX_TEXT_BYTES = 64 * 2**20
"""Text files beyond this are not what they claim to be (a Map-free scene has 100 kB)."""
MAX_TEXT_LINES = 2_000_000
"""Of a list that is read line by line."""
MAX_JSON_BYTES = 16 * 2**20
"""Three bytes of JSON can become 70 in memory."""

_COMMENT = re.compile(r"(?:^|\s)#")


MAX_SENTENCE = 1000
"""Characters of an ``InputError``: values of files are quoted in it, and may be megabytes."""


class InputError(ValueError):
    """A file or a value from the user cannot be used.

    The message is one sentence that says which and why. It is one line, whatever it quotes; of a
    long one the middle is left out.

    >>> try:
    ...     metriloc.load_view("gone.jpg")
    ... except metriloc.InputError as error:
    ...     print(error)
    'gone.jpg' does not exist
    """

    def __init__(self, message: str = "") -> None:
        line = " ".join(message.splitlines())
        if len(line) > MAX_SENTENCE:
            line = f"{line[: MAX_SENTENCE // 2]} ... {line[-MAX_SENTENCE // 3 :]}"
        super().__init__(line)


def require_file(path: str | os.PathLike[str]) -> Path:
    """The path of a regular file with something in it. It is ``path`` as a Path, once that is known.

    Raises InputError when it is missing, a folder, a device, empty, or cannot be looked at.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise InputError(f"'{path}' is a folder, not a file")
        if not path.exists():
            raise InputError(f"'{path}' does not exist")
        if not path.is_file():
            raise InputError(f"'{path}' is not a regular file")
        empty = path.stat().st_size == 0
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{str(path)!r} is not a path: {error}") from error  # a NUL byte
    if empty:
        raise InputError(f"'{path}' is empty")
    return path


def read_bytes(path: str | os.PathLike[str], limit: int | None = None) -> bytes:
    """The content of a file.

    InputError when it cannot be read, or has more than ``limit`` bytes.
    """
    path = require_file(path)
    try:
        size = path.stat().st_size
        if limit is not None and size > limit:
            raise InputError(f"'{path}' has {size} bytes; such files of more than {limit} are not read")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"'{path}' cannot be read: {error.strerror or error}") from error


def read_text(path: str | os.PathLike[str], limit: int = MAX_TEXT_BYTES) -> str:
    """The content of a UTF-8 text file. A byte order mark is dropped.

    Raises InputError when it cannot be read, has more than ``limit`` bytes (64 MiB) or 2,000,000 lines, or is not text.

    >>> read_text("intrinsics.txt").splitlines()[0]
    '# image fx fy cx cy width height'
    """
    path = require_file(path)
    size = path.stat().st_size
    if size > limit:
        raise InputError(f"'{path}' has {size} bytes; such text files of more than {limit} are not read")
    data = read_bytes(path)
    lines = data.count(b"\n")
    if lines > MAX_TEXT_LINES:
        raise InputError(f"'{path}' has {lines} lines; text files of more than {MAX_TEXT_LINES} are not read")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"'{path}' is not a text file: byte {error.start} is not UTF-8") from error


def without_comment(line: str) -> str:
    """A line without blanks around it and without its comment.

    A ``#`` at the start or after a blank, and what follows. A ``#`` inside of a word belongs to a
    name.
    """
    found = _COMMENT.search(line)
    return (line if found is None else line[: found.start()]).strip()


def read_json(path: str | os.PathLike[str], limit: int = MAX_JSON_BYTES) -> Any:
    """What a JSON file holds. Raises InputError for a file as ``read_text`` refuses, and for what is not JSON.

    >>> write_atomically("own_settings.json", '{"seed": 3}')
    >>> read_json("own_settings.json")
    {'seed': 3}
    """
    return parse_json(read_text(path, limit), f"'{path}'")


def parse_json(text: str, source: str) -> Any:
    """What a text holds. Raises InputError, which begins with ``source``, for what is not JSON or nested too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InputError(f"{source} is not JSON that can be read: it is nested too deep") from error
    except ValueError as error:  # also a number of thousands of digits
        raise InputError(f"{source} is not JSON: {error}") from error


def parse_numbers(fields: list[str], place: str, *, finite: bool = True) -> list[float]:
    """Decimal numbers from text.

    InputError naming ``place`` (file:line) and the first field that is not one. finite: False lets
    NaN and infinity through, which stand for "lost" in logs of devices.
    """
    numbers = []
    for text in fields:
        try:
            # float() also takes '1_000', which no writer of these formats means
            number = None if "_" in text else float(text)
        except ValueError:
            number = None
        if number is None or (finite and not math.isfinite(number)):
            raise InputError(f"{place}: {text!r} is not a {'finite ' if finite else ''}number")
        numbers.append(number)
    return numbers


def write_atomically(path: str | os.PathLike[str], data: bytes | str) -> None:
    """Write a whole file or nothing.

    It is written under a temporary name in the same folder, then renamed. Text becomes UTF-8. A
    failure, also an interrupt, leaves an older file of that name as it was and no temporary file.
    Raises InputError when the folder does not exist or cannot be written.

    >>> write_atomically("own_note.txt", "done")
    >>> read_text("own_note.txt")
    'done'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        try:
            with open(temporary, "xb") as file:
                file.write(data.encode() if isinstance(data, str) else data)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {error.strerror or error}") from error


def prepare_output_folder(path: str | os.PathLike[str]) -> Path:
    """Make a folder (and those above it), and try to write there.

    It is found out now, not after the work, whether it can be written. Raises InputError when it is
    a file or cannot be made or written.

    >>> prepare_output_folder("own/results").is_dir()
    True
    """
    path = Path(path)
    probe = path / f".{secrets.token_hex(4)}.tmp"
    try:
        path.mkdir(parents=True, exist_ok=True)
        try:
            probe.touch(exist_ok=False)
        finally:
            probe.unlink(missing_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"'{path}' cannot be an output folder: a file is in the way") from error
    except OSError as error:
        raise InputError(f"'{path}' cannot be written: {error.strerror or error}") from error
    return path
