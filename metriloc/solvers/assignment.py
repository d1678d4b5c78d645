"""From a table of scores to pairs: mutual nearest neighbours."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def mutual_nearest(scores: Float[Tensor, "N0 N1"], minimum: float = -torch.inf) -> Int[Tensor, "M 2"]:
    """Pairs (i, j), in order of i, where j is the best of row i and i the best of column j, scored at least ``minimum``."""
    if 0 in scores.shape:
        return torch.zeros(0, 2, dtype=torch.long, device=scores.device)
    best, best1 = scores.max(1)
    rows = torch.arange(len(scores), device=scores.device)
    mutual = (scores.argmax(0)[best1] == rows) & (best >= minimum)
    return torch.stack([rows[mutual], best1[mutual]], -1)
