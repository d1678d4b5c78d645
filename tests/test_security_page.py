"""The limits that docs/security.md states are those of the code."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_LIMIT = re.compile(r"([0-9][0-9,]*) ?(KiB|MiB|GiB)?[^0-9|`]*?\(`([A-Z_]+)`\)")


def rows() -> list[str]:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.startswith("| ") and "`metriloc/" in line]


def test_every_limit_is_that_of_the_code() -> None:
    found = 0
    for row in rows():
        (path,) = re.findall(r"`(metriloc/[a-z0-9_/]+\.py)` \|$", row)
        module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
        names = re.findall(r"\(`([A-Z_]+)`\)", row)
        limits = _LIMIT.findall(row)
        assert [name for _, _, name in limits] == names, row
        for value, unit, name in limits:
            assert int(value.replace(",", "")) * UNITS.get(unit, 1) == getattr(module, name), f"{path}: {name}"
            found += 1
    assert found >= 25


def test_every_limit_of_the_readers_is_on_the_page() -> None:
    page = "\n".join(rows())
    named = re.compile(r"^(MAX_[A-Z_]+|DEFAULT_MAX_[A-Z_]+) = ", re.M)
    left_out = {"MAX_NUMBER_BYTES", "MAX_DIMENSIONS", "MAX_EMPTY"}  # details of the pickle reader, said beside it
    folders = (ROOT / "metriloc" / "io", ROOT / "metriloc" / "streams")
    files = [ROOT / "metriloc" / "evaluation" / f"{name}.py" for name in ("submission", "trajectory_files")]
    for path in [*(file for folder in folders for file in folder.glob("*.py")), *files]:
        for name in named.findall(path.read_text(encoding="utf-8")):
            assert name in left_out or f"`{name}`" in page, f"{path.name}: {name} is not in docs/security.md"
