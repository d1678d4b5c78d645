"""How an alignment iterates: damping, stops and limits (PixLoc paper, Eqs. (4) and (7))."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from jaxtyping import Float
from torch import Tensor

from metriloc.bounds import require_flags, require_within
from metriloc.methods.pixloc.cost import (
    CostConfig,
    Linearization,
)


class DampingRule(Protocol):
    """Damping of one's own.

    What the diagonal of the normal matrix grows by, anew in every iteration.
    """

    def __call__(
        self, index: int, at: Linearization, H: Float[Tensor, "B 6 6"], /
    ) -> Float[Tensor, "B 1"] | Float[Tensor, "B 6"] | float:
        """Factors from the number of the iteration, the costs there, and the normal matrix [t, w]."""
        ...


@dataclass(frozen=True)
class AlignConfig:
    """Settings of the loop. Defaults are those of the released models at inference."""

    cost: CostConfig = field(default_factory=CostConfig)
    """How a level is measured."""
    num_iters: int = 100
    """At most, a level."""
    damping: DampingRule | Literal["fixed", "adaptive", "learned"] = "learned"
    """Fixed; adaptive (accepted or rejected steps); or learned, one number a parameter. From Python also a rule."""
    initial_damping: float = 0.01
    """Of fixed damping, and where adaptive damping begins."""
    max_damping: float = 1e4
    """Of adaptive damping."""
    jacobi_scaling: bool = False
    """Scale the parameters by their mean slope at the start."""
    min_points: int = 10
    """Fewer valid points fail."""
    stop_every: int = 10
    """Iterations between stop tests, the first included."""
    stop_gradient: float = 1e-4
    """A gradient small enough to stop."""
    stop_translation: float = 5e-3
    """A step small enough to stop, metres."""
    stop_rotation_deg: float = 5e-2
    """A turn small enough to stop."""
    published_acceptance: bool = False
    """Adaptive damping compares the weighted cost with the unweighted one of the trial, as published (for
    comparisons with it only)."""

    def __post_init__(self) -> None:
        if not callable(self.damping) and self.damping not in ("fixed", "adaptive", "learned"):
            raise ValueError(f"AlignConfig.damping must be 'fixed', 'adaptive' or 'learned', got {self.damping!r}")
        require_within(self, num_iters=(1, 10_000), stop_every=(1, 10_000), min_points=(1, 1_000_000))
        require_within(self, initial_damping=(0.0, 1e12), max_damping=(1e-12, 1e12), stop_gradient=(0.0, 1e12))
        require_within(self, stop_translation=(0.0, 1e12), stop_rotation_deg=(0.0, 1e12))
        require_flags(self, "jacobi_scaling", "published_acceptance")
