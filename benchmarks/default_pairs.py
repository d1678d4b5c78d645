"""The default for two photos on every real pair, with either matcher: poses, metres, intervals, and what a polish does.

    python benchmarks/default_pairs.py --root ../shared/data/eval --out pairs.jsonl --matcher aliked+lightglue

Depth is predicted, MicKey is asked where few matches agree: ``--method auto``. Each pair is one line of the file, and a
run goes on where the last one was stopped (``--seconds`` does that by itself); the tables are over what is there.
``--polish nre pixloc`` polishes each pose, too. Nothing may be tuned on these pairs.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from metriloc_small_rivals import tasks_of
from two_photo_metres import EVERY, places_of

from metriloc.auto import WithRival
from metriloc.choose import MethodChoice, choose_method
from metriloc.choose.pairs import polished
from metriloc.evaluation.errors import center_error, direction_error_deg, rotation_error_deg
from metriloc.evaluation.records import Record, record_of
from metriloc.evaluation.report import Table, markdown_table
from metriloc.evaluation.scoring import score_pairs, vcre_auc, vcre_precision
from metriloc.evaluation.tasks import PairTask, seed_of
from metriloc.geometry import Pose
from metriloc.methods.matching.model import confidence_of
from metriloc.methods.mickey import MicKey
from metriloc.relpose import relative_pose_by_turns
from metriloc.types import PoseEstimate, RelativePoseMethod

PREDICTED = "metriloc-depth"


def default(matcher: str) -> RelativePoseMethod:
    """What ``--method auto`` is where that matcher is the best that is installed; or MicKey alone."""
    if matcher == "mickey":
        return choose_method(MethodChoice("mickey"))
    matching = choose_method(MethodChoice(matcher, depth=PREDICTED))
    return WithRival(matching, MicKey.from_pretrained(), "MicKey (metriloc-small)")


def line_of(task: PairTask, place: str, kind: str, estimate: PoseEstimate, seconds: float) -> dict[str, Any]:
    """What is kept of an estimate."""
    (details,) = estimate.details
    return {
        **asdict(record_of(task.key, estimate, seconds)),
        "place": place,
        "kind": kind,
        "inliers": len(details.inliers),
        "interval": estimate.distance_interval,
        "verdict": estimate.verdict,
        "messages": details.messages,
        "sources": [asdict(source) for source in details.metres_sources],
    }


def solve(
    method: RelativePoseMethod, task: PairTask, place: str, polishes: Mapping[str, Any], depth: bool
) -> list[dict[str, Any]]:
    """The pair by the default, and polished."""
    start = time.perf_counter()
    views = [frame.load(depth=depth) for frame in (task.pair.frame0, task.pair.frame1)]
    features0, features1 = (method.extract(view) for view in views)
    found = relative_pose_by_turns(method, features0, features1, seed=seed_of(task.key, 0))
    lines = [line_of(task, place, "default", found, time.perf_counter() - start)]
    for name, polish in polishes.items():
        start = time.perf_counter()
        after = polish.polished(found, features0, features1)
        lines.append(line_of(task, place, name, after, time.perf_counter() - start))
    return lines


def read(path: Path) -> list[dict[str, Any]]:
    """The lines that are whole."""
    found = []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


def of_lines(lines: Sequence[Mapping[str, Any]]) -> list[Record]:
    """Records whose confidence is the raw support."""
    names = Record.__dataclass_fields__
    found = []
    for line in lines:
        values = {name: line[name] for name in names}
        values |= {"confidence": confidence_of(line["inliers"]) if line["success"] else 0.0}
        values |= {name: None if line[name] is None else tuple(line[name]) for name in ("q", "t")}
        found.append(Record(**values))
    return found


def truth_of(task: PairTask) -> Pose:
    """query_from_reference."""
    pose = task.pair.cam1_from_cam0
    if pose is None:
        raise ValueError(f"{task.key} has no true pose")
    return pose.to(torch.float64)


def table(tasks: Mapping[str, PairTask], lines: Sequence[Mapping[str, Any]], kinds: Sequence[str]) -> Table:
    """A row a place and kind."""
    head = [
        "place",
        "",
        "pairs",
        "poses",
        "rotation",
        "direction",
        "position / baseline",
        "predicted / true (10..90 %)",
    ]
    rows: Table = [[*head, "intervals that hold", "VCRE AUC", "VCRE < 10 %", "reliable, kept"]]
    places = [*dict.fromkeys(line["place"] for line in lines), "all"]
    for place in places:
        for kind in kinds:
            here = [line for line in lines if place in (line["place"], "all") and line["kind"] == kind]
            rows.append([place, kind, *_numbers([tasks[line["key"]] for line in here], here)])
    return rows


def _numbers(tasks: Sequence[PairTask], lines: Sequence[Mapping[str, Any]]) -> list[str]:
    scores = score_pairs(tasks, of_lines(lines))
    rotation, direction, share, ratio, held, promised = [], [], [], [], [], []
    for task, line, record in zip(tasks, lines, of_lines(lines), strict=True):
        pose, truth = record.pose, truth_of(task)
        if pose is None or not record.success:
            continue
        rotation.append(float(rotation_error_deg(pose, truth)))
        direction.append(float(direction_error_deg(pose.t, truth.t)))
        if record.metric:
            share.append(float(center_error(pose, truth) / truth.distance()))
            ratio.append(float(pose.distance() / truth.distance()))
        if line["interval"] is not None:
            held.append(line["interval"][0] <= float(truth.distance()) <= line["interval"][1])
        if line["verdict"] == "reliable":
            promised.append(rotation[-1] < 5 and direction[-1] < 10 and abs(ratio[-1] - 1) < 0.25)
    if not ratio:
        return [str(len(tasks)), "0", *["-"] * 8]
    low, middle, high = np.percentile(ratio, [10, 50, 90])
    return [
        str(len(tasks)),
        str(len(rotation)),
        f"{np.median(rotation):.2f}°",
        f"{np.median(direction):.2f}°",
        f"{np.median(share):.3f}",
        f"{middle:.2f} ({low:.2f}..{high:.2f})",
        f"{np.mean(held):.0%} of {len(held)}",
        f"{vcre_auc(scores):.3f}",
        f"{vcre_precision(scores):.0%}",
        f"{sum(promised)} of {len(promised)}",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the folder data/eval")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--matcher", default="aliked+lightglue", help="or xfeat+lightglue, or mickey alone")
    parser.add_argument("--every", type=int, default=1, help="every so manieth pair of each place")
    parser.add_argument("--polish", nargs="*", default=[])
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tasks = tasks_of(arguments.root / "val")
    places = places_of(tasks, arguments.root)
    chosen = [
        (place, task)
        for place in EVERY
        for task in [t for p, t in zip(places, tasks, strict=True) if p == place][:: arguments.every]
    ]
    # in an order in which any part of it is a sample of the whole
    chosen = [chosen[i] for i in torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0)).tolist()]
    done = {line["key"] for line in read(arguments.out)}
    left = [(place, task) for place, task in chosen if task.key not in done]
    begin = time.perf_counter()
    if left:
        method = default(arguments.matcher)
        polishes = {name: polished(method, name) for name in arguments.polish}
        for place, task in left:
            lines = solve(method, task, place, polishes, depth=False)
            with arguments.out.open("a") as file:
                file.write("".join(json.dumps(line) + "\n" for line in lines))
            if time.perf_counter() - begin > arguments.seconds:
                break
    keys = {task.key for _, task in chosen}
    lines = [line for line in read(arguments.out) if line["key"] in keys]
    lines.sort(key=lambda line: list(EVERY).index(line["place"]))
    kinds = ["default", *(n for n in ("nre", "pixloc") if any(line["kind"] == n for line in lines))]
    print(f"{arguments.matcher}: {len({line['key'] for line in lines})} of {len(chosen)} pairs")
    print(markdown_table(table({task.key: task for _, task in chosen}, lines, kinds)))


if __name__ == "__main__":
    main()
