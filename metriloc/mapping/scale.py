"""One scale for a map from all that tells it, by variance, and the map moved to it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from metriloc.mapping.facts import ScaleFacts
from metriloc.mapping.readings import Reading
from metriloc.solvers.similarity import Similarity

CONTRADICTION = 3.0
"""Standard deviations apart from which two sources contradict each other."""


class Fused(Protocol):
    """What fusing returns: the logarithm of the length, its standard deviation, what each source counts for (0..1), and
    pairs of names that contradict each other."""

    @property
    def log_length(self) -> float: ...
    @property
    def sigma(self) -> float: ...
    @property
    def shares(self) -> Sequence[float]: ...
    @property
    def contradictions(self) -> Sequence[tuple[str, str]]: ...


Fuse = Callable[[Sequence[Reading]], Fused]


@dataclass(frozen=True)
class FusedReadings:
    """As ``Fused``."""

    log_length: float
    sigma: float
    shares: tuple[float, ...]
    contradictions: tuple[tuple[str, str], ...]


def fuse_readings(readings: Sequence[Reading]) -> FusedReadings:
    """By inverse variance: ``w_i = s_i^-2 / sum s^-2``, ``s^2 = 1 / sum s^-2``. Of one kin only the surest counts, because
    the others err as it does. Raises ValueError without any."""
    if not readings:
        raise ValueError("no source says how long the unit of the map is: give at least one")
    surest: dict[str, int] = {}
    for n, reading in enumerate(readings):
        key = reading.kin or f"own {n}"
        if key not in surest or reading.sigma < readings[surest[key]].sigma:
            surest[key] = n
    weights = [readings[n].sigma ** -2 if n in surest.values() else 0.0 for n in range(len(readings))]
    total = sum(weights)
    shares = tuple(weight / total for weight in weights)
    apart = tuple(
        (a.name, b.name)
        for i, a in enumerate(readings)
        for b in readings[:i]
        if abs(a.log_length - b.log_length) > CONTRADICTION * math.hypot(a.sigma, b.sigma)
    )
    middle = sum(share * reading.log_length for share, reading in zip(shares, readings, strict=True))
    return FusedReadings(middle, math.sqrt(1 / total), shares, apart)


@dataclass(frozen=True, eq=False)
class MapScale:
    """facts: what is written down, None where the unit is not known in metres. scale: new units a unit of the map.
    similarity: gives the axes, where positions told them."""

    facts: ScaleFacts | None
    scale: float
    similarity: Similarity | None = None


def fused_scale(
    readings: Sequence[Reading], similarity: Similarity | None, frame: str, fuse: Fuse = fuse_readings
) -> MapScale | None:
    """The scale of all readings; None without any."""
    if not readings:
        return None
    fused = fuse(readings)
    sources = tuple(
        {"name": r.name, "metres_a_unit": math.exp(r.log_length), "sigma": r.sigma, "share": share, "said": r.said}
        for r, share in zip(readings, fused.shares, strict=True)
    )
    frame = frame if similarity is not None else "arbitrary"
    facts = ScaleFacts(float(fused.sigma), sources, tuple((a, b) for a, b in fused.contradictions), frame)
    return MapScale(facts, math.exp(fused.log_length), similarity)


def scale_model(model: Any, found: MapScale, center: torch.Tensor) -> None:
    """Moves a ``pycolmap.Reconstruction`` into metres, and into the axes of positions where there are some.

    center: of the cameras, in the map as it is; it goes where the similarity has it, whatever the other sources say of
    the scale.
    """
    import pycolmap

    R, t = torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    if found.similarity is not None:
        R = found.similarity.R
        t = found.similarity.transform(center[None])[0] - found.scale * R @ center
    rotation = pycolmap.Rotation3d(R.numpy())
    model.transform(pycolmap.Sim3d(found.scale, rotation, t.numpy()))
