"""How exact streams are: metres from a device's motion, and a camera that is followed in a map.

    python benchmarks/track.py burst ../shared/data
    python benchmarks/track.py map ../shared/data/eval/places
    python benchmarks/track.py cost ../shared/data/eval/places

``burst``: frames of real walks in order, before a reference photo of the same place; device poses are the true ones with
drift (0.5 % of the way, 0.1 degrees a metre). ``map``: photos that are not in the map, forth and back, 30 black ones
among them, and those of another place. ``cost``: seconds of a tracked frame, of one that is searched for, and of the
network alone. The tables are in docs/tracking.md.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

from metriloc import Localizer, Pose, Tracker, load
from metriloc.backbones.local import LocalFeatures
from metriloc.choose.depth import PREDICTED
from metriloc.io import read_mapfree_poses
from metriloc.io.maps import load_map_view, read_map
from metriloc.methods.matching.matchers import Matches
from metriloc.types import PoseEstimate, TrackState, View

DRIFT_SHARE, DRIFT_DEGREES = 0.005, 0.1


@dataclass(frozen=True)
class Walk:
    """A folder of frames in order. far: metres from the reference to the newest frame; turned: degrees between them, at
    most. way: metres of the burst, at least. shared: points of the folder's map that both must see; without a map the
    reference is a frame before the burst."""

    folder: str
    far: tuple[float, float]
    way: float = 0.2
    turned: float = 30.0
    shared: int = 0


WALKS = {
    "kitchen": Walk("eval/places/kitchen", (0.3, 1.0), shared=60),
    "kitchen, 10 cm": Walk("eval/places/kitchen", (0.3, 1.0), way=0.1, shared=60),
    "office": Walk("eval/places/holo_a", (0.4, 1.5), shared=60),
    "street": Walk("eval/kitti_street1", (5.0, 12.0)),
    "kitchen to tune on": Walk("train/kitchen", (0.3, 1.0)),
    "street to tune on": Walk("train/kitti/street00", (5.0, 12.0)),
}


def drifting(cam_from_world: Pose, generator: torch.Generator) -> Pose:
    """True poses as a device tells them: its metre is a little off, and it turns a little a metre; in its own world."""
    scale = 1 + DRIFT_SHARE * float(torch.randn(1, generator=generator))
    turn = math.radians(DRIFT_DEGREES) * torch.randn(3, generator=generator, dtype=torch.float64)
    poses = [cam_from_world[0]]
    for k in range(1, len(cam_from_world.t)):
        motion = cam_from_world[k] @ cam_from_world[k - 1].inverse()
        wrong = Pose.from_aa(float(motion.distance()) * turn, torch.zeros(3).double())
        poses.append(wrong @ Pose(motion.R, scale * motion.t) @ poses[-1])
    own = Pose.from_aa(torch.tensor([0.2, 1.0, -0.3]).double(), torch.tensor([1.0, -2.0, 0.5]).double())
    return Pose.stack(poses) @ own


class Remembering:
    """A matcher that looks at each photo, and each pair, once: many bursts have them in common."""

    def __init__(self, matcher: Any) -> None:
        self.matcher, self.name, self.weights_id = matcher, matcher.name, matcher.weights_id
        self._seen: dict[str, LocalFeatures] = {}
        self._matches: dict[tuple[str, str], Matches] = {}

    def extract(self, view: View) -> LocalFeatures:
        """Of a photo, by its name."""
        if view.name not in self._seen:
            self._seen[view.name] = self.matcher.extract(view)
        return self._seen[view.name]

    def match(self, view0: View, local0: LocalFeatures, view1: View, local1: LocalFeatures) -> Matches:
        """Of two photos, by their names."""
        pair = view0.name, view1.name
        if pair not in self._matches:
            self._matches[pair] = self.matcher.match(view0, local0, view1, local1)
        return self._matches[pair]

    def to(self, device: torch.device | str) -> Remembering:
        """Move the networks."""
        self.matcher.to(device)
        return self


# -- a burst before a photo -------------------------------------------------------------------------------------------
def covisible(root: Path, walk: Walk, names: list[str]) -> Callable[[int, int], bool]:
    """Whether a reference shows what a frame shows, by the points of the map."""
    if not walk.shared:
        return lambda reference, frame: reference < frame
    scene = read_map(root / walk.folder / "sparse", root / walk.folder)
    seen = torch.zeros(len(names), len(scene.xyz))
    place = torch.tensor([names.index(name) for name in scene.names])
    seen[place[scene.image_index], scene.point_index] = 1
    shared = seen @ seen.mT
    return lambda reference, frame: bool(shared[reference, frame] >= walk.shared)


def bursts(poses: Pose, walk: Walk, count: int, together: Callable[[int, int], bool]) -> list[tuple[int, list[int]]]:
    """(reference, nine frames in order, evenly spread over the way), drawn by a fixed seed."""
    rng, centers, found = random.Random(0), poses.center(), list[tuple[int, list[int]]]()
    for _ in range(20_000):
        reference, last = rng.randrange(len(centers)), rng.randrange(8, len(centers))
        far = float((centers[reference] - centers[last]).norm())
        first = next(
            (k for k in range(last - 8, -1, -1) if float((centers[k] - centers[last]).norm()) >= walk.way), None
        )
        if first is None or last - first > 90 or first <= reference <= last or not walk.far[0] <= far <= walk.far[1]:
            continue
        if math.degrees(float(poses[reference].angle_to(poses[last]))) > walk.turned or not together(reference, last):
            continue
        if walk.way < 0.2 and float((centers[first] - centers[last]).norm()) > 1.5 * walk.way:
            continue
        found.append((reference, [round(first + k * (last - first) / 8) for k in range(9)]))
        if len(found) == count:
            break
    return found


def measure_bursts(
    root: Path, walk: Walk, method: Any, numbers: list[int], count: int
) -> Iterator[tuple[int, list[Any]]]:
    """(number of frames, what ``error_of`` says of each burst)."""
    listed = read_mapfree_poses(root / walk.folder / "poses.txt")
    names = list(listed)
    poses = Pose.stack([pose for pose in listed.values() if pose is not None]).to(torch.float64)
    drawn = bursts(poses, walk, count, covisible(root, walk, names))
    for number in numbers:
        found = []
        for seed, (reference, frames) in enumerate(drawn):
            device = drifting(poses[torch.tensor(frames)], torch.Generator().manual_seed(seed))
            tracker = Tracker(root / walk.folder / names[reference], method=method, frames=number, spacing=0)
            chosen = [8] if number == 1 else [round(k * 8 / (number - 1)) for k in range(number)]
            for k in chosen:
                told = device[k] if number > 1 else None
                estimate = tracker.add(root / walk.folder / names[frames[k]], told, frames[k] / 10)
            found.append(error_of(estimate, poses[frames[-1]] @ poses[reference].inverse()))
        yield number, found


def error_of(estimate: PoseEstimate, truth: Pose) -> tuple[float, float, PoseEstimate] | None:
    """Share by which the distance is off, degrees by which the rotation is."""
    if not bool(estimate.success):
        return None
    pose = estimate.pose.to(torch.float64)
    off = abs(float(pose.distance() / truth.distance()) - 1)
    return off, math.degrees(float(pose.angle_to(truth))), estimate


def print_bursts(root: Path, names: list[str], numbers: list[int], count: int, method_name: str) -> None:
    """The table of frames against places."""
    method = load(method_name, depth=PREDICTED)  # which one frame alone has its metres from
    matching = getattr(method, "matching", method)
    matching.matcher = Remembering(matching.matcher)
    print("| walk | frames | found | distance off, median | 90 % | rotation off, median | sigma holds | reliable |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for name in names:
        for number, found in measure_bursts(root, WALKS[name], matching, numbers, count):
            print(burst_line(name, number, found), flush=True)


def burst_line(name: str, number: int, found: list[Any]) -> str:
    """One line of the table."""
    good = [row for row in found if row is not None]
    if not good:
        return f"| {name} | {number} | 0 of {len(found)} | | | | | |"
    off, turned = sorted(row[0] for row in good), median(row[1] for row in good)
    inside = 0
    for error, _, estimate in good:
        low, high = estimate.distance_interval or (math.inf, -math.inf)
        true = float(estimate.pose.distance()) / (1 + error), float(estimate.pose.distance()) / (1 - min(error, 0.99))
        inside += any(low <= distance <= high for distance in true)
    reliable = sum(row[2].verdict == "reliable" for row in good)
    return (
        f"| {name} | {number} | {len(good)} of {len(found)} | {median(off):.1%} | {off[int(0.9 * (len(off) - 1))]:.1%} "
        f"| {turned:.2f} deg | {inside} of {len(good)} | {reliable} |"
    )


# -- in a map ---------------------------------------------------------------------------------------------------------
def forth_and_back(indices: list[int], length: int) -> list[int]:
    """So many of them, to the end and back again."""
    cycle = [*indices, *indices[-2:0:-1]]
    return [cycle[k % len(cycle)] for k in range(length)]


def measure_map(places: Path, method: str, length: int) -> None:
    """A stream of photos that are not in the kitchen's map; black ones; and the office."""
    folder = places / "kitchen"
    whole = read_map(folder / "sparse", folder)
    order = sorted(range(len(whole)), key=lambda k: whole.names[k])
    held = order[1::2]
    scene = whole.without(held)
    stream = forth_and_back(held, length)
    poses = whole.cam_from_world.to(torch.float64)
    device = drifting(poses[torch.tensor(stream)], torch.Generator().manual_seed(0))
    tracker = Tracker(Localizer(scene, method=method))
    views = {k: load_map_view(whole, k) for k in held}
    errors, states = list[Any](), list[TrackState]()
    for step, k in enumerate(stream):
        estimate = tracker.add(views[k], device[step], step / 7.5)
        states.append(estimate.track.state if estimate.track else TrackState.LOST)
        errors.append(_offset(estimate, poses[k]))
    report_stream("kitchen", errors, states)
    black = torch.zeros_like(views[held[0]].image)
    dark = [tracker.add(View(black, views[held[0]].camera), None, 100 + n / 7.5) for n in range(30)]
    print("30 black frames:", sum(bool(e.success) for e in dark), "with a pose")
    back = []
    for n, k in enumerate(held[:5]):
        back.append(tracker.add(views[k], None, 110 + n / 7.5))
    said = [e.track.state.value for e in back if e.track]
    print("after them:", ", ".join(said))
    other = places / "holo_a"
    names = list(read_mapfree_poses(other / "poses.txt"))[:40]
    strange = [tracker.add(other / name, None, 120 + n) for n, name in enumerate(names)]
    print("of another place:", {s.value: sum(e.track.state is s for e in strange if e.track) for s in TrackState})


