"""Benchmarks by name: the tasks of a data set on disk, and what its report and submission look like.

| name | what | data |
|---|---|---|
| ``mapfree`` | Map-free split: every 5th query against one reference | folder of scenes |
| ``pairs`` | any folder of that form, every query | folder of scenes |
| ``posed`` | pairs drawn from posed photos, by overlap where there is depth | folders of any posed kind |
| ``scannet`` | ScanNet-1500 list (or any list of 38 fields) | the list, and the folder of scans |
| ``7scenes`` ``cambridge`` | localisation with public truth | data set and hloc outputs |
| ``aachen`` ``cmu`` ``robotcar`` | localisation scored by visuallocalization.net | data set and hloc outputs |
| ``map`` | photos of a COLMAP model, each left out of it in turn | the model |
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from metriloc.datasets.depth_frames import with_depth_named
from metriloc.datasets.mapfree import BLOCK_STEP, MAPFREE_STEP, MapfreeScene, read_mapfree, uniform_pairs
from metriloc.datasets.overlap import overlap_of_views
from metriloc.datasets.posed import read_posed_scenes
from metriloc.datasets.scannet import read_scannet_pairs
from metriloc.datasets.sevenscenes import SCENES
from metriloc.datasets.sources import FramePair, PosedFrame, PosedScene
from metriloc.datasets.visloc import CAMBRIDGE, CMU_TEST_SLICES, ROBOTCAR_CONDITIONS, LocalizationTask
from metriloc.datasets.visloc_tasks import aachen_task, cambridge_task, cmu_task, robotcar_task, sevenscenes_task
from metriloc.evaluation.held_out import held_out_queries
from metriloc.evaluation.tasks import PairTask, QueryTask
from metriloc.io import InputError
from metriloc.io.maps import read_map
from metriloc.io.poses import Naming
from metriloc.types import View

BenchmarkName = Literal[
    "mapfree", "pairs", "posed", "scannet", "7scenes", "cambridge", "aachen", "cmu", "robotcar", "map"
]
SCANNET_SIZE = (640, 480)
"""Photos are resized to it, as the published results had them."""


@dataclass(frozen=True)
class BenchmarkOptions:
    """Where a benchmark is and which part of it."""

    data: Path
    """Map-free: folder of the scenes (or of the splits); scannet: the list of pairs; map: a COLMAP model; else the set."""
    split: str | None = None
    """Of Map-free: train, val or test."""
    step: int | None = None
    """Every step-th query counts: 5 for mapfree, 1 elsewhere."""
    scans: Path | None = None
    """scannet: folder that the names of the list are relative to."""
    hloc: Path | None = None
    """7scenes, cambridge, aachen, cmu, robotcar: folder of hloc's models and retrieved pairs."""
    parts: tuple[str, ...] = ()
    """Scenes, slices (also 2-6,13) or conditions; all by default."""
    references: int = 5
    """Images of the map that a query is compared with."""
    draw: int = 200
    """posed: pairs drawn from each folder."""
    min_overlap: float = 0.2
    """posed: pairs that share less are drawn again, where the photos have depth."""
    max_overlap: float | None = None
    """mapfree, pairs, posed: only pairs that share less, such as 0.2 for extreme changes of view; by overlaps.npz (metriloc
    overlaps), of posed by depth."""
    resize: tuple[int, int] | None = None
    """Pairs: WIDTH HEIGHT that photos are resized to, intrinsics follow; Map-free was published with 540 720."""
    images: Path | None = None
    """map: folder that the names of the images are relative to."""
    multi_frame: bool = False
    """mapfree: the multi-frame track. Queries 9, 19, 29 ... are scored, each with the eight frames before it and the phone's
    own tracking of these (poses_device.txt)."""


@dataclass(frozen=True, eq=False)
class PairBenchmark:
    """Pairs to solve. size: photos are resized to it; withheld: the truth is not public; first, step: the positions that
    are scored; multi_frame: whether each task has frames before its query."""

    name: str
    tasks: tuple[PairTask, ...]
    step: int = 1
    size: tuple[int, int] | None = None
    withheld: bool = False
    first: int = 0
    multi_frame: bool = False


@dataclass(frozen=True, eq=False)
class QueryBenchmark:
    """Queries to localise. naming: of a visuallocalization.net submission; withheld: the truth is not public."""

    name: str
    tasks: tuple[QueryTask, ...]
    naming: Naming = "file"
    withheld: bool = False


