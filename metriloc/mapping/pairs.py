"""Which photos of a map are compared: all, those that share keypoints, or neighbors in time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import torch.nn.functional as F

from metriloc.backbones.local import LocalFeatures
from metriloc.mapping.config import MapConfig
from metriloc.methods.matching.global_index import GlobalIndex
from metriloc.methods.matching.retrieval import mutual_matches

Pair = tuple[int, int]
KEYPOINTS = 512
"""Of each photo, the best, that tell which photos are similar."""
SHORTLIST = 3
"""Times as many photos as become partners are compared keypoint by keypoint."""
_MIN_COSINE = 0.82


def choose_pairs(
    count: int,
    config: MapConfig,
    load: Callable[[int], LocalFeatures],
    progress: Callable[[int, int], None] | None = None,
) -> list[Pair]:
    """Pairs of photos (i < j) to be matched, sorted. load: the keypoints of a photo, asked only for similar photos."""
    if config.pairs == "all" or (config.pairs == "auto" and count <= config.all_pairs_to):
        return [(i, j) for i in range(count) for j in range(i + 1, count)]
    if config.pairs == "ordered":
        return ordered_pairs(count, config.window)
    return similar_pairs([_best(load(i)) for i in range(count)], config.partners, progress)


def ordered_pairs(count: int, window: int) -> list[Pair]:
    """Each photo with the ``window`` next ones, and with those 2, 4 and 8 windows on, where a path may come back."""
    steps = [*range(1, window + 1), *(window * factor for factor in (2, 4, 8))]
    return sorted((i, i + step) for i in range(count) for step in steps if i + step < count)


def similar_pairs(
    descriptors: Sequence[torch.Tensor], partners: int, progress: Callable[[int, int], None] | None = None
) -> list[Pair]:
    """Each photo with the ``partners`` others that have the most mutual nearest neighbors with it, and at least one.

    Of many photos each is compared, keypoint by keypoint, with the ``SHORTLIST * partners`` that are the most alike as a
    whole.
    """
    count = len(descriptors)
    shared = torch.zeros(count, count, dtype=torch.int32)
    for i, others in enumerate(_candidates(descriptors, SHORTLIST * partners)):
        for j in others:
            shared[i, j] = shared[j, i] = mutual_matches(descriptors[i], descriptors[j], _MIN_COSINE)
        if progress is not None:
            progress(i + 1, count)
    chosen: set[Pair] = set()
    for i in range(count):
        order = shared[i].argsort(descending=True, stable=True)[:partners].tolist()
        chosen.update((min(i, j), max(i, j)) for j in order if shared[i, j] > 0)
    return sorted(chosen)


def _candidates(descriptors: Sequence[torch.Tensor], most: int) -> Iterator[list[int]]:
    """For each photo the later ones that it is to be compared with, or that are to be compared with it."""
    count = len(descriptors)
    if count - 1 <= most or not any(len(found) for found in descriptors):
        yield from (list(range(i + 1, count)) for i in range(count))
        return
    index = GlobalIndex.of(descriptors)
    near = [set(index.most_alike(found, most + 1).tolist()) for found in descriptors]
    for i in range(count):
        yield [j for j in range(i + 1, count) if j in near[i] or i in near[j]]


def _best(found: LocalFeatures) -> torch.Tensor:
    best = found.scores.argsort(descending=True, stable=True)[:KEYPOINTS]
    return F.normalize(found.descriptors[best], dim=-1)
