"""From a table of scores to pairs: mutual nearest neighbours."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor


def mutual_nearest(scores: Float[Tensor, "N0 N1"], above: float = 0.0) -> Int[Tensor, "M 2"]:
    """Pairs (i, j), in order of i, where j is the best of row i, i the best of column j, and the score exceeds ``above``.

    Takes match probabilities or similarities; NaN never matches. MicKey's published list leaves out the last keypoint of
    each image, because it cuts off a row and a column of dustbins that are gone already; this one does not.
    """
    if scores.ndim != 2:
        raise ValueError(f"mutual_nearest takes one matrix [N0, N1], got shape {list(scores.shape)}")
    if 0 in scores.shape:
        return torch.zeros(0, 2, dtype=torch.long, device=scores.device)
    best1, best0 = scores.max(1), scores.argmax(0)
    rows = torch.arange(len(scores), device=scores.device)
    mutual = (best0[best1.indices] == rows) & (best1.values > above)
    return torch.stack([rows[mutual], best1.indices[mutual]], -1)
