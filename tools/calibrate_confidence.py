"""Fit the confidence of what comes with metriloc on synthetic scenes, whose poses are exact and whose licence is ours.

    python tools/calibrate_confidence.py matching metriloc/data/calibration/matching.json
    python tools/calibrate_confidence.py metriloc-small metriloc/data/calibration/metriloc-small.json --scenes 80

Pairs of all overlaps, also hopeless ones, at two photo sizes, without depth maps; for a model, of scenes that no recipe
trains or validates on. ``--weights`` fits other weights (the file is then used for those alone), ``--posed`` adds pairs of
a folder of posed photos. The last fifth of the scenes is held out for the numbers that are printed. Deterministic.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from metriloc.baselines.matching import FeatureMatching
from metriloc.datasets.sources import FramePair, PosedFrame
from metriloc.datasets.synthetic import PairLimits, SyntheticConfig, make_scene, sample_pair
from metriloc.evaluation.benchmarks import BenchmarkOptions, PairBenchmark, load_benchmark
from metriloc.evaluation.calibration import (
    Calibration,
    FitSource,
    Target,
    expected_calibration_error,
    fit_calibration,
    save_calibration,
    verdict,
)
from metriloc.evaluation.curves import mapfree_auc
from metriloc.evaluation.records import Record, record_of
from metriloc.evaluation.scoring import score_pairs
from metriloc.evaluation.tasks import PairSolver, PairTask
from metriloc.methods.mickey import MicKey
from metriloc.types import RelativePoseMethod, View

SIZES = ((320, 240), (640, 480))
LIMITS = PairLimits(overlap=(0.03, 0.9), baseline=(0.2, 4.0), rotation=(0.0, math.radians(100)))
FAR = SyntheticConfig(weights=(0.55, 0.2, 0.25), outdoor_scale=(1.0, 2.5))
WIDE = replace(LIMITS, baseline_share=0.9)
"""Squares up to 80 m across and pairs as wide as people take them: where metres go wrong, confidence must know it."""
HELD_OUT = 0.2


@dataclass(frozen=True)
class Plan:
    """What is fitted. load: from weights, or the method's own. statistics: that are read. first_seed: of the scenes.
    scenes, limits: what these and their pairs are like."""

    load: Callable[[str | None], RelativePoseMethod]
    target: Target
    statistics: tuple[str, ...]
    first_seed: int
    scenes: SyntheticConfig = SyntheticConfig()  # noqa: RUF009 - frozen
    limits: PairLimits = LIMITS


PLANS = {
    "matching": Plan(
        lambda weights: FeatureMatching.from_pretrained(weights, depth_source=lambda view: None),
        Target(rotation_deg=5.0, direction_deg=20.0),
        ("inliers", "coverage"),
        0,
    ),
    # Map-free's own criterion of a pose that is good enough, metres and all; seeds from 900 000 on are not trained on,
    # and those from 910 000 on chose no checkpoint either
    "metriloc-small": Plan(
        lambda weights: MicKey.from_pretrained(weights or "metriloc-small"),
        Target(rotation_deg=None, vcre_fraction=0.1),
        ("score", "inliers", "agreeing", "mutual", "baseline", "depth"),
        910_000,
        FAR,
        WIDE,
    ),
}


@dataclass(frozen=True)
class Solved:
    """A pair that was solved; held_out: not fitted on."""

    task: PairTask
    record: Record
    held_out: bool


def synthetic(method: RelativePoseMethod, plan: Plan, scenes: int, pairs: int) -> Iterator[Solved]:
    """Pairs of synthetic scenes; scenes in which no pair meets the limits give fewer."""
    for number in range(scenes):
        seed, size = plan.first_seed + number, SIZES[number % len(SIZES)]
        scene = make_scene(seed, plan.scenes)
        for i in range(pairs):
            try:
                pair = sample_pair(scene, torch.Generator().manual_seed(1000 * seed + i), plan.limits, size)
            except ValueError:
                continue
            frames = [_frame(seed, i, view) for view in (pair.view0, pair.view1)]
            task = PairTask(FramePair(frames[0], frames[1]))
            estimate = method.relative_pose(pair.view0, pair.view1, seed=i)
            yield Solved(task, record_of(task.key, estimate, 0.0), number >= (1 - HELD_OUT) * scenes)


def _frame(seed: int, number: int, view: View) -> PosedFrame:
    pose = view.cam_from_world
    if pose is None:
        raise ValueError(f"the synthetic view {view.name!r} has no pose")
    name = f"{number}/{view.name}"
    return PosedFrame(f"{seed}", name, Path(), view.camera.to(torch.float64), pose.to(torch.float64))


def posed(method: RelativePoseMethod, folder: Path, draw: int) -> Iterator[Solved]:
    """Pairs of real posed photos; those of the last references, by name, are held out."""
    benchmark = load_benchmark("posed", BenchmarkOptions(folder, draw=draw, min_overlap=0.1))
    if not isinstance(benchmark, PairBenchmark):
        raise ValueError(f"'{folder}' gives no pairs")
    tasks = sorted(benchmark.tasks, key=lambda task: task.key)
    solver = PairSolver(method, depth=False)
    for number, task in enumerate(tasks):
        yield Solved(task, solver(task, 0), number >= (1 - HELD_OUT) * len(tasks))


def report(name: str, solved: list[Solved], right: np.ndarray, fitted: Calibration) -> None:
    """What the calibration is worth on these pairs, which it was not fitted on."""
    records = [s.record for s in solved]
    before = np.array([r.confidence for r in records])
    after = np.array([fitted.probability(r.confidence, r.statistics) for r in records])
    print(f"{name}: {len(records)} estimates, {right.mean():.1%} right")
    for label, values in (("own confidence", before), ("calibrated", after)):
        error, auc = expected_calibration_error(values, right), mapfree_auc(values, right)
        print(f"  {label}: expected calibration error {error:.3f}, AUC {auc:.3f}")
    words = np.array([verdict(value) for value in after])
    for word in ("reliable", "doubtful", "failed"):
        chosen = right[words == word]
        share = f"{chosen.mean():.0%} right" if len(chosen) else "-"
        print(f"  {word}: {len(chosen)} pairs, {share}")


def main() -> None:
    """Solve, judge, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", choices=list(PLANS))
    parser.add_argument("out", type=Path)
    parser.add_argument("--weights", help="folder of other weights")
    parser.add_argument("--scenes", type=int, default=60)
    parser.add_argument("--pairs", type=int, default=8, help="of each scene")
    parser.add_argument(
        "--posed", type=Path, help="a folder of posed photos besides, as metriloc eval ... posed reads it"
    )
    parser.add_argument("--draw", type=int, default=200, help="pairs of each posed scene")
    parser.add_argument("--statistics", nargs="+", help="what is read of an estimate")
    arguments = parser.parse_args()
    plan = PLANS[arguments.name]
    method = plan.load(arguments.weights)
    solved = list(synthetic(method, plan, arguments.scenes, arguments.pairs))
    source = "synthetic scenes"
    if arguments.posed is not None:
        solved += posed(method, arguments.posed, arguments.draw)
        source += f" and {arguments.posed.resolve().name}"
    print(f"{len(solved)} pairs, {sum(s.record.success for s in solved)} with a pose, weights {method.weights_id}")
    solved = [s for s in solved if s.record.success]
    right = plan.target.right(score_pairs([s.task for s in solved], [s.record for s in solved]))
    out = np.array([s.held_out for s in solved])
    fitted = fit_calibration(
        [s.record for s in solved if not s.held_out],
        right[~out],
        FitSource(method.name, method.weights_id, source),
        target=plan.target,
        statistics=arguments.statistics or plan.statistics,
    )
    print(f"target: {plan.target}; read: {', '.join(fitted.statistics)}; parameters {fitted.parameters}")
    report("fitted on", [s for s in solved if not s.held_out], right[~out], fitted)
    report("held out", [s for s in solved if s.held_out], right[out], fitted)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_calibration(arguments.out, fitted)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
