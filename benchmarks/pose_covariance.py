"""How well the stated covariance of a pose covers its error: photos left out of real maps in turn.

    python benchmarks/pose_covariance.py ../shared/data/eval/places --methods xfeat-pnp nre-xfeat [--only kitchen]

Of each pose that was found: the error as ``delta`` of ``Pose.from_tangent(delta) @ pose``, its squared length in sigmas
(six in the middle where the covariance is right), and whether it is within the ellipsoid of nine in ten. "times" is by how
much sigmas must be multiplied so that nine in ten are. The numbers are in docs/localization.md.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
from pathlib import Path

import torch

from metriloc.choose import LocalizerChoice, choose_localizer
from metriloc.evaluation.held_out import held_out_queries
from metriloc.geometry import Pose, so3_log
from metriloc.io.maps import read_map
from metriloc.localizer import Localizer
from metriloc.opened_map import OpenedMap

STEPS = {"holo_a": 10, "kitchen": 5}
CHI2_6 = 10.645
"""Nine in ten of the sum of six squared normal numbers are below."""


def squared_sigmas(pose: Pose, truth: Pose, covariance: torch.Tensor) -> float:
    """Of the error of a pose."""
    off = truth.to(torch.float64) @ pose.to(torch.float64).inverse()
    delta = torch.cat([off.t, so3_log(off.R)])
    return float(delta @ torch.linalg.solve(covariance, delta))


def main() -> None:
    """One row a place and method."""
    parser = argparse.ArgumentParser()
    parser.add_argument("places", type=Path)
    parser.add_argument("--methods", nargs="+", default=["xfeat-pnp", "nre-xfeat", "pixloc"])
    parser.add_argument("--only", nargs="+", default=["fountain_p11", "entry_p10", "holo_a", "kitchen"])
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(f"{datetime.date.today()}, load {os.getloadavg()[0]:.1f}")
    print("| place | method | poses | middle of the squared sigmas | within the ellipsoid of nine in ten | times |")
    for name in arguments.methods:
        method = choose_localizer(LocalizerChoice(name))
        for place in arguments.only:
            whole = read_map(arguments.places / place / "sparse", arguments.places / place)
            localizer = Localizer.of(OpenedMap(whole), method)
            found = []
            for task in held_out_queries(whole, STEPS.get(place, 1), 3, place):
                estimate = localizer.method.localize(task.frame.load(depth=False), task.scene, task.references)
                truth = task.frame.cam_from_world
                if bool(estimate.success) and estimate.covariance is not None and truth is not None:
                    found.append(squared_sigmas(estimate.pose, truth, estimate.covariance))
            ordered = sorted(found)
            within = sum(value < CHI2_6 for value in found)
            times = math.sqrt(ordered[math.ceil(0.9 * len(ordered)) - 1] / CHI2_6)
            middle = ordered[len(ordered) // 2]
            print(f"| {place} | {name} | {len(found)} | {middle:.1f} | {within} | {times:.1f} |", flush=True)


if __name__ == "__main__":
    main()
