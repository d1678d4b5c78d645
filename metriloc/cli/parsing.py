"""The words of a command as a call of its function; what cannot be understood is one sentence, not a box."""

from __future__ import annotations

import contextlib
import functools
import io
import re
import sys
from collections.abc import Callable, Sequence
from typing import Any

_FRAME = "╭╮╰╯│─| "
_COLORS = re.compile(r"\x1b\[[0-9;]*m")
_WORDINGS: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (
        r"invalid choice '(.*)' for argument '(.*)'\. Expected one of \((.*)\)\.",
        lambda found: f"{found[2]} must be one of {found[3].replace(chr(39), '').strip(', ')}, got {found[1]!r}",
    ),
    (
        r"Error parsing (\S+): invalid literal for int\(\) with base 10: '(.*)'",
        lambda found: f"{found[1]} must be a whole number, got {found[2]!r}",
    ),
    (
        r"Error parsing (\S+): could not convert string to float: '(.*)'",
        lambda found: f"{found[1]} must be a number, got {found[2]!r}",
    ),
    (
        r"Error parsing (\S+): no type matching (.*) could be instantiated from \[(.*?)\]\.",
        lambda found: f"{found[1]} must be {found[2].replace('{None}', 'none').replace('|', ' or ')}, got {found[3]}",
    ),
    (r"Missing value for argument '(.*)'\. Expected .*", lambda found: f"{found[1]} has no value behind it"),
    (r"Unrecognized options: (.*)", lambda found: f"{found[1].replace(', ', ' ')} is not understood"),
    (r"Error parsing [a-z_]+: (.*)", lambda found: found[1]),
)


def parsed(function: Callable[..., int | None], name: str, arguments: Sequence[str]) -> Callable[[], int | None]:
    """The call that the words ask for, not made yet. Raises ValueError for words that cannot be understood."""
    import tyro

    calls: list[Callable[[], int | None]] = []

    @functools.wraps(function)
    def keep(*given: Any, **named: Any) -> int:
        calls.append(functools.partial(function, *given, **named))
        return 0

    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            tyro.cli(keep, prog=f"metriloc {name}", args=arguments, config=(tyro.conf.OmitArgPrefixes,))
    except SystemExit as stop:
        if stop.code in (0, None):  # --help
            raise
        raise ValueError(f"{sentence(box.getvalue())} (metriloc {name} --help explains)") from None
    sys.stderr.write(box.getvalue())
    return calls[0]


def sentence(box: str) -> str:
    """What a box of tyro's says, in one sentence.

    Tyro draws it in lines, or in plain characters.
    """
    said, *further = _sections(box)
    if said and said[0].startswith("Missing from"):
        names = [line.strip() for line in said if re.match(r" {4}\S", line)]
        return f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} missing"
    text = " ".join(" ".join(said).split())
    meant = re.search(
        r"Perhaps you meant: (--\S+)", " ".join(" ".join(line for part in further for line in part).split())
    )
    hint = f": perhaps {meant[1]}" if meant is not None else ""
    for pattern, words in _WORDINGS:
        found = re.match(pattern, text)
        if found is not None:
            return words(found) + hint
    return text + hint


def _sections(box: str) -> list[list[str]]:
    """The lines between the rulers, without frame and title."""
    lines = [line.rstrip(_FRAME) for line in _COLORS.sub("", box).splitlines()]
    framed = any(line.startswith("╭") for line in lines)
    body = lines[1:] if framed else lines[2:]
    sections: list[list[str]] = [[]]
    for line in body:
        content = line[2:]
        if not content.strip("-" + _FRAME):
            sections.append([])
        else:
            sections[-1].append(content)
    return [section for section in sections if section] or [[]]
