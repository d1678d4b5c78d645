"""Which photos of a map are compared: the same as all with all where they share keypoints, for far fewer looks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metriloc.mapping import pairs as module
from metriloc.mapping.pairs import similar_pairs


def test_of_many_photos_only_the_most_alike_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    photos = []
    for _ in range(12):
        place = torch.randn(60, 32, generator=generator)
        for _ in range(4):
            own = torch.cat([place[:40], torch.randn(20, 32, generator=generator)])
            photos.append(F.normalize(own + 0.1 * torch.randn(60, 32, generator=generator), dim=-1))
    compared: list[int] = []
    count = module.mutual_matches
    monkeypatch.setattr(module, "mutual_matches", lambda *a: (compared.append(1), count(*a))[1])
    chosen = similar_pairs(photos, 3)
    few = len(compared)
    monkeypatch.setattr(module, "SHORTLIST", 100)
    assert set(similar_pairs(photos, 3)) == set(chosen)
    assert {(4 * n + i, 4 * n + j) for n in range(12) for i in range(4) for j in range(i + 1, 4)} <= set(chosen)
    assert len(compared) - few == 48 * 47 // 2 and few < 0.4 * (len(compared) - few)


def test_photos_without_keypoints_have_no_partners() -> None:
    nothing = [torch.zeros(0, 32)] * 10
    assert similar_pairs(nothing, 2) == []
