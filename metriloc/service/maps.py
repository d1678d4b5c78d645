"""Maps that photos are placed in, opened once and kept."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from metriloc.choose import choose_localizer
from metriloc.choose.for_maps import method_of_bundle
from metriloc.export.runtime import on_runtime
from metriloc.io import InputError
from metriloc.localizer import REFERENCES, Localizer
from metriloc.opened_map import OpenedMap, open_bundled_map
from metriloc.runs.localize import QueryLocalizer, run_localize
from metriloc.runs.localize_files import query_page
from metriloc.runs.localize_results import LocalizeRun
from metriloc.runs.options import DrawnOptions, LocalizerSettings
from metriloc.runs.queries import QueryOptions, QueryPhoto, QuerySource
from metriloc.runs.references import ReferenceFinder, ReferenceOptions
from metriloc.types import View, needs_of
from metriloc.viz.localize_report import localization_pictures

KEPT_MAPS = 4
"""Maps that a process keeps open."""


@dataclass(frozen=True, eq=False)
class _OpenMap:
    opened: OpenedMap
    localizer: Localizer
    finder: ReferenceFinder


class Maps:
    """method: a localizer by its name; None for the first of a bundle's whose weights are here."""

    def __init__(self, method: str | None, device: str, runtime: str) -> None:
        self._how = LocalizerSettings(method, device=device, runtime=runtime)
        self._open: OrderedDict[Path, _OpenMap] = OrderedDict()

    def check(self, path: Path, name: str) -> dict[str, Any]:
        """What is in a bundle. Raises InputError, which calls it by its name, for one that cannot be used."""
        try:
            opened = open_bundled_map(path)
            method = self._method(opened)
        except InputError as error:
            raise InputError(str(error).replace(str(path), name)) from None
        assert opened.bundle is not None
        return {
            "photos": len(opened.scene),
            "points": len(opened.scene.xyz),
            "unit": opened.unit,
            "methods": [known.name for known in opened.bundle.manifest.methods],
            "method": method.name,
            "weights_id": method.weights_id,
        }

    def _method(self, opened: OpenedMap) -> Any:
        assert opened.bundle is not None
        if self._how.method is None:
            return on_runtime(method_of_bundle(opened.bundle, self._how.device), self._how.runtime)
        return choose_localizer(self._how.choice())

    def _opened(self, path: Path) -> _OpenMap:
        if path not in self._open:
            opened = open_bundled_map(path)
            method = self._method(opened)
            needs = needs_of(method)
            finder = ReferenceFinder.open(
                ReferenceOptions(),
                QuerySource(path, opened, (), QueryOptions()),
                self._how.cache_folder,
                needs.references or REFERENCES,
                whole_lists=needs.whole_lists,
            )
            self._open[path] = _OpenMap(opened, Localizer.of(opened, method), finder)
            while len(self._open) > KEPT_MAPS:
                self._open.popitem(last=False)
        self._open.move_to_end(path)
        return self._open[path]

    def place(
        self,
        path: Path,
        name: str,
        photos: Sequence[str],
        load: Callable[[str], View],
        known: tuple[tuple[float, float, float, float] | None, float | None],
        seed: int,
        report: bool,
    ) -> tuple[LocalizeRun, list[str | None]]:
        """The run of ``metriloc localize``, and its reports where they are wanted.

        - path: of a bundle, called ``name``. photos: their names; load: the view of one.
        - known: k and field of view of all.
        """
        place = self._opened(path)
        method, opened = place.localizer.method, place.opened
        options, how = QueryOptions(k=known[0], fov=known[1]), LocalizerSettings(**{**asdict(self._how), "seed": seed})
        queries = tuple(QueryPhoto(Path(photo), photo) for photo in photos)
        settings = {**asdict(options), **asdict(ReferenceOptions()), **asdict(how), **asdict(DrawnOptions())}
        run = LocalizeRun(name, opened.scene, method.name, method.weights_id, settings, "file", opened.unit)
        source = QuerySource(Path(name), opened, queries, options)
        localizer = QueryLocalizer(
            place.localizer, place.finder, source, lambda photo: load(photo.name), seed, pictures=report
        )
        run_localize(run, localizer, queries)
        pages = [
            None if result.found is None else query_page(run, result.found, localization_pictures(result.found))
            for result in run.results
        ]
        return run, pages if report else []
