"""One reference photo against many queries, into a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from metriloc.relpose import as_seen, relative_pose_by_turns
from metriloc.runs.outcome import work_through
from metriloc.runs.relpose_export import is_export_of, write_export
from metriloc.runs.relpose_files import RelposeFolder
from metriloc.runs.relpose_results import QueryResult, RelposeRun, pair_result
from metriloc.types import PhotoFeatures, PoseEstimate, RelativePoseMethod, View
from metriloc.viz.compared import Answer


def run_relpose(
    run: RelposeRun,
    method: RelativePoseMethod,
    queries: Sequence[Path],
    load: Callable[[Path], View],
    *,
    folder: RelposeFolder | None = None,
    resume: bool = False,
    told: Callable[[QueryResult], None] = lambda result: None,
    counted: Callable[[Sequence[Path]], Iterable[Path]] = iter,
    others: Mapping[str, RelativePoseMethod] = MappingProxyType({}),
    export: Callable[[int, Path], Path] | None = None,
    reference: PhotoFeatures | None = None,
) -> None:
    """Fill ``run.results``, one query after the other, and write each as soon as it is done.

    - load: the view of a query; what it raises costs only that query.
    - folder, resume: where to write, if anywhere, and whether to keep what an equal run has left there.
    - told: hears every result, also of photos that could not be used.
    - counted: shows how far the queries are.
    - others: methods to compare with, by name; what they say is drawn beside, and decides nothing.
    - export: the npz file for a query (its number and path), if its matches and depths are wanted.
    - reference: what the method made of the reference, where that is at hand.

    Raises InputError where ``resume`` finds a run with other settings. After Ctrl+C, too, the files over all queries hold
    what was found.
    """
    features0 = method.extract(run.reference) if reference is None else reference
    run.reference = as_seen(run.reference, features0)
    if folder is not None and resume:
        run.kept = folder.earlier(run, queries)
    rivals = {name: (other, other.extract(run.reference)) for name, other in others.items()}
    work_through(
        _Pairs(run, method, features0, load, folder, resume, rivals, export), counted(queries), run.results, told
    )


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The ``QueryWork`` of one reference."""

    run: RelposeRun
    method: RelativePoseMethod
    reference: PhotoFeatures
    load: Callable[[Path], View]
    folder: RelposeFolder | None
    resume: bool
    rivals: Mapping[str, tuple[RelativePoseMethod, PhotoFeatures]]
    export: Callable[[int, Path], Path] | None

    def name(self, query: Path) -> str:
        return str(query)

    def path(self, query: Path) -> Path:
        return query

    def saved(self, index: int, query: Path) -> QueryResult | None:
        if self.folder is None or not self.resume:
            return None
        saved = self.folder.saved(index, query, self.run)
        if saved is None or self.export is None:
            return saved
        # what was found is not kept, only the pose: without its export the query is done again
        return saved if is_export_of(self.export(index, query), self.run.fingerprint(query)) else None

    def solve(self, query: Path) -> QueryResult:
        view = self.load(query)
        features = self.method.extract(view)
        estimate = relative_pose_by_turns(self.method, self.reference, features, seed=self.run.seed)
        others = [self._asked(name, view) for name in self.rivals]
        run = self.run
        return pair_result(query, estimate, features, run.truths.get(str(query)), others, run.reference_from_world)

    def _asked(self, name: str, view: View) -> Answer:
        """What another method says; whatever stops it costs only its own answer."""
        method, reference = self.rivals[name]
        try:
            estimate = relative_pose_by_turns(method, reference, method.extract(view), seed=self.run.seed)
            return Answer(name, estimate)
        except (ValueError, RuntimeError) as error:
            return Answer(name, PoseEstimate.failure("degenerate"), " ".join(str(error).split())[:200])

    def write(self, index: int, query: Path, outcome: QueryResult) -> None:
        if self.export is not None and outcome.found is not None:
            write_export(
                self.export(index, query), self.reference, outcome.found, fingerprint=self.run.fingerprint(query)
            )
        if self.folder is not None:
            self.folder.write_query(self.run, index, outcome, self.reference)

    def finish(self) -> None:
        if self.folder is not None:
            self.folder.write_run(self.run)
