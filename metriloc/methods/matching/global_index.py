"""Photos by what they show as a whole: one vector a photo, made of its local descriptors, and one product a query.

VLAD (Jegou et al., CVPR 2010, "Aggregating local descriptors into a compact image representation") over a vocabulary of
the map itself, each word's residuals brought to unit length (Arandjelovic and Zisserman, CVPR 2013, "All about VLAD").
A hundred thousand photos are compared in the time of one pass of a network; the few most alike are then looked at
keypoint by keypoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

WORDS = 64
_LEARNED_FROM = 32_768  # descriptors; more do not make better words
_ITERATIONS = 15


def learned_words(descriptors: Float[Tensor, "n C"], count: int = WORDS, seed: int = 0) -> Float[Tensor, "K C"]:
    """A vocabulary: k-means on unit vectors, by cosine. Fewer words where there are fewer descriptors.

    Same descriptors and seed, same words. Raises ValueError without any descriptor.
    """
    if not len(descriptors):
        raise ValueError("a vocabulary needs a descriptor at least")
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(descriptors), generator=generator)[:_LEARNED_FROM]
    known = F.normalize(descriptors[order].float(), dim=-1)
    words = known[: min(count, len(known))].clone()
    for _ in range(_ITERATIONS):
        owner = (known @ words.mT).argmax(1)
        sums = torch.zeros_like(words).index_add_(0, owner, known)
        used = torch.bincount(owner, minlength=len(words)) > 0
        words = torch.where(used[:, None], F.normalize(sums, dim=-1), words)
    return words


def vlad(descriptors: Float[Tensor, "n C"], words: Float[Tensor, "K C"]) -> Float[Tensor, " D"]:
    """One vector of unit length for a photo.

    The sum of ``descriptor - word`` over the descriptors of each word, each of unit length; zeros
    for a photo without any. D is K times C.
    """
    known = descriptors.float()
    sums = torch.zeros_like(words)
    if len(known):
        owner = (known @ words.mT).argmax(1)
        sums.index_add_(0, owner, known - words[owner])
    return F.normalize(F.normalize(sums, dim=-1).flatten(), dim=-1)


@dataclass(frozen=True, eq=False)
class GlobalIndex:
    """Vectors of photos in one matrix, float32 of what float16 keeps (164 MB of 10,000 photos), and the words that they
    were made with."""

    words: Float[Tensor, "K C"]
    matrix: Float[Tensor, "N D"]

    @classmethod
    def of(cls, photos: Sequence[Float[Tensor, "_ C"]], seed: int = 0) -> GlobalIndex:
        """Of the local descriptors of photos, with a vocabulary of their own. Raises ValueError where none has any."""
        share = -(-_LEARNED_FROM // max(len(photos), 1))
        words = learned_words(torch.cat([descriptors[:share] for descriptors in photos]), seed=seed)
        matrix = torch.empty(len(photos), words.numel())
        for row, descriptors in zip(matrix, photos, strict=True):
            row.copy_(vlad(descriptors, words).half())
        return cls(words, matrix)

    def __len__(self) -> int:
        return len(self.matrix)

    def likeness(self, descriptors: Float[Tensor, "n C"]) -> Float[Tensor, " N"]:
        """Cosine of a photo with each."""
        return self.matrix @ vlad(descriptors, self.words)

    def most_alike(self, descriptors: Float[Tensor, "n C"], count: int) -> Int[Tensor, " n"]:
        """Which photos are the most alike, the best first (of equals, the first)."""
        return self.likeness(descriptors).argsort(descending=True, stable=True)[:count]
