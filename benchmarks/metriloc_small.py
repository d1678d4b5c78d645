"""The numbers of metriloc-small's model card, on scenes it was never trained on, beside its rivals on the same pairs.

    python benchmarks/metriloc_small.py --weights FOLDER --root ../shared/data/eval --cache rivals.npz [--out card.md]

Rivals: the identity pose; XFeat with mutual neighbours and ALIKED with LightGlue, each solved by poselib's essential
matrix with the best constant length of the translation (one for all pairs, and one a place: both chosen with the truth,
in the rival's favour), and each with the model's own depth (``--depth-source mickey:WEIGHTS``). Without --weights only
those that need no model. Nothing of the model may be chosen by these numbers.
"""

from __future__ import annotations

import argparse
import datetime
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from metriloc_small_depth import PhotoDepth, PlaceMap, depth_table, photo_depth
from metriloc_small_rivals import (
    MATCHERS,
    TITLES,
    MatchCache,
    at_constants,
    best_constant,
    depth_records,
    fill,
    names_of,
    tasks_of,
    with_constant,
)
from metriloc_small_tables import PairFacts, errors_table, facts_of, rivals_table, strata_table, worst_table

from metriloc.evaluation.identity import IdentityPose
from metriloc.evaluation.report import Table, markdown_table
from metriloc.evaluation.scoring import PairScores, score_pairs, vcre_auc, vcre_precision
from metriloc.evaluation.tasks import PairSolver, PairTask
from metriloc.methods.matching.depth import depth_of_method
from metriloc.methods.mickey import MicKey
from metriloc.types import PoseEstimate, RelativePoseMethod, View

OURS = "metriloc-small"
NOTES = """
*Precision* and *AUC*: VCRE below 10 % of the diagonal of the query. AUC is Map-free's: the mean precision over the share
of pairs kept by falling confidence, each method with its own confidence. A pair without a pose lowers it for good, a
constant confidence gives the precision itself, and P right poses of N, perfectly ranked, give P/N (1 + ln(N/P)): it asks
for a confidence that ranks, not for one that is calibrated, and it is below the precision where the ranking is worse than
chance. *ECE* asks for calibration: confidence against "VCRE below 10 %". *Position*: distance of the camera centres
(Map-free's translation error); *vector t*: of the translation vectors (ScanNet's). Medians are over the estimates.
*Overlap*: as `pairs.csv` lists it; fountain and entry have none, there it is the share of map points within both frames
(hidden ones count). Nothing was tuned on these pairs but the rivals' constants.
"""


class Remembering:
    """A method that extracts each photo once; photos are told apart by their names."""

    def __init__(self, method: RelativePoseMethod, features: dict[str, object]) -> None:
        self.method, self.features = method, features
        self.name, self.weights_id = method.name, method.weights_id

    def extract(self, view: View) -> object:
        """The method's own, or what it was before."""
        if view.name not in self.features:
            self.features[view.name] = self.method.extract(view)
        return self.features[view.name]

    def relative_pose(self, reference: object, query: object, *, seed: int = 0) -> PoseEstimate:
        """The method's own."""
        found = [self.extract(item) if isinstance(item, View) else item for item in (reference, query)]
        return self.method.relative_pose(*found, seed=seed)


Say = Callable[[str], None]


