"""How MicKey finds poses once its network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from metriloc.methods.mickey.rematch import RematchConfig
from metriloc.methods.mickey.solver import SolverConfig
from metriloc.solvers.reprojection import PolishConfig


@dataclass(frozen=True)
class PoseFinding:
    """How poses are found once the network is trained.

    These are settings of ``MicKey``, the published ones by default. longest_side: pixels that
    photos are resized to from then on, for all but depths; None for those of training.
    """

    solver: SolverConfig = SolverConfig()  # noqa: RUF009 - frozen
    polish: PolishConfig | None = None
    rematch: RematchConfig | None = None
    longest_side: int | None = None
