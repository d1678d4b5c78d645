"""Matches of many pairs of photos, joined to points that several photos see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

PairMatches = Mapping[tuple[int, int], tuple[Float[Tensor, "N 2"], Float[Tensor, "N 2"]]]
"""Pixels in photo a and in photo b of the matches of a pair (a, b) of numbers."""
_GRID = 2.0  # matches within half a pixel are of one keypoint


@dataclass(frozen=True, eq=False)
class Tracks:
    """Points that two or more of V photos see. uv: pixels, 0 where not seen."""

    uv: Float[Tensor, "P V 2"]
    seen: Bool[Tensor, "P V"]

    def __len__(self) -> int:
        return len(self.uv)

    def __getitem__(self, index: Tensor) -> Tracks:
        """Some of the points."""
        return Tracks(self.uv[index], self.seen[index])


def join_matches(matches: PairMatches, photos: int) -> Tracks:
    """Points from the matches of pairs of photos 0..photos-1; float64.

    Keypoints that are matched, directly or through others, are one point. A match that would show one point at two places
    of a photo is wrong, or another was: the one that comes later in ``matches`` is left out.
    """
    keys, uvs = [], []
    for (a, b), pair in matches.items():
        for photo, uv in zip((a, b), pair, strict=True):
            place = uv.detach().double().cpu().numpy()
            keys.append(np.column_stack([np.full(len(place), photo), np.rint(_GRID * place).astype(np.int64)]))
            uvs.append(place)
    if not keys:
        return Tracks(torch.zeros(0, photos, 2, dtype=torch.float64), torch.zeros(0, photos, dtype=torch.bool))
    nodes, first, node_of = np.unique(np.concatenate(keys), axis=0, return_index=True, return_inverse=True)
    parts = np.split(node_of.reshape(-1), np.cumsum([len(k) for k in keys])[:-1])
    pairs = [(a.tolist(), b.tolist()) for a, b in zip(parts[::2], parts[1::2], strict=True)]
    owner = np.array(_joined(pairs, nodes[:, 0].tolist()))
    _, point = np.unique(owner, return_inverse=True)
    point = point.reshape(-1)
    pixels = np.zeros((int(point.max()) + 1, photos, 2))
    seen = np.zeros(pixels.shape[:2], dtype=bool)
    pixels[point, nodes[:, 0]] = np.concatenate(uvs)[first]
    seen[point, nodes[:, 0]] = True
    kept = seen.sum(1) >= 2
    return Tracks(torch.from_numpy(pixels[kept]), torch.from_numpy(seen[kept]))


def _joined(pairs: Sequence[tuple[list[int], list[int]]], photo_of: Sequence[int]) -> list[int]:
    """A representative of each node, by union of sets that have no photo in common."""
    parent = list(range(len(photo_of)))
    photos = [1 << photo for photo in photo_of]

    def root(node: int) -> int:
        while parent[node] != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for nodes_a, nodes_b in pairs:
        for a, b in zip(nodes_a, nodes_b, strict=True):
            a, b = root(a), root(b)
            if a != b and not photos[a] & photos[b]:
                parent[b] = a
                photos[a] |= photos[b]
    return [root(node) for node in range(len(parent))]
