"""Processor seconds of one pair of two photos, beside the bare networks that it cannot do without, in one run.

    OMP_NUM_THREADS=1 python benchmarks/pair_cost.py REF QUERY [--size 640 480] [--method auto] [--repeats 2]

The networks: keypoints and predicted depth of both photos, and matching them once. The pair: from the photos in memory to
the verdict. Best of the repeats.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch

from metriloc.auto import WithRival
from metriloc.choose import MethodChoice, choose_method
from metriloc.io import load_view
from metriloc.methods.matching.model import FeatureMatching
from metriloc.relpose import relative_pose_by_turns


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Of the processor, at best."""
    found = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return min(found)


def main() -> None:
    """Print one line of a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs=2)
    parser.add_argument("--size", type=int, nargs=2, default=(640, 480))
    parser.add_argument("--method", default="auto")
    parser.add_argument("--depth", default="file")
    parser.add_argument("--repeats", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    views = [load_view(path, resize=tuple(arguments.size)) for path in arguments.photos]
    method = choose_method(MethodChoice(arguments.method, depth=arguments.depth))
    matching = method.matching if isinstance(method, WithRival) else method
    if not isinstance(matching, FeatureMatching):
        parser.error(f"{arguments.method} matches no features")
    local = [matching.matcher.extract(view) for view in views]
    parts = {
        "keypoints": lambda: [matching.matcher.extract(view) for view in views],
        "matching": lambda: matching.matcher.match(views[0], local[0], views[1], local[1]),
        "depth": lambda: [matching.depth_source(view) for view in views],
    }
    bare_seconds = {name: seconds(work, arguments.repeats) for name, work in parts.items()}
    estimate = relative_pose_by_turns(method, *(method.extract(view) for view in views))
    pair = seconds(lambda: relative_pose_by_turns(method, *(method.extract(view) for view in views)), arguments.repeats)
    total = sum(bare_seconds.values())
    told = ", ".join(f"{name} {value:.2f}" for name, value in bare_seconds.items())
    turned = math.degrees(float(estimate.pose.angle()))
    print(f"{estimate.verdict}, turned by {turned:.0f} degrees, {len(estimate.details[0].inliers)} matches agree")
    print(f"networks {total:.2f} s ({told}); pair {pair:.2f} s: {pair / total:.2f} times")


if __name__ == "__main__":
    main()
