"""New photos into a map, which keeps its place, its axes and its metres."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from metriloc.io.files import InputError
from metriloc.io.maps import read_map
from metriloc.mapping.config import MapConfig
from metriloc.mapping.facts import MapFacts, ScaleFacts, read_facts
from metriloc.mapping.places import recover
from metriloc.mapping.prepare import Bar, Sharing
from metriloc.mapping.scale import MapScale
from metriloc.mapping.sharing import PartWorker
from metriloc.mapping.sources import ScaleOptions
from metriloc.runs.map_build import build_map, no_bar
from metriloc.solvers.similarity import robust_similarity
from metriloc.types import SfmMap

_MOVED = 0.02  # of the extent of a map: how far the mapper may move a camera when photos are added


@dataclass(frozen=True)
class Added:
    """facts: of the map as it is now. new: names of photos that it did not have; registered: those that it has now."""

    facts: MapFacts
    new: tuple[str, ...]
    registered: tuple[str, ...]


def add_photos(
    target: str | os.PathLike[str],
    photos: str | os.PathLike[str] | None = None,
    *,
    device: str = "cpu",
    bar: Bar = no_bar,
    share: Callable[[PartWorker], Sharing] | None = None,
) -> Added:
    """Take the new photos in a map's folder of photos into the map.

    - target: the folder of a map that metriloc made.
    - photos: the folder with the new ones, which must be the map's or below it; by default the map's.
    - share: as in ``build_map``.

    Keypoints and matches of the photos that were there are taken as they are; the mapper runs over all, and the new model
    is laid over the old one by the cameras that both have, so that poses of before stay valid. Raises InputError for a map
    of another maker, photos elsewhere, and where ``build_map`` does.
    """
    recover(Path(target) / "sparse")
    old, facts = read_map(target), read_facts(Path(target))
    if facts is None:
        raise InputError(f"'{target}' was not made by metriloc (it has no map.json): make it anew with map build")
    if old.folder is None:
        raise InputError(f"the photos of '{target}' are not at hand ({facts.photos}), so none can be added")
    folder = _folder_of(old.folder, photos)
    settings = dict(facts.settings)
    intrinsics, fov = settings.pop("intrinsics", None), settings.pop("fov", None)

    def in_place(scene: SfmMap) -> MapScale | None:
        return laid_over(scene, old, facts.scale)

    made = build_map(
        folder,
        target,
        config=_made_of(MapConfig, settings),
        scale=_scale_options(facts.scale_options),
        depth=facts.scale_options.get("depth"),
        intrinsics=intrinsics,
        fov=fov,
        device=device,
        bar=bar,
        share=share,
        in_place=in_place,
    )
    before = {*old.names, *facts.alone, *(name for names in facts.others for name in names)}
    now = read_map(target).names
    new = {*now, *made.alone, *(name for names in made.others for name in names)} - before
    return Added(made, tuple(sorted(new)), tuple(name for name in now if name in new))


def _folder_of(folder: Path, photos: str | os.PathLike[str] | None) -> Path:
    if photos is None:
        return folder
    given = Path(photos).resolve()
    if not given.is_dir():
        raise InputError(f"'{photos}' is not a folder of photos")
    if given != folder.resolve() and folder.resolve() not in given.parents:
        raise InputError(f"'{photos}' is not within the map's photos: copy it into '{folder}' first")
    return folder


def laid_over(scene: SfmMap, old: SfmMap, scale: ScaleFacts | None) -> MapScale | None:
    """The similarity that lays a map over an older one by the cameras of photos that both have; None where they fix none.

    The scale and its standard deviation are those of the older one.
    """
    common = [name for name in scene.names if name in set(old.names)]
    a = scene.cam_from_world.center()[[scene.index(name) for name in common]]
    b = old.cam_from_world.center()[[old.index(name) for name in common]]
    if len(common) < 3:
        return None
    extent = float((b - b.mean(0)).square().sum(-1).mean().sqrt())
    found = robust_similarity(a, b, torch.full((len(common),), _MOVED * extent, dtype=torch.float64))
    return None if found is None else MapScale(scale, found.scale, found)


def _made_of(kind: Any, values: Mapping[str, Any]) -> Any:
    """A dataclass from a mapping; what it does not know is from another version and left out."""
    known = {field.name for field in fields(kind)}
    return kind(**{key: value for key, value in values.items() if key in known})


def _scale_options(values: Mapping[str, Any]) -> ScaleOptions:
    made: ScaleOptions = _made_of(ScaleOptions, values)
    positions, depth_maps = (None if file is None else Path(file) for file in (made.positions, made.depth_maps))
    distances = tuple((str(a), str(b), float(m)) for a, b, m in made.distances)
    return replace(made, distances=distances, positions=positions, depth_maps=depth_maps)