class Comparison:
    """All methods on one set of pairs."""

    def __init__(self, prefix: str, tasks: Sequence[PairTask], places: Sequence[str], cache: MatchCache) -> None:
        self.prefix, self.tasks, self.places, self.cache = prefix, tasks, places, cache
        self.scores: dict[str, PairScores] = {}
        self.constants: Table = []
        self.features: dict[str, object] = {}

    def add_rivals(self) -> None:
        """Those that need no model."""
        self.scores["identity"] = self._solved(IdentityPose())
        rows = [["matcher", "constants", "chosen for", "metres", "VCRE AUC", "VCRE precision", "median position"]]
        gains = {
            "VCRE AUC": vcre_auc,
            "VCRE precision": vcre_precision,
            "median position": lambda s: -float(np.nanmedian(s.center_m)),
        }
        for name in MATCHERS:
            fill(self.cache, self.prefix, name, self.tasks)
            records = self.cache.records(names_of(f"{self.prefix}/{name}", self.tasks))
            scaled = at_constants(self.tasks, records)
            masks = {place: np.array([p == place for p in self.places]) for place in dict.fromkeys(self.places)}
            for goal, gain in gains.items():
                one = best_constant(scaled, gain, np.ones(len(self.tasks), bool))
                own = {place: best_constant(scaled, gain, mask) for place, mask in masks.items()}
                for scope, lengths in (("one constant", dict.fromkeys(masks, one)), ("a constant a place", own)):
                    scores = score_pairs(self.tasks, with_constant(records, [lengths[p] for p in self.places]))
                    shown = f"{one:.2f}" if lengths is not own else ", ".join(f"{v:.2f}" for v in own.values())
                    position = f"{np.nanmedian(scores.center_m):.3f} m"
                    found = f"{vcre_auc(scores):.3f}", f"{vcre_precision(scores):.3f}", position
                    rows.append([TITLES[name], scope, goal, shown, *found])
                    if goal == "VCRE AUC":
                        self.scores[f"{TITLES[name]}, {scope}"] = scores
        self.constants = rows

    def add_model(self, weights: str) -> None:
        """The model, with and without polish, and the matchers with its depth."""
        plain, polished = (
            Remembering(MicKey.from_pretrained(weights, polish=polish), self.features) for polish in (False, True)
        )
        for name in MATCHERS:
            records = depth_records(self.cache, self.prefix, name, self.tasks, depth_of_method(plain))
            self.scores[f"{TITLES[name]}, our depth"] = score_pairs(self.tasks, records)
        self.scores[f"{OURS}, not polished"] = self._solved(plain)
        self.scores[OURS] = self._solved(polished)

    def _solved(self, method: RelativePoseMethod | Remembering) -> PairScores:
        solve = PairSolver(method)
        return score_pairs(self.tasks, [solve(task, 0) for task in self.tasks])

    def depths(self, maps: Mapping[str, PlaceMap]) -> dict[str, list[PhotoDepth]]:
        """Of every photo once, by place."""
        found: dict[str, list[PhotoDepth]] = {place: [] for place in maps}
        seen: set[Path] = set()
        for task, place in zip(self.tasks, self.places, strict=True):
            for frame in (task.pair.frame0, task.pair.frame1):
                image = maps[place].folder / maps[place].scene.names[maps[place].image_of(frame.path)]
                if image not in seen:
                    seen.add(image)
                    features = self.features[f"{frame.scene}/{frame.name}"]
                    found[place].append(photo_depth(features, *maps[place].seen(frame.path)))
        return found


def timing_table(weights: str, tasks: Sequence[PairTask], repeats: int = 7) -> Table:
    """Median seconds of the first pair of 640x480 photos, with all threads that are allowed."""
    task = next(t for t in tasks if t.pair.frame1.camera.size.tolist() == [640, 480])
    view0, view1 = task.pair.frame0.load(), task.pair.frame1.load()
    rows = [["640x480", "pair", "cached reference", "reading two photos"]]
    reading = _seconds(lambda: (task.pair.frame0.load(), task.pair.frame1.load()), repeats)
    for polish in (False, True):
        method = MicKey.from_pretrained(weights, polish=polish)
        features0 = method.extract(view0)
        pair = _seconds(lambda m=method: m.relative_pose(view0, view1), repeats)  # type: ignore[misc]
        cached = _seconds(lambda m=method, f=features0: m.relative_pose(f, view1), repeats)  # type: ignore[misc]
        title = OURS if polish else f"{OURS}, not polished"
        rows.append([title, f"{pair:.3f} s", f"{cached:.3f} s", f"{reading:.3f} s"])
    return rows


