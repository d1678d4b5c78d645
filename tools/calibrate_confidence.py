"""Fit the confidences and intervals that come with metriloc, on real, rendered and unrelated pairs.

    python tools/calibrate_confidence.py mickey --out metriloc/data/calibration
    python tools/calibrate_confidence.py xfeat --depth none metriloc-depth map --out metriloc/data/calibration
    python tools/calibrate_confidence.py aliked+lightglue --depth none metriloc-depth map --every 2 --out ...

A pose is right with a rotation within 5 and a direction within 10 degrees; unrelated pairs are never right. One file is
written for each source of depth (none, predicted by metriloc-depth, the map of a sensor), because a calibration fits one
setup; the interval of predicted metres also holds the photos that the network did not learn from. Photos are matched
once for all. Printed is what a calibration fitted on the other places says of each place.
``--records FOLDER`` keeps what the method said, so that fitting again takes no time. ``--data`` is
``../shared/data/train``; nothing of ``eval`` is read.
"""

from __future__ import annotations

import argparse
import math
import pickle
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from training_pairs import KnownPair, training_pairs

from metriloc.backbones.local import LocalFeatures
from metriloc.calibration import Calibration, Target, save_calibration
from metriloc.choose import MethodChoice, choose_method, depth_source
from metriloc.evaluation.calibration import FitSource, expected_calibration_error, fit_calibration, fit_metres
from metriloc.evaluation.errors import center_error, direction_error_deg, rotation_error_deg
from metriloc.evaluation.records import Record, record_of
from metriloc.lessons.depth_photos import held_out_photos
from metriloc.lessons.depth_validation import photo_errors, view_of
from metriloc.methods.matching.matchers import Matcher
from metriloc.methods.matching.model import FeatureMatching
from metriloc.types import FAILED, RELIABLE, RelativePoseMethod, View

TARGET = Target(rotation_deg=5.0, direction_deg=10.0, near_m=0.05)
STATISTICS = ("inliers", "inlier_ratio", "coverage", "parallax_deg", "order")


@dataclass(frozen=True)
class Judged:
    """What a method said of a pair. right: within ``TARGET``; true_m: true distance, NaN when there is none."""

    place: str
    record: Record
    right: bool
    true_m: float


def judged(method: RelativePoseMethod, pair: KnownPair, number: int) -> Judged:
    """Solve a pair and compare with the truth."""
    record = record_of(f"{pair.place}/{number}", method.relative_pose(pair.view0, pair.view1, seed=number), 0.0)
    truth, pose = pair.view1_from_view0, record.pose
    if truth is None or pose is None:
        return Judged(pair.place, record, False, math.nan if truth is None else float(truth.distance()))
    truth = truth.to(torch.float64)
    near = record.metric and float(center_error(pose, truth)) < (TARGET.near_m or 0)
    turned = float(rotation_error_deg(pose, truth)) < (TARGET.rotation_deg or 0)
    aimed = float(direction_error_deg(pose.t, truth.t)) < (TARGET.direction_deg or 0)
    return Judged(pair.place, record, turned and (aimed or near), float(truth.distance()))


def fitted_on(found: list[Judged], source: FitSource) -> Calibration:
    """Geometry on all, metres on what is right."""
    right = np.array([j.right for j in found])
    return fit_calibration([j.record for j in found], right, source, target=TARGET, statistics=STATISTICS)


@dataclass(frozen=True)
class HeldOutDepth:
    """What a depth network errs by on photos that it did not learn from, while it learned from the pairs' places.

    places: the set of each photo; log_ratio: logarithm of true over predicted depth.
    """

    places: tuple[str, ...] = ()
    log_ratio: tuple[float, ...] = ()

    @classmethod
    def of(cls, depth: str, data: Path) -> HeldOutDepth:
        """Of a depth source by name; nothing of one that is no network of the recipe ``metric_depth``."""
        if depth in ("none", "map", "mickey", "metriloc-small"):
            return cls()
        source, _ = depth_source(depth)
        photos = [(name, view_of(photo)) for name, several in held_out_photos(data).items() for photo in several]
        errors = tuple(-photo_errors(source, view).log_scale for _, view in photos)
        return cls(tuple(f"{name}, held out" for name, _ in photos), errors)


def with_metres(calibration: Calibration, found: list[Judged], more: HeldOutDepth = HeldOutDepth()) -> Calibration:
    """The same with the interval of its metres, when it has any."""
    good = [j for j in found if j.right and j.record.metric and j.record.pose is not None and j.true_m > 0.05]
    if len(good) < 30:
        return calibration
    ratio = np.log([j.true_m / float(j.record.pose.distance()) for j in good])  # type: ignore[union-attr]
    parallax = np.array([j.record.statistics["parallax_deg"] for j in good])
    # a photo by itself has no parallax that could be too small
    parallax = np.append(parallax, np.full(len(more.places), 90.0))
    ratio = np.append(ratio, more.log_ratio)
    return replace(calibration, metres=fit_metres(ratio, parallax, [*(j.place for j in good), *more.places]))


