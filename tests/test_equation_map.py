"""Each method opens with a table: paper equation -> function. The functions exist and cite their equation."""

from __future__ import annotations

import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

FOLDERS = (Path(__file__).resolve().parents[1] / "metriloc" / "methods").glob("*/__init__.py")
METHODS = sorted(path.parent.name for path in FOLDERS if path.parent.name != "matching")
"""Each stands for a paper; matching is made of parts that others published."""
ROW = re.compile(r"^\s*(Eq\. \([^)]+\)|Sec\. [\w.]+)\s+(metriloc(?:\.\w+)+)", re.MULTILINE)


@pytest.mark.parametrize("method", METHODS)
def test_equation_map(method: str) -> None:
    doc = importlib.import_module(f"metriloc.methods.{method}").__doc__ or ""
    rows = ROW.findall(doc)
    assert len(rows) >= 5, f"metriloc.methods.{method} has no equation map"
    for equation, dotted in rows:
        assert equation in inspect.getsource(named(dotted)), f"{dotted} does not cite {equation}"


def named(dotted: str) -> Any:
    """The function of a module, or the method of a class, that a dotted name means."""
    owner, name = dotted.rsplit(".", 1)
    module, _, kind = owner.rpartition(".")
    if kind[:1].isupper():
        return getattr(getattr(importlib.import_module(module), kind), name)
    return getattr(importlib.import_module(owner), name)
