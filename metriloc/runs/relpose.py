"""One reference photo against many queries, into a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from metriloc.relpose import as_seen, relative_pose_by_turns
from metriloc.runs.outcome import work_through
from metriloc.runs.relpose_files import RelposeFolder
from metriloc.runs.relpose_results import QueryResult, RelposeRun, pair_result
from metriloc.types import PhotoFeatures, RelativePoseMethod, View


def run_relpose(
    run: RelposeRun,
    method: RelativePoseMethod,
    queries: Iterable[Path],
    load: Callable[[Path], View],
    *,
    folder: RelposeFolder | None = None,
    resume: bool = False,
    told: Callable[[QueryResult], None] = lambda result: None,
) -> None:
    """Fill ``run.results``, one query after the other, and write each as soon as it is done.

    - load: the view of a query; what it raises costs only that query.
    - folder, resume: where to write, if anywhere, and whether to keep what an equal run has left there.
    - told: hears every result, also of photos that could not be used.

    After Ctrl+C, too, the files over all queries hold what was found.
    """
    features0 = method.extract(run.reference)
    run.reference = as_seen(run.reference, features0)
    work_through(_Pairs(run, method, features0, load, folder, resume), queries, run.results, told)


@dataclass(frozen=True, eq=False)
class _Pairs:
    """The ``QueryWork`` of one reference."""

    run: RelposeRun
    method: RelativePoseMethod
    reference: PhotoFeatures
    load: Callable[[Path], View]
    folder: RelposeFolder | None
    resume: bool

    def name(self, query: Path) -> str:
        return str(query)

    def path(self, query: Path) -> Path:
        return query

    def saved(self, index: int, query: Path) -> QueryResult | None:
        return self.folder.saved(index, query, self.run) if self.folder is not None and self.resume else None

    def solve(self, query: Path) -> QueryResult:
        features = self.method.extract(self.load(query))
        estimate = relative_pose_by_turns(self.method, self.reference, features, seed=self.run.seed)
        return pair_result(query, estimate, features, self.run.truths.get(str(query)))

    def write(self, index: int, query: Path, outcome: QueryResult) -> None:
        if self.folder is not None:
            self.folder.write_query(self.run, index, outcome, self.reference)

    def finish(self) -> None:
        if self.folder is not None:
            self.folder.write_run(self.run)
