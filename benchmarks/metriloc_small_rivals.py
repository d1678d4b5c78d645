"""The rivals of metriloc-small on a set of pairs: feature matching, its matches kept in a file, and the best constants.

    python benchmarks/metriloc_small_rivals.py DATA --cache rivals.npz [--matchers xfeat aliked+lightglue]

writes the matches and the essential-matrix poses of every pair, and goes on where it was stopped. They do not depend on
the model, so ``metriloc_small.py`` reads them for every checkpoint anew.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch

from metriloc.backbones.local import LocalFeatures
from metriloc.choose import MethodChoice, choose_method
from metriloc.evaluation.benchmarks import BenchmarkOptions, PairBenchmark, load_benchmark
from metriloc.evaluation.errors import center_error, vcre
from metriloc.evaluation.records import Record, parse_record
from metriloc.evaluation.scoring import PairScores, score_pairs
from metriloc.evaluation.tasks import PairSolver, PairTask
from metriloc.geometry import Pose
from metriloc.methods.matching.depth import DepthSource
from metriloc.methods.matching.matchers import Matches
from metriloc.methods.matching.model import FeatureMatching
from metriloc.types import View

MATCHERS = ("xfeat", "aliked+lightglue")
TITLES = {"xfeat": "XFeat + MNN", "aliked+lightglue": "ALIKED + LightGlue"}
CONSTANTS = np.geomspace(0.02, 40, 400)
"""Lengths that the best constant is looked for among, metres; 2 % apart."""


def tasks_of(data: Path, every: int = 1) -> tuple[PairTask, ...]:
    """Every pair of a folder, as ``metriloc eval METHOD pairs`` reads it; or every so manieth of the list."""
    benchmark = load_benchmark("pairs", BenchmarkOptions(data))
    if not isinstance(benchmark, PairBenchmark):
        raise ValueError(f"'{data}' holds no pairs")
    return benchmark.tasks[::every]


# -- matches that are kept --------------------------------------------------------------------------------------------
class MatchCache:
    """A .npz file: for each set, matcher and pair the matches [M, 5] (u0 v0 u1 v1 score) and the record of the pose."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: dict[str, np.ndarray] = {}
        if path.exists():
            with np.load(path) as stored:
                self.entries = dict(stored)

    def save(self) -> None:
        """Written beside and then moved, so that a stop leaves a whole file."""
        temporary = self.path.with_suffix(".part.npz")
        np.savez(temporary, **self.entries)
        os.replace(temporary, self.path)

    def put(self, name: str, matches: Matches, record: Record) -> None:
        """Keep a pair."""
        rows = torch.cat([matches.uv0, matches.uv1, matches.score[:, None]], 1)
        self.entries[f"{name}/matches"] = rows.numpy().astype(np.float32)
        self.entries[f"{name}/record"] = np.array(json.dumps(asdict(record)))

    def matches(self, name: str) -> Matches:
        """Of a pair that was kept; ValueError for another."""
        if f"{name}/matches" not in self.entries:
            raise ValueError(f"'{self.path}' has no matches of {name!r}: run metriloc_small_rivals.py")
        rows = torch.from_numpy(self.entries[f"{name}/matches"])
        return Matches(rows[:, :2], rows[:, 2:4], rows[:, 4])

    def records(self, names: Sequence[str]) -> list[Record]:
        """Essential-matrix poses of pairs that were kept."""
        return [self._record(name) for name in names]

    def _record(self, name: str) -> Record:
        text = self.entries.get(f"{name}/record")
        record = None if text is None else parse_record(str(text))
        if record is None:
            raise ValueError(f"'{self.path}' has no pose of {name!r}: run metriloc_small_rivals.py")
        return record

    def __contains__(self, name: str) -> bool:
        return f"{name}/record" in self.entries


class RememberingMatcher:
    """A matcher that keeps what it found last, so that the matches can be stored beside the pose."""

    def __init__(self, matcher: object) -> None:
        self.matcher, self.last = matcher, Matches(torch.zeros(0, 2), torch.zeros(0, 2), torch.zeros(0))

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        """The matcher's own."""
        self.last = self.matcher.match(view0, local0, view1, local1)  # type: ignore[attr-defined]
        return self.last

    def __getattr__(self, name: str) -> object:
        return getattr(self.matcher, name)


