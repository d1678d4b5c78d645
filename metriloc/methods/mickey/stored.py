"""The configurations that MicKey's weights store."""

from __future__ import annotations

from metriloc.io import InputError
from metriloc.io.weights import Weights
from metriloc.methods.mickey.network_config import MicKeyConfig
from metriloc.methods.mickey.rematch import RematchConfig
from metriloc.methods.mickey.solver import SolverConfig
from metriloc.solvers.reprojection import PolishConfig


def read_configs(weights: Weights) -> tuple[MicKeyConfig, SolverConfig, PolishConfig | None, RematchConfig | None]:
    """Of the network, of finding poses and, where the weights store them, of refining them.

    Raises InputError for a configuration that is incomplete or wrong.
    """
    network, solver = weights.config.get("network"), weights.config.get("solver", {})
    polish, again = weights.config.get("polish"), weights.config.get("rematch")
    optional = all(part is None or isinstance(part, dict) for part in (polish, again))
    if not isinstance(network, dict) or not isinstance(solver, dict) or not optional:
        raise InputError(
            f"'{weights.path}' holds no MicKey configuration: its config.json needs 'network' and 'solver' "
            "(and may have 'polish' and 'rematch')"
        )
    try:
        stored = None if polish is None else PolishConfig(**polish)
        rematch = None if again is None else RematchConfig(**again)
        return MicKeyConfig.from_dict(network), SolverConfig(**solver), stored, rematch
    except (TypeError, ValueError) as error:
        raise InputError(f"'{weights.path}' holds a wrong MicKey configuration: {error}") from error
