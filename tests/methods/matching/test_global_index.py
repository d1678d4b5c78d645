"""One vector a photo: against a naive twin, on made-up places, and a bundle's against that of the photos."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from metriloc.methods.matching.global_index import GlobalIndex, learned_words, vlad


def naive_vlad(descriptors: Tensor, words: Tensor) -> Tensor:
    sums = [[0.0] * words.shape[1] for _ in range(len(words))]
    for d in descriptors:
        k = max(range(len(words)), key=lambda k: float(d @ words[k]))
        sums[k] = [s + float(a - b) for s, a, b in zip(sums[k], d, words[k], strict=True)]
    rows = []
    for row in sums:
        length = sum(x * x for x in row) ** 0.5
        rows += [x / length if length else 0.0 for x in row]
    total = sum(x * x for x in rows) ** 0.5
    return torch.tensor([x / total for x in rows])


def test_vlad_is_what_the_paper_says(generator: torch.Generator) -> None:
    descriptors = F.normalize(torch.randn(40, 8, generator=generator), dim=-1)
    words = learned_words(descriptors, 5)
    assert words.shape == (5, 8) and torch.allclose(words.norm(dim=-1), torch.ones(5))
    found = vlad(descriptors, words)
    assert torch.allclose(found, naive_vlad(descriptors, words), atol=1e-5)
    assert torch.equal(vlad(descriptors[:0], words), torch.zeros(40))
    assert torch.equal(learned_words(descriptors, 5), words) and len(learned_words(descriptors[:3], 5)) == 3
    with pytest.raises(ValueError, match="a descriptor at least"):
        learned_words(descriptors[:0])


def test_words_are_where_descriptors_are(generator: torch.Generator) -> None:
    centers = F.normalize(torch.randn(4, 16, generator=generator), dim=-1)
    owner = torch.arange(400) % 4
    cloud = F.normalize(centers[owner] + 0.05 * torch.randn(400, 16, generator=generator), dim=-1)
    words = learned_words(cloud, 4, seed=1)
    assert sum(bool((centers @ word).max() > 0.99) for word in words) >= 3


def test_photos_of_one_place_are_the_most_alike(generator: torch.Generator) -> None:
    """Twenty places, five photos each that share half of their descriptors, with noise."""
    photos = []
    for _ in range(20):
        place = torch.randn(100, 32, generator=generator)
        for _ in range(5):
            own = torch.cat(
                [place[torch.randperm(100, generator=generator)[:50]], torch.randn(50, 32, generator=generator)]
            )
            photos.append(F.normalize(own + 0.3 * torch.randn(100, 32, generator=generator), dim=-1).half())
    index = GlobalIndex.of(photos)
    assert len(index) == 100 and torch.equal(index.matrix, index.matrix.half().float())
    hits = [set((index.most_alike(photos[i], 5) // 5).tolist()) == {i // 5} for i in range(100)]
    assert sum(hits) >= 95
    twin = torch.tensor([float(vlad(photos[3], index.words) @ row.float()) for row in index.matrix])
    assert torch.allclose(index.likeness(photos[3]), twin, atol=1e-4)
