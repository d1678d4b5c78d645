"""One reference photo against many queries, into a folder that can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from metriloc.relpose import as_seen, relative_pose_by_turns
from metriloc.runs.folder import why_unusable
from metriloc.runs.relpose_files import RelposeFolder
from metriloc.runs.relpose_results import QueryResult, RelposeRun
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
    try:
        for index, path in enumerate(queries):
            result = folder.saved(index, path, run) if folder is not None and resume else None
            if result is None:
                result = _solved(method, features0, path, load, run)
                if folder is not None and result.features is not None:
                    result = _written(folder, run, index, result, features0)
            run.results.append(result)
            told(result)
    finally:
        if folder is not None and run.results:
            folder.write_run(run)


def _solved(
    method: RelativePoseMethod, features0: PhotoFeatures, path: Path, load: Callable[[Path], View], run: RelposeRun
) -> QueryResult:
    """One bad photo among many must not cost the others their poses."""
    try:
        features1 = method.extract(load(path))
        estimate = relative_pose_by_turns(method, features0, features1, seed=run.seed)
        return QueryResult.computed(path, estimate, features1, run.truths.get(str(path)))
    except (ValueError, RuntimeError) as error:
        return QueryResult.unreadable(path, why_unusable(path, error))


def _written(
    folder: RelposeFolder, run: RelposeRun, index: int, result: QueryResult, reference: PhotoFeatures
) -> QueryResult:
    """The result, once its files are there; what cannot be drawn or written of it costs only itself."""
    try:
        folder.write_query(run, index, result, reference)
        return result
    except (ValueError, RuntimeError) as error:
        return QueryResult.unreadable(Path(result.path), why_unusable(result.path, error))
