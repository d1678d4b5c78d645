"""The notebooks carry no outputs, and their code runs from the top in a fresh interpreter (no kernel is needed)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.ipynb"))
DISPLAY = """
import sys, types
try:
    import IPython.display
except ImportError:  # what Jupyter brings along; only that the data is a picture matters here
    def Image(data):
        assert data[:3] == b"GIF", data[:3]
    sys.modules["IPython"] = types.ModuleType("IPython")
    sys.modules["IPython.display"] = types.SimpleNamespace(Image=Image)
"""


def cells(path: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_clean_and_has_a_title(path: Path) -> None:
    for cell in cells(path, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None, f"{path.name} was saved with its outputs"
    assert "".join(cells(path, "markdown")[0]["source"]).startswith("# ")


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path) -> None:
    code = "\n\n".join("".join(cell["source"]) for cell in cells(path, "code"))
    done = subprocess.run(
        [sys.executable, "-c", f"{DISPLAY}\n{code}"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
