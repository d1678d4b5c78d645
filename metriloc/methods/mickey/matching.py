"""MicKey's matcher: how likely is it that two keypoints show the same point?

Paper Eq. (2): the probability of a match is the product of the two keypoint scores and of a softmax over each image,
Eq. (3). Computed from one similarity matrix and two vectors of log-sum-exps, without a copy that holds the dustbins;
at test time entries whose keypoint has no score are never evaluated, because they cannot be drawn.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_WIDE = 40.0  # of logits in one matrix: squares of their exponentials still are normal numbers


@dataclass(frozen=True, eq=False)
class MatchProbabilities:
    """Match probabilities of the keypoints that have a score. index0, index1: which keypoints rows and columns are."""

    values: Float[Tensor, "M0 M1"]
    index0: Int[Tensor, " M0"]
    index1: Int[Tensor, " M1"]


def scored_match_probabilities(
    desc0: Float[Tensor, "N0 C"],
    desc1: Float[Tensor, "N1 C"],
    score0: Float[Tensor, " N0"],
    score1: Float[Tensor, " N1"],
    temperature: float = 0.1,
    dustbin: Float[Tensor, ""] | None = None,
) -> MatchProbabilities:
    """The matrix of paper Eq. (2) of one pair, only for keypoints with a positive score; not normalised, no gradients.

    Keypoints without score (the border) still count in the softmax denominators of Eq. (3). Scores that are NaN give no
    rows. dustbin: logit of "no partner", None for no such bin. N0 and N1 may differ. Raises ValueError for descriptors
    that do not fit together, for scores that do not belong to them, and for a temperature that is not positive.
    Differs from the paper: the dustbin is added after dividing by the temperature, as the released weights need it.
    """
    _check_scores(desc0, desc1, score0, score1)
    if desc0.ndim != 2:
        raise ValueError(f"scored_match_probabilities takes one pair, got descriptors of shape {list(desc0.shape)}")
    index0, index1 = (score0 > 0).nonzero().squeeze(-1), (score1 > 0).nonzero().squeeze(-1)
    with torch.no_grad():
        similarity = scaled_similarity(desc0, desc1, temperature)
        low, high = (float(x) for x in similarity.aminmax()) if similarity.numel() else (0.0, 0.0)
        if high - low > _WIDE or math.isnan(high - low):
            row, column = log_normalizer(similarity, -1, dustbin), log_normalizer(similarity, -2, dustbin)
            values = similarity[index0[:, None], index1]
            # the scores go into the vectors: one matrix, everything in place
            values.mul_(2).sub_((row[index0] - score0[index0].log())[:, None])
            values.sub_((column[index1] - score1[index1].log())[None]).exp_()
            return MatchProbabilities(values, index0, index1)
        exponential = similarity.sub_(high).exp_()  # one exponential serves both softmaxes and their product
        nobody = 0.0 if dustbin is None else (dustbin.to(exponential) - high).exp()
        row, column = exponential.sum(-1) + nobody, exponential.sum(-2) + nobody
        values = exponential[index0[:, None], index1]
        values.square_().mul_((score0[index0] / row[index0])[:, None]).mul_(score1[index1] / column[index1])
    return MatchProbabilities(values, index0, index1)


def scaled_similarity(
    desc0: Float[Tensor, "*b N0 C"], desc1: Float[Tensor, "*b N1 C"], temperature: float
) -> Float[Tensor, "*b N0 N1"]:
    """Inner products over the temperature: the logits of paper Eq. (3).

    Raises ValueError for descriptors that do not fit together and for a temperature that is not positive.
    """
    if min(desc0.ndim, desc1.ndim) < 2 or desc0.shape[:-2] != desc1.shape[:-2] or desc0.shape[-1] != desc1.shape[-1]:
        raise ValueError(f"descriptors {list(desc0.shape)} and {list(desc1.shape)} do not fit together")
    if not temperature > 0:
        raise ValueError(f"the matching temperature must be positive, got {temperature}")
    return (desc0 / temperature) @ desc1.mT


def log_normalizer(similarity: Float[Tensor, "*b N0 N1"], dim: int, dustbin: Float[Tensor, ""] | None) -> Tensor:
    """Log of the denominator of the softmax along ``dim`` in paper Eq. (3), with the dustbin if there is one."""
    total = torch.logsumexp(similarity, dim)
    return total if dustbin is None else torch.logaddexp(total, dustbin.to(total))


def _check_scores(desc0: Tensor, desc1: Tensor, score0: Tensor, score1: Tensor) -> None:
    for desc, score in ((desc0, score0), (desc1, score1)):
        if desc.shape[:-1] != score.shape:
            raise ValueError(f"scores {list(score.shape)} do not belong to descriptors {list(desc.shape)}")