def _offset(estimate: PoseEstimate, truth: Pose) -> torch.Tensor | None:
    return None if not bool(estimate.success) else estimate.pose.to(torch.float64).center() - truth.center()


def report_stream(name: str, errors: list[Any], states: list[TrackState]) -> None:
    """Found, errors and jumps of one stream. A jump is how far the error moves from one frame to the next."""
    found = [e for e in errors if e is not None]
    jumps = [float((b - a).norm()) for a, b in pairwise(errors) if a is not None and b is not None]
    counts = {s.value: states.count(s) for s in TrackState}
    off = sorted(float(e.norm()) for e in found)
    print(
        f"{name}: {len(found)} of {len(errors)} found, {counts}; off by {100 * median(off):.1f} cm in the median, "
        f"{100 * off[-1]:.1f} at most; largest jump {100 * max(jumps):.1f} cm"
    )


# -- cost -------------------------------------------------------------------------------------------------------------
def measure_cost(places: Path, method: str, count: int) -> None:
    """Seconds of a frame, in the median: tracked, searched for, and the network of the method alone."""
    folder = places / "kitchen"
    whole = read_map(folder / "sparse", folder)
    order = sorted(range(len(whole)), key=lambda k: whole.names[k])
    held = order[1::2][:count]
    scene = whole.without(order[1::2])
    localizer = Localizer(scene, method=method)
    views = [load_map_view(whole, k) for k in held]
    device = whole.cam_from_world[torch.tensor(held)]
    tracked, lost = list[float](), list[float]()
    warm = Tracker(localizer)
    for view, pose in zip(views, device, strict=True):  # the photos of the map are looked at once
        warm.add(view, pose)
    tracker = Tracker(localizer)
    for k, view in enumerate(views):
        seconds, estimate = timed(lambda view=view, k=k: tracker.add(view, device[k]))
        if estimate.track.state is TrackState.TRACKING and not estimate.track.searched:
            tracked.append(seconds)
        lost.append(timed(lambda view=view: Tracker(localizer).add(view))[0])
    features = getattr(localizer.method, "coarse", None) or localizer.method.features  # type: ignore[attr-defined]
    bare = [timed(lambda view=view: features.dense(view.image))[0] for view in views]
    print(f"tracked {median(tracked):.2f} s ({len(tracked)} frames), searched for {median(lost):.2f} s, ", end="")
    print(f"network alone {median(bare):.2f} s; {torch.get_num_threads()} threads")


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of a call, and what it returns."""
    start = time.perf_counter()
    result = call()
    return time.perf_counter() - start, result


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["burst", "map", "cost"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--walks", nargs="+", default=list(WALKS)[:4], choices=list(WALKS))
    parser.add_argument("--frames", nargs="+", type=int, default=[1, 2, 3, 5, 7, 9])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--method", default=None)
    arguments = parser.parse_args()
    if arguments.what == "burst":
        method = arguments.method or "xfeat"
        print_bursts(arguments.data, arguments.walks, arguments.frames, arguments.count, method)
    elif arguments.what == "map":
        measure_map(arguments.data, arguments.method or "nre", 10 * arguments.count)
    else:
        measure_cost(arguments.data, arguments.method or "nre", arguments.count)


if __name__ == "__main__":
    main()
