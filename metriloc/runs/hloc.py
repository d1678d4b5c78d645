"""What hloc knows of the queries of ``metriloc localize``: logs of its localisation, and global descriptors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.io import InputError
from metriloc.io.hloc import LoggedQuery, MapIds, image_names, read_global_descriptors, read_log, read_map_ids
from metriloc.methods.pixloc.hloc_hints import similarities
from metriloc.runs.queries import QueryPhoto
from metriloc.types import SfmMap


@dataclass(frozen=True, eq=False)
class HlocLog:
    """A log of one map. ids: from COLMAP's to the indices of the whole map, whose images are called ``names``."""

    path: Path
    queries: dict[str, LoggedQuery]
    ids: MapIds
    names: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, model: Path, scene: SfmMap) -> HlocLog:
        """Raises InputError for a file that is no log, and a map that is no COLMAP model."""
        if model.suffix.lower() == ".npz":
            raise InputError(f"--hloc-logs {path} speaks of images of a COLMAP model, and '{model}' is none")
        return cls(path, read_log(path), read_map_ids(model), scene.names)

    def query(self, photo: QueryPhoto) -> LoggedQuery:
        """What it says of a query. Raises InputError for one that it does not have."""
        found = next((self.queries[name] for name in photo.names if name in self.queries), None)
        if found is None:
            example = f", such as {next(iter(self.queries))!r}" if self.queries else ""
            raise InputError(f"'{self.path}' says nothing of {photo.name!r} (it has {len(self.queries)}{example})")
        return found

    def ids_in(self, scene: SfmMap) -> MapIds:
        """Ids of the map without some of its images."""
        if scene.names == self.names:
            return self.ids
        place = {name: index for index, name in enumerate(scene.names)}
        kept = {i: place[self.names[n]] for i, n in self.ids.image_of.items() if self.names[n] in place}
        return MapIds(kept, self.ids.point_of)


@dataclass(frozen=True, eq=False)
class GlobalDescriptors:
    """Descriptors by name, of photos of the map and of queries.

    Likeness is their dot product, as published.
    """

    files: tuple[Path, ...]
    table: dict[str, Float[Tensor, " D"]]

    @classmethod
    def open(cls, files: Sequence[Path], scene: SfmMap, queries: Sequence[QueryPhoto]) -> GlobalDescriptors:
        """Raises InputError for files that are none, that know no photo of the map, or that do not fit together."""
        wanted = {*scene.names, *(name for photo in queries for name in photo.names)}
        table: dict[str, Tensor] = {}
        for file in files:
            table |= read_global_descriptors(file, [name for name in image_names(file) if name in wanted])
        shown = ", ".join(f"'{file}'" for file in files)
        if not any(name in table for name in scene.names):
            example = f", such as {scene.names[0]!r}" if len(scene) else ""
            raise InputError(f"{shown}: no global descriptor of any photo of the map{example}")
        lengths = sorted({len(values) for values in table.values()})
        if len(lengths) > 1:
            raise InputError(f"{shown}: global descriptors of {lengths[0]} and of {lengths[-1]} numbers do not compare")
        return cls(tuple(files), table)

    def name_of(self, photo: QueryPhoto) -> str:
        """How the files call a query. Raises InputError for one that they do not have."""
        found = next((name for name in photo.names if name in self.table), None)
        if found is None:
            shown = ", ".join(f"'{file}'" for file in self.files)
            raise InputError(f"{shown}: no global descriptor of the query {photo.name!r}")
        return found

    def likeness(self, photo: QueryPhoto, names: Sequence[str]) -> dict[str, float]:
        """Of the query and photos of the map, those without a descriptor left out."""
        return similarities(self.table, self.name_of(photo), names)

    def rank(self, photo: QueryPhoto, scene: SfmMap, count: int) -> tuple[str, ...]:
        """Names of the most alike photos of the map, the best first (ties in the map's order)."""
        known = [name for name in scene.names if name in self.table]
        if not known:
            return ()
        values = torch.stack([self.table[name] for name in known]) @ self.table[self.name_of(photo)]
        order = torch.sort(values, descending=True, stable=True).indices[:count]
        return tuple(known[place] for place in order.tolist())
