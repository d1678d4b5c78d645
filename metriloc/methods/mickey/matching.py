"""MicKey's matcher: how likely is it that two keypoints show the same point?

Paper Eq. (2): the probability of a match is the product of the two keypoint scores and of a softmax over each image,
Eq. (3). Computed from one similarity matrix and two vectors of log-sum-exps; entries whose keypoint has no score are
never evaluated, because they cannot be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class MatchProbabilities:
    """Match probabilities of the keypoints that have a score. index0, index1: which keypoints rows and columns are."""

    values: Float[Tensor, "M0 M1"]
    index0: Int[Tensor, " M0"]
    index1: Int[Tensor, " M1"]


def dual_softmax(
    desc0: Float[Tensor, "*b N0 C"],
    desc1: Float[Tensor, "*b N1 C"],
    temperature: float,
    dustbin: Float[Tensor, ""] | None,
) -> Float[Tensor, "*b N0 N1"]:
    """Softmax over rows times softmax over columns of the similarities, paper Eq. (3), both augmented by a dustbin.

    Differs from the paper: the dustbin is added after dividing by the temperature, as the released weights need it.
    """
    similarity = desc0 @ desc1.mT / temperature
    return torch.exp(2 * similarity - _lse(similarity, -1, dustbin)[..., :, None] - _lse(similarity, -2, dustbin)[..., None, :])


def match_probabilities(
    desc0: Float[Tensor, "*b N0 C"],
    desc1: Float[Tensor, "*b N1 C"],
    score0: Float[Tensor, "*b N0"],
    score1: Float[Tensor, "*b N1"],
    temperature: float = 0.1,
    dustbin: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "*b N0 N1"]:
    """The full matrix of paper Eq. (2); not normalised. Differentiable; what training uses."""
    return dual_softmax(desc0, desc1, temperature, dustbin) * score0[..., :, None] * score1[..., None, :]


def scored_match_probabilities(
    desc0: Float[Tensor, "N0 C"],
    desc1: Float[Tensor, "N1 C"],
    score0: Float[Tensor, " N0"],
    score1: Float[Tensor, " N1"],
    temperature: float = 0.1,
    dustbin: Float[Tensor, ""] | None = None,
) -> MatchProbabilities:
    """As ``match_probabilities`` of one pair, only for keypoints with a positive score (paper Eq. (2)).

    Keypoints without score still count in the softmax denominators. Computed in place on one matrix.
    """
    similarity = (desc0 / temperature) @ desc1.mT
    row, column = _lse(similarity, -1, dustbin), _lse(similarity, -2, dustbin)
    index0, index1 = (score0 > 0).nonzero().squeeze(-1), (score1 > 0).nonzero().squeeze(-1)
    values = similarity[index0][:, index1].mul_(2)
    values.sub_((row[index0] - score0[index0].log())[:, None]).sub_((column[index1] - score1[index1].log())[None])
    return MatchProbabilities(values.exp_(), index0, index1)


def _lse(similarity: Tensor, dim: int, dustbin: Tensor | None) -> Tensor:
    total = torch.logsumexp(similarity, dim)
    return total if dustbin is None else torch.logaddexp(total, dustbin.to(total))
