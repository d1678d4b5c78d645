"""``metriloc localize-benchmark NAME``: PixLoc over a localisation benchmark with the settings that were published."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, cast

import tyro

from metriloc.choose import require_device
from metriloc.cli.eval import device_of
from metriloc.cli.localize_benchmark_options import BenchmarkFolders, BenchmarkSettings
from metriloc.cli.terminal import EXIT_NO_POSE, progress_bar
from metriloc.datasets.visloc_files import VislocName, VislocPart
from metriloc.evaluation.records import RUN_FILE, Record, read_records
from metriloc.evaluation.report import absolute_report, markdown_table, scenes_table, write_report
from metriloc.evaluation.runner import Worker, process_group, worker_from_environment
from metriloc.io import InputError, prepare_output_folder
from metriloc.io.download import cache_folder
from metriloc.methods.pixloc import NetworkExtractor, PixLoc
from metriloc.overrides import flat, plain
from metriloc.recipes.localization_published import LocalizationRun
from metriloc.runs.benchmark import (
    POSES,
    RunChoice,
    Sources,
    finish_part,
    finished,
    lost,
    merge_results,
    part_queries,
    run_part,
    score_parts,
    unusable_references,
)

NAMED = 20
"""So many of them are named."""


def localize_benchmark(
    benchmark: Annotated[tyro.conf.Positional[VislocName], tyro.conf.arg(metavar="BENCHMARK")],
    where: Annotated[BenchmarkFolders, tyro.conf.arg(name="where")],
    out: Path,
    how: Annotated[BenchmarkSettings, tyro.conf.arg(name="settings")] = BenchmarkSettings(),  # noqa: B008 - frozen
) -> int:
    """Localise the queries of a benchmark with PixLoc as published, resumable, and score or submit the poses.

    Args:
        benchmark: 7scenes, cambridge, aachen, cmu or robotcar.
        where: Where the benchmark is.
        out: Folder for the poses of each scene, slice or condition, all of them in one file, and the report.
        how: How it is run.
    """
    files = where.files(benchmark)
    parts = where.parts(files)
    if how.skip < 1:
        raise InputError(f"--skip must be at least 1, got {how.skip}")
    if how.eval_only:
        if files.withheld:
            raise InputError(f"the truth of {benchmark} is not public: visuallocalization.net scores its results")
        return _scored(parts, out, {"method": "pixloc", "benchmark": benchmark}, how)
    choice = RunChoice(how.from_poses, how.inlier_ranking or where.hloc_logs is not None, how.skip)
    check_files(parts, choice, how.changed(how.published(benchmark)))
    return _run(parts, out, choice, replace(how, device=device_of(how.device, os.environ)))


def _run(parts: Sequence[VislocPart], out: Path, choice: RunChoice, how: BenchmarkSettings) -> int:
    files, worker = parts[0].files, worker_from_environment()
    method, run = load_method(files.name, how)
    prepare_output_folder(out)
    description = {
        "method": "pixloc",
        "weights_id": method.weights_id,
        "benchmark": files.name,
        **asdict(choice),
        **flat(plain(run), "settings"),
        **flat(plain(asdict(files)), "files"),
    }
    session = _Session(method, choice, description, out, how.resume, worker)
    with process_group(worker) as wait:
        records = [record for part in parts for record in session.do(part, wait)]
    if worker.rank != 0:
        return 0
    code = _told(records, session.references)
    if files.withheld:
        _merged(parts, out)
        return code
    return max(code, _scored(parts, out, description, how))


def check_files(parts: Sequence[VislocPart], choice: RunChoice, run: LocalizationRun) -> None:
    """Raises InputError for the first file that a part lacks, before any work."""
    needed = ["query_images", "reference_images", "reference_sfm"]
    needed.append("hloc_logs" if choice.uses_logs else "retrieval")
    if run.config.approximate_pose and not choice.from_poses:
        needed.append("global_descriptors")
    for part in parts:
        for what in needed if part.files.withheld else [*needed, "ground_truth"]:
            part.require(what)


def load_method(benchmark: VislocName, how: BenchmarkSettings) -> tuple[PixLoc, LocalizationRun]:
    """PixLoc with the published settings on top of what its weights say; and these settings."""
    require_device(how.device)
    published = how.published(benchmark)
    weights = how.weights or str(cache_folder() / published.checkpoint)
    if how.weights is None and not Path(weights).is_dir():
        raise InputError(
            f"the published runs on {benchmark} use {published.checkpoint}, which is not in '{weights}': give --weights, "
            "a folder that metriloc weights convert made from the released file, or pixloc-small"
        )
    stored = PixLoc.from_pretrained(weights, device=how.device)
    extractor = cast(NetworkExtractor, stored.extractor)
    run = how.changed(published.with_checkpoint(stored.align, extractor.resize))
    features = extractor.resized(run.resize)
    return PixLoc(features, run.align, run.config, cache=how.cache, weights_id=stored.weights_id), run


@dataclass
class _Session:
    """One run over several parts."""

    method: PixLoc
    choice: RunChoice
    description: dict[str, Any]
    out: Path
    resume: bool
    worker: Worker
    sources: Sources = field(default_factory=Sources)
    references: list[str] = field(default_factory=list)

    def do(self, part: VislocPart, wait: Any) -> list[Record]:
        """Run one part unless it is finished; its records."""
        folder, description = self.out / part.name, {**self.description, "part": part.name}
        if not self.resume and (folder / RUN_FILE).exists():
            raise InputError(f"'{folder}' holds an earlier run: --resume goes on with it, or give another --out")
        done = finished(folder, description)
        wait()  # before any process can finish it
        if done:
            self._say(f"{part.name}: finished in an earlier run")
            self.references += unusable_references(folder)
            return list(read_records(folder).values())
        prepare_output_folder(folder)
        queries = part_queries(part, self.method, self.choice, self.sources, folder)
        try:
            with progress_bar(part.name, self.worker.rank) as progress:
                run_part(queries, self.method, folder, description, worker=self.worker, progress=progress)
        except KeyboardInterrupt:
            self._say(f"\nstopped; --resume goes on where it was ({folder})", file=sys.stderr)
            raise
        wait()
        if self.worker.rank != 0:
            return []
        records = finish_part(queries, folder, part)
        self.references += unusable_references(folder)
        found = sum(record.success for record in records)
        started = sum(record.pose is not None and not record.success for record in records)
        self._say(f"{part.name}: {found} of {len(records)} refined, {started} written as they started")
        return records

    def _say(self, text: str, **where: Any) -> None:
        if self.worker.rank == 0:
            print(text, **where)


# -- at the end -------------------------------------------------------------------------------------------------------
def _told(records: Sequence[Record], references: Sequence[str]) -> int:
    """Names the queries and photos of maps that could not be used; the exit code."""
    queries = [f"{record.key}: {record.reason}" for record in records if lost(record)]
    for what, bad in ((f"of {len(records)} queries", queries), ("of the maps' photos", references)):
        if bad:
            print(f"metriloc localize-benchmark: {len(bad)} {what} could not be used:", file=sys.stderr)
            print("".join(f"  {sentence}\n" for sentence in bad[:NAMED]), end="", file=sys.stderr)
        if len(bad) > NAMED:
            print(f"  and {len(bad) - NAMED} more, see the folders of the parts", file=sys.stderr)
    return EXIT_NO_POSE if queries or references else 0


def _merged(parts: Sequence[VislocPart], out: Path) -> None:
    """One submission of all parts, in the order of their folders."""
    names = sorted(part.name for part in parts)
    whole = len(parts) == len(parts[0].files.parts)
    shorts = "-".join(name.removeprefix("slice")[:3] for name in names)
    file = out / (POSES if whole else f"poses_{shorts}.txt")
    count = merge_results([out / name / POSES for name in names], file)
    print(f"the truth is not public: upload {file} ({count} poses) to visuallocalization.net")


def _scored(parts: Sequence[VislocPart], out: Path, description: dict[str, Any], how: BenchmarkSettings) -> int:
    files = [(part, out / part.name / POSES) for part in parts]
    score, scenes = score_parts(files, how.skip, only_localized=how.only_localized)
    if how.only_localized:
        description = {**description, "only_localized": True}
    title = f"PixLoc on {description['benchmark']}"
    report = absolute_report(title, description, score, scenes)
    print(markdown_table(scenes_table(report.scenes)), end="")
    print(f"\nall {len(score.names)} queries:{score.as_text()}")
    print("written: " + ", ".join(str(file) for file in write_report(prepare_output_folder(out), report, None)))
    return 0
