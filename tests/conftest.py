"""Shared fixtures: where the reference data lies, and threads pinned so that results repeat."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

# small tensors gain nothing from threads, and on a busy machine threads that wait for each other cost minutes
torch.set_num_threads(1)

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("METRILOC_SHARED", REPOSITORY.parent / "shared"))


@pytest.fixture(scope="session")
def shared() -> Callable[[str], Path]:
    """``shared("golden/mickey/kabsch.safetensors")`` -> its path; skips the test, saying why, when it is absent."""

    def find(relative: str) -> Path:
        path = SHARED / relative
        if not path.exists():
            pytest.skip(f"reference data not here: {path} (set METRILOC_SHARED)")
        return path

    return find


@pytest.fixture()
def generator() -> torch.Generator:
    """A seeded CPU generator."""
    return torch.Generator().manual_seed(0)
