"""NRE beside matching + poselib PnP on the same features, photos and points: photos left out of real maps in turn.

    python benchmarks/localization.py ../shared/data/eval/places --methods nre-xfeat xfeat-pnp [--out RUNS]

For each place every ``step``-th photo is taken out of the map and localised from the nearest ``references`` photos.
Records are kept in --out, so that a stopped run goes on. The numbers are in docs/results.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import os
from pathlib import Path

import numpy as np
import torch

from metriloc.evaluation.absolute import score_absolute
from metriloc.evaluation.held_out import held_out_queries
from metriloc.evaluation.runner import collect, run
from metriloc.evaluation.tasks import QuerySolver
from metriloc.io.local_features import load_extractor
from metriloc.io.maps import read_map
from metriloc.methods.matching.localizer import LocalizingConfig, MatchingLocalizer
from metriloc.methods.nre.model import NRE
from metriloc.methods.nre.settings import CONFIGS
from metriloc.types import AbsolutePoseMethod

STEPS = {"holo_a": 10, "kitchen": 5}


def method_of(name: str) -> AbsolutePoseMethod:
    """``nre-FEATURES`` or ``FEATURES-pnp``; PnP looks at photos of the size of NRE's fine stage, and at the same points."""
    if name.startswith("nre-"):
        return NRE.from_features(name.removeprefix("nre-"), calibrations=())  # type: ignore[arg-type]
    features = name.removesuffix("-pnp")
    side = CONFIGS["xfeat" if features == "xfeat" else f"xfeat+{features}"].fine.longest_side
    extractor, identity = load_extractor(features, longest_side=side)
    config = dataclasses.replace(LocalizingConfig(), max_points=1000)
    return MatchingLocalizer(extractor, identity, config)  # type: ignore[arg-type]


def main() -> None:
    """One row a place and method."""
    parser = argparse.ArgumentParser()
    parser.add_argument("places", type=Path)
    parser.add_argument("--methods", nargs="+", default=["nre-xfeat", "xfeat-pnp"])
    parser.add_argument("--only", nargs="+", default=["fountain_p11", "entry_p10", "holo_a", "kitchen"])
    parser.add_argument("--references", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("/tmp/localization"))
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    print(f"{datetime.date.today()}, {arguments.references} references, load {os.getloadavg()[0]:.1f}")
    print("| place | queries | method | median rotation | median position | within 5 cm, 1 deg | lost | s a query |")
    for place in arguments.only:
        whole = read_map(arguments.places / place / "sparse", arguments.places / place)
        tasks = held_out_queries(whole, STEPS.get(place, 1), arguments.references, place)
        truth = {task.key: task.frame.cam_from_world for task in tasks if task.frame.cam_from_world is not None}
        for name in arguments.methods:
            method = method_of(name)
            folder = arguments.out / f"{place}-{name}-{arguments.references}"
            run(tasks, QuerySolver(method), folder, {"method": name, "weights_id": method.weights_id})
            records = collect(tasks, folder)
            estimates = {record.key: record.pose for record in records if record.pose is not None}
            score = score_absolute(estimates, truth, thresholds=((0.05, 1),))
            seconds = np.mean([record.seconds for record in records])
            print(
                f"| {place} | {len(tasks)} | {name} | {score.median_rotation_deg:.3f}° | "
                f"{100 * score.median_center_m:.2f} cm | {score.recalls[0]:.0f} % | {len(tasks) - len(estimates)} | "
                f"{seconds:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
