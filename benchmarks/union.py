"""Methods joined: poses of two photos polished with depth maps, and several references with and without known poses.

    python benchmarks/union.py ../shared/data/eval polish --out polish.jsonl
    python benchmarks/union.py ../shared/data/eval references --out references.jsonl

``polish``: pairs of NYUv2's test half, depth map of the reference given. ``references``: photos of the four places, each
with the three others farthest from it that still share a third of what its nearest neighbor shares, matched by XFeat +
LighterGlue with predicted depth: the first reference alone; all with the poses of the map; with unknown poses; and with
the pose of one replaced by that of another photo. ``--matches tracks`` takes what two photos see of the map for their
matches, without depth and networks: what is left is the noise of keypoints. Each line of the file is one query, and a run
goes on where the last one was stopped (``--seconds``). The polish with predicted depth is in ``default_pairs.py``. Nothing
may be tuned on these photos.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from default_pairs import read

from metriloc.choose import MethodChoice, choose_method, polished
from metriloc.evaluation.errors import center_error, direction_error_deg, rotation_error_deg
from metriloc.evaluation.report import Table, markdown_table
from metriloc.fusion import FromMany
from metriloc.geometry import Pose
from metriloc.io import load_view
from metriloc.io.maps import load_map_view, read_map
from metriloc.methods.matching.model import confidence_of
from metriloc.methods.matching.solver import MatchedPair, SolvingConfig, fit_pair
from metriloc.relpose import relative_pose_by_turns
from metriloc.types import PhotoFeatures, PoseEstimate, RelativePoseMethod, SfmMap, View

EVERY = {"fountain_p11": 2, "entry_p10": 2, "holo_a": 14, "kitchen": 12}
COUNT, SHARE = 3, 0.3
"""How many references, and the least share of the points that the photo has in common with its nearest neighbor."""
POLISHES = ("nre", "pixloc")
Case = tuple[str, Callable[[], dict[str, Any]]]


def told(estimate: PoseEstimate, truth: Pose) -> dict[str, Any]:
    """Errors of an estimate."""
    if not bool(estimate.success):
        return {"success": False, "verdict": "failed"}
    pose, length = estimate.pose.to(torch.float64), float(truth.distance())
    (details,), low_high = estimate.details, estimate.distance_interval
    return {
        "success": True,
        "verdict": estimate.verdict,
        "rotation": float(rotation_error_deg(pose, truth)),
        "direction": float(direction_error_deg(pose.t, truth.t)),
        "position": float(center_error(pose, truth)) if details.metric else None,
        "baseline": length,
        "ratio": float(pose.distance()) / length if details.metric else None,
        "held": None if low_high is None else low_high[0] <= length <= low_high[1],
        "used": [said.used for said in details.references],
    }


# -- polish with depth maps -------------------------------------------------------------------------------------------
def polish_cases(root: Path) -> Iterator[Case]:
    """Every third pair."""
    method = choose_method(MethodChoice("auto", depth_map=True))
    polishes = {name: polished(method, name) for name in POLISHES}  # type: ignore[arg-type]
    for line in (root / "nyuv2" / "pairs.txt").read_text().splitlines()[1::3]:
        i, j, *values = line.split()
        numbers = torch.tensor([float(v) for v in values[:7]], dtype=torch.float64)
        truth = Pose.from_quaternion(numbers[:4], numbers[4:])
        yield (
            f"{i} {j}",
            lambda i=i, j=j, truth=truth: _polish(root / "nyuv2", (int(i), int(j)), truth, method, polishes),
        )  # type: ignore[misc]


def _polish(
    root: Path, numbers: tuple[int, int], truth: Pose, method: RelativePoseMethod, polishes: Mapping[str, Any]
) -> dict[str, Any]:
    photos = [root / "rgb" / f"{number:04d}.jpg" for number in numbers]
    views = load_view(photos[0], depth=root / "depth" / f"{numbers[0]:04d}.png"), load_view(photos[1])
    features = [method.extract(view) for view in views]
    found = relative_pose_by_turns(method, *features)
    rows = {"two photos": told(found, truth)}
    for name, polish in polishes.items():
        rows[f"polished by {name}"] = told(polish.polished(found, *features), truth)
    return rows


# -- several references -----------------------------------------------------------------------------------------------
def _around(scene: SfmMap, image: int) -> list[int]:
    """Of the photos that share enough with one, those that were taken farthest from it: neighbors of a walk tell nothing."""
    shared = scene.covisible(image)
    enough = [other for other, count in shared if count >= SHARE * shared[0][1]] if shared else []
    away = {other: float(scene.cam_from_world[other].center_distance(scene.cam_from_world[image])) for other in enough}
    return sorted(enough, key=lambda other: -away[other])[:COUNT]


class Remembering:
    """A method that looks at each photo and each pair once."""

    def __init__(self, method: RelativePoseMethod) -> None:
        self.method, self.name, self.weights_id = method, method.name, method.weights_id
        self.features: dict[str, Any] = {}
        self.found: dict[tuple[str, str], PoseEstimate] = {}

    def extract(self, view: View) -> PhotoFeatures:
        """The method's own, once."""
        if view.name not in self.features:
            self.features[view.name] = self.method.extract(view)
        found: PhotoFeatures = self.features[view.name]
        return found

    def relative_pose(self, reference: PhotoFeatures, query: PhotoFeatures, *, seed: int = 0) -> PoseEstimate:
        """The method's own, once."""
        pair = reference.view.name, query.view.name
        if pair not in self.found:
            self.found[pair] = relative_pose_by_turns(self.method, reference, query, seed=seed)
        return self.found[pair]


