"""How often verdicts on two photos keep their promise, on places that nothing was fitted on.

    python benchmarks/verdicts.py --root ../shared/data/eval --method mickey --method matching

All pairs of ``val`` (four places) and 200 pairs of photos of different places. A *reliable* answer promises a rotation
within 5 degrees, a direction within 10 (any within 5 cm) and, where it tells metres, a distance within 25 %. Printed per
place: answers by verdict, how many reliable ones kept the promise, and how many intervals hold the true distance.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import torch

from metriloc.choose import MethodChoice, choose_method
from metriloc.datasets.mapfree import read_mapfree_scene
from metriloc.evaluation.errors import center_error, direction_error_deg, rotation_error_deg
from metriloc.geometry import Pose
from metriloc.io import load_view
from metriloc.relpose import relative_pose_by_turns
from metriloc.types import PhotoFeatures, PoseEstimate, RelativePoseMethod, View

NEAR_M, ROTATION_DEG, DIRECTION_DEG, DISTANCE = 0.05, 5.0, 10.0, 0.25
PLACES = {"fountain_p11": range(4), "entry_p10": range(4, 8), "holo_a": range(8, 14), "kitchen": range(14, 18)}


def kept(estimate: PoseEstimate, truth: Pose) -> bool:
    """Whether an answer is what a reliable one promises."""
    pose, truth = estimate.pose.to(torch.float64), truth.to(torch.float64)
    metric = estimate.details[0].metric
    near = metric and float(center_error(pose, truth)) < NEAR_M
    aimed = near or float(direction_error_deg(pose.t, truth.t)) < DIRECTION_DEG
    length = near or not metric or abs(float(pose.distance() / truth.distance()) - 1) < DISTANCE
    return float(rotation_error_deg(pose, truth)) < ROTATION_DEG and aimed and length


def pairs_of(root: Path, place: str) -> list[tuple[Path, Path, Pose]]:
    """Reference, query and true relative pose of the pairs of a place."""
    found = []
    for number in PLACES[place]:
        scene = read_mapfree_scene(root / "val" / f"s{number:05d}").posed
        frames = [scene.frame(i) for i in range(len(scene.names))]
        reference = next(frame for frame in frames if frame.name.startswith("seq0"))
        for frame in frames:
            if frame is reference or frame.cam_from_world is None or reference.cam_from_world is None:
                continue
            found.append((reference.path, frame.path, frame.cam_from_world @ reference.cam_from_world.inverse()))
    return found


def strangers(root: Path, count: int) -> list[tuple[Path, Path]]:
    """Pairs of photos of different places (fountain and entry show one courtyard), and of different rooms."""
    generator = torch.Generator().manual_seed(0)
    photos = {place: sorted({p for pair in pairs_of(root, place) for p in pair[:2]}) for place in PLACES}
    rooms = sorted((root / "nyuv2" / "rgb").iterdir())
    kinds = [("fountain_p11", "holo_a"), ("entry_p10", "kitchen"), ("holo_a", "kitchen"), ("rooms", "rooms")]
    found = []
    for number in range(count):
        first, second = kinds[number % len(kinds)]
        if first == "rooms":
            i = int(torch.randint(len(rooms) - 60, (), generator=generator))
            found.append((rooms[i], rooms[i + 50]))
            continue
        a, b = (photos[name] for name in (first, second))
        found.append(tuple(p[int(torch.randint(len(p), (), generator=generator))] for p in (a, b)))
    return found


def run(method: RelativePoseMethod, root: Path, count: int) -> None:
    """Print the table of a method."""
    features: dict[Path, PhotoFeatures] = {}

    def extract(path: Path) -> PhotoFeatures:
        if path not in features:
            features[path] = method.extract(_view(path))
        return features[path]

    print(f"\n**{method.name} {method.weights_id}**\n")
    print("| place | pairs | reliable | of them kept | doubtful | failed | uncalibrated | intervals that hold |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    total: Counter[str] = Counter()
    for place in PLACES:
        tally: Counter[str] = Counter()
        for reference, query, truth in pairs_of(root, place):
            _count(tally, relative_pose_by_turns(method, extract(reference), extract(query)), truth)
        total.update(tally)
        print(_row(place, tally))
    print(_row("all", total))
    tally = Counter()
    for reference, query in strangers(root, count):
        tally["pairs"] += 1
        tally[relative_pose_by_turns(method, extract(reference), extract(query)).verdict] += 1
    print(_row("different places", tally))


def run_rooms(choice: MethodChoice, root: Path) -> None:
    """Print the row of a method over the posed pairs of NYUv2's test half, whose photos come with depth maps."""
    from training_pairs import nyu_pairs  # of tools/

    depth_map = choice.depth == "file" and choice.name not in ("auto", "mickey")
    method, tally = choose_method(replace(choice, depth_map=depth_map)), Counter[str]()
    for pair in nyu_pairs(root / "nyuv2", depth=depth_map):
        truth = pair.view1_from_view0
        if truth is not None:
            _count(tally, relative_pose_by_turns(method, method.extract(pair.view0), method.extract(pair.view1)), truth)
    print(_row(f"NYUv2, {choice.name}, {'depth maps' if depth_map else 'predicted metres'}", tally), flush=True)


def _count(tally: Counter[str], estimate: PoseEstimate, truth: Pose) -> None:
    tally["pairs"] += 1
    tally[estimate.verdict] += 1
    if estimate.verdict == "reliable":
        tally["kept"] += kept(estimate, truth)
    if estimate.distance_interval is not None:
        low, high = estimate.distance_interval
        tally["intervals"] += 1
        tally["hold"] += low <= float(truth.distance()) <= high


def _view(path: Path) -> View:
    return load_view(path)


def _row(name: str, tally: Counter[str]) -> str:
    t = defaultdict(int, tally)
    hold = f"{t['hold']} of {t['intervals']}" if t["intervals"] else "-"
    kept_ = f"{t['kept']} ({t['kept'] / t['reliable']:.0%})" if t["reliable"] else "-"
    return (
        f"| {name} | {t['pairs']} | {t['reliable']} | {kept_} | {t['doubtful']} | {t['failed']} | "
        f"{t['uncalibrated']} | {hold} |"
    )


def main() -> None:
    """Every method that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path("../shared/data/eval"))
    parser.add_argument("--method", action="append", help="METHOD or METHOD@DEPTH_SOURCE; may be repeated")
    parser.add_argument("--strangers", type=int, default=200)
    parser.add_argument("--rooms", action="store_true", help="only pairs of NYUv2, with depth maps (PYTHONPATH=tools)")
    arguments = parser.parse_args()
    for name in arguments.method or ["mickey"]:
        method, _, depth = name.partition("@")
        choice = MethodChoice(method) if method == "mickey" else MethodChoice(method, depth=depth or "none")
        if arguments.rooms:
            run_rooms(choice, arguments.root)
        else:
            run(choose_method(choice), arguments.root, arguments.strangers)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
