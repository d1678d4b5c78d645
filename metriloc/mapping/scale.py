"""One scale for a map from all that tells it, by variance, and the map moved to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from metriloc.mapping.facts import ScaleFacts
from metriloc.solvers.scales import ScaleSource, fuse_scales
from metriloc.solvers.similarity import Similarity


@dataclass(frozen=True, eq=False)
class MapScale:
    """facts: what is written down, None where the unit is not known in metres. scale: new units a unit of the map.
    similarity: gives the axes, where positions told them."""

    facts: ScaleFacts | None
    scale: float
    similarity: Similarity | None = None


def fused_scale(readings: Sequence[ScaleSource], similarity: Similarity | None, frame: str) -> MapScale | None:
    """The scale of all that was read; None where there is nothing."""
    if not readings:
        return None
    fused = fuse_scales(readings)
    sources = tuple(
        {"name": r.name, "metres_a_unit": math.exp(r.log_length), "sigma": r.sigma, "share": share, "said": r.said}
        for r, share in zip(readings, fused.shares, strict=True)
    )
    frame = frame if similarity is not None else "arbitrary"
    facts = ScaleFacts(fused.sigma, sources, fused.contradictions, frame)
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