@dataclass(frozen=True, eq=False)
class Seen:
    """The ``PhotoFeatures`` of a photo that is not looked at."""

    view: View
    cell = (8.0, 8.0)
    depth_origin = "given"

    def score_map(self) -> torch.Tensor:
        """None."""
        return torch.zeros(0, 0)

    def depth_map(self) -> None:
        """None."""
        return None


class Tracks:
    """Two photos of a map by the points that both see: directions without a length."""

    name, weights_id = "tracks", "none"

    def __init__(self, scene: SfmMap) -> None:
        self.scene = scene

    def extract(self, view: View) -> Seen:
        """Its name is enough."""
        return Seen(view)

    def relative_pose(self, reference: Seen, query: Seen, *, seed: int = 0) -> PoseEstimate:
        """Of what both see."""
        scene = self.scene
        seen = []
        for features in (reference, query):
            rows = scene.observations_of(scene.index(features.view.name))
            seen.append(dict(zip(scene.point_index[rows].tolist(), scene.uv[rows], strict=True)))
        common = [point for point in seen[0] if point in seen[1]]
        if len(common) < 12:
            return PoseEstimate.failure("too_few_matches")
        uv0, uv1 = (torch.stack([of[point] for point in common]).float() for of in seen)
        pair = MatchedPair(uv0, uv1, torch.ones(len(common)), reference.view, query.view)
        fit = fit_pair(pair, SolvingConfig("essential", 1.5 * max(reference.view.size) / 640), seed)
        details = pair.details(fit, {})
        if fit.pose is None or len(details.inliers) < 12:
            return PoseEstimate.failure("degenerate", details)
        sure = torch.tensor(confidence_of(len(details.inliers)))
        return PoseEstimate(fit.pose, torch.tensor(True), sure, (None,), (details,))


def reference_cases(root: Path, tracks: bool = False) -> Iterator[Case]:
    """Photos of the places, and what is near them."""
    method = None if tracks else choose_method(MethodChoice("xfeat+lightglue", depth="metriloc-depth"))
    for place, every in EVERY.items():
        scene = read_map(root / "places" / place)
        memory = Remembering(Tracks(scene) if method is None else method)
        for image in range(0, len(scene), every):
            near = _around(scene, image)
            if len(near) == COUNT:
                yield (
                    f"{place} {scene.names[image]}",
                    lambda s=scene, i=image, n=near, m=memory: _references(s, i, n, m),
                )  # type: ignore[misc]


