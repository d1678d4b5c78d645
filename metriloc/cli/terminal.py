"""What goes to the terminal: one line where one is meant, and nothing that could steer it."""

from __future__ import annotations

import sys


def printable(text: object) -> str:
    """The text without control characters, line breaks or bytes that are no text; each is shown as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in str(text))


def complain(command: str, error: object) -> None:
    """One sentence on standard error."""
    print(f"metriloc {command}: {printable(' '.join(str(error).split()))}", file=sys.stderr)


def unusable(path: object, error: Exception) -> str:
    """The sentence for a photo on which a method failed: one that names it, whatever the method said."""
    what = " ".join(str(error).split())[:200] or type(error).__name__
    return f"'{path}' could not be used: {what}"