def _seconds(call: Callable[[], object], repeats: int) -> float:
    call()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return sorted(times)[repeats // 2]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a folder of MicKey weights")
    parser.add_argument("--root", type=Path, required=True, help="the folder data/eval")
    parser.add_argument("--cache", type=Path, required=True, help="matches of the rivals, made when missing")
    parser.add_argument("--out", type=Path, help="the tables also go into this file")
    parser.add_argument("--draws", type=int, default=1000, help="of the bootstrap")
    parser.add_argument("--worst", type=int, default=12)
    parser.add_argument("--every", type=int, default=1, help="every so manieth pair of val, for a quick look")
    parser.add_argument("--no-scannet", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    lines: list[str] = []

    def say(text: str) -> None:
        print(text, flush=True)
        lines.append(text)

    cache = MatchCache(arguments.cache)
    tasks = tasks_of(arguments.root / "val", arguments.every)
    facts, maps = facts_of(tasks, arguments.root)
    val = Comparison("val", tasks, facts.place, cache)
    val.add_rivals()
    if arguments.weights:
        val.add_model(arguments.weights)
    part = "" if arguments.every == 1 else f" (every {arguments.every}th)"
    say(f"{datetime.date.today()}, {len(tasks)} pairs of data/eval/val{part}; weights {arguments.weights}\n{NOTES}")
    say_errors(say, val, facts, maps)
    if arguments.weights:
        say_model(say, val, facts, maps, arguments)
    if not arguments.no_scannet:
        say_scannet(say, arguments, cache)
    if arguments.out is not None:
        arguments.out.write_text("\n".join(lines) + "\n")


def say_errors(say: Say, val: Comparison, facts: PairFacts, maps: Mapping[str, PlaceMap]) -> None:
    """All pairs, each place, and the constants."""
    for place in ("all", *maps):
        count = int(facts.of(place).sum())
        large = int((facts.overlap[facts.of(place)] > 0.4).sum())
        say(f"### {place}: {count} pairs, {large} of them with an overlap above 40 %\n")
        say(markdown_table(errors_table(val.scores, facts, place)))
    say(f"### the constants (places in the order {', '.join(maps)})\n")
    say(markdown_table(val.constants))


def say_model(
    say: Say, val: Comparison, facts: PairFacts, maps: Mapping[str, PlaceMap], arguments: argparse.Namespace
) -> None:
    """What only the model has."""
    say("### metriloc-small against each rival (paired 95 % bootstrap intervals)\n")
    say(markdown_table(rivals_table(val.scores, OURS, arguments.draws)))
    say("### where it fails\n")
    say(markdown_table(strata_table(val.scores[OURS], facts)))
    say(markdown_table(worst_table(val.scores[OURS], facts, arguments.worst)))
    say("### depth: mean |log z/z_true|, against the sparse maps\n")
    say(markdown_table(depth_table(val.depths(maps))))
    load, threads = os.getloadavg()[0], torch.get_num_threads()
    say(f"### time ({threads} threads, load of the machine {load:.1f} when it began)\n")
    say(markdown_table(timing_table(arguments.weights, val.tasks)))


def say_scannet(say: Say, arguments: argparse.Namespace, cache: MatchCache) -> None:
    """The eight hard pairs."""
    tasks = tasks_of(arguments.root / "scannet_pairs" / "val")
    hard = Comparison("scannet", tasks, ["scannet"] * len(tasks), cache)
    hard.add_rivals()
    if arguments.weights:
        hard.add_model(arguments.weights)
    scores = hard.scores
    say("### ScanNet, eight hard pairs: rotation / position (confidence)\n")
    head = ["pair", "turn", "baseline", *scores]
    rows = [head]
    for i, task in enumerate(tasks):
        turn = np.rad2deg(float(scores["identity"].truth.angle()[i]))
        cells = [
            f"{s.rotation_deg[i]:.1f}° / {s.center_m[i]:.2f} m ({s.confidence[i]:.2f})" if s.estimated[i] else "none"
            for s in scores.values()
        ]
        rows.append([task.pair.scene, f"{turn:.0f}°", f"{scores['identity'].baseline_m[i]:.2f} m", *cells])
    say(markdown_table(rows))


if __name__ == "__main__":
    main()
