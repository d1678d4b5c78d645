"""PixLoc as published over the parts of a localization benchmark: its settings, its files, one part after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from metriloc.choose import require_device
from metriloc.datasets.visloc_files import VislocName, VislocPart
from metriloc.evaluation.records import Record, read_records
from metriloc.io import InputError, prepare_output_folder
from metriloc.io.download import cache_folder
from metriloc.methods.pixloc import PixLoc
from metriloc.methods.pixloc.settings import PUBLISHED_NAMES, QuerySettings
from metriloc.overrides import override
from metriloc.recipes.localization_published import LocalizationRun, published_localization
from metriloc.runs.benchmark import (
    POSES,
    RunChoice,
    Sources,
    finish_part,
    finished,
    merge_results,
    part_queries,
    run_part,
    unusable_references,
)
from metriloc.runs.references import Bar
from metriloc.training.processes import Worker


@dataclass(frozen=True)
class PublishedRun:
    """What is run: the published settings of a benchmark, with changes.

    ranked: references ordered by hloc's inliers; assignments: ``FIELD=VALUE``, a field without group is of ``config``.
    """

    benchmark: VislocName
    from_poses: bool = False
    ranked: bool = False
    assignments: tuple[str, ...] = ()

    def settings(self, method: PixLoc | None = None) -> LocalizationRun:
        """The settings; on top of what the weights of a method say. Raises ValueError for a field that does not exist."""
        run = published_localization(self.benchmark, from_poses=self.from_poses)
        if self.ranked:
            run = replace(run, config=replace(run.config, rank_by_inliers=True))
        if method is not None:
            stored = method.settings
            run = run.with_checkpoint(stored.align, stored.resize or run.resize)
        changed: LocalizationRun = override(run, self.assignments, group="config", aliases=PUBLISHED_NAMES)
        return changed

    def method(
        self, weights: str | None = None, *, cache: Path | None = None, device: str = "cpu"
    ) -> tuple[PixLoc, LocalizationRun]:
        """PixLoc with these settings, and the settings. Raises InputError where the weights are not."""
        require_device(device)
        checkpoint = published_localization(self.benchmark).checkpoint
        source = weights or str(cache_folder() / checkpoint)
        if weights is None and not Path(source).is_dir():
            raise InputError(
                f"the published runs on {self.benchmark} use {checkpoint}, which is not in '{source}': give --weights, "
                "a folder that metriloc weights convert made from the released file, or pixloc-small"
            )
        stored = PixLoc.from_pretrained(source, cache=cache, device=device, calibrations=())
        run = self.settings(stored)
        return stored.with_settings(QuerySettings(run.config, run.align, run.resize)), run


def check_files(parts: Sequence[VislocPart], choice: RunChoice, run: LocalizationRun) -> None:
    """Raises InputError for the first file that a part lacks, before any work."""
    needed = ["query_images", "reference_images", "reference_sfm"]
    needed.append("hloc_logs" if choice.uses_logs else "retrieval")
    if run.config.approximate_pose and not choice.from_poses:
        needed.append("global_descriptors")
    for part in parts:
        for what in needed if part.files.withheld else [*needed, "ground_truth"]:
            part.require(what)


@dataclass
class PublishedSession:
    """One run over several parts; ``say`` hears a sentence a part. references: photos of maps that could not be used."""

    method: PixLoc
    choice: RunChoice
    description: Mapping[str, Any]
    out: Path
    worker: Worker
    say: Callable[[str], None]
    bar: Bar
    seed: int = 0
    sources: Sources = field(default_factory=Sources)
    references: list[str] = field(default_factory=list)

    def do(self, part: VislocPart, wait: Callable[[], None]) -> list[Record]:
        """Run one part unless it is finished; its records."""
        folder, description = self.out / part.name, {**self.description, "part": part.name}
        done = finished(folder, description)
        wait()  # before any process can finish it
        if done:
            self.say(f"{part.name}: finished in an earlier run")
            self.references += unusable_references(folder)
            return list(read_records(folder).values())
        prepare_output_folder(folder)
        queries = part_queries(part, self.method, self.choice, self.sources, folder)
        with self.bar(part.name) as progress:
            run_part(queries, self.method, folder, description, seed=self.seed, worker=self.worker, progress=progress)
        wait()
        if self.worker.rank != 0:
            return []
        records = finish_part(queries, folder, part)
        self.references += unusable_references(folder)
        found = sum(record.success for record in records)
        started = sum(record.pose is not None and not record.success for record in records)
        self.say(f"{part.name}: {found} of {len(records)} refined, {started} written as they started")
        return records


def merged(parts: Sequence[VislocPart], out: Path) -> tuple[Path, int]:
    """One submission of all parts, in the order of their folders, and how many poses are in it."""
    names = sorted(part.name for part in parts)
    whole = len(parts) == len(parts[0].files.parts)
    shorts = "-".join(name.removeprefix("slice")[:3] for name in names)
    file = out / (POSES if whole else f"poses_{shorts}.txt")
    return file, merge_results([out / name / POSES for name in names], file)
