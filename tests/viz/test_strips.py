"""Photos of one row or one column: pictures of them stay small."""

from __future__ import annotations

import pytest
import torch

from metriloc.types import Correspondences
from metriloc.viz.matches import match_picture


@pytest.mark.parametrize(("height", "width"), [(1, 4000), (4000, 1), (1, 1), (2, 16_000)])
def test_strips_beside_a_photo(height: int, width: int) -> None:
    none = Correspondences(torch.zeros(0, 2), torch.zeros(0, 2), *torch.zeros(3, 0))
    photo, strip = torch.rand(3, 480, 640), torch.rand(3, height, width)
    for pair in ((photo, strip), (strip, photo)):
        assert match_picture(*pair, none).size < 3 * 10_000_000
