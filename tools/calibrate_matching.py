"""Fit the confidence of metriloc's default matching on synthetic scenes, whose poses are exact and whose licence is ours.

    python tools/calibrate_matching.py metriloc/data/calibration/matching.json

Pairs of all overlaps, also hopeless ones, at two photo sizes, without depth: a pose is right when its rotation is within
5 degrees and its direction within 20. Statistics: inliers, and how much of the query they cover. Deterministic.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import numpy as np
import torch

from metriloc.baselines.matching import FeatureMatching
from metriloc.datasets.synthetic import PairLimits, make_scene, sample_pair
from metriloc.evaluation.calibration import (
    FitSource,
    Target,
    expected_calibration_error,
    fit_calibration,
    save_calibration,
)
from metriloc.evaluation.errors import direction_error_deg, rotation_error_deg
from metriloc.evaluation.records import Record, record_of

SIZES = ((320, 240), (640, 480))
LIMITS = PairLimits(overlap=(0.03, 0.9), baseline=(0.2, 4.0), rotation=(0.0, math.radians(100)))
TARGET = Target(rotation_deg=5.0, direction_deg=20.0)
STATISTICS = ("inliers", "coverage")


def main() -> None:
    """Match, judge, fit; the last fifth of the scenes is held out for the error that is printed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--scenes", type=int, default=30, help="of each size")
    parser.add_argument("--pairs", type=int, default=8, help="of each scene")
    arguments = parser.parse_args()
    method = FeatureMatching.from_pretrained(depth_source=lambda view: None)
    records: list[Record] = []
    right: list[bool] = []
    held_out: list[bool] = []
    for seed in range(len(SIZES) * arguments.scenes):
        size, scene = SIZES[seed % len(SIZES)], make_scene(seed)
        for i in range(arguments.pairs):
            generator = torch.Generator().manual_seed(1000 * seed + i)
            try:
                pair = sample_pair(scene, generator, LIMITS, size)
            except ValueError:  # no view of this scene meets the limits
                continue
            estimate = method.relative_pose(pair.view0, pair.view1, seed=i)
            true = pair.cam1_from_cam0
            if true is None or not bool(estimate.success):
                continue
            rotation = float(rotation_error_deg(estimate.pose, true))
            direction = float(direction_error_deg(estimate.pose.t, true.t))
            records.append(record_of(f"{seed} {i}", estimate, 0.0))
            right.append(rotation < (TARGET.rotation_deg or 0) and direction < (TARGET.direction_deg or 0))
            held_out.append(seed >= 0.8 * len(SIZES) * arguments.scenes)
    test, verdicts = np.array(held_out), np.array(right)
    source = FitSource(method.name, method.weights_id, "synthetic scenes")
    fit = [record for record, out in zip(records, held_out, strict=True) if not out]
    fitted = fit_calibration(fit, verdicts[~test], source, target=TARGET, statistics=STATISTICS)
    confidence = np.array([fitted.probability(r.confidence, r.statistics) for r in records])
    print(f"{len(records)} estimates, {verdicts.mean():.0%} right; fitted on {int((~test).sum())}")
    print(
        f"expected calibration error on held-out scenes: {expected_calibration_error(confidence[test], verdicts[test]):.3f}"
    )
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_calibration(arguments.out, fitted)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