class StoredMatcher:
    """A matcher that looks nothing up but the cache; the photos are told apart by their names."""

    def __init__(self, cache: MatchCache, prefix: str, name: str, weights_id: str) -> None:
        self.cache, self.prefix, self.name, self.weights_id = cache, prefix, name, weights_id

    def extract(self, view: View) -> LocalFeatures:
        """Nothing: the matches are known."""
        return LocalFeatures(torch.zeros(0, 2), torch.zeros(0, 0), torch.zeros(0))

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        """What the matcher found in these photos."""
        return self.cache.matches(f"{self.prefix}/{view0.name} {view1.name}")


def names_of(prefix: str, tasks: Sequence[PairTask]) -> list[str]:
    """What the cache calls the pairs: by the names that loaded photos have."""
    pairs = [task.pair for task in tasks]
    return [f"{prefix}/{p.scene}/{p.frame0.name} {p.scene}/{p.frame1.name}" for p in pairs]


def matching(name: str, depth_source: DepthSource | None = None) -> FeatureMatching:
    """A matching method as a user gets it (with its calibration, if it has one)."""
    method = choose_method(MethodChoice(name=name, depth="none"))  # type: ignore[arg-type]
    if not isinstance(method, FeatureMatching):
        raise ValueError(f"{name!r} is no feature matching")
    if depth_source is not None:
        method.depth_source = depth_source
    return method


def fill(cache: MatchCache, prefix: str, name: str, tasks: Sequence[PairTask]) -> None:
    """Match and solve the pairs that the cache does not have yet."""
    names = names_of(f"{prefix}/{name}", tasks)
    if all(n in cache for n in names):
        return
    method = matching(name)
    method.matcher = matcher = RememberingMatcher(method.matcher)  # type: ignore[assignment]
    solve = PairSolver(method)
    for number, (key, task) in enumerate(zip(names, tasks, strict=True)):
        if key in cache:
            continue
        record = solve(task, 0)
        cache.put(key, matcher.last, record)
        if number % 5 == 4 or number == len(tasks) - 1:
            cache.save()
            print(f"{prefix} {name}: {number + 1} of {len(tasks)}", flush=True)


# -- rivals -----------------------------------------------------------------------------------------------------------
def with_constant(records: Sequence[Record], metres: Sequence[float]) -> list[Record]:
    """Poses without metres, each translation brought to a length that is told."""
    scaled = []
    for record, length in zip(records, metres, strict=True):
        norm = 0.0 if record.t is None else float(np.linalg.norm(record.t))
        if record.t is None or norm == 0:
            scaled.append(record)
            continue
        scaled.append(dataclasses.replace(record, t=tuple(length * x / norm for x in record.t), metric=True))
    return scaled


def at_constants(tasks: Sequence[PairTask], records: Sequence[Record]) -> list[PairScores]:
    """The scores of these poses at each length of ``CONSTANTS``."""
    unit = score_pairs(tasks, with_constant(records, [1.0] * len(tasks)))
    cameras = [task.pair.frame1.camera.to(torch.float64) for task in tasks]
    K, size = torch.stack([c.K for c in cameras]), torch.stack([c.size for c in cameras])
    found = []
    for metres in CONSTANTS:
        pose = Pose(unit.estimate.R, unit.estimate.t * metres)
        pixels = vcre(pose, unit.truth, K, size) / size.norm(dim=-1)
        center = center_error(pose, unit.truth)
        found.append(dataclasses.replace(unit, estimate=pose, center_m=center.numpy(), vcre_fraction=pixels.numpy()))
    return found


def best_constant(scaled: Sequence[PairScores], gain: Callable[[PairScores], float], mask: np.ndarray) -> float:
    """The length in metres that serves the pairs of a mask best: chosen with the truth, which no user has.

    scaled: of ``at_constants``.
    """
    return float(CONSTANTS[int(np.argmax([gain(scores.subset(mask)) for scores in scaled]))])


def depth_records(
    cache: MatchCache, prefix: str, name: str, tasks: Sequence[PairTask], depth_source: DepthSource
) -> list[Record]:
    """Stored matches solved with depths, as ``--depth-source`` does it."""
    method = matching(name, depth_source)
    method.matcher = StoredMatcher(cache, f"{prefix}/{name}", name, method.weights_id)
    solve = PairSolver(method)
    return [solve(task, 0) for task in tasks]


def main() -> None:
    """Fill the cache."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--prefix", default="val", help="what the cache calls this set")
    parser.add_argument("--every", type=int, default=1, help="every so manieth pair")
    parser.add_argument("--matchers", nargs="+", default=list(MATCHERS))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    cache = MatchCache(arguments.cache)
    tasks = tasks_of(arguments.data, arguments.every)
    for name in arguments.matchers:
        fill(cache, arguments.prefix, name, tasks)


if __name__ == "__main__":
    main()