def load_benchmark(
    name: BenchmarkName, options: BenchmarkOptions, depth_files: str | None = None
) -> PairBenchmark | QueryBenchmark:
    """The tasks of a benchmark. Raises InputError for files that are missing or malformed, naming them.

    depth_files: NAME of the depth maps ``frame.NAME.png`` that the photos of pairs have instead of their own.
    """
    chosen = _load(name, options)
    if depth_files is None:
        return chosen
    if isinstance(chosen, QueryBenchmark):
        raise InputError(f"--depth-source file:{depth_files}: {name} localises photos in a map, without depth maps")
    if chosen.multi_frame:
        raise InputError(f"--depth-source file:{depth_files}: with --multi-frame the phone's motion tells the metres")
    tasks = [_with_depth_named(task, depth_files) for task in chosen.tasks]
    if all(task.pair.frame0.depth is None and task.pair.frame1.depth is None for task in tasks):
        raise InputError(f"--depth-source file:{depth_files}: no photo has a depth map *.{depth_files}.png beside it")
    return dataclasses.replace(chosen, tasks=tuple(tasks))


def _with_depth_named(task: PairTask, suffix: str) -> PairTask:
    pair = task.pair
    frame0, frame1 = with_depth_named(pair.frame0, suffix), with_depth_named(pair.frame1, suffix)
    return PairTask(FramePair(frame0, frame1, pair.overlap))


def _load(name: BenchmarkName, options: BenchmarkOptions) -> PairBenchmark | QueryBenchmark:
    most = options.max_overlap
    if most is not None and (name not in ("mapfree", "pairs", "posed") or not 0 < most <= 1):
        raise InputError(f"--max-overlap {most}: above 0 and at most 1, and for mapfree, pairs and posed")
    if options.multi_frame and (name != "mapfree" or options.step is not None or options.max_overlap is not None):
        raise InputError(
            "--multi-frame is a track of mapfree, with a step of its own: leave out --step and --max-overlap"
        )
    if options.resize is not None and min(options.resize) < 1:
        raise InputError(f"--resize {options.resize[0]} {options.resize[1]}: both must be positive")
    if name in ("mapfree", "pairs"):
        return _mapfree(name, options)
    if name == "scannet":
        if options.scans is None:
            raise InputError("scannet needs --scans, the folder that the names of the list are relative to")
        pairs = read_scannet_pairs(options.data, options.scans)
        tasks = tuple(PairTask(pair) for pair in pairs[:: options.step or 1])
        return PairBenchmark(name, tasks, size=options.resize or SCANNET_SIZE)
    if name == "posed":
        scenes = read_posed_scenes(options.data)
        drawn = tuple(task for scene in scenes for task in _drawn(scene, options))
        return PairBenchmark(name, drawn, size=options.resize)
    if options.resize is not None:
        raise InputError(f"--resize is for pairs; {name} localises photos in a map, as they are")
    if name == "map":
        return _held_out(options)
    return _visloc(name, options)


def _mapfree(name: str, options: BenchmarkOptions) -> PairBenchmark:
    step = options.step or (MAPFREE_STEP if name == "mapfree" else 1)
    scenes = read_mapfree(options.data, options.split)
    if options.parts:
        unknown = set(options.parts) - {scene.name for scene in scenes}
        if unknown:
            raise InputError(f"'{options.data}' has no scene {sorted(unknown)[0]!r}")
        scenes = [scene for scene in scenes if scene.name in options.parts]
    if options.multi_frame:
        return _multi_frame(name, scenes, options)
    most = options.max_overlap
    pairs = [pair for scene in scenes for pair in scene.evaluation_pairs(step, overlaps=most is not None)]
    if not pairs:
        raise InputError(f"'{options.data}' has no query photo (seq1/...) in any of its {len(scenes)} scenes")
    tasks = tuple(PairTask(pair) for pair in pairs if most is None or pair.overlap < most)
    if not tasks:
        raise InputError(f"--max-overlap {most}: each of the {len(pairs)} pairs of '{options.data}' shares more")
    withheld = all(task.pair.cam1_from_cam0 is None for task in tasks)
    return PairBenchmark(name, tasks, step, options.resize, withheld)


def _multi_frame(name: str, scenes: Sequence[MapfreeScene], options: BenchmarkOptions) -> PairBenchmark:
    tasks = tuple(PairTask(block.pair, block) for scene in scenes for block in scene.evaluation_blocks())
    if not tasks:
        raise InputError(f"'{options.data}' has no {BLOCK_STEP} queries in a row in any of its {len(scenes)} scenes")
    withheld = all(task.pair.cam1_from_cam0 is None for task in tasks)
    return PairBenchmark(name, tasks, BLOCK_STEP, options.resize, withheld, BLOCK_STEP - 1, multi_frame=True)


