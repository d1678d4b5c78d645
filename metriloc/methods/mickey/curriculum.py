"""Which pairs of a batch to learn from: the easiest first, more with time (MicKey paper, Sec. 3.1.4)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class Curriculum:
    """The percentage of pairs to learn from.

    It is ``start``, plus ``growth`` every ``every`` optimiser steps, up to ``end``. Defaults are
    the published code's: +5 % an epoch of 46,000 pairs at batch 32. ``start == end`` is a constant
    top-k. Differs from the paper: +10 % every 4,000 steps there (``Curriculum(growth=10,
    every=4000)``).
    """

    start: float = 30
    end: float = 80
    growth: float = 5
    every: int = 1437

    def __post_init__(self) -> None:
        if not 0 < self.start <= self.end <= 100:
            raise ValueError(f"Curriculum needs 0 < start <= end <= 100 percent, got {self.start} and {self.end}")
        if self.growth < 0 or self.every < 1:
            raise ValueError(f"Curriculum needs growth >= 0 and every >= 1, got {self.growth} and {self.every}")

    def percent(self, step: int) -> float:
        """Percentage after ``step`` optimiser steps.

        Depends on nothing else, so a resumed run goes on as it was.
        """
        return min(self.end, self.start + self.growth * (step // self.every))


def select_pairs(
    losses: Float[Tensor, " B"], percent: float | None, usable: Bool[Tensor, " B"] | None = None
) -> Bool[Tensor, " B"]:
    """The pairs with the lowest losses.

    ``floor(B percent / 100)`` of them, at least one; paper Sec. 3.1.4. Pairs that are not usable or
    have no finite loss are never chosen; percent None or 100 takes all others. Differs from the
    published code: of equal losses the first are taken (a strict comparison could leave nothing),
    and 100 % is allowed. Raises ValueError for losses that are not [B] and for a percentage outside
    0..100.
    """
    if losses.ndim != 1 or (usable is not None and usable.shape != losses.shape):
        raise ValueError(f"losses and usable must be [B], got {list(losses.shape)}")
    if percent is not None and not 0 < percent <= 100:
        raise ValueError(f"the percentage of pairs must be in 0..100, got {percent}")
    usable = torch.isfinite(losses) & (torch.ones_like(losses, dtype=torch.bool) if usable is None else usable)
    if percent is None:
        return usable
    keep = max(int(len(losses) * percent / 100 + 1e-9), 1)
    order = torch.where(usable, losses.detach(), torch.inf).argsort(stable=True)
    chosen = torch.zeros_like(usable)
    chosen[order[:keep]] = True
    return chosen & usable
