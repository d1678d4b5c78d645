"""MicKey's matcher as whole matrices."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.methods.mickey.matching import log_normalizer, scaled_similarity


def dual_softmax(
    desc0: Float[Tensor, "*b N0 C"],
    desc1: Float[Tensor, "*b N1 C"],
    temperature: float = 0.1,
    dustbin: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "*b N0 N1"]:
    """Softmax over rows times softmax over columns of the similarities, paper Eq. (3), both augmented by a dustbin."""
    similarity = scaled_similarity(desc0, desc1, temperature)
    row, column = log_normalizer(similarity, -1, dustbin), log_normalizer(similarity, -2, dustbin)
    return torch.exp(2 * similarity - row[..., :, None] - column[..., None, :])


def keypoint_product(score0: Float[Tensor, "*b N0"], score1: Float[Tensor, "*b N1"]) -> Float[Tensor, "*b N0 N1"]:
    """Probability of drawing both keypoints, the two factors P(i) P(j) of paper Eq. (2)."""
    return score0[..., :, None] * score1[..., None, :]


def match_probabilities(
    desc0: Float[Tensor, "*b N0 C"],
    desc1: Float[Tensor, "*b N1 C"],
    score0: Float[Tensor, "*b N0"],
    score1: Float[Tensor, "*b N1"],
    temperature: float = 0.1,
    dustbin: Float[Tensor, ""] | None = None,
) -> Float[Tensor, "*b N0 N1"]:
    """The full matrix of paper Eq. (2); not normalised. Differentiable."""
    return dual_softmax(desc0, desc1, temperature, dustbin) * keypoint_product(score0, score1)
