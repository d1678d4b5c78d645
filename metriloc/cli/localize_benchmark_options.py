"""Options of ``metriloc localize-benchmark``: where a benchmark is, which part of it, and how it is run."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.datasets.visloc_files import VISLOC_FILES, VislocFiles, VislocName, VislocPart
from metriloc.io import InputError
from metriloc.recipes.localization_published import LocalizationRun, published_localization
from metriloc.training import override


@dataclass(frozen=True)
class BenchmarkFolders:
    """Where the benchmark is and which part of it; relative paths are in --data for photos and truth, else in --hloc.

    {scene}, {slice} and {condition} in a path stand for the part.
    """

    data: Path
    """Folder of the data set."""
    hloc: Path | None = None
    """Folder of hloc's outputs; --data by default."""
    scenes: tuple[str, ...] = ()
    """Of 7scenes and cambridge; all by default."""
    slices: str | None = None
    """Of cmu, as in 2-6,13; the test slices by default."""
    conditions: tuple[str, ...] = ()
    """Of robotcar; all by default."""
    reference_sfm: str | None = None
    """COLMAP model."""
    reference_images: str | None = None
    """Folder of its photos."""
    query_images: str | None = None
    """Folder of the queries."""
    query_list: str | None = None
    """List of queries with cameras; also a pattern with *."""
    retrieval: str | None = None
    """List of lines 'query reference', the best first."""
    global_descriptors: str | None = None
    """HDF5 file, for first poses averaged over references."""
    hloc_logs: str | None = None
    """Log of hloc's localisation, *_logs.pkl; retrieved references are then taken from it."""
    ground_truth: str | None = None
    """COLMAP model with the true poses."""
    test_list: str | None = None
    """Names of the queries with true poses."""

    def files(self, name: VislocName) -> VislocFiles:
        """Where the files of a benchmark are, by default and as given."""
        known = VISLOC_FILES[name]
        own = {f.name for f in fields(VislocFiles)} & {f.name for f in fields(self)}
        return known.replaced({key: getattr(self, key) for key in own})

    def parts(self, files: VislocFiles) -> list[VislocPart]:
        """What is run. Raises InputError for a part that the benchmark does not have."""
        given = {"scene": self.scenes, "slice": slices_of(self.slices), "condition": self.conditions}
        for what, parts in given.items():
            if parts and what != files.what:
                raise InputError(f"--{what}s {' '.join(parts)} belongs to another benchmark than {files.name}")
        wanted = given.get(files.what) or files.parts
        hloc = self.data if self.hloc is None else self.hloc
        return [files.part(part, self.data, hloc) for part in dict.fromkeys(wanted)]


@dataclass(frozen=True)
class BenchmarkSettings:
    """How it is run; by default as published."""

    weights: str | None = None
    """Folder, file or hub name of PixLoc's weights; by default the cache's folder of the published checkpoint's name."""
    from_poses: bool = False
    """Start from the poses of hloc's log, with the points it matched, and not from retrieved images."""
    inlier_ranking: bool = False
    """Order retrieved references by their inliers in hloc's log."""
    skip: int = 1
    """Localise every so manyth query only."""
    set: Annotated[tyro.conf.UseAppendAction[tuple[tuple[str, ...], ...]], tyro.conf.arg(metavar="FIELD=VALUE")] = ()
    """Set fields, e.g. --set num_references=5 or --set align.num_iters=50; a field without group is of config."""
    device: str = "cpu"
    """cpu, cuda, cuda:1, ...; with torchrun, cuda is one GPU a process."""
    cache: Path | None = None
    """Folder for features of the references; in memory only by default."""
    resume: bool = False
    """Go on with an earlier run in --out: what is finished is kept."""
    eval_only: bool = False
    """Only score the results in --out (7scenes, cambridge)."""
    only_localized: bool = False
    """Leave queries without a pose out of the score, instead of counting them as lost."""

    def published(self, name: VislocName) -> LocalizationRun:
        """The published settings, references ranked if so wished."""
        known = published_localization(name, from_poses=self.from_poses)
        return replace(known, config=replace(known.config, rank_by_inliers=True)) if self.inlier_ranking else known

    def changed(self, run: LocalizationRun) -> LocalizationRun:
        """With the fields of --set. Raises ValueError for one that does not exist."""
        groups = {f.name for f in fields(run)}
        texts = [text for several in self.set for text in several]
        full = [text if re.split(r"[.=]", text)[0] in groups else f"config.{text}" for text in texts]
        return override(run, full)


def slices_of(text: str | None) -> tuple[str, ...]:
    """``2-6,13`` -> 2 3 4 5 6 13. Raises InputError for anything else."""
    found: list[str] = []
    for entry in (text or "").replace(" ", "").strip("[]").split(",") if text else []:
        match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", entry)
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            raise InputError(f"--slices {text!r} does not read as 2-6,13")
        found += map(str, range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(found)
