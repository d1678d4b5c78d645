"""Hypothesise and score: exact weighted draws without replacement, minimal sets, soft inliers.

The draws follow the law of ``torch.multinomial(..., replacement=False)`` but never touch a random number per category:
with millions of possible matches that is what makes the solver fast. All randomness comes from one generator.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.geometry import Pose

_HEAVY = 4096
_RESIDUAL_EPS = 1e-6  # inside the root: a finite gradient at zero


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
    num_positive = int((weights > 0).sum())
    if num_positive <= count:
        return (weights > 0).nonzero().squeeze(-1).expand(num_sets, -1).clone()
    num_heavy = _num_heavy(num_positive, count)
    heavy = weights.topk(num_heavy).indices
    rates = weights[heavy].double()
    rest = weights.to(torch.float64, copy=True)  # float64 weights would be written to
    rest[heavy] = 0
    cumulated = rest.clamp_(min=0).cumsum(0)
    light_rate = float(cumulated[-1])
    horizon = _horizon(rates, light_rate, count)
    exponential = torch.empty(num_sets, num_heavy, dtype=torch.float64, device=weights.device)
    heavy_times = exponential.exponential_(generator=generator) / rates
    sets = [_first_arrivals(times, heavy, cumulated, light_rate, horizon, count, generator) for times in heavy_times]
    return torch.stack(sets)


def _check_weights(weights: Tensor) -> None:
    """An infinite weight would leave no finite horizon to search for, a NaN no order."""
    if weights.numel() == 0:
        return
    low, high = (float(x) for x in weights.aminmax())
    if not (low >= 0 and high < math.inf):
        raise ValueError(f"weights must be finite and not negative, got values from {low:g} to {high:g}")


def _num_heavy(num_positive: int, count: int) -> int:
    """How many categories get an arrival time of their own: enough that the others are never needed in number."""
    return min(num_positive, max(_HEAVY, 2 * count))


def _horizon(rates: Tensor, light_rate: float, count: int) -> float:
    """A time by which ``count`` arrivals, and a margin of eight standard deviations, are expected."""
    wanted = min(count + 8 * math.sqrt(count), len(rates) * 0.999 if light_rate == 0 else math.inf)

    def expected(time: float) -> float:
        return float(-torch.expm1(-rates * time).sum()) + light_rate * time

    low, high = 0.0, count / float(rates.sum() + light_rate)
    while expected(high) < wanted and math.isfinite(high):
        low, high = high, 2 * high
    for _ in range(30):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if expected(middle) < wanted else (low, middle)
    return high


def _first_arrivals(
    heavy_times: Tensor,
    heavy: Tensor,
    cumulated: Tensor,
    light_rate: float,
    horizon: float,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    light_times, light = heavy_times.new_zeros(0), heavy[:0]
    start, end = 0.0, horizon
    while True:
        times, categories = _light_arrivals(cumulated, light_rate, start, end, generator)
        light_times, light = torch.cat([light_times, times]), torch.cat([light, categories])
        early = heavy_times <= end
        order = torch.cat([heavy_times[early], light_times]).argsort(stable=True)
        drawn = torch.cat([heavy[early], light])[order]
        first = drawn[_first_occurrences(drawn)]
        if len(first) >= count:
            return first[:count]
        start, end = end, 2 * end  # rare: too few distinct arrivals, look further


def _light_arrivals(
    cumulated: Tensor, rate: float, start: float, end: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    expected = cumulated.new_tensor(rate * (end - start))
    number = int(torch.poisson(expected, generator=generator)) if rate > 0 else 0
    uniform = torch.rand(2, number, dtype=torch.float64, device=cumulated.device, generator=generator)
    categories = torch.searchsorted(cumulated, uniform[0] * rate, right=True)
    # a product that rounds up to the total would point behind the last category: fold it back onto the last real one
    last = torch.searchsorted(cumulated, cumulated[-1:])
    return start + uniform[1] * (end - start), torch.minimum(categories, last)


def _first_occurrences(values: Int[Tensor, " n"]) -> Int[Tensor, " m"]:
    """Positions at which a value appears for the first time, ascending."""
    ordered, position = values.sort(stable=True)
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    return position[new].sort().values


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
            chosen[q, j] = torch.cat([have, _race(weights[q], have, size - len(have), generator)])
    return chosen


def _race(weights: Tensor, taken: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """The next ``count`` draws without replacement once ``taken`` are gone."""
    rates = weights.double().clone()
    rates[taken] = 0
    times = torch.empty_like(rates).exponential_(generator=generator) / rates
    return times.topk(count, largest=False).indices


def residuals(pose: Pose, xyz0: Float[Tensor, "*b N 3"], xyz1: Float[Tensor, "*b N 3"]) -> Float[Tensor, "*b N"]:
    """``sqrt(|R x0 + t - x1|^2 + 1e-6)`` in metres."""
    return ((pose.transform(xyz0) - xyz1).square().sum(-1) + _RESIDUAL_EPS).sqrt()


def soft_inliers(residual: Float[Tensor, "*b N"], threshold: float) -> Float[Tensor, "*b"]:
    """Soft count of inliers, MicKey paper Eq. (5): ``sum sigmoid(beta (tau - r))`` with ``beta = 5 / tau``."""
    return torch.sigmoid(_steepness(threshold) * (threshold - residual)).sum(-1)


def _steepness(threshold: float) -> float:
    """beta of the soft inlier count, 1/metres."""
    if not threshold > 0:
        raise ValueError(f"the soft-inlier threshold must be positive metres, got {threshold}")
    return 5 / threshold


def score_hypotheses(
    poses: Pose, xyz0: Float[Tensor, "Q S 3"], xyz1: Float[Tensor, "Q S 3"], threshold: float
) -> Float[Tensor, "Q J"]:
    """Soft inliers of J poses for each of Q sets of correspondences, poses [Q, J]; no gradients.

    One matrix product a set and everything after it in place: the residuals of all sets never stand in memory at once.
    """
    if xyz0.shape != xyz1.shape or xyz0.ndim != 3 or len(poses.shape) != 2 or poses.shape[0] != len(xyz0):
        raise ValueError(
            f"need poses [Q, J] and points [Q, S, 3], got {list(poses.shape)}, {list(xyz0.shape)}, {list(xyz1.shape)}"
        )
    beta = _steepness(threshold)
    scores = []
    for q in range(len(xyz0)):
        R, t = poses.R[q], poses.t[q]
        difference = torch.baddbmm(t[..., None], R, xyz0[q].mT.expand(len(R), 3, -1))
        difference -= xyz1[q].mT.contiguous()
        squared = difference.square_().sum(1)
        argument = squared.add_(_RESIDUAL_EPS).sqrt_().mul_(-beta).add_(beta * threshold)
        scores.append(argument.sigmoid_().sum(-1))
    return torch.stack(scores)
