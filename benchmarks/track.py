"""How exact streams are: metres from a device's motion, and a camera that is followed in a map.

    python benchmarks/track.py burst ../shared/data
    python benchmarks/track.py map ../shared/data/eval/places
    python benchmarks/track.py cost ../shared/data/eval/places
    python benchmarks/track.py memory ../shared/data/eval/places

``burst``: frames of real walks in order, before a reference photo of the same place; device poses are the true ones with
drift (0.5 % of the way, 0.1 degrees a metre). ``map``: photos that are not in the map, forth and back, 30 black ones
among them, and those of another place. ``cost``: seconds of a tracked frame, of one that is searched for, and of the
network alone. ``memory``: of the process, over a stream of 100 times --count frames. The tables are in docs/tracking.md.
"""

from __future__ import annotations

import argparse
import gc
import resource
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch
from open_localizer import recorded
from track_bursts import WALKS, drifting, print_bursts

from metriloc import Localizer, Tracker
from metriloc.io import read_mapfree_poses
from metriloc.io.maps import load_map_view, read_map
from metriloc.types import PoseEstimate, TrackState, View


# -- in a map ---------------------------------------------------------------------------------------------------------
def forth_and_back(indices: list[int], length: int) -> list[int]:
    """So many of them, to the end and back again."""
    cycle = [*indices, *indices[-2:0:-1]]
    return [cycle[k % len(cycle)] for k in range(length)]


def measure_map(places: Path, method: str, length: int, black_frames: int, of_office: int) -> None:
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
    dark = [tracker.add(View(black, views[held[0]].camera), None, 100 + n / 7.5) for n in range(black_frames)]
    print(f"{black_frames} black frames:", sum(bool(e.success) for e in dark), "with a pose")
    back = []
    for n, k in enumerate(held[:5]):
        back.append(tracker.add(views[k], None, 110 + n / 7.5))
    said = [e.track.state.value for e in back if e.track]
    print("after them:", ", ".join(said))
    other = places / "holo_a"
    names = list(read_mapfree_poses(other / "poses.txt"))[:40][:: max(1, 40 // of_office)]
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
    """Seconds of the processor of a frame, in the median: tracked, searched for, and its networks alone."""
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
    bare = list[float]()
    for view in views:
        passes: list[Callable[[], Any]] = []
        with recorded(passes):
            Tracker(localizer).add(view)
        bare.append(timed(lambda passes=passes: [run() for run in passes])[0])
    print(f"tracked {median(tracked):.2f} s ({len(tracked)} frames), searched for {median(lost):.2f} s, ", end="")
    print(f"its networks alone {median(bare):.2f} s; {torch.get_num_threads()} threads")


# -- memory -----------------------------------------------------------------------------------------------------------
def measure_memory(places: Path, method: str, length: int) -> None:
    """What the process holds, and how many objects, after so many frames in the kitchen's map."""
    folder = places / "kitchen"
    whole = read_map(folder / "sparse", folder)
    order = sorted(range(len(whole)), key=lambda k: whole.names[k])
    held = order[1::2]
    views = {k: load_map_view(whole, k) for k in held}
    tracker, found = Tracker(Localizer(whole.without(held), method=method)), 0
    for step, k in enumerate(forth_and_back(held, length), 1):
        found += bool(tracker.add(views[k], whole.cam_from_world[k], step / 7.5).success)
        if step % (length // 10) == 0:
            gc.collect()
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            size = pages * resource.getpagesize() / 2**20
            print(f"{step} frames, {found} found: {size:.0f} MiB, {len(gc.get_objects())} objects", flush=True)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of the processor of a call, which others on a busy machine change little, and what it returns."""
    start = time.process_time()
    result = call()
    return time.process_time() - start, result


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["burst", "map", "cost", "memory"])
    parser.add_argument("data", type=Path)
    parser.add_argument("--walks", nargs="+", default=list(WALKS)[:4], choices=list(WALKS))
    parser.add_argument("--frames", nargs="+", type=int, default=[1, 2, 3, 5, 7, 9])
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument(
        "--poses", type=Path, help="a map of the photos of a walk, whose poses count in place of the set's"
    )
    parser.add_argument("--method", default=None)
    parser.add_argument("--black", type=int, default=30, help="black frames in a map")
    parser.add_argument("--other", type=int, default=40, help="frames of the office, at most 40")
    arguments = parser.parse_args()
    if arguments.what == "burst":
        method = arguments.method or "xfeat"
        print_bursts(arguments.data, arguments, method)
    elif arguments.what == "map":
        length = 10 * arguments.count
        measure_map(arguments.data, arguments.method or "nre", length, arguments.black, arguments.other)
    elif arguments.what == "memory":
        measure_memory(arguments.data, arguments.method or "xfeat-pnp", 100 * arguments.count)
    else:
        measure_cost(arguments.data, arguments.method or "nre", arguments.count)


if __name__ == "__main__":
    main()
