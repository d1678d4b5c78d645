"""Repositories of the model hub: their names, their files, and the licence that their card states."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from metriloc.io.download import is_offline
from metriloc.io.files import InputError, read_text

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?", re.ASCII)
"""OWNER/NAME, with @REVISION if a certain one is meant."""
CARD = "README.md"
NO_LICENSE = "no licence stated"
MAX_CARD_BYTES = 4 << 20
MAX_LICENSE = 100
_FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n(.*?)^---\s*$", re.S | re.M)


def hub_snapshot(name: str, patterns: Sequence[str], offline: bool | None = None) -> Path:
    """The folder with files of a repository of the hub. They are those that ``patterns`` name, downloaded unless they
    are in the hub's cache.

    Raises InputError when they cannot be had, and, with the pip command, without ``huggingface_hub``.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ImportError as error:
        raise InputError(f'the hub name {name!r} needs huggingface_hub: pip install "metriloc[hub]"') from error
    repository, _, revision = name.partition("@")
    try:
        folder = snapshot_download(
            repository,
            revision=revision or None,
            allow_patterns=list(patterns),
            local_files_only=is_offline(offline),
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"the hub weights {name!r} could not be had, and there is no folder of that name: {reason}"
        ) from error
    return Path(folder)


def license_of(folder: Path) -> str:
    """What the card in a folder says of the licence. The licence is that of its weights; ``NO_LICENSE`` where it says
    nothing."""
    path = folder / CARD
    try:
        front = _FRONT_MATTER.match(read_text(path, MAX_CARD_BYTES)) if path.is_file() else None
    except InputError:  # a card that is no text says nothing
        front = None
    if front is None:
        return NO_LICENSE
    stated, name = (_field(front[1], field) for field in ("license", "license_name"))
    if not stated:
        return NO_LICENSE
    told = f"{name} ({stated})" if name else stated
    return " ".join(told.split())[:MAX_LICENSE]


def _field(front: str, field: str) -> str:
    """A field of a card's head: its word, or its list of words."""
    # no reader of YAML: that is another extra, and these two fields hold a word or a list of words
    found = re.search(rf"^{field}:[ \t]*(.*)\n?((?:[ \t]*-[ \t]+.*\n?)*)", front, re.M)
    if found is None:
        return ""
    listed = [found[1], *(line.strip().removeprefix("-") for line in found[2].splitlines())]
    words = [word.strip(" \t\r[]'\"") for word in listed]
    return ", ".join(word for word in words if word and word != "null")
