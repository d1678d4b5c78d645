"""How high people hold cameras, and how far the ground that is seen errs: what ``HANDHELD`` of the matching holds.

    PYTHONPATH=tools python tools/handheld_height.py --data ../shared/data/train

Pairs of the training places, matched and measured by predicted depth. A row a place: on how many pairs a ground is seen,
the height above it by the true distance of the cameras (10, 50 and 90 %), and the share of pairs on which the usual
height lies beyond what the depths allow and gives way. Nothing of ``eval`` is read.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from training_pairs import KnownPair, nyu_pairs, posed_pairs

from metriloc.choose import MethodChoice, choose_method
from metriloc.evaluation.report import markdown_table
from metriloc.methods.matching.height import HANDHELD


def pairs_of(data: Path, most: int) -> Iterator[KnownPair]:
    """Of each place as many."""
    yield from islice(nyu_pairs(data / "nyuv2", False), most)
    yield from posed_pairs(data / "kitchen", (25, 60), most // 2, False)
    yield from posed_pairs(data / "fr1_rpy", (15, 40), most // 2, False)
    yield from posed_pairs(data / "kitti" / "street00", (2, 4), most // 2, False)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--matcher", default="xfeat+lightglue")
    parser.add_argument("--most", type=int, default=100, help="pairs of a place")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    method = choose_method(MethodChoice(arguments.matcher, depth="metriloc-depth", camera_height="handheld"))
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for pair in pairs_of(arguments.data, arguments.most):
        estimate = method.relative_pose(pair.view0, pair.view1, seed=0)
        truth = pair.view1_from_view0
        if truth is None or not bool(estimate.success):
            continue
        (details,) = estimate.details
        usual = [s.metres for s in details.metres_sources if s.name.startswith("usual height")]
        true = float(truth.distance())
        height = HANDHELD * true / usual[0] if usual else math.nan
        given_way = any("what looks like ground" in message for message in details.messages)
        found.setdefault(pair.place, []).append((height, float(estimate.pose.distance()) / true, given_way))
        print(pair.place, *found[pair.place][-1], flush=True)
    rows = [["place", "pairs", "ground seen", "height above it (10, 50, 90 %)", "gave way", "estimated / true"]]
    for place, values in found.items():
        height, ratio, gone = np.array(values).T
        seen = height[np.isfinite(height)]
        told = ", ".join(f"{v:.2f}" for v in np.percentile(seen, [10, 50, 90])) if len(seen) else "-"
        rows.append([place, str(len(values)), str(len(seen)), told, f"{int(gone.sum())}", f"{np.median(ratio):.2f}"])
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
