"""PixLoc over whole localisation benchmarks: part by part, resumable, from retrieved images or from hloc's poses.

A part (scene, slice, condition) is a folder with the records of its queries and, once all are done, ``poses.txt``. As
published, a query whose refinement failed is written with the pose it started from, and one that had none is left out.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch

from metriloc.datasets.visloc import LocalizationTask
from metriloc.datasets.visloc_files import VislocPart
from metriloc.evaluation.absolute import AbsoluteScore, score_absolute
from metriloc.evaluation.records import RUN_FILE, Record, record_of, require_same_run, unreadable
from metriloc.evaluation.runner import Progress, collect, run
from metriloc.evaluation.submission import read_visloc, write_visloc
from metriloc.evaluation.tasks import QueryTask
from metriloc.geometry import Pose
from metriloc.io import InputError, prepare_output_folder, read_text, write_atomically
from metriloc.io.hloc import LoggedQuery, MapIds, image_names, read_global_descriptors, read_log, read_map_ids
from metriloc.io.poses import visloc_name
from metriloc.methods.pixloc import Hints, PixLoc
from metriloc.methods.pixloc.hloc_hints import hints_of, logged_references, similarities
from metriloc.training.processes import Worker
from metriloc.types import FailureReason, PoseEstimate, SfmMap

POSES = "poses.txt"
_UNUSABLE = "unusable-references"
_CHUNK = 16


@dataclass(frozen=True)
class RunChoice:
    """How the queries are started. from_poses: at hloc's poses, with its matches; logs: retrieved references come from
    hloc's log in place of the list of pairs; step: every step-th query is localised."""

    from_poses: bool = False
    logs: bool = False
    step: int = 1

    @property
    def uses_logs(self) -> bool:
        """Whether a log is needed."""
        return self.from_poses or self.logs


class Sources:
    """Maps and logs, of which the last one of each kind is kept: the parts of some benchmarks share theirs."""

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Any, Any]] = {}

    def scene(self, task: LocalizationTask) -> SfmMap:
        """The map of a task."""
        return self._get("scene", (task.map_folder, task.images), task.read_map)

    def ids(self, folder: Path) -> MapIds:
        """COLMAP's ids of a map."""
        return self._get("ids", folder, lambda: read_map_ids(folder))

    def log(self, path: Path) -> dict[str, LoggedQuery]:
        """What hloc logged."""
        return self._get("log", path, lambda: read_log(path))

    def _get(self, kind: str, key: Any, read: Callable[[], Any]) -> Any:
        if kind not in self._kept or self._kept[kind][0] != key:
            self._kept.pop(kind, None)  # two maps of a city need not fit in memory
            self._kept[kind] = (key, read())
        return self._kept[kind][1]


@dataclass(frozen=True, eq=False)
class PartTask:
    """One query of a part. chunk: queries of a chunk stay with one process, as neighbours share references."""

    query: QueryTask
    chunk: int

    @property
    def key(self) -> str:
        """``part/query``."""
        return self.query.key

    @property
    def group(self) -> str:
        """Part and chunk."""
        return f"{self.query.group} {self.chunk}"


@dataclass(eq=False)
class PartQueries:
    """The queries of a part, ready to be localised. log, ids: of hloc, if used; descriptors: file of global ones, if used;
    start_needed: a query without a logged pose is lost."""

    tasks: tuple[PartTask, ...]
    log: Mapping[str, LoggedQuery] | None = None
    ids: MapIds | None = None
    descriptors: Path | None = None
    start_needed: bool = False
    unlisted: Mapping[str, str] = field(default_factory=dict)
    _described: frozenset[str] | None = None

    def hints(self, task: QueryTask) -> Hints:
        """What hloc knows of a query; matches without a pose rank nothing."""
        logged = None if self.log is None else self.log.get(task.frame.name)
        if logged is not None and logged.pose is None:
            logged = None
        return hints_of(logged, self.ids, self._likeness(task))

    def _likeness(self, task: QueryTask) -> dict[str, float] | None:
        if self.descriptors is None:
            return None
        if self._described is None:
            self._described = frozenset(image_names(self.descriptors))
        known = self._described
        if task.frame.name not in known:
            return None  # all references count the same
        names = [task.frame.name, *(name for name in task.references if name in known)]
        return similarities(read_global_descriptors(self.descriptors, names), task.frame.name, task.references)


