"""Fit the confidences of the localisers that come with metriloc, on queries left out of maps and unrelated ones.

    python tools/make_training_maps.py MAPS
    python tools/calibrate_localizers.py MAPS nre-xfeat pixloc xfeat-pnp --out metriloc/data/calibration [--records FOLDER]

A pose is right with a rotation within 2 degrees and a position within 2 % of the median depth of the map's points in
view; photos of other places are never right. Printed is what a calibration fitted on the other places says of each
place. ``--records`` keeps what a method said, so that fitting again takes no time. Deterministic.
"""

from __future__ import annotations

import argparse
import math
import pickle
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from training_queries import KnownQuery, training_queries

from metriloc.calibration import Calibration, save_calibration
from metriloc.choose import LocalizerChoice, choose_localizer
from metriloc.choose.for_maps import suited
from metriloc.evaluation.calibration import FitSource, expected_calibration_error, fit_calibration
from metriloc.evaluation.errors import center_error, rotation_error_deg
from metriloc.evaluation.records import Record, record_of
from metriloc.localizer import LOCALIZED
from metriloc.solvers.absolute_support import median_depth
from metriloc.types import FAILED, RELIABLE, AbsolutePoseMethod

STATISTICS = {
    "nre": ("inliers", "inlier_ratio", "coverage", "order", "precision", "fine_ratio"),
    "pnp": ("inliers", "inlier_ratio", "coverage", "order", "precision"),
    "pixloc": ("distinct_2", "beside_0", "coverage", "precision"),
}


@dataclass(frozen=True)
class Judged:
    """What a localiser said of a query. related: whether it is of the place; turned_deg, share: errors, the position's in
    depths, infinite where there is no pose or no truth. doubts: whether it had some."""

    place: str
    kind: str
    related: bool
    record: Record
    turned_deg: float
    share: float
    doubts: bool

    @property
    def right(self) -> bool:
        """Within ``LOCALIZED``."""
        assert LOCALIZED.rotation_deg is not None and LOCALIZED.center_share is not None
        return self.turned_deg < LOCALIZED.rotation_deg and self.share < LOCALIZED.center_share


def judged(method: AbsolutePoseMethod, query: KnownQuery, number: int) -> Judged:
    """Localise a query and compare with the truth."""
    start = time.perf_counter()
    estimate = suited(method, query.scene).localize(query.view, query.scene, query.references, seed=number)
    record = record_of(f"{query.place}/{query.kind}/{number}", estimate, time.perf_counter() - start)
    turned, share, pose, truth = math.inf, math.inf, record.pose, query.cam_from_world
    if truth is not None and pose is not None:
        truth = truth.to(torch.float64)
        turned = float(rotation_error_deg(pose, truth))
        share = float(center_error(pose, truth)) / median_depth(truth, query.scene.xyz, query.view.camera)
    return Judged(query.place, query.kind, truth is not None, record, turned, share, bool(estimate.doubts))


def fitted_on(found: list[Judged], source: FitSource) -> Calibration:
    """On all that is given."""
    kind = "pnp" if source.method.endswith("-pnp") else source.method.partition("-")[0]
    right = np.array([j.right for j in found])
    return fit_calibration([j.record for j in found], right, source, target=LOCALIZED, statistics=STATISTICS[kind])


def report(found: list[Judged], source: FitSource) -> None:
    """What a calibration fitted without a place says of it."""
    print(
        f"{'place':12} {'asked':>5} {'poses':>6} {'right':>6} {'ECE':>6}   reliable (right)  doubtful (right)  failed"
    )
    places = [(place, related) for place in dict.fromkeys(j.place for j in found) for related in (True, False)]
    for place, related in places:
        asked = [j for j in found if (j.place, j.related) == (place, related)]
        here = [j for j in asked if j.record.success]
        if not here:
            continue
        calibration = fitted_on([j for j in found if j.place != place], source)
        p = np.array([calibration.probability(j.record.confidence, j.record.statistics) for j in here])
        right = np.array([j.right for j in here], bool)
        sure, lost = p >= RELIABLE, p < FAILED
        rest = ~sure & ~lost
        print(
            f"{place if related else f'not {place}':12} {len(asked):5d} {len(here):6d} "
            f"{int(right.sum()):6d} {expected_calibration_error(p, right):6.3f}   {int(sure.sum()):4d} "
            f"({int((sure & right).sum()):4d})       {int(rest.sum()):4d} ({int((rest & right).sum()):4d})       "
            f"{int(lost.sum()):4d}"
        )


def said(name: str, arguments: argparse.Namespace) -> tuple[AbsolutePoseMethod, list[Judged]]:
    """What the localiser says of every query; from an earlier run, if that was kept."""
    method = choose_localizer(LocalizerChoice(name, calibration="none"))
    kept = None if arguments.records is None else arguments.records / f"{name}.pkl"
    if kept is not None and kept.exists():
        return method, pickle.loads(kept.read_bytes())  # noqa: S301 - written by this script
    queries = training_queries(arguments.data, arguments.maps, arguments.related, arguments.unrelated, arguments.scenes)
    found = [judged(method, query, number) for number, query in enumerate(queries)]
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(pickle.dumps(found))
    return method, found


def main() -> None:
    """Localise, judge, fit, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maps", type=Path)
    parser.add_argument("methods", nargs="+", help="as metriloc localize --method calls them")
    parser.add_argument("--out", type=Path, help="folder for the calibrations")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/train"))
    parser.add_argument("--records", type=Path, help="folder that keeps what the methods said")
    parser.add_argument("--related", type=int, default=32, help="photos left out of each map")
    parser.add_argument("--unrelated", type=int, default=30, help="photos of other places for each map")
    parser.add_argument("--scenes", type=int, default=24, help="rendered places")
    arguments = parser.parse_args()
    for name in arguments.methods:
        method, found = said(name, arguments)
        setup = next(j.record.setup for j in found if j.record.success)
        source = FitSource(method.name, method.weights_id, "kitchen, fr1_rpy, kitti, rendered, unrelated", setup)
        seconds = np.mean([j.record.seconds for j in found])
        print(f"\n{name}: {method.name} {method.weights_id}, {setup!r}, {seconds:.2f} s a query")
        report(found, source)
        calibration = fitted_on(found, source)
        print({k: round(v, 3) for k, v in zip(calibration.statistics, calibration.parameters[1:], strict=True)})
        if arguments.out is not None:
            save_calibration(arguments.out / f"{name}.json", calibration)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