def _drawn(scene: PosedScene, options: BenchmarkOptions) -> list[PairTask]:
    """Different ordered pairs, always the same ones of a folder; fewer when 30 draws a pair do not find enough."""
    if options.draw < 1 or not 0 <= options.min_overlap < 1:
        raise InputError(f"--draw {options.draw} and --min-overlap {options.min_overlap}: at least 1, and 0 to 1")
    candidates = uniform_pairs(scene, 30 * options.draw, torch.Generator().manual_seed(0))
    tasks: dict[str, PairTask] = {}
    for i in range(len(candidates)):
        pair = candidates[i]
        if pair.frame0.depth is not None and pair.frame1.depth is not None:
            overlap = overlap_of_views(_depth_view(pair.frame0), _depth_view(pair.frame1))
            if overlap < options.min_overlap or (options.max_overlap is not None and overlap >= options.max_overlap):
                continue
            pair = dataclasses.replace(pair, overlap=overlap)
        task = PairTask(pair)
        tasks.setdefault(task.key, task)
        if len(tasks) == options.draw:
            break
    return list(tasks.values())


def _depth_view(frame: PosedFrame) -> View:
    """What the overlap looks at; the photo itself is left unread."""
    depth = None if frame.depth is None else frame.depth_format.read(frame.depth, frame.camera)
    width, height = (int(side) for side in frame.camera.size.tolist())
    return View(
        torch.zeros(3, 1, 1).expand(3, height, width), frame.camera, frame.cam_from_world, frame.name, depth=depth
    )


def _visloc(name: str, options: BenchmarkOptions) -> QueryBenchmark:
    if options.hloc is None:
        raise InputError(f"{name} needs --hloc, the folder of hloc's models and retrieved pairs")
    makers: dict[str, tuple[tuple[str, ...], Callable[[str, Path, Path], LocalizationTask]]] = {
        "7scenes": (SCENES, sevenscenes_task),
        "cambridge": (CAMBRIDGE, cambridge_task),
        "aachen": (("aachen",), lambda _, data, hloc: aachen_task(data, hloc)),
        "cmu": (tuple(str(n) for n in CMU_TEST_SLICES), lambda part, data, hloc: cmu_task(_slice(part), data, hloc)),
        "robotcar": (ROBOTCAR_CONDITIONS, robotcar_task),
    }
    known, make = makers[name]
    parts = [make(part, options.data, options.hloc) for part in part_names(name, options.parts) or known]
    tasks = [task for part in parts for task in _queries(part, options)]
    withheld = all(task.frame.cam_from_world is None for task in tasks)
    return QueryBenchmark(name, tuple(tasks), parts[0].result_names, withheld)


def part_names(benchmark: str, given: Sequence[str]) -> tuple[str, ...]:
    """The parts that were named; of cmu, ``2-6,13`` -> 2 3 4 5 6 13. Raises InputError for no such ranges."""
    if benchmark != "cmu":
        return tuple(given)
    found: list[str] = []
    for text in given:
        for entry in text.replace(" ", "").strip("[]").split(","):
            match = re.fullmatch(r"(\d{1,3})(?:-(\d{1,3}))?", entry)
            if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
                raise InputError(f"--parts {text!r}: slices of Extended CMU Seasons read as 2-6,13")
            found += map(str, range(int(match[1]), int(match[2] or match[1]) + 1))
    return tuple(found)


def _slice(part: str) -> int:
    try:
        return int(part)
    except ValueError:
        raise InputError(f"a slice of Extended CMU Seasons is a number, got {part!r}") from None


def _queries(part: LocalizationTask, options: BenchmarkOptions) -> list[QueryTask]:
    scene = part.read_map()
    known = set(scene.names)
    tasks = []
    for frame in part.queries[:: options.step or 1]:
        # retrieval may name images that the reconstruction left out
        references = [name for name in part.references(frame.name) if name in known][: options.references]
        tasks.append(QueryTask(frame, scene, tuple(references)))
    return tasks


def _held_out(options: BenchmarkOptions) -> QueryBenchmark:
    whole = read_map(options.data, options.images)
    if whole.folder is None:
        raise InputError("map needs --images, the folder that the names of the images are relative to")
    tasks = held_out_queries(whole, options.step or 1, options.references, options.data.resolve().parent.name)
    return QueryBenchmark("map", tuple(tasks))


def load_pairs(benchmark: BenchmarkName, part: BenchmarkOptions, depth_files: str | None = None) -> PairBenchmark:
    """A benchmark of pairs. Raises InputError for one of photos in maps, and as ``load_benchmark``."""
    chosen = load_benchmark(benchmark, part, depth_files)
    if not isinstance(chosen, PairBenchmark):
        raise InputError(f"{benchmark} has queries in maps; this command takes pairs (mapfree, pairs, scannet)")
    if chosen.multi_frame:
        raise InputError(
            "--multi-frame: this command compares methods for pairs; metriloc eval takes the multi-frame track"
        )
    return chosen
