"""NRE on the published sample pair (CC0): every chain of features, five seeds, both directions.

    python benchmarks/nre_sample.py ../shared/data/nre_sample/sample.npz

Photos are looked at once a chain and direction; the seeds differ in P3P only. Errors: degrees, and distance of the
vectors t in the units of the pair, as the paper has it. Published networks as released: 0.578 deg / 0.031.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import math
import os
from pathlib import Path

import torch
from torch import Tensor

from metriloc.backbones.local import DenseExtractor, DenseMap
from metriloc.datasets.nre_sample import read_nre_sample
from metriloc.geometry import Pose
from metriloc.methods.nre.model import NRE

CHAINS = ("xfeat", "xfeat+aliked", "xfeat+disk")


class Remembering:
    """Dense features that look at a photo once."""

    def __init__(self, features: DenseExtractor) -> None:
        self._features, self._seen = features, dict[tuple[tuple[int, ...], float], DenseMap]()
        self.name, self.temperature = features.name, features.temperature

    def dense(self, image: Tensor) -> DenseMap:
        """As the features have it."""
        key = (tuple(image.shape), float(image.double().sum()))
        if key not in self._seen:
            self._seen[key] = self._features.dense(image)
        return self._seen[key]


def errors(pose: Pose, truth: Pose) -> tuple[float, float]:
    """Degrees and units."""
    pose = pose.to(torch.float64)
    return math.degrees(float(pose.angle_to(truth))), float((pose.t - truth.t).norm())


def main() -> None:
    """One row a chain and direction: the worst of the seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("sample", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    print(f"{datetime.date.today()}, worst of {arguments.seeds} seeds, load {os.getloadavg()[0]:.1f}")
    print("| chain | direction | rotation | translation | confidence | outside the networks |")
    sample = read_nre_sample(arguments.sample)
    for chain in CHAINS:
        method = NRE.from_features(chain, calibrations=())  # type: ignore[arg-type]
        method.config = dataclasses.replace(method.config, min_track=1)  # the map has one photo
        method.coarse, method.fine = Remembering(method.coarse), Remembering(method.fine or method.coarse)
        for direction, pair in (("forward", sample), ("reverse", sample.reversed())):
            view, truth = pair.target.load(), pair.target.cam_from_world
            if truth is None:
                raise ValueError("the sample has no true pose")
            found = [method.localize(view, pair.source, pair.source.names, seed=s) for s in range(arguments.seeds)]
            worst = [max(errors(estimate.pose, truth)[i] for estimate in found) for i in (0, 1)]
            confidence = min(float(estimate.confidence) for estimate in found)
            stages = [{k: v for k, v in e.localization[0].timings.items() if "features" not in k} for e in found]
            seconds = max(sum(timings.values()) for timings in stages)
            print(
                f"| {chain} | {direction} | {worst[0]:.3f}° | {worst[1]:.4f} | {confidence:.2f} | {seconds:.2f} s |",
                flush=True,
            )


if __name__ == "__main__":
    main()
