"""Bursts of frames before a reference photo: how far metres of a device's motion are off (``track.py burst``)."""

from __future__ import annotations

import argparse
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import torch

from metriloc import Pose, Tracker, load
from metriloc.backbones.local import LocalFeatures
from metriloc.choose.depth import PREDICTED
from metriloc.io import InputError, load_view, read_mapfree_poses
from metriloc.io.maps import read_map
from metriloc.methods.matching.matchers import Matches
from metriloc.methods.matching.model import FeatureMatching
from metriloc.opened_map import open_map
from metriloc.solvers.burst import Burst, BurstConfig, solve_burst
from metriloc.solvers.relative import essential_pose
from metriloc.tracking.against_photo import UNMODELED
from metriloc.types import View

DRIFT_SHARE, DRIFT_DEGREES = 0.005, 0.1


@dataclass(frozen=True)
class Walk:
    """A folder of frames in order. far: metres from the reference to the newest frame; turned: degrees between them, at
    most. way: metres of the burst, at least. shared: points of the folder's map that both must see; without a map the
    reference is a frame before the burst. steps: frames of the walk that a burst goes over, at least; where they are fewer
    than eight, some of its nine come twice."""

    folder: str
    far: tuple[float, float]
    way: float = 0.2
    turned: float = 30.0
    shared: int = 0
    steps: int = 8


WALKS = {
    "kitchen": Walk("eval/places/kitchen", (0.3, 1.0), shared=60),
    "kitchen, 10 cm": Walk("eval/places/kitchen", (0.3, 1.0), way=0.1, shared=60, steps=4),
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
        reference, last = rng.randrange(len(centers)), rng.randrange(walk.steps, len(centers))
        far = float((centers[reference] - centers[last]).norm())
        first = next(
            (k for k in range(last - walk.steps, -1, -1) if float((centers[k] - centers[last]).norm()) >= walk.way),
            None,
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
    root: Path, walk: Walk, method: FeatureMatching, numbers: list[int], count: int, told: Path | None
) -> Iterator[tuple[int, list[Answer | None]]]:
    """(number of frames, the answer for each burst). told: map that has the poses of the photos, in place of the set's."""
    listed = read_mapfree_poses(root / walk.folder / "poses.txt")
    names = list(listed)
    own = [pose for pose in listed.values() if pose is not None]
    poses = Pose.stack(own if told is None else poses_of_map(told, names)).to(torch.float64)
    drawn = bursts(poses, walk, count, covisible(root, walk, names))
    for number in numbers:
        found = []
        for seed, (reference, frames) in enumerate(drawn):
            device = drifting(poses[torch.tensor(frames)], torch.Generator().manual_seed(seed))
            chosen = torch.tensor([8] if number == 1 else [round(k * 8 / (number - 1)) for k in range(number)])
            views = [view_of_file(root, walk, names[frames[k]]) for k in chosen.tolist()]
            before = view_of_file(root, walk, names[reference])
            truth = poses[frames[-1]] @ poses[reference].inverse()
            found.append(answer_of(method, before, views, device[chosen], truth))
        yield number, found


def poses_of_map(told: Path, names: list[str]) -> list[Pose]:
    """``cam_from_world`` of photos by their file names, metres. Raises InputError for a map without metres."""
    opened = open_map(told)
    if opened.unit != "metre":
        raise InputError(f"'{told}' has no metres: build it with --positions")
    place = {Path(name).name: k for k, name in enumerate(opened.scene.names)}
    return [opened.scene.cam_from_world[place[Path(name).name]] for name in names]


def view_of_file(root: Path, walk: Walk, name: str) -> View:
    """A photo with its intrinsics."""
    return load_view(root / walk.folder / name, intrinsics=root / walk.folder / "intrinsics.txt")


@dataclass(frozen=True)
class Answer:
    """off: share by which the distance is off, with its sign; turned: degrees by which the rotation is. sigma: that is
    told, of the logarithm of the distance."""

    off: float
    turned: float
    sigma: float


def answer_of(method: FeatureMatching, reference: View, views: list[View], device: Pose, truth: Pose) -> Answer | None:
    """Of the solver of a burst, which is what ``Tracker`` asks; of a single frame, of two photos with predicted depth."""
    if len(views) == 1:
        estimate = Tracker(reference, method=method).add(views[0])
        pose = estimate.pose if bool(estimate.success) else None
        sigma = estimate.details[0].scale_sigma if pose is not None else math.inf
    else:
        fit = solve_burst(burst_of(method, reference, views, device), BurstConfig())
        pose, sigma = fit.newest_from_reference, math.hypot(fit.log_sigma, UNMODELED)
    if pose is None:
        return None
    pose = pose.to(torch.float64)
    off = float(pose.distance() / truth.distance()) - 1
    return Answer(off, math.degrees(float(pose.angle_to(truth))), sigma)


def burst_of(method: FeatureMatching, reference: View, views: list[View], device: Pose) -> Burst:
    """All matches among frames, and those with the reference that agree with a motion."""
    seen = [*views, reference]
    features = [method.matcher.extract(view) for view in seen]
    matches = {}
    last = len(views)
    for i, j in sorted(combinations(range(last + 1), 2), key=lambda pair: pair[1] - pair[0]):
        found = method.matcher.match(seen[i], features[i], seen[j], features[j])
        uv_i, uv_j = found.uv0, found.uv1
        if j == last:
            limit = 2 * method.config.max_error_px * max(max(seen[i].size), max(reference.size)) / 640
            good = essential_pose(uv_i, uv_j, (seen[i].camera, reference.camera), limit, 0, 2000).inliers
            uv_i, uv_j = uv_i[good], uv_j[good]
        matches[i, j] = uv_i, uv_j
    return Burst(tuple(view.camera for view in seen), device, matches)


def print_bursts(root: Path, arguments: argparse.Namespace, method_name: str) -> None:
    """The table of frames against places."""
    method = load(method_name, depth=PREDICTED)  # which one frame alone has its metres from
    matching = getattr(method, "matching", method)
    matching.matcher = Remembering(matching.matcher)
    print("| walk | frames | found | distance off, median | 90 % | rotation off, median | intervals that hold |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name in arguments.walks:
        numbers, count = arguments.frames, arguments.count
        for number, found in measure_bursts(root, WALKS[name], matching, numbers, count, arguments.poses):
            print(burst_line(name, number, found), flush=True)


def burst_line(name: str, number: int, found: list[Answer | None]) -> str:
    """One line of the table. An interval holds nine in ten: 1.64 standard deviations."""
    good = [answer for answer in found if answer is not None]
    if not good:
        return f"| {name} | {number} | 0 of {len(found)} | | | | |"
    off = sorted(abs(answer.off) for answer in good)
    inside = sum(abs(math.log1p(max(answer.off, -0.99))) <= 1.645 * answer.sigma for answer in good)
    return (
        f"| {name} | {number} | {len(good)} of {len(found)} | {median(off):.1%} | {off[int(0.9 * (len(off) - 1))]:.1%} "
        f"| {median(answer.turned for answer in good):.2f} deg | {inside} of {len(good)} |"
    )
