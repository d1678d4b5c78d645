"""Positions between cells."""

from __future__ import annotations

import torch

from metriloc.backbones.local import DenseMap
from metriloc.methods.matching.stated_focal import between_cells


def test_a_peak_between_cells_is_found() -> None:
    """Descriptors whose similarity falls off as a parabola from a point between cells."""
    peak = torch.tensor([3.3, 1.8])
    v, u = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    similarity = 1 - 0.1 * (u - peak[0]) ** 2 - 0.2 * (v - peak[1]) ** 2
    dense = DenseMap(torch.stack([similarity, torch.zeros_like(similarity)]), (8.0, 8.0), (3.5, 3.5))
    descriptors = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    cells = torch.tensor([[3.0, 2.0], [0.0, 2.0], [6.0, 4.0]])
    found = between_cells(descriptors, dense, cells)
    torch.testing.assert_close(found[0], peak)
    assert found[1, 0] == 0 and found[2].tolist() == [6.0, 4.0]  # at the border nothing is known of the other side