def report(found: list[Judged], source: FitSource, more: HeldOutDepth) -> None:
    """What a calibration fitted without a place says of it."""
    print(
        f"{'place':12} {'pairs':>6} {'poses':>6} {'right':>6} {'ECE':>6}   reliable (right)  doubtful  failed  metres inside"
    )
    for place in dict.fromkeys(j.place for j in found):
        here = [j for j in found if j.place == place and j.record.success]
        others = [j for j in found if j.place != place or place == "unrelated"]
        calibration = with_metres(fitted_on(others, source), others, more)
        p = np.array([calibration.probability(j.record.confidence, j.record.statistics) for j in here])
        right = np.array([j.right for j in here], bool)
        sure = p >= RELIABLE
        inside = []
        for j in here:
            if j.right and j.record.metric and calibration.metres is not None and j.true_m > 0.05:
                pose = j.record.pose
                assert pose is not None
                ends = calibration.metres.interval(float(pose.distance()), j.record.statistics["parallax_deg"])
                inside.append(ends[0] <= j.true_m <= ends[1])
        ece = expected_calibration_error(p, right) if len(p) else math.nan
        share = f"{np.mean(inside):.0%} of {len(inside)}" if inside else "-"
        total = sum(j.place == place for j in found)
        print(
            f"{place:12} {total:6d} {len(here):6d} {int(right.sum()):6d} {ece:6.3f}   {int(sure.sum()):4d} "
            f"({int((sure & right).sum()):4d})      {int(((p >= FAILED) & ~sure).sum()):4d}      "
            f"{int((p < FAILED).sum()):4d}   {share}"
        )


class MatchedOnce:
    """A matcher that does not do the same photos twice."""

    def __init__(self, matcher: Matcher) -> None:
        self.matcher, self.weights_id = matcher, matcher.weights_id
        self.local: dict[int, LocalFeatures] = {}
        self.matched: dict[tuple[int, int], Any] = {}

    def extract(self, view: View) -> LocalFeatures:
        """See ``Matcher``."""
        key = view.image.data_ptr()
        if key not in self.local:
            self.local[key] = self.matcher.extract(view)
        return self.local[key]

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Any:
        """See ``Matcher``."""
        key = id(local0), id(local1)
        if key not in self.matched:
            self.matched[key] = self.matcher.match(view0, local0, view1, local1)
        return self.matched[key]

    def forget(self) -> None:
        """The next pair has photos of its own."""
        self.local.clear()
        self.matched.clear()


def solved(name: str, depths: Sequence[str], pairs: Iterable[tuple[int, KnownPair]]) -> dict[str, list[Judged]]:
    """What the method said of all pairs, for each source of depth."""
    if name == "mickey":
        mickey = choose_method(MethodChoice("mickey", calibration="none"))
        return {"mickey": [judged(mickey, pair, number) for number, pair in pairs]}
    methods: dict[str, FeatureMatching] = {}
    for depth in depths:
        method = choose_method(MethodChoice(name, calibration="none", depth="file" if depth == "map" else depth))  # type: ignore[arg-type]
        assert isinstance(method, FeatureMatching)
        methods[depth] = method
    once = MatchedOnce(next(iter(methods.values())).matcher)
    found: dict[str, list[Judged]] = {depth: [] for depth in depths}
    for number, pair in pairs:
        bare = replace(pair, view0=replace(pair.view0, depth=None), view1=replace(pair.view1, depth=None))
        for depth, method in methods.items():
            method.matcher = once  # type: ignore[assignment]
            if depth != "map" or pair.view0.depth is not None:
                found[depth].append(judged(method, pair if depth == "map" else bare, number))
        once.forget()
    return found


def main() -> None:
    """Solve, judge, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="as metriloc relpose --method calls it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--depth", nargs="+", default=["none"], help="none, map, or names of weights")
    parser.add_argument("--every", type=int, default=1, help="solve only each so-manieth pair")
    parser.add_argument("--records", type=Path, help="folder that keeps what the method said")
    arguments = parser.parse_args()
    kept = None if arguments.records is None else arguments.records / f"{arguments.method}.pkl"
    if kept is not None and kept.exists():
        identity, name, found = pickle.loads(kept.read_bytes())  # noqa: S301 - written by this script
    else:
        method = choose_method(MethodChoice(arguments.method, calibration="none"))
        identity, name = method.weights_id, method.name
        pairs = enumerate(training_pairs(arguments.data, depth=True))
        found = solved(arguments.method, arguments.depth, (p for p in pairs if p[0] % arguments.every == 0))
        if kept is not None:
            kept.write_bytes(pickle.dumps((identity, name, found)))
    for depth, said in found.items():
        (setup,) = {j.record.setup for j in said if j.record.success}
        source = FitSource(name, identity, "nyuv2, kitchen, fr1_rpy, kitti, rendered, unrelated", setup)
        print(f"\n{arguments.method} {identity}, {setup}")
        more = HeldOutDepth.of(depth, arguments.data)
        report(said, source, more)
        calibration = with_metres(fitted_on(said, source), said, more)
        print(dict(zip(calibration.statistics, calibration.parameters[1:], strict=True)), calibration.metres)
        file = arguments.out / ("metriloc-small.json" if name == "mickey" else f"{arguments.method}.{depth}.json")
        save_calibration(file, calibration)
        print(f"written: {file}", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
