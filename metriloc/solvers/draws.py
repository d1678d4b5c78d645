"""Exact weighted draws without replacement, and minimal sets of them.

The draws follow the law of ``torch.multinomial(..., replacement=False)`` but never touch a random number per category:
with millions of possible matches that is what makes the solver fast. All randomness comes from one generator.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

_HEAVY = 4096
_SAMPLED = 64


def draw_without_replacement(
    weights: Float[Tensor, " M"], count: int, num_sets: int, generator: torch.Generator
) -> Int[Tensor, "Q S"]:
    """``num_sets`` independent sets of ``count`` distinct categories, drawn one after the other in proportion to weight.

    Sequential draws are the first arrivals of independent Poisson processes with the weights as rates. The heaviest
    categories get one exponential arrival time each; all others together are one process, whose few arrivals within
    the horizon pick their category by inverse CDF, and only the first of each category counts. The ``count`` earliest
    arrivals are the set, in order of arrival.

    With fewer than ``count`` positive weights each set holds all of them (torch would add impossible categories).
    Raises ValueError for weights that are negative, NaN or infinite.
    """
    if weights.ndim != 1 or count < 1 or num_sets < 1:
        raise ValueError(f"need weights [M], count and num_sets >= 1, got {list(weights.shape)}, {count}, {num_sets}")
    _check_weights(weights)
    if not more_positive_than(weights, count):
        return (weights > 0).nonzero().squeeze(-1).expand(num_sets, -1).clone()
    heavy = _heaviest(weights, count)
    rates = weights[heavy].double()
    rest = weights.clone()
    rest[heavy] = 0
    race = _Race(heavy, rates, rest.cumsum(0, dtype=torch.float64))
    exponential = torch.empty(num_sets, len(heavy), dtype=torch.float64, device=weights.device)
    heavy_times = exponential.exponential_(generator=generator) / rates
    return _first_arrivals(race, heavy_times, count, generator)


def more_positive_than(weights: Tensor, count: int) -> bool:
    """Whether more than ``count`` weights are positive.

    Mostly the first of them tell. They must not be negative.
    """
    flat = weights.flatten()
    start = flat[: 64 * count + 4096]
    return int(torch.count_nonzero(start)) > count or int(torch.count_nonzero(flat)) > count


def _check_weights(weights: Tensor) -> None:
    """An infinite weight would leave no finite horizon to search for, a NaN no order."""
    if weights.numel() == 0:
        return
    low, high = (float(x) for x in weights.aminmax())
    if not (low >= 0 and high < math.inf):
        raise ValueError(f"weights must be finite and not negative, got values from {low:g} to {high:g}")


def _heaviest(weights: Tensor, count: int) -> Int[Tensor, " H"]:
    """Categories that get an arrival time of their own: about so many that the others are never needed in number.

    Any choice has the same law; of millions the threshold is that of every 64th.
    """
    wanted = max(_HEAVY, 2 * count)
    if len(weights) <= _SAMPLED * wanted:
        return weights.topk(min(wanted, int(torch.count_nonzero(weights)))).indices
    sample = weights[::_SAMPLED].contiguous()
    threshold = sample.topk(min(len(sample), wanted // _SAMPLED)).values[-1]
    found = (weights > threshold).nonzero().squeeze(-1)
    # a sample that met none of them, or far too many of equal weight
    return found if wanted // 4 <= len(found) <= 4 * wanted else weights.topk(wanted).indices


@dataclass(frozen=True, eq=False)
class _Race:
    """heavy: categories with arrival times of their own, and their rates. cumulated: weights of all others."""

    heavy: Int[Tensor, " H"]
    rates: Float[Tensor, " H"]
    cumulated: Float[Tensor, " M"]

    @property
    def light_rate(self) -> float:
        """Of all others together."""
        return float(self.cumulated[-1])

    def horizon(self, count: int) -> float:
        """A time by which ``count`` arrivals, and a margin of eight standard deviations, are expected."""
        rates, light = self.rates, self.light_rate
        wanted = min(count + 8 * math.sqrt(count), len(rates) * 0.999 if light == 0 else math.inf)

        def expected(time: float) -> float:
            return float(-torch.expm1(-rates * time).sum()) + light * time

        low, high = 0.0, count / float(rates.sum() + light)
        while expected(high) < wanted and math.isfinite(high):
            low, high = high, 2 * high
        for _ in range(30):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if expected(middle) < wanted else (low, middle)
        return high


def _first_arrivals(
    race: _Race, heavy_times: Float[Tensor, "Q H"], count: int, generator: torch.Generator
) -> Int[Tensor, "Q S"]:
    """The ``count`` earliest distinct arrivals of each set, in order."""
    num_sets, size = len(heavy_times), len(race.cumulated)
    light_key, light_time = race.heavy[:0], heavy_times.new_zeros(0)
    start, end = 0.0, race.horizon(count)
    while True:
        key, time = _light_arrivals(race, num_sets, start, end, generator)
        light_key, light_time = _earliest(torch.cat([light_key, key]), torch.cat([light_time, time]))
        owner, place = (heavy_times <= end).nonzero(as_tuple=True)
        owners = torch.cat([owner, torch.div(light_key, size, rounding_mode="floor")])
        categories = torch.cat([race.heavy[place], light_key % size])
        number = torch.bincount(owners, minlength=num_sets)
        if int(number.min()) >= count:
            break
        start, end = end, 2 * end  # rare: too few distinct arrivals, look further
    # set after set, each in order of arrival
    times = torch.cat([heavy_times[owner, place], light_time])
    by_time = times.argsort(stable=True)
    order = by_time[owners[by_time].argsort(stable=True)]
    first = number.cumsum(0) - number
    return categories[order][first[:, None] + torch.arange(count, device=order.device)]


def _earliest(key: Int[Tensor, " n"], time: Float[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    """The first arrival of each key."""
    unique, which = torch.unique(key, return_inverse=True)
    return unique, time.new_full(unique.shape, math.inf).scatter_reduce(0, which, time, "amin")


def _light_arrivals(
    race: _Race, num_sets: int, start: float, end: float, generator: torch.Generator
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Arrivals of all sets in a stretch of time: set times number of categories plus category, and when."""
    cumulated, rate = race.cumulated, race.light_rate
    expected = cumulated.new_full((num_sets,), rate * (end - start))
    number = torch.poisson(expected, generator=generator).long()
    owner = torch.arange(num_sets, device=number.device).repeat_interleave(number)
    uniform = torch.rand(2, len(owner), dtype=torch.float64, device=cumulated.device, generator=generator)
    # looked up in ascending order, which memory likes; times are drawn apart, so that no order is lost
    place, permutation = uniform[0].sort()
    found = torch.searchsorted(cumulated, place * rate, right=True)
    # a product that rounds up to the total would point behind the last category: fold it back onto the last real one
    last = torch.searchsorted(cumulated, cumulated[-1:])
    categories = torch.empty_like(found).scatter_(0, permutation, torch.minimum(found, last))
    return owner * len(cumulated) + categories, start + uniform[1] * (end - start)


