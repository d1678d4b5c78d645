"""Matches of pairs joined to points: against a naive twin, and what contradicts itself."""

from __future__ import annotations

import torch

from metriloc.solvers.tracks import join_matches


def test_a_chain_of_matches_is_one_point() -> None:
    one, two, three = torch.tensor([[1.0, 2.0]]), torch.tensor([[30.5, 4.0]]), torch.tensor([[5.0, 60.25]])
    tracks = join_matches({(0, 1): (one, two), (1, 2): (two, three)}, 4)
    assert tracks.seen.tolist() == [[True, True, True, False]]
    assert torch.equal(tracks.uv[0, :3].float(), torch.cat([one, two, three]))


def test_a_point_is_at_one_place_of_a_photo() -> None:
    """The later of two matches that contradict each other is left out."""
    a, b, c = torch.tensor([[1.0, 2.0]]), torch.tensor([[30.0, 4.0]]), torch.tensor([[90.0, 90.0]])
    tracks = join_matches({(0, 1): (a, b), (1, 2): (b, c), (0, 2): (torch.tensor([[50.0, 50.0]]), c)}, 3)
    assert tracks.seen.sum(1).tolist() == [3]


def test_as_a_naive_twin_says() -> None:
    g = torch.Generator().manual_seed(0)
    truth = 600 * torch.rand(40, 3, 2, generator=g)
    seen = torch.rand(40, 3, generator=g) < 0.7
    matches = {}
    for a, b in ((0, 1), (0, 2), (1, 2)):
        both = seen[:, a] & seen[:, b]
        matches[a, b] = truth[both, a], truth[both, b]
    tracks = join_matches(matches, 3)
    expected = seen[seen.sum(1) >= 2]
    assert sorted(tracks.seen.tolist()) == sorted(expected.tolist())


def test_nothing_gives_nothing() -> None:
    assert len(join_matches({}, 3)) == 0
