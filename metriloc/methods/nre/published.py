"""What was published for NRE: its two networks as files, in whatever order, and its configuration file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from metriloc.backbones.local import DenseExtractor
from metriloc.io import InputError
from metriloc.io.weights import weights_of_run
from metriloc.methods.nre.checkpoint import read_official
from metriloc.methods.nre.features import NREFeatures
from metriloc.methods.nre.settings import NRE_STAGE, PUBLISHED_NAMES, NREConfig, StageConfig
from metriloc.methods.nre.trained import is_trained, load_trained_features
from metriloc.overrides import flat

_SIGMAS = (*(float(2**k) for k in range(13, -1, -1)), 0.8, 0.6, 0.4, 0.2)
"""Deviations to go through between the ends of a published configuration."""
_NO_MEANING = ("gnc_minibatch",)
"""Chunks of points in the published refinement; here all points go at once."""
_ENDS = {
    "coarse_gnc.sigmas": (("p3p_sigma_max", "coarse_sigma_max"), ("p3p_sigma_min", "coarse_sigma_min")),
    "windows.gnc.sigmas": (("fine_sigma_max",), ("fine_sigma_min",)),
}
_DEFAULT_ENDS = (2.0, 0.6)


def load_networks(
    weights: Sequence[str], devices: Sequence[str | torch.device]
) -> tuple[DenseExtractor, DenseExtractor | None, NREConfig, str]:
    """Coarse and fine features, the sizes and temperatures that suit them, and their identity.

    - weights: published checkpoints, or folders of networks that were trained here (or of their runs); two in any order,
      or the coarse one alone, which leaves out the fine stage.
    - devices: of the coarse and of the fine network.

    Raises InputError for two of one kind, a fine one alone, and files that cannot be read.
    """
    if not 1 <= len(weights) <= 2:
        raise InputError(
            "the NRE networks need two weights files, the coarse and the fine checkpoint, or the coarse one"
        )
    found = [load_features(path) for path in weights]
    levels = [extractor.level if isinstance(extractor, NREFeatures) else None for extractor, _ in found]
    if levels == ["fine"]:
        raise InputError(f"'{weights[0]}' is the fine network of NRE: give the coarse one before it")
    if levels in (["coarse", "coarse"], ["fine", "fine"]):
        raise InputError(
            f"'{weights[0]}' and '{weights[1]}' are both {levels[0]} networks of NRE: one of each is needed"
        )
    if levels[0] == "fine":
        found.reverse()
    networks = [extractor.to(device) for (extractor, _), device in zip(found, devices, strict=False)]  # type: ignore[attr-defined]
    # learned over whole maps; windows want half of it, as with XFeat's own weights
    xfeat = StageConfig(800), StageConfig(1600, networks[-1].temperature / 2, enlarge=2.0)
    stages = [NRE_STAGE if network.name == "nre" else own for network, own in zip(networks, xfeat, strict=False)]
    identity = "+".join(dict.fromkeys(identity for _, identity in found))
    fine = networks[1] if len(networks) == 2 else None
    return networks[0], fine, NREConfig(coarse=stages[0], fine=stages[-1]), identity


def load_features(path: str) -> tuple[DenseExtractor, str]:
    """A published checkpoint, or a folder of weights that were trained here, and their identity."""
    path = str(weights_of_run(path))
    return load_trained_features(path) if is_trained(path) else (NREFeatures(read_official(path)), "nre")


def assignments_of(values: Mapping[str, Any], source: str) -> list[str]:
    """The settings of a published configuration file as texts ``path=value``, for ``metriloc.overrides.override``.

    - values: what the file holds, flat or in groups; source: how errors call it.

    The ends of the deviations become all steps between them. Raises InputError for a key that NRE does not have, and for
    a value that is no number or flag.
    """
    given = {key.rpartition(".")[2]: value for key, value in flat(values).items()}
    known = {*PUBLISHED_NAMES, *_NO_MEANING, "skip_gnc", "use_re"}
    for key, value in given.items():
        if key not in known:
            raise InputError(f"'{source}': {key[:60]!r} is no setting of NRE: there are {', '.join(sorted(known))}")
        if not isinstance(value, (bool, int, float)):
            raise InputError(f"'{source}': {key} must be a number or a flag, got {str(value)[:60]!r}")
    ends = {name for pairs in _ENDS.values() for names in pairs for name in names}
    found = []
    for key, value in given.items():
        if key in ends or key in _NO_MEANING:
            continue
        value = min(value, 1.0) if key == "top_n_p3p" else value  # 1 and more keep all maps
        found.append(f"{PUBLISHED_NAMES.get(key, key)}={str(value).lower() if isinstance(value, bool) else value}")
    for path, names in _ENDS.items():
        largest, least = (next((float(given[n]) for n in side if n in given), None) for side in names)
        if largest is not None or least is not None:
            found.append(f"{path}={','.join(map(repr, _between(largest, least, source)))}")
    return found


def _between(largest: float | None, least: float | None, source: str) -> tuple[float, ...]:
    high = _DEFAULT_ENDS[0] if largest is None else largest
    low = min(_DEFAULT_ENDS[1], high) if least is None else least
    if not 0 < low <= high:
        raise InputError(f"'{source}': a sigma goes from {high:g} to {low:g} cells; it must be positive and shrink")
    return (high, *(sigma for sigma in _SIGMAS if low < sigma < high), *((low,) if low < high else ()))
