"""Geometry and metres of matching two photos with a depth of both, place by place: what a change of the solver does.

    python benchmarks/two_photo_metres.py --root ../shared/data/eval --cache matches.npz [--depth mickey right none]

Matches of ALIKED + LightGlue are kept in the file; depths are what metriloc-small predicts (``mickey``), what the sparse
maps of the places know where a point of them was seen (``right``), or none. All pairs of fountain and entry, and 16 each
of office and kitchen. Run it on two commits to compare them; nothing may be tuned on these pairs.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from metriloc_small_depth import PlaceMap
from metriloc_small_rivals import MatchCache, StoredMatcher, fill, matching, tasks_of
from torch import Tensor

from metriloc.choose import MethodChoice, choose_method
from metriloc.evaluation.errors import center_error, direction_error_deg, rotation_error_deg
from metriloc.evaluation.report import Table, markdown_table
from metriloc.evaluation.tasks import PairTask, seed_of
from metriloc.methods.matching.depth import DepthSource
from metriloc.types import PoseEstimate, View

EVERY = {"fountain_p11": 1, "entry_p10": 1, "holo_a": 6, "kitchen": 4}
MATCHER = "aliked+lightglue"
RADIUS = 2
"""Pixels around a point of the map in which its depth is taken for right."""


def places_of(tasks: Sequence[PairTask], root: Path) -> list[str]:
    """The place of each pair."""
    with (root / "pairs.csv").open() as file:
        rows = {(row["scene"], row["query_path"]): row["place"] for row in csv.DictReader(file)}
    return [rows[task.pair.scene, task.pair.frame1.name] for task in tasks]


def chosen(root: Path) -> list[tuple[str, PairTask]]:
    """The pairs, each with its place."""
    tasks = tasks_of(root / "val")
    found: list[tuple[str, PairTask]] = []
    for place, every in EVERY.items():
        here = [(p, task) for p, task in zip(places_of(tasks, root), tasks, strict=True) if p == place]
        found += here[::every][:36]
    return found


def right_depth(place: PlaceMap, photo: Path, size: tuple[int, int]) -> Tensor:
    """A depth map that is known in a few pixels around each point of the map, and 0 elsewhere; the nearest point wins."""
    uv, depth = place.seen(photo)
    order = depth.argsort(descending=True)
    column, row = uv[order].round().long().unbind(-1)
    full = torch.zeros(size[1], size[0])
    for dy in range(-RADIUS, RADIUS + 1):
        for dx in range(-RADIUS, RADIUS + 1):
            full[(row + dy).clamp(0, size[1] - 1), (column + dx).clamp(0, size[0] - 1)] = depth[order]
    return full


class Depths:
    """A depth source by name that asks for each photo once."""

    def __init__(self, kind: str, root: Path, pairs: Sequence[tuple[str, PairTask]]) -> None:
        self.kept: dict[str, Tensor | None] = {}
        self.source: DepthSource = lambda view: None
        if kind == "mickey":
            inner = choose_method(MethodChoice(MATCHER, depth="mickey", calibration="none"))
            self.source = inner.depth_source  # type: ignore[attr-defined]
        elif kind == "right":
            maps = {place: PlaceMap(root / "places" / place) for place in EVERY}
            files = {
                f"{frame.scene}/{frame.name}": (maps[place], frame.path)
                for place, task in pairs
                for frame in (task.pair.frame0, task.pair.frame1)
            }
            self.source = lambda view: right_depth(*files[view.name], view.size)

    def __call__(self, view: View) -> Tensor | None:
        if view.name not in self.kept:
            self.kept[view.name] = self.source(view)
        return self.kept[view.name]


def solved(kind: str, cache: MatchCache, root: Path, pairs: Sequence[tuple[str, PairTask]]) -> list[PoseEstimate]:
    """The estimate of every pair with depths of this kind."""
    _, method = matching(MATCHER)
    chosen_depth = "none" if kind == "none" else "mickey"
    inner = choose_method(MethodChoice(MATCHER, depth=chosen_depth, calibration="none"))
    inner.matcher = StoredMatcher(cache, f"val/{MATCHER}", MATCHER, method.weights_id)  # type: ignore[attr-defined]
    method = inner  # type: ignore[assignment]
    method.depth_source = Depths(kind, root, pairs)
    if kind == "right":
        as_map = choose_method(MethodChoice(MATCHER, depth="file", calibration="none"))
        method.config = as_map.config  # type: ignore[attr-defined]
    found = []
    for _, task in pairs:
        views = [frame.load(depth=False) for frame in (task.pair.frame0, task.pair.frame1)]
        found.append(method.relative_pose(*views, seed=seed_of(task.key, 0)))
    return found


def row_of(title: str, estimates: Sequence[PoseEstimate], tasks: Sequence[PairTask]) -> list[str]:
    """Medians over the poses; the lengths over those in metres."""
    rotation, direction, position, share, ratio = [], [], [], [], []
    for estimate, task in zip(estimates, tasks, strict=True):
        if not bool(estimate.success):
            continue
        pair = task.pair
        assert pair.frame0.cam_from_world is not None and pair.frame1.cam_from_world is not None
        truth = (pair.frame1.cam_from_world @ pair.frame0.cam_from_world.inverse()).to(torch.float64)
        pose = estimate.pose.to(torch.float64)
        rotation.append(float(rotation_error_deg(pose, truth)))
        direction.append(float(direction_error_deg(pose.t, truth.t)))
        if estimate.details[0].metric:
            position.append(float(center_error(pose, truth)))
            share.append(position[-1] / float(truth.distance()))
            ratio.append(float(pose.distance() / truth.distance()))
    if not rotation:
        return [title, "0"]
    cells = [title, str(len(rotation)), f"{np.median(rotation):.3f}", f"{np.percentile(rotation, 90):.2f}"]
    cells += [f"{np.median(direction):.3f}", f"{np.percentile(direction, 90):.2f}"]
    if not ratio:
        return [*cells, "-", "-", "-", "-", "-"]
    low, middle, high = np.percentile(ratio, [10, 50, 90])
    near = np.mean(np.abs(np.log(ratio)) < np.log(1.25))
    return [
        *cells,
        f"{np.median(position):.3f}",
        f"{np.median(share):.3f}",
        f"{middle:.2f} ({low:.2f}..{high:.2f})",
        f"{np.mean(np.abs(np.log(ratio))):.3f}",
        f"{near:.0%}",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="the folder data/eval")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--depth", nargs="+", default=["mickey", "right", "none"])
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
    pairs = chosen(arguments.root)
    cache = MatchCache(arguments.cache)
    fill(cache, "val", MATCHER, [task for _, task in pairs])
    head = ["depth, place", "poses", "rotation", "90 %", "direction", "90 %", "position m", "/ baseline"]
    rows: Table = [[*head, "length / true (10..90 %)", "|log|", "within 25 %"]]
    for kind in arguments.depth:
        start = time.perf_counter()
        estimates = solved(kind, cache, arguments.root, pairs)
        print(f"{kind}: {time.perf_counter() - start:.1f} s", flush=True)
        for place in EVERY:
            here = [i for i, (p, _) in enumerate(pairs) if p == place]
            rows.append(row_of(f"{kind}, {place}", [estimates[i] for i in here], [pairs[i][1] for i in here]))
    print(markdown_table(rows))


if __name__ == "__main__":
    main()
