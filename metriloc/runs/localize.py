"""One map and many queries, into a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from metriloc.answers import Asked
from metriloc.geometry import Pose
from metriloc.io.view import warn_if_guessed
from metriloc.localizer import ESTIMATED_FOCAL, Localizer
from metriloc.methods.pixloc import Hints
from metriloc.runs.localize_files import LocalizeFolder
from metriloc.runs.localize_results import LocalizeRun, QueryOutcome, localized_outcome
from metriloc.runs.outcome import work_through
from metriloc.runs.queries import QueryPhoto, QuerySource
from metriloc.runs.references import FoundReferences, ReferenceFinder
from metriloc.types import LocalizationDetails, PoseEstimate, View, needs_of
from metriloc.viz.localized import LocalizedQuery

_NO_POSE = LocalizationDetails(messages=("hloc found no pose of it that one could start from",))


def run_localize(
    run: LocalizeRun,
    localizer: QueryLocalizer,
    queries: Iterable[QueryPhoto],
    *,
    folder: LocalizeFolder | None = None,
    resume: bool = False,
    told: Callable[[QueryOutcome], None] = lambda outcome: None,
) -> None:
    """Fill ``run.results``, one query after the other, and write each as soon as it is done.

    - folder, resume: where to write, if anywhere, and whether to keep what an equal run has left there.
    - told: hears every outcome, also of photos that could not be used.

    After Ctrl+C, too, the files over all queries hold what was found.
    """
    work_through(_Queries(run, localizer, folder, resume), queries, run.results, told)


@dataclass(frozen=True, eq=False)
class _Queries:
    """The ``QueryWork`` of one map."""

    run: LocalizeRun
    localizer: QueryLocalizer
    folder: LocalizeFolder | None
    resume: bool

    def name(self, query: QueryPhoto) -> str:
        return query.name

    def path(self, query: QueryPhoto) -> Path:
        return query.path

    def saved(self, index: int, query: QueryPhoto) -> QueryOutcome | None:
        return self.folder.saved(index, query, self.run) if self.folder is not None and self.resume else None

    def solve(self, query: QueryPhoto) -> QueryOutcome:
        return self.localizer.localize(query)

    def write(self, index: int, query: QueryPhoto, outcome: QueryOutcome) -> None:
        if self.folder is not None:
            self.folder.write_query(self.run, index, query, outcome)

    def finish(self) -> None:
        if self.folder is not None:
            self.folder.write_run(self.run)


@dataclass(frozen=True, eq=False)
class QueryLocalizer:
    """A localizer with all that the queries of a run share.

    load: the view of a query; pictures: whether what they need is to be kept.
    """

    localizer: Localizer
    finder: ReferenceFinder
    source: QuerySource
    load: Callable[[QueryPhoto], View]
    seed: int = 0
    pictures: bool = False

    def localize(self, photo: QueryPhoto) -> QueryOutcome:
        """One query. Raises what is wrong with its photo."""
        view = self.load(photo)
        scene = self.source.scene_for(photo)

        def ask(turned: View, turned_from_view: Pose) -> Asked:
            return self._asked(photo, self.finder.find(photo, turned, scene), turned_from_view)

        answer = self.localizer.answer(view, ask, scene=scene, seed=self.seed, trace=self.pictures)
        if ESTIMATED_FOCAL not in answer.estimate.doubts:
            warn_if_guessed(view)
        found = LocalizedQuery(answer.view, answer.estimate, scene, truth=photo.truth, notes=answer.asked.notes)
        return localized_outcome(photo, found)

    def _asked(self, photo: QueryPhoto, found: FoundReferences, turned_from_view: Pose) -> Asked:
        init = found.logged_pose if self.finder.options.from_poses else photo.init
        if init is None and self.finder.options.from_poses:
            nothing = PoseEstimate.failure("too_few_matches", _NO_POSE)
            return Asked(found.names, notes=found.messages, failed=nothing)
        if init is not None:
            init = turned_from_view.to(init.dtype) @ init
        needs = needs_of(self.localizer.method)
        more: dict[str, Any] = {}
        if needs.hints:
            more["hints"] = self._hints(photo, found)
        if needs.truth and photo.truth is not None:
            more["truth"] = turned_from_view.to(photo.truth.dtype) @ photo.truth
        return Asked(found.names, init, found.messages, more)

    def _hints(self, photo: QueryPhoto, found: FoundReferences) -> Hints | None:
        if photo.init is not None and found.hints is not None and not needs_of(self.localizer.method).matches:
            # hloc's doubts about its own pose are none about the one that was given
            return replace(found.hints, matches=None)
        return found.hints
