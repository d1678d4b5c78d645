"""Log probabilities of matches that were drawn, with gradients, at the cost of one similarity matrix at a time.

The gradient of paper Eqs. (2) and (3) at a few thousand entries needs the two vectors of log-sum-exps, so every
similarity takes part; but nothing of size N0 x N1 is kept between forward and backward, nor for more than one pair of
the batch: the matrix is computed again.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from metriloc.methods.mickey.keypoint_maps import Keypoints
from metriloc.methods.mickey.matching import log_normalizer, scaled_similarity

LOG_EPS = math.log(1e-16)


def log_dual_softmax(
    desc0: Float[Tensor, "B N0 C"],
    desc1: Float[Tensor, "B N1 C"],
    index0: Int[Tensor, "B M"],
    index1: Int[Tensor, "B M"],
    temperature: float = 0.1,
    dustbin: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "B M"]:
    """Log of softmax over rows times softmax over columns at (index0, index1), paper Eq. (3).

    Differentiable in descriptors and dustbin.
    """
    at, row, column = similarities(desc0, desc1, index0, index1, temperature, dustbin)
    return 2 * at - row.gather(1, index0) - column.gather(1, index1)


def log_match_probability(
    first: Keypoints,
    second: Keypoints,
    index0: Int[Tensor, "B M"],
    index1: Int[Tensor, "B M"],
    temperature: float = 0.1,
    dustbin: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "B M"]:
    """``log(P + 1e-16)`` of the matches ``(index0, index1)``, P of paper Eq. (2); what REINFORCE differentiates.

    Reaches descriptors, scores and dustbin. A match that is impossible (a keypoint without score) has no gradient.
    """
    log_p = log_dual_softmax(first.descriptor, second.descriptor, index0, index1, temperature, dustbin)
    tiny = torch.finfo(first.score.dtype).tiny
    for score, index in ((first.score, index0), (second.score, index1)):
        log_p = log_p + score.gather(1, index).clamp(min=tiny).log()
    return torch.logaddexp(log_p, log_p.new_tensor(LOG_EPS))


def similarities(
    desc0: Float[Tensor, "B N0 C"],
    desc1: Float[Tensor, "B N1 C"],
    index0: Int[Tensor, "B M"],
    index1: Int[Tensor, "B M"],
    temperature: float = 0.1,
    dustbin: Float[Tensor, ""] | None = None,
) -> tuple[Float[Tensor, "B M"], Float[Tensor, "B N0"], Float[Tensor, "B N1"]]:
    """Similarities over temperature at some entries, and the log normalisers of all rows and columns (with dustbin).

    Raises ValueError for indices that are not one list a pair.
    """
    if desc0.ndim != 3 or index0.shape != index1.shape or index0.ndim != 2 or len(index0) != len(desc0):
        raise ValueError(
            f"need descriptors [B, N, C] and indices [B, M], got {list(desc0.shape)}, {list(index0.shape)} "
            f"and {list(index1.shape)}"
        )
    return _Similarities.apply(desc0, desc1, dustbin, index0, index1, temperature)


class _Similarities(torch.autograd.Function):
    """Forward keeps vectors only; backward computes each pair's matrix again and turns it into its own gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        desc0: Tensor,
        desc1: Tensor,
        dustbin: Tensor | None,
        index0: Tensor,
        index1: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor, Tensor]:
        at, rows, columns = [], [], []
        for b in range(len(desc0)):
            similarity = scaled_similarity(desc0[b], desc1[b], temperature)
            at.append(similarity[index0[b], index1[b]])
            rows.append(log_normalizer(similarity, -1, dustbin))
            columns.append(log_normalizer(similarity, -2, dustbin))
        row, column = torch.stack(rows), torch.stack(columns)
        ctx.save_for_backward(desc0, desc1, dustbin, index0, index1, row, column)
        ctx.temperature = temperature
        return torch.stack(at), row, column

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        desc0, desc1, dustbin, index0, index1, row, column = ctx.saved_tensors
        g_at, g_row, g_column = gradients
        g0, g1 = torch.empty_like(desc0), torch.empty_like(desc1)
        for b in range(len(desc0)):
            similarity = scaled_similarity(desc0[b], desc1[b], ctx.temperature)
            g = (similarity - row[b, :, None]).exp_().mul_(g_row[b, :, None])
            g.addcmul_(similarity.sub_(column[b]).exp_(), g_column[b].expand_as(g))
            g.view(-1).index_add_(0, index0[b] * g.shape[1] + index1[b], g_at[b])
            torch.mm(g, desc1[b] / ctx.temperature, out=g0[b])
            torch.mm(g.mT, desc0[b] / ctx.temperature, out=g1[b])
        g_bin = None
        if dustbin is not None:
            share = (g_row * (dustbin - row).exp()).sum() + (g_column * (dustbin - column).exp()).sum()
            g_bin = share.to(dustbin)
        return g0, g1, g_bin, None, None, None