def part_queries(
    part: VislocPart, method: PixLoc, choice: RunChoice, sources: Sources, folder: Path | None = None
) -> PartQueries:
    """Everything that is read before the first query. Raises InputError for files that are missing or malformed."""
    task = part.task(folder, pairs=not choice.uses_logs)
    log = sources.log(part.require("hloc_logs")) if choice.uses_logs else None
    likened = method.config.approximate_pose and not choice.from_poses
    descriptors = part.require("global_descriptors") if likened else None
    scene = sources.scene(task)
    ids = sources.ids(task.map_folder) if log is not None else None
    tasks: list[PartTask] = []
    unlisted: dict[str, str] = {}
    for index, frame in enumerate(task.queries[:: choice.step]):
        references: Sequence[str] = ()
        init = None
        if log is not None and ids is not None and frame.name in log:
            references = logged_references(log[frame.name], ids, scene.names)
            init = log[frame.name].pose if choice.from_poses else None
        elif log is None and frame.name in task.retrieval:
            references = task.references(frame.name)
        else:
            where = part.path("retrieval" if log is None else "hloc_logs")
            unlisted[frame.name] = f"'{where}' does not list {frame.name!r}"
        tasks.append(PartTask(QueryTask(frame, scene, tuple(references), init), index // _CHUNK))
    return PartQueries(tuple(tasks), log, ids, descriptors, choice.from_poses, unlisted)


class QueryLocalizer:
    """Localises the queries of one part. What is wrong with one of them ends in its record.

    references: one sentence for every photo of the map that could not be used; queries get by with the others.
    """

    def __init__(self, method: PixLoc, queries: PartQueries) -> None:
        self.method, self.queries = method, queries
        self.references: dict[str, None] = {}

    def __call__(self, part_task: PartTask, seed: int) -> Record:
        """The record of one query: its pose or, where that failed, the one it started from."""
        task, start = part_task.query, time.perf_counter()
        if task.frame.name in self.queries.unlisted:
            return unreadable(task.key, InputError(self.queries.unlisted[task.frame.name]))
        if self.queries.start_needed and task.init is None:
            return record_of(task.key, PoseEstimate.failure("too_few_matches"), 0.0)
        try:
            view = task.frame.load(depth=False)
            hints = self.queries.hints(task)
            estimate = self.method.localize(view, task.scene, task.references, task.init, seed=seed, hints=hints)
        except InputError as error:
            return unreadable(task.key, error)
        except torch.cuda.OutOfMemoryError:
            torch.cuda.empty_cache()
            return unreadable(task.key, InputError(f"the GPU has too little memory for '{task.frame.path}'"))
        messages = estimate.localization[0].messages if estimate.localization else ()
        self.references.update({m: None for m in messages if f"'{task.scene.folder}" in m})
        return with_start(record_of(task.key, estimate, time.perf_counter() - start), estimate)


def with_start(record: Record, estimate: PoseEstimate) -> Record:
    """The record of a failure with the pose that its refinement started from, if there was one."""
    stages = estimate.localization[0].stages if estimate.localization else ()
    if record.success or not stages or not bool(stages[0].cam_from_world.is_finite()):
        return record
    pose = stages[0].cam_from_world.to("cpu", torch.float64)
    return dataclasses.replace(record, q=tuple(pose.quaternion().tolist()), t=tuple(pose.t.tolist()))


def lost(record: Record) -> bool:
    """Whether its files could not be used. The reason is a sentence, not one of the method's."""
    return record.reason is not None and record.reason not in get_args(FailureReason)


# -- one part ---------------------------------------------------------------------------------------------------------
def finished(folder: Path, description: Mapping[str, Any]) -> bool:
    """Whether a part is done. Raises InputError when the folder holds one that was run otherwise."""
    if not (folder / RUN_FILE).exists():
        return False
    require_same_run(folder, description, description)
    return (folder / POSES).is_file()


def run_part(
    queries: PartQueries,
    method: PixLoc,
    folder: Path,
    description: Mapping[str, Any],
    *,
    seed: int = 0,
    worker: Worker | None = None,
    progress: Progress | None = None,
) -> None:
    """Localise what is not done yet. Ctrl+C loses the query in hand only."""
    prepare_output_folder(folder)
    solve, worker = QueryLocalizer(method, queries), worker or Worker()
    try:
        run(queries.tasks, solve, folder, description, seed=seed, worker=worker, progress=progress)
    finally:
        file = folder / f"{_UNUSABLE}-{worker.rank}.txt"
        if solve.references:
            known = read_text(file).splitlines() if file.exists() else []
            write_atomically(file, "".join(f"{line}\n" for line in dict.fromkeys([*known, *solve.references])))


def unusable_references(folder: Path) -> list[str]:
    """A sentence for every photo of the map that the queries of a part did without, in this run or before."""
    files = sorted(folder.glob(f"{_UNUSABLE}-*.txt"))
    return sorted({line for file in files for line in read_text(file).splitlines()})


def finish_part(queries: PartQueries, folder: Path, part: VislocPart) -> list[Record]:
    """Write ``poses.txt`` of a part whose queries are all done. Returns their records."""
    records = collect(queries.tasks, folder)
    poses = [(task.query.frame.name, record.pose) for task, record in zip(queries.tasks, records, strict=True)]
    found: list[tuple[str, Pose]] = [(name, pose) for name, pose in poses if pose is not None]
    write_visloc(folder / POSES, found, part.files.result_names)
    return records


# -- all parts --------------------------------------------------------------------------------------------------------
def merge_results(files: Sequence[Path], out: Path) -> int:
    """The lines of several result files as one; returns how many. Raises InputError for a name that two of them have."""
    seen: dict[str, Path] = {}
    for file in files:
        for name in read_results(file):
            if name in seen:
                raise InputError(f"'{seen[name]}' and '{file}' both hold a pose of {name!r}")
            seen[name] = file
    texts = [read_text(file).rstrip("\n") + "\n" for file in files if file.stat().st_size]
    write_atomically(out, "".join(texts))
    return len(seen)


def read_results(file: Path) -> dict[str, Pose]:
    """``read_visloc``, also of a file without a line. No query had a pose."""
    return {} if file.is_file() and not file.stat().st_size else read_visloc(file)


def score_parts(
    parts: Sequence[tuple[VislocPart, Path]], step: int = 1, *, only_localized: bool = False
) -> tuple[AbsoluteScore, list[str]]:
    """Errors of the results of several parts, and the part of each query; those without a pose are infinitely far off or,
    with ``only_localized``, left out."""
    truth: dict[str, Pose] = {}
    estimates: dict[str, Pose] = {}
    part_of: dict[str, str] = {}
    for part, file in parts:
        results = read_results(file)
        for frame in part.queries()[::step]:
            name = visloc_name(frame.name, part.files.result_names)
            key = f"{part.name}/{name}"
            if frame.cam_from_world is not None:
                truth[key], part_of[key] = frame.cam_from_world, part.name
            if name in results:
                estimates[key] = results[name]
    score = score_absolute(estimates, truth, only_localized=only_localized)
    return score, [part_of[key] for key in score.names]
