"""A map as it is given, a COLMAP model, a bundle or NRE's sample, opened: the map and what is known of its photos."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from metriloc.datasets.nre_sample import read_nre_sample
from metriloc.io import InputError
from metriloc.io.bundles import Bundle, is_bundle, open_bundle
from metriloc.io.map_folders import find_model, photos_are_lost
from metriloc.io.maps import map_from_reconstruction, read_map, read_reconstruction, require_content
from metriloc.mapping.facts import GPS_FRAME, MapFacts, read_facts
from metriloc.types import MapUnit, SfmMap


@dataclass(frozen=True, eq=False)
class OpenedMap:
    """scene: the map. bundle: what it was opened from, None for others; it must live as long as the map is used. facts: what
    ``map.json`` says, None where there is none. model: the folder of the COLMAP model, None where it was not opened from
    one."""

    scene: SfmMap
    bundle: Bundle | None = None
    facts: MapFacts | None = None
    model: Path | None = None

    @property
    def unit(self) -> MapUnit:
        """What lengths of the map are in."""
        return "unit of the map" if self.facts is None else self.facts.unit

    @property
    def z_is_up(self) -> bool:
        """Whether its axes are those of GPS: east, north, up."""
        scale = None if self.facts is None else self.facts.scale
        return scale is not None and scale.frame == GPS_FRAME

    @property
    def doubt(self) -> str | None:
        """What makes every pose in the map doubtful.

        That what tells its metres contradicts itself.
        """
        scale = None if self.facts is None else self.facts.scale
        if scale is None or not scale.contradictions:
            return None
        return f"the map's metres are good within {scale.within} only ({'; '.join(scale.disputes)})"


def open_map(path: str | Path, images: str | Path | None = None, *, photos_needed: bool = True) -> OpenedMap:
    """Open a map, whatever it is stored as. It is a bundle, a folder with a COLMAP model, or an npz file of the kind of
    NRE's sample (its photos lie beside it).

    images: the folder that the names of a COLMAP model are relative to. photos_needed: refuse a map whose photos are
    nowhere. Raises InputError for what is none of these, and
    for a map that is empty, a ``map.json`` that is damaged, and a map whose photos are nowhere, unless it is a bundle.
    """
    npz, bundled = Path(path).suffix.lower() == ".npz", is_bundle(path)
    if images is not None and (npz or bundled):
        where = "its photos beside it" if npz else "all that is needed of its photos in it"
        raise InputError(f"'{path}' has {where}: the folder of images '{images}' is not used")
    if npz:
        return OpenedMap(read_nre_sample(path).source)
    opened = look_into(path, images)
    if opened.scene.folder is None and not bundled and photos_needed:
        raise InputError(photos_are_lost(path, opened.scene.names))
    return opened


def look_into(path: str | Path, images: str | Path | None = None) -> OpenedMap:
    """Open a map whose photos need not be at hand. It is a bundle, or a folder with a COLMAP model. Raises InputError
    as ``open_map``."""
    if is_bundle(path):
        return open_bundled_map(path)
    facts = read_facts(path)  # before the photos: a damaged one does not say where they are
    opened = OpenedMap(read_map(path, images), facts=facts, model=find_model(path))
    require_content(opened.scene, path)
    return opened


def open_bundled_map(path: str | Path) -> OpenedMap:
    """A map from a bundle, however that is called. Raises InputError for what is none."""
    bundle = open_bundle(path)
    scene = map_from_reconstruction(read_reconstruction(bundle.model), str(path), bundle.images)
    require_content(scene, path)
    return OpenedMap(scene, bundle, read_facts(bundle.model), bundle.model)


def check_references(scene: SfmMap, references: Sequence[str]) -> None:
    """Raises InputError for a name that the map does not have."""
    if isinstance(references, str):
        raise InputError(f"references must be a list of names, got {references!r}: say [{references!r}]")
    known = set(scene.names)
    for name in references:
        if name not in known:
            example = f", such as {scene.names[0]!r}" if len(scene) else ""
            raise InputError(f"the map has no image {name!r} (it has {len(scene)}{example})")
