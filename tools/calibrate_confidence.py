"""Fit the confidences and intervals that come with metriloc, on real, rendered and unrelated pairs.

    python tools/calibrate_confidence.py mickey metriloc/data/calibration/metriloc-small.json
    python tools/calibrate_confidence.py xfeat metriloc/data/calibration/xfeat.json
    python tools/calibrate_confidence.py xfeat metriloc/data/calibration/xfeat-metriloc-small.json --depth-source mickey
    python tools/calibrate_confidence.py xfeat metriloc/data/calibration/xfeat-depth-map.json --depth-map

A pose is right with a rotation within 5 and a direction within 10 degrees; unrelated pairs are never right. Printed is
what a calibration fitted on the other places says of each place. ``--records FILE`` keeps what the method said, so that
fitting again takes no time. Deterministic. ``--data`` is ``../shared/data/train``; nothing of ``eval`` is read.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import pickle
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from training_pairs import KnownPair, training_pairs

from metriloc.calibration import Calibration, Target, save_calibration
from metriloc.evaluation.calibration import FitSource, expected_calibration_error, fit_calibration, fit_metres
from metriloc.evaluation.errors import center_error, direction_error_deg, rotation_error_deg
from metriloc.evaluation.records import Record, record_of
from metriloc.relpose import MethodChoice, choose_method
from metriloc.types import FAILED, RELIABLE, RelativePoseMethod

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


def with_metres(calibration: Calibration, found: list[Judged]) -> Calibration:
    """The same with the interval of its metres, when it has any."""
    good = [j for j in found if j.right and j.record.metric and j.record.pose is not None and j.true_m > 0.05]
    if len(good) < 30:
        return calibration
    ratio = np.log([j.true_m / float(j.record.pose.distance()) for j in good])  # type: ignore[union-attr]
    parallax = np.array([j.record.statistics["parallax_deg"] for j in good])
    return dataclasses.replace(calibration, metres=fit_metres(ratio, parallax, [j.place for j in good]))


def report(found: list[Judged], source: FitSource) -> None:
    """What a calibration fitted without a place says of it."""
    print(
        f"{'place':12} {'pairs':>6} {'poses':>6} {'right':>6} {'ECE':>6}   reliable (right)  doubtful  failed  metres inside"
    )
    for place in dict.fromkeys(j.place for j in found):
        here = [j for j in found if j.place == place and j.record.success]
        others = [j for j in found if j.place != place or place == "unrelated"]
        calibration = with_metres(fitted_on(others, source), others)
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


def main() -> None:
    """Solve, judge, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", help="as metriloc relpose --method calls it")
    parser.add_argument("out", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--weights", help="folder of other weights")
    parser.add_argument("--solver", default="auto")
    parser.add_argument("--depth-source", default="none", help="mickey, or none")
    parser.add_argument("--depth-map", action="store_true", help="with the depth maps of the sensors")
    parser.add_argument("--every", type=int, default=1, help="solve only each so-manieth pair")
    parser.add_argument("--records", type=Path, help="file that keeps what the method said")
    arguments = parser.parse_args()
    depth = "file" if arguments.depth_map else arguments.depth_source
    name = arguments.method
    choice = MethodChoice(name, arguments.weights, calibration="none", solver=arguments.solver)
    if name != "mickey":
        choice = MethodChoice(name, arguments.weights, calibration="none", solver=arguments.solver, depth=depth)
    method = choose_method(choice)
    if arguments.records is not None and arguments.records.exists():
        found = pickle.loads(arguments.records.read_bytes())  # noqa: S301 - written by this script
    else:
        pairs = training_pairs(arguments.data, arguments.depth_map)
        found = [judged(method, pair, number) for number, pair in enumerate(pairs) if number % arguments.every == 0]
        if arguments.records is not None:
            arguments.records.write_bytes(pickle.dumps(found))
    setups = {j.record.setup for j in found if j.record.success}
    assert len(setups) == 1, setups
    source = FitSource(
        method.name, method.weights_id, "nyuv2, kitchen, fr1_rpy, kitti, rendered, unrelated", setups.pop()
    )
    print(f"{method.name} {method.weights_id}, {source.setup}")
    report(found, source)
    calibration = with_metres(fitted_on(found, source), found)
    print(dict(zip(calibration.statistics, calibration.parameters[1:], strict=True)), calibration.metres)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_calibration(arguments.out, calibration)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
