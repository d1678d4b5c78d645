"""Photos that repeat themselves, by keypoints alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from metriloc.backbones.local import LocalFeatures
from metriloc.methods.matching.repeated import repeats_itself


def features(copies: int, noise: float) -> tuple[LocalFeatures, LocalFeatures]:
    """A reference of 40 points, and a query in which each of them stands ``copies`` times, 200 pixels apart."""
    chance = torch.Generator().manual_seed(0)
    uv = torch.rand(40, 2, generator=chance) * torch.tensor([200.0, 400.0])
    descriptors = F.normalize(torch.randn(40, 64, generator=chance), dim=-1)
    shifts = [torch.tensor([200.0 * n, 0.0]) for n in range(copies)]
    own = [F.normalize(descriptors + noise * n * torch.randn(40, 64, generator=chance), dim=-1) for n in range(copies)]
    both = torch.cat([uv + shift for shift in shifts])
    return (
        LocalFeatures(uv, descriptors, torch.ones(40)),
        LocalFeatures(both, torch.cat(own), torch.ones(len(both))),
    )


def test_copies_elsewhere_are_noticed() -> None:
    local0, local1 = features(2, 0.01)
    assert repeats_itself((local0, local1), local0.uv, local1.uv[:40], (640, 480))


def test_points_that_are_there_once_repeat_nothing() -> None:
    for copies, noise in ((1, 0.0), (2, 0.5)):  # copies that differ are other things
        local0, local1 = features(copies, noise)
        assert not repeats_itself((local0, local1), local0.uv, local1.uv[:40], (640, 480))


def test_copies_without_a_common_shift_are_no_other_motion() -> None:
    local0, local1 = features(2, 0.01)
    chance = torch.Generator().manual_seed(1)
    anywhere = torch.cat([local1.uv[:40], torch.rand(40, 2, generator=chance) * 480])
    moved = LocalFeatures(anywhere, local1.descriptors, local1.scores)
    assert not repeats_itself((local0, moved), local0.uv, moved.uv[:40], (640, 480))
