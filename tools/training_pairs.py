"""Pairs of photos to fit confidences on: real ones of ``../shared/data/train``, rendered ones, and unrelated ones.

Every pair says which place it is of. Nothing is read from ``../shared/data/eval``.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from metriloc.datasets.posed import read_posed
from metriloc.datasets.sources import PosedScene
from metriloc.datasets.synthetic import PairLimits, SyntheticConfig, make_scene, sample_pair
from metriloc.geometry import Pose
from metriloc.io import load_view, resize_view
from metriloc.types import View

_MIN_WAY = 0.15  # metres: below, centimetres of noise in the true poses turn the direction by more than is judged
_FIRST_SEED = 910_000  # synthetic scenes from here on are neither trained on nor validated with
_LIMITS = PairLimits(overlap=(0.03, 0.9), baseline=(0.2, 4.0), rotation=(0.0, math.radians(100)), baseline_share=0.9)
_SCENES = SyntheticConfig(weights=(0.55, 0.2, 0.25), outdoor_scale=(1.0, 2.5))


@dataclass(frozen=True, eq=False)
class KnownPair:
    """view1_from_view0: metres, None for photos of different places. place: for which the pair counts."""

    place: str
    view0: View
    view1: View
    view1_from_view0: Pose | None


def nyu_pairs(root: Path, depth: bool) -> Iterator[KnownPair]:
    """Neighbors of the labelled set; every second pair twice as large, as photos of a phone are."""
    for number, line in enumerate((root / "pairs.txt").read_text().splitlines()[1:]):
        i, j, *values = line.split()
        numbers = torch.tensor([float(v) for v in values], dtype=torch.float64)
        way, cycle_deg, cycle_m = float(numbers[4:7].norm()), float(numbers[9]), float(numbers[10])
        if way < _MIN_WAY or cycle_deg > 1 or cycle_m > 0.05 * way:
            continue  # the true direction itself would be off by degrees
        views = [_nyu_view(root, int(k), depth, large=number % 2 == 1) for k in (i, j)]
        yield KnownPair("nyuv2", views[0], views[1], Pose.from_quaternion(numbers[:4], numbers[4:7]))


def _nyu_view(root: Path, number: int, depth: bool, large: bool) -> View:
    given = root / "depth" / f"{number:04d}.png" if depth else None
    view = load_view(root / "rgb" / f"{number:04d}.jpg", depth=given)
    return resize_view(view, (2 * view.size[0], 2 * view.size[1])) if large else view


def posed_pairs(folder: Path, gaps: tuple[int, ...], count: int, depth: bool) -> Iterator[KnownPair]:
    """Frames of a walk that lie so many frames apart, spread over it; with depth: those whose first frame has some."""
    scene = read_posed(folder)
    frames = [scene.frame(k) for k in range(len(scene.names))]
    pairs = [(i, i + gap) for gap in gaps for i in range(len(frames) - gap) if not depth or _depth_of(scene, i)]
    for i, j in pairs[:: max(1, len(pairs) // count)]:
        views = [_view(scene, k, depth) for k in (i, j)]
        poses = [frames[k].cam_from_world for k in (i, j)]
        if poses[0] is not None and poses[1] is not None:
            truth = poses[1] @ poses[0].inverse()
            if float(truth.distance()) >= _MIN_WAY:
                yield KnownPair(folder.name, views[0], views[1], truth)


def _view(scene: PosedScene, k: int, depth: bool) -> View:
    view = scene.frame(k).load(depth=False)
    file = _depth_of(scene, k)
    return replace(view, depth=load_view(scene.folder / scene.names[k], depth=file).depth) if depth and file else view


def _depth_of(scene: PosedScene, k: int) -> Path | None:
    name = Path(scene.names[k])
    near = (scene.folder / name.with_suffix(".depth.png"), scene.folder / "depth" / f"{name.stem}.png")
    return next((path for path in near if path.is_file()), None)


def rendered_pairs(scenes: int, pairs: int) -> Iterator[KnownPair]:
    """Rooms, streets and squares, with exact depth; scenes in which no pair meets the limits give fewer."""
    for number in range(scenes):
        seed, size = _FIRST_SEED + number, ((320, 240), (640, 480))[number % 2]
        scene = make_scene(seed, _SCENES)
        for i in range(pairs):
            try:
                pair = sample_pair(scene, torch.Generator().manual_seed(1000 * seed + i), _LIMITS, size)
            except ValueError:
                continue
            yield KnownPair("rendered", pair.view0, pair.view1, pair.cam1_from_cam0)


def unrelated_pairs(root: Path, count: int, depth: bool) -> Iterator[KnownPair]:
    """Photos of different places, alike in kind as often as not; the harder they are to tell apart, the better."""
    generator = torch.Generator().manual_seed(0)

    def draw(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    rooms = sorted((root / "nyuv2" / "rgb").glob("*.jpg"))
    facades = sorted((root / "facades" / "rgb").glob("*"))
    streets = sorted((root / "kitti" / "street00" / "rgb").glob("*"))
    walks = sorted((root / "kitchen" / "seq0").glob("frame_*[0-9].jpg"))
    for number in range(count):
        kind = number % 5
        if kind == 0:
            i = draw(len(rooms) - 120)
            paths = (rooms[i], rooms[i + 100 + draw(20)])
        elif kind == 1:
            paths = (facades[draw(len(facades))], facades[draw(len(facades))])
        elif kind == 2:
            paths = (streets[draw(60)], streets[120 + draw(len(streets) - 120)])
        elif kind == 3:
            paths = (walks[draw(len(walks))], rooms[draw(len(rooms))])
        else:
            paths = (facades[draw(len(facades))], streets[draw(len(streets))])
        if paths[0] == paths[1]:
            continue
        views = [_unrelated_view(path, depth, large=number % 2 == 1) for path in paths]
        yield KnownPair("unrelated", views[0], views[1], None)


def _unrelated_view(path: Path, depth: bool, large: bool) -> View:
    known = (path.parent / "intrinsics.txt").is_file() or (path.parent.parent / "intrinsics.txt").is_file()
    near = (path.with_suffix(".depth.png"), path.parent.parent / "depth" / f"{path.stem}.png")
    given = next((file for file in near if file.is_file()), None) if depth else None
    view = load_view(path, fov=None if known else 60.0, depth=given)
    if depth and view.depth is None:  # as good as any: the pose is wrong anyway
        view = replace(view, depth=torch.full(view.image.shape[1:], 5.0))
    return resize_view(view, (2 * view.size[0], 2 * view.size[1])) if large and max(view.size) < 400 else view


def training_pairs(root: Path, depth: bool, rendered: bool = True) -> Iterator[KnownPair]:
    """All of them, as this project fits its own calibrations. depth: with depth maps of sensors."""
    yield from nyu_pairs(root / "nyuv2", depth)
    yield from posed_pairs(root / "kitchen", (10, 25, 60, 120), 140, depth)
    yield from posed_pairs(root / "fr1_rpy", (15, 40), 40, depth)
    yield from posed_pairs(root / "kitti" / "street00", (1, 2, 4, 8, 16), 120, depth)
    if rendered:
        yield from rendered_pairs(24, 5)
    yield from unrelated_pairs(root, 400, depth)
