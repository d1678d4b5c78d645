"""Photos of the map that a query of ``metriloc localize`` is compared with, and what else is known of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from metriloc.geometry import Pose
from metriloc.io import InputError, read_text
from metriloc.io.files import require_file
from metriloc.io.hloc import LoggedQuery
from metriloc.io.lists import parse_pairs
from metriloc.io.map_folders import first_names
from metriloc.methods.matching import MapRetrieval
from metriloc.methods.pixloc import Hints
from metriloc.methods.pixloc.hloc_hints import hints_of, logged_references
from metriloc.opened_map import check_references
from metriloc.runs.hloc import GlobalDescriptors, HlocLog
from metriloc.runs.queries import QueryPhoto, QuerySource, require_own_entries
from metriloc.types import SfmMap, View

FEW_KEYPOINTS = 20
"""Photos of one place share more, of other places mostly fewer (of 512; measured on four places)."""
Bar: TypeAlias = Callable[[str], AbstractContextManager[Callable[[int, int], None] | None]]
"""Makes a progress bar of that name: a context whose value is told (done, in all), or is None where nobody looks."""


def _no_bar(what: str) -> AbstractContextManager[None]:
    return nullcontext(None)


@dataclass(frozen=True)
class ReferenceOptions:
    """Which photos of the map a query is compared with.

    By default those that share the most with it.
    """

    pairs: Path | None = None
    """List of lines 'query reference', the best first (hloc's)."""
    references: tuple[str, ...] | None = None
    """Names of photos of the map, the best first, for every query."""
    hloc_logs: Path | None = None
    """hloc's log of a localisation (*_logs.pkl): its references where no list is given, and its matches (pixloc)."""
    from_poses: bool = False
    """Start from the poses of --hloc-logs; pixloc then uses their inliers: --points, --rank-by-inliers, one scale."""
    global_descriptors: tuple[Path, ...] | None = None
    """hloc's HDF5 files of global descriptors, of the map's photos and the queries: the most alike photos where neither
    a list nor a log is given, and the weights of --approximate-pose."""
    num_references: int | None = None
    """How many are used of a list, or looked for; by default 3, and of pixloc what is stored with its weights."""

    def check(self, scene: SfmMap) -> None:
        """Raises InputError for options that contradict and names that the map does not have."""
        if self.pairs is not None and self.references is not None:
            raise InputError(f"--pairs {self.pairs} and --references contradict: give one")
        if self.num_references is not None and self.num_references < 1:
            raise InputError(f"--num-references must be positive, got {self.num_references}")
        if self.from_poses and self.hloc_logs is None:
            raise InputError("--from-poses starts from the poses of a log: give --hloc-logs FILE")
        if self.pairs is not None:
            require_file(self.pairs)
        if self.references is not None:
            check_references(scene, self.references)


@dataclass(frozen=True, eq=False)
class FoundReferences:
    """Names, the best first.

    messages: what is to be known of them; hints: for PixLoc; logged_pose: hloc's.
    """

    names: tuple[str, ...]
    messages: tuple[str, ...] = ()
    hints: Hints | None = None
    logged_pose: Pose | None = None


@dataclass(frozen=True, eq=False)
class ReferenceFinder:
    """Photos of the map for each query.

    Given, from a list, from a log, by global descriptors, or looked for. count: of a list, or to
    look for. whole_lists: hand lists over as they are (PixLoc ranks and cuts them itself). bar:
    shows how far the photos of the map are.
    """

    options: ReferenceOptions
    count: int
    whole_lists: bool = False
    pairs: dict[str, tuple[str, ...]] | None = None
    log: HlocLog | None = None
    descriptors: GlobalDescriptors | None = None
    retrieval: MapRetrieval | None = None
    bar: Bar = _no_bar

    @classmethod
    def open(
        cls,
        options: ReferenceOptions,
        source: QuerySource,
        cache: Path,
        count: int,
        *,
        whole_lists: bool = False,
        bar: Bar = _no_bar,
    ) -> ReferenceFinder:
        """Raises InputError for files that cannot be used."""
        pairs = log = descriptors = retrieval = None
        bundle = source.opened.bundle
        if options.pairs is not None:
            pairs = parse_pairs(read_text(options.pairs), str(options.pairs))
            require_own_entries(source.queries, pairs, options.pairs)
            _warn_of_strangers(options.pairs, pairs, source)
        if options.hloc_logs is not None:
            model = source.path if bundle is None else bundle.model
            log = HlocLog.open(options.hloc_logs, model, source.scene)
            require_own_entries(source.queries, log.queries, options.hloc_logs)
        if options.global_descriptors is not None:
            descriptors = GlobalDescriptors.open(options.global_descriptors, source.scene, source.queries)
        if options.references is None and pairs is None and log is None and descriptors is None:
            kept = None if bundle is None else bundle.features
            retrieval = MapRetrieval.from_pretrained(cache=cache / "retrieval", source=kept)
        return cls(options, count, whole_lists, pairs, log, descriptors, retrieval, bar)

    def find(self, photo: QueryPhoto, view: View, scene: SfmMap) -> FoundReferences:
        """References of one query. Raises InputError for a query that a list, log or file does not have."""
        logged = None if self.log is None else self.log.query(photo)
        ids = None if self.log is None else self.log.ids_in(scene)
        names, messages = self._names(photo, view, scene, logged)
        alike = None if self.descriptors is None else self.descriptors.likeness(photo, names)
        pose = None if logged is None else logged.pose
        return FoundReferences(names, messages, hints_of(logged, ids, alike), pose)

    def _names(
        self, photo: QueryPhoto, view: View, scene: SfmMap, logged: LoggedQuery | None
    ) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.options.references is not None:
            return tuple(name for name in self.options.references if name in scene.names), ()
        if self.pairs is not None:
            listed = next((self.pairs[name] for name in photo.names if name in self.pairs), None)
            if listed is None:
                raise InputError(f"'{self.options.pairs}' lists no reference for {photo.name!r}")
            # retrieval may name images that the reconstruction left out
            known = set(scene.names)
            found = self._cut(tuple(name for name in listed if name in known))
            return found, () if found else (f"none of its {len(listed)} references in the list is in the map",)
        if logged is not None and self.log is not None:
            found = tuple(logged_references(logged, self.log.ids_in(scene), scene.names))
            other = f"none of the {len(logged.references)} references of hloc's log is in the map"
            return self._cut(found), () if found or not logged.references else (other,)
        if self.descriptors is not None:
            return self.descriptors.rank(photo, scene, self.count), ()
        return self._looked_for(view, scene)

    def _cut(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return names if self.whole_lists else names[: self.count]

    def _looked_for(self, view: View, scene: SfmMap) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.retrieval is None or (len(scene) == 1 and scene.folder is not None):
            return scene.names, ()
        with self.bar("photos of the map") as progress:
            ranking = self.retrieval.rank(view, scene, self.count, progress=progress)
        best = ranking.matches[0] if ranking.matches else 0
        doubt = f"no photo of the map shares many keypoints with it (at most {best}): it may show another place"
        return ranking.names, ranking.messages + ((doubt,) if best < FEW_KEYPOINTS else ())


def _warn_of_strangers(file: Path, pairs: Mapping[str, Sequence[str]], source: QuerySource) -> None:
    """Say which references of the queries in hand the map does not have."""
    asked = {name for photo in source.queries for name in photo.names}
    known = set(source.scene.names)
    strangers = {
        name: None for query, listed in pairs.items() if query in asked for name in listed if name not in known
    }
    if strangers:
        names = first_names(list(strangers))
        warnings.warn(f"'{file}' lists {len(strangers)} photos that the map does not have: {names}", stacklevel=2)
