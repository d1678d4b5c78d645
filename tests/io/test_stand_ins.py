"""Inert objects for what foreign checkpoints name: nothing of numpy is called, and no table is too deep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from metriloc.io import InputError
from metriloc.io.stand_ins import Inert, plain, stand_ins
from metriloc.io.weights import read_checkpoint
from metriloc.methods.pixloc.checkpoint import read_released


def test_numpy_of_a_checkpoint_stays_inert(tmp_path: Path) -> None:
    path = tmp_path / "x.ckpt"
    torch.save({"model": {"a": torch.ones(2)}, "eval": {"loss": np.float64(3.5)}}, path)
    content = read_released(path)
    assert torch.equal(content["model"]["a"], torch.ones(2))
    # the real numpy.dtype would take any size and layout that the file gives it
    assert isinstance(content["eval"]["loss"], Inert) and isinstance(content["eval"]["loss"].state[0], Inert)
    with pytest.raises(InputError, match="not a checkpoint of plain tensors"):
        read_checkpoint(path)
    before = set(torch.serialization.get_safe_globals())
    with stand_ins(["numpy.dtype"]):
        assert set(torch.serialization.get_safe_globals()) != before
    assert set(torch.serialization.get_safe_globals()) == before


@pytest.mark.slow
def test_plain_values_of_knots_and_towers() -> None:
    knot: list[Any] = [1]
    knot.append(knot)
    assert plain({"a": knot}) == {"a": [1, None]}
    tower: Any = 1
    for _ in range(100_000):
        tower = [tower]
    assert isinstance(plain(tower), list)
    wide: Any = [1]
    for _ in range(45):
        wide = [wide, wide, wide]
    assert len(plain(wide)) == 3