def _references(scene: SfmMap, image: int, near: Sequence[int], memory: Remembering) -> dict[str, Any]:
    def view(index: int) -> View:
        found = load_map_view(scene, index)
        return replace(found, camera=found.camera.to(torch.float32), cam_from_world=None)

    views, query = [view(index) for index in near], view(image)
    poses = [scene.cam_from_world[index] for index in near]
    truth = scene.cam_from_world[image] @ poses[0].inverse()
    # the photo of the map that is farthest away is certainly another
    far = max(range(len(scene)), key=lambda i: float(scene.cam_from_world[i].center_distance(poses[-1])))
    ways = {
        "first alone": lambda: memory.relative_pose(memory.extract(views[0]), memory.extract(query)),
        "known poses": lambda: FromMany(memory, views[1:], poses).relative_pose(views[0], query),
        "unknown poses": lambda: FromMany(memory, views[1:]).relative_pose(views[0], query),
        "known, one wrong": lambda: FromMany(memory, views[1:], [*poses[:-1], scene.cam_from_world[far]]).relative_pose(
            views[0], query
        ),
    }
    return {name: told(way(), truth) for name, way in ways.items()}


# -- tables -----------------------------------------------------------------------------------------------------------
def table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """A row a place and way."""
    head = ["place", "", "poses", "rotation", "direction", "position / baseline", "estimated / true (10..90 %)"]
    rows: Table = [[*head, "intervals that hold", "reliable", "reliable and wrong", "the wrong one left out"]]
    for place in (*dict.fromkeys(line["place"] for line in lines), "all"):
        for way in lines[0]["rows"]:
            here = [line["rows"][way] for line in lines if place in (line["place"], "all")]
            rows.append([place, way, *_numbers(here, "wrong" in way)])
    return rows


def _numbers(here: Sequence[Mapping[str, Any]], wrong: bool) -> list[str]:
    found = [row for row in here if row["success"]]
    metric = [row for row in found if row["ratio"] is not None]
    if not found:
        return [f"0 of {len(here)}", *["-"] * 8]
    sure = [row for row in found if row["verdict"] == "reliable"]
    bad = [r for r in sure if r["rotation"] > 5 or r["direction"] > 10 or abs(r["ratio"] - 1) > 0.25]
    held = [row["held"] for row in metric if row["held"] is not None]
    way = np.percentile([row["ratio"] for row in metric], [10, 50, 90]) if metric else None
    shares = [row["position"] / row["baseline"] for row in metric]
    return [
        f"{len(found)} of {len(here)}",
        f"{np.median([row['rotation'] for row in found]):.2f}° (mean {np.mean([row['rotation'] for row in found]):.2f}°)",
        f"{np.median([row['direction'] for row in found]):.2f}° (mean {np.mean([row['direction'] for row in found]):.2f}°)",
        f"{np.median(shares):.3f}" if metric else "-",
        "-" if way is None else f"{way[1]:.2f} ({way[0]:.2f}..{way[2]:.2f})",
        f"{np.mean(held):.0%} of {len(held)}" if held else "-",
        str(len(sure)),
        str(len(bad)),
        f"{sum(not row['used'][-1] for row in found)} of {len(found)}" if wrong else "-",
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="the folder data/eval")
    parser.add_argument("part", choices=["polish", "references"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--matches", choices=["xfeat+lightglue", "tracks"], default="xfeat+lightglue")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after so many")
    arguments = parser.parse_args()
    root = arguments.root
    torch.set_num_threads(1)
    tracks = arguments.matches == "tracks"
    cases = list(polish_cases(root) if arguments.part == "polish" else reference_cases(root, tracks))
    # in an order in which any part of them is a sample of the whole
    cases = [cases[i] for i in torch.randperm(len(cases), generator=torch.Generator().manual_seed(0)).tolist()]
    done = {line["key"] for line in read(arguments.out)}
    begin = time.perf_counter()
    for key, case in cases:
        if key in done:
            continue
        line = {"key": key, "place": key.split()[0] if arguments.part == "references" else "nyuv2", "rows": case()}
        with arguments.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        if time.perf_counter() - begin > arguments.seconds:
            break
    lines = sorted(read(arguments.out), key=lambda line: [*EVERY, "nyuv2"].index(line["place"]))
    print(f"{len(lines)} of {len(cases)} queries")
    print(markdown_table(table(lines)))


if __name__ == "__main__":
    main()
