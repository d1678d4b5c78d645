"""The fast draws follow torch.multinomial's law. All tests are seeded."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from scipy.stats import chi2, norm
from torch import Tensor

from metriloc.solvers import draws
from metriloc.solvers.draws import draw_minimal_sets, draw_without_replacement

ALPHA = 1e-3  # a right sampler fails one of these tests for one seed in a thousand; the seeds are fixed


def sequence_law(weights: list[float], count: int) -> dict[tuple[int, ...], float]:
    """Probability of every ordered draw without replacement, from the definition."""
    law = {}
    for order in itertools.permutations(range(len(weights)), count):
        left, probability = sum(weights), 1.0
        for i in order:
            probability *= weights[i] / left
            left -= weights[i]
        law[order] = probability
    return law


def chi_square_ok(observed: Counter[tuple[int, ...]], law: dict[tuple[int, ...], float]) -> bool:
    total = sum(observed.values())
    statistic = sum((observed[k] - total * p) ** 2 / (total * p) for k, p in law.items())
    return statistic < float(chi2.ppf(1 - ALPHA, len(law) - 1))


WEIGHTS = [0.5, 0.05, 0.2, 0.1, 0.15]


@pytest.mark.slow
@pytest.mark.parametrize("heavy", [5, 4, 3], ids=["all heavy", "one light", "two light"])
@pytest.mark.parametrize("horizon", [None, 1e-3], ids=["usual horizon", "horizon extended"])
def test_ordered_draws_follow_the_sequential_law(
    heavy: int, horizon: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # the split needs at least 2 * count heavy entries in use; here it is forced down to reach every path
    monkeypatch.setattr(draws, "_heaviest", lambda weights, count: weights.topk(heavy).indices)
    if horizon is not None:
        monkeypatch.setattr(draws._Race, "horizon", lambda *_: horizon)
    generator = torch.Generator().manual_seed(1)
    drawn = draw_without_replacement(torch.tensor(WEIGHTS), 2, 20_000 if horizon is None else 5_000, generator)
    observed = Counter(tuple(row) for row in drawn.tolist())
    assert chi_square_ok(observed, sequence_law(WEIGHTS, 2))
    # the test can fail: the law of other weights is told apart
    assert not chi_square_ok(observed, sequence_law([0.45, 0.1, 0.2, 0.1, 0.15], 2))


def exponential_race(weights: Tensor, count: int, num_sets: int, generator: torch.Generator) -> Tensor:
    """The law by another route: one exponential arrival time a category, the earliest are drawn."""
    times = torch.empty(num_sets, len(weights), dtype=torch.float64).exponential_(generator=generator) / weights
    return times.topk(count, largest=False).indices


def multinomial(weights: Tensor, count: int, num_sets: int, generator: torch.Generator) -> Tensor:
    return torch.multinomial(weights.expand(num_sets, -1), count, generator=generator)


def counts_by_rank(drawn: Tensor, rank: Tensor) -> Tensor:
    """How many of each set fall in each of 40 bins of like weight, and how many are light in all: [sets, 41]."""
    counts = torch.zeros(len(drawn), 40, dtype=torch.float64)
    counts.scatter_add_(1, rank[drawn] // 500, torch.ones(1, 1, dtype=torch.float64).expand(drawn.shape))
    return torch.cat([counts, (rank[drawn] >= 4096).double().sum(1, keepdim=True)], 1)


def same_means(a: Tensor, b: Tensor) -> bool:
    """Whether the columns of two samples of sets have equal means, at level ALPHA over all columns."""
    noise = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt().clamp(min=1e-9)
    return bool(((a.mean(0) - b.mean(0)).abs() / noise).max() < norm.isf(ALPHA / 2 / a.shape[1]))


@pytest.mark.parametrize("twin", [multinomial, exponential_race])
@pytest.mark.parametrize(
    ("spread", "least_light"), [(0.0, 0.7), (1.5, 0.1), (4.0, 0.0)], ids=["even", "mixed", "steep"]
)
def test_inclusion_frequencies_equal_twins(
    spread: float, least_light: float, twin: Callable[[Tensor, int, int, torch.Generator], Tensor]
) -> None:
    generator = torch.Generator().manual_seed(2)
    weights = (spread * torch.randn(20_000, generator=generator)).exp()
    rank = weights.argsort(descending=True).argsort()
    sets, count = 150, 300
    ours = draw_without_replacement(weights, count, sets, generator)
    theirs = twin(weights, count, sets, generator)
    assert float((rank[ours] >= 4096).double().mean()) > least_light  # the light path is really used
    assert same_means(counts_by_rank(ours, rank), counts_by_rank(theirs, rank))
    # order too: the same for the early quarter of each set alone
    assert same_means(counts_by_rank(ours[:, : count // 4], rank), counts_by_rank(theirs[:, : count // 4], rank))
    assert all(len(set(row)) == count for row in ours.tolist())
    # the test can fail: draws with a tenth more of spread are told apart where weights differ
    if spread > 0:
        other = counts_by_rank(twin(weights**1.1, count, sets, generator), rank)
        assert not same_means(counts_by_rank(ours, rank), other)


@pytest.mark.slow
def test_first_draw_follows_the_weights_through_the_default_split() -> None:
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(12_000, generator=generator).exp()
    drawn = draw_without_replacement(weights, 1, 6_000, generator)[:, 0]
    bin_of = weights.argsort(descending=True).argsort() // 300
    share = torch.zeros(40, dtype=torch.float64).index_add_(0, bin_of, weights.double()) / weights.double().sum()
    observed = torch.bincount(bin_of[drawn], minlength=40).double()
    statistic = float(((observed - 6_000 * share).square() / (6_000 * share)).sum())
    assert statistic < float(chi2.ppf(1 - ALPHA, 39))


def test_a_threshold_of_a_sample_changes_no_law(monkeypatch: pytest.MonkeyPatch) -> None:
    """As with millions of weights: which of them are heavy is told by every few of them."""
    monkeypatch.setattr(draws, "_HEAVY", 512)
    monkeypatch.setattr(draws, "_SAMPLED", 8)
    generator = torch.Generator().manual_seed(4)
    weights = torch.randn(20_000, generator=generator).exp()
    assert 128 <= len(draws._heaviest(weights, 60)) <= 2048
    rank = weights.argsort(descending=True).argsort()
    ours = draw_without_replacement(weights, 60, 300, generator)
    theirs = multinomial(weights, 60, 300, generator)
    assert same_means(counts_by_rank(ours, rank), counts_by_rank(theirs, rank))
    even = torch.ones(20_000)  # nothing lies above the threshold of a sample
    assert len(draws._heaviest(even, 60)) == 512


def test_zero_weights_are_never_drawn() -> None:
    weights = torch.zeros(10_000)
    weights[::3] = torch.rand(3334, generator=torch.Generator().manual_seed(0)) + 0.01
    drawn = draw_without_replacement(weights, 500, 50, torch.Generator().manual_seed(0))
    assert bool((weights[drawn] > 0).all())


def test_fewer_positive_than_asked_gives_them_all() -> None:
    weights = torch.tensor([0.0, 1.0, 0.0, 2.0, 0.5])
    drawn = draw_without_replacement(weights, 10, 3, torch.Generator().manual_seed(0))
    assert drawn.tolist() == [[1, 3, 4]] * 3


def test_extreme_weights_end() -> None:
    weights = torch.full((9000,), 1e-30)
    weights[0] = 1.0
    drawn = draw_without_replacement(weights, 64, 4, torch.Generator().manual_seed(0))
    assert bool((drawn == 0).any(1).all())
    assert all(len(set(row)) == 64 for row in drawn.tolist())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -1.0])
def test_weights_that_are_no_weights_raise(bad: float) -> None:
    weights = torch.ones(9000)
    weights[7] = bad
    with pytest.raises(ValueError, match="finite and not negative"):
        draw_without_replacement(weights, 64, 2, torch.Generator().manual_seed(0))
    with pytest.raises(ValueError, match="finite and not negative"):
        draw_minimal_sets(weights[None], 5, 3, torch.Generator().manual_seed(0))


def test_wrong_use_raises() -> None:
    generator = torch.Generator().manual_seed(0)
    with pytest.raises(ValueError, match=r"weights \[M\]"):
        draw_without_replacement(torch.ones(2, 5), 3, 1, generator)
    with pytest.raises(ValueError, match="count"):
        draw_without_replacement(torch.ones(5), 0, 1, generator)
    with pytest.raises(ValueError, match=r"weights \[Q, S\]"):
        draw_minimal_sets(torch.ones(5), 3, 1, generator)


def test_minimal_sets_follow_the_sequential_law() -> None:
    generator = torch.Generator().manual_seed(4)
    drawn = draw_minimal_sets(torch.tensor([WEIGHTS]), 20_000, 3, generator)[0]
    assert chi_square_ok(Counter(tuple(row) for row in drawn.tolist()), sequence_law(WEIGHTS, 3))


def test_minimal_sets_with_one_dominant_weight_follow_the_law() -> None:
    # four times the size of independent draws nearly always hit the same entry: the race completes the set
    weights = [0.999, 0.0006, 0.0003, 0.0001]
    drawn = draw_minimal_sets(torch.tensor([weights]), 3_000, 3, torch.Generator().manual_seed(5))[0]
    observed = Counter(tuple(row) for row in drawn.tolist() if row[0] == 0)
    rest = {k: p for k, p in sequence_law(weights, 3).items() if k[0] == 0}
    total = sum(rest.values())
    assert chi_square_ok(observed, {k: p / total for k, p in rest.items()})


def test_too_few_weights_raise() -> None:
    with pytest.raises(ValueError, match="minimal set of 3"):
        draw_minimal_sets(torch.tensor([[1.0, 1.0, 0.0]]), 2, 3, torch.Generator().manual_seed(0))


def test_same_seed_same_draws_and_no_global_state() -> None:
    weights = torch.rand(7000, generator=torch.Generator().manual_seed(0))
    state = torch.random.get_rng_state()
    first = draw_without_replacement(weights, 50, 3, torch.Generator().manual_seed(9))
    again = draw_without_replacement(weights, 50, 3, torch.Generator().manual_seed(9))
    other = draw_without_replacement(weights, 50, 3, torch.Generator().manual_seed(10))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.random.get_rng_state(), state)