def draw_minimal_sets(
    weights: Float[Tensor, "Q S"], num_draws: int, size: int, generator: torch.Generator
) -> Int[Tensor, "Q J n"]:
    """``num_draws`` minimal sets of ``size`` distinct entries of each row, drawn one after the other by weight.

    Independent draws by inverse CDF, of which the first ``size`` distinct ones are kept: the same law as drawing
    without replacement. Rows of which too few distinct ones came up go on with an exponential race over what is left.
    Raises ValueError when a row has fewer than ``size`` positive weights, or weights negative, NaN or infinite.
    """
    if weights.ndim != 2 or num_draws < 1 or size < 1:
        raise ValueError(
            f"need weights [Q, S], num_draws and size >= 1, got {list(weights.shape)}, {num_draws}, {size}"
        )
    _check_weights(weights)
    if bool(((weights > 0).sum(-1) < size).any()):
        raise ValueError(f"a minimal set of {size} needs as many positive weights in each row")
    cumulated = weights.double().cumsum(-1)
    uniform = torch.rand(
        len(weights), num_draws * 4 * size, dtype=torch.float64, device=weights.device, generator=generator
    )
    drawn = torch.searchsorted(cumulated, uniform * cumulated[:, -1:], right=True)
    drawn = torch.minimum(drawn, torch.searchsorted(cumulated, cumulated[:, -1:].contiguous()))
    drawn = drawn.unflatten(-1, (num_draws, 4 * size))
    earlier = torch.ones(4 * size, 4 * size, dtype=torch.bool, device=weights.device).tril(-1)
    new = ~((drawn[..., :, None] == drawn[..., None, :]) & earlier).any(-1)
    # stable sort: the new ones first, in the order they came
    order = (~new).int().sort(dim=-1, stable=True).indices[..., :size]
    chosen = drawn.gather(-1, order)
    missing = new.sum(-1) < size
    if bool(missing.any()):
        chosen = chosen.clone()
        for q, j in missing.nonzero().tolist():
            have = chosen[q, j, : int(new[q, j].sum())]
            chosen[q, j] = torch.cat([have, _next_draws(weights[q], have, size - len(have), generator)])
    return chosen


def _next_draws(weights: Tensor, taken: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The next ``count`` draws without replacement once ``taken`` are gone."""
    rates = weights.double().clone()
    rates[taken] = 0
    times = torch.empty_like(rates).exponential_(generator=generator) / rates
    return times.topk(count, largest=False).indices
