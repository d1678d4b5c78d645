"""Validation: which value is better, the mode it runs in, pictures and their page."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from metriloc.training import Picture, Validation
from metriloc.training.pages import LONGEST_SIDE, encode_png, validation_page
from metriloc.training.validation import is_better, no_grad_evaluation


@pytest.mark.parametrize(
    "value, best, best_is, expected",
    [
        (0.1, None, "largest", True),
        (math.nan, None, "largest", False),
        (0.2, 0.1, "largest", True),
        (0.1, 0.1, "largest", False),
        (0.2, 0.1, "smallest", False),
        (0.05, 0.1, "smallest", True),
        (math.nan, 0.1, "smallest", False),
    ],
)
def test_is_better(value: float, best: float | None, best_is: str, expected: bool) -> None:
    assert is_better(value, best, best_is) is expected


def test_modes_come_back_one_by_one_also_after_an_error() -> None:
    method = nn.Sequential(nn.Linear(1, 1), nn.Sequential(nn.Dropout(), nn.BatchNorm1d(1)))
    method.train()
    method[1][1].eval()
    modes = [module.training for module in method.modules()]
    with pytest.raises(ArithmeticError), no_grad_evaluation(method):
        assert not any(module.training for module in method.modules()) and not torch.is_grad_enabled()
        raise ArithmeticError
    assert [module.training for module in method.modules()] == modes
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("rgb", [np.zeros((3, 4, 5), np.uint8), np.zeros((4, 5, 3)), np.zeros((4, 5), np.uint8)])
def test_what_is_no_picture_is_refused(rgb: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"must be uint8 \[H, W, 3\].*'title'"):
        Picture("title", rgb)


def test_pictures_are_lossless_and_large_ones_reduced() -> None:
    from PIL import Image

    small = np.arange(60, dtype=np.uint8).reshape(4, 5, 3)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(small)))), small)
    large = Image.open(io.BytesIO(encode_png(np.zeros((10, 2 * LONGEST_SIDE, 3), np.uint8))))
    assert large.size == (LONGEST_SIDE, 5)


def test_the_page_escapes_and_draws_only_what_is_finite() -> None:
    result = Validation({"<auc>": 0.5, "broken": math.nan, "new": 1.0}, ())
    history = {"<auc>": [(1, 0.1), (2, math.nan), (3, 0.5)], "broken": [(1, math.nan), (2, math.nan)]}
    page = validation_page("a & b", 3, result, history)
    assert "a &amp; b: step 3" in page and "&lt;auc&gt;" in page and "<auc>" not in page
    assert page.count("<polyline") == 1 and "nan," not in page and "0.1 to 0.5" in page
    assert "default-src 'none'" in page
