"""``map.json`` beside a model: where the photos of a map are, how it was made, and how long its unit is."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metriloc.io.files import InputError, read_json
from metriloc.io.map_folders import FACTS_FILE, find_model, model_within, stated_photos
from metriloc.types import MapUnit

FORMAT = 1
GPS_FRAME = "east, north, up"
"""Axes of a map that GPS has turned."""
_LARGEST = 100.0  # logarithm of a factor that can be printed


@dataclass(frozen=True)
class ScaleFacts:
    """Of a map in metres. sigma: relative standard deviation of all its lengths. sources: what told it, each with ``name``,
    ``sigma``, ``share`` and ``said`` (one phrase). contradictions: pairs of names. frame: what the axes are."""

    sigma: float
    sources: tuple[Mapping[str, Any], ...] = ()
    contradictions: tuple[tuple[str, str], ...] = ()
    frame: str = "arbitrary"

    @property
    def within(self) -> str:
        """Sigma in words. Percent, or a factor where it is half of all lengths and more."""
        if self.sigma < 0.5:
            return f"{100 * self.sigma:.2g} %"
        return f"a factor of {math.exp(min(self.sigma, _LARGEST)):.2g}"

    @property
    def disputes(self) -> tuple[str, ...]:
        """One sentence for each contradiction."""
        return tuple(f"{a} and {b} contradict each other about the scale" for a, b in self.contradictions)


@dataclass(frozen=True)
class MapFacts:
    """photos: the folder that names are relative to. given, registered: how many photos. others: names of photos in
    models of their own, which share nothing with this one; alone: in none. left_out: one sentence for each photo that could
    not be used; notes: and for each source of metres that said nothing. settings: of ``MapConfig``. model: what names all
    that the model was made of. scale: None where nothing told metres. error_px: mean reprojection error."""

    photos: str
    given: int
    registered: int
    error_px: float
    others: tuple[tuple[str, ...], ...] = ()
    alone: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: str = ""
    scale: ScaleFacts | None = None
    scale_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def unit(self) -> MapUnit:
        """What lengths of the map are in."""
        return "unit of the map" if self.scale is None else "metre"


def scale_line(facts: MapFacts) -> str:
    """One sentence about the unit of a map."""
    if facts.scale is None:
        return "lengths are in units of the map: nothing told metres (--distance A B METRES tells them)"
    but = "" if not facts.scale.contradictions else ", but what tells them contradicts itself"
    return f"lengths are in metres, within {facts.scale.within} (one standard deviation){but}"


def facts_text(facts: MapFacts, model: Path) -> str:
    """What ``map.json`` of a model holds.

    The photos are named from there, and by their full path.
    """
    content = asdict(facts)
    folder = Path(facts.photos).resolve()
    content["photos"] = {"relative": os.path.relpath(folder, model.resolve()), "absolute": str(folder)}
    return json.dumps({"format": FORMAT, **content}, indent=1)


def require_same_photos(target: Path, photos: Path) -> None:
    """Raises InputError when a folder holds a map of other photos, or a model that was not made here."""
    model = model_within(target)
    if model is None:
        return
    facts = read_facts(model)
    if facts is None:
        raise InputError(
            f"'{target}' holds another COLMAP model ('{model}'), which metriloc did not make: give another --out, or delete it"
        )
    metres = "" if facts.scale is None else ", in metres"
    if photos.resolve() not in stated_photos(model):
        raise InputError(
            f"'{target}' holds a map of other photos ({facts.registered} of '{facts.photos}'{metres}, now "
            f"'{photos}'): give another --out, or delete it"
        )


def read_facts(folder: str | Path) -> MapFacts | None:
    """Of the map in a folder.

    None for a COLMAP model that was not made here. Raises InputError for one that is damaged.
    """
    file = find_model(folder) / FACTS_FILE
    if not file.is_file():
        return None
    content = read_json(file)
    try:
        if content["format"] != FORMAT:
            raise InputError(f"'{file}' has format {content['format']!r}, which this version does not know")
        return _facts(content)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"'{file}' is damaged: {type(error).__name__} {error}") from error


def _facts(content: Mapping[str, Any]) -> MapFacts:
    scale = content["scale"]
    return MapFacts(
        photos=str(content["photos"]["absolute"]),
        given=int(content["given"]),
        registered=int(content["registered"]),
        error_px=float(content["error_px"]),
        others=tuple(tuple(str(n) for n in names) for names in content["others"]),
        alone=tuple(str(n) for n in content["alone"]),
        left_out=tuple(str(n) for n in content["left_out"]),
        notes=tuple(str(n) for n in content["notes"]),
        settings=dict(content["settings"]),
        model=str(content.get("model", "")),
        scale=None if scale is None else _scale(scale),
        scale_options=dict(content["scale_options"]),
    )


def _scale(content: Mapping[str, Any]) -> ScaleFacts:
    sigma = float(content["sigma"])
    if not (math.isfinite(sigma) and sigma >= 0):
        raise ValueError(f"sigma {sigma}")
    return ScaleFacts(
        sigma,
        tuple(dict(source) for source in content["sources"]),
        tuple((str(a), str(b)) for a, b in content["contradictions"]),
        str(content["frame"]),
    )
