"""How good are maps that metriloc makes from photos alone: cameras registered, and how far their centers are from the truth.

    python benchmarks/map_build.py ../shared/data/eval/places/fountain_p11 --out /tmp/fountain

A place is a folder with photos, ``intrinsics.txt`` and ``poses.txt`` (Map-free's formats). The map is laid over the true
centers by a similarity, fitted robustly to all cameras; its scale factor is what the map's own metres are off by.
"""

from __future__ import annotations

import math
import resource
import time
from pathlib import Path

import torch
import tyro

from metriloc.io.maps import read_map
from metriloc.io.poses import read_mapfree_poses
from metriloc.mapping.config import FeatureName, MapConfig, MapperName, PairChoice
from metriloc.mapping.names import find_name
from metriloc.mapping.readings import distance_reading
from metriloc.runs.map_build import build_map, scale_line
from metriloc.solvers.similarity import fit_similarity, robust_similarity


def cpu_seconds() -> float:
    """Of this process and those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def main(
    place: tyro.conf.Positional[Path],
    out: Path,
    features: FeatureName = "sift",
    pairs: PairChoice = "auto",
    mapper: MapperName = "auto",
    depth: str | None = None,
    tolerance: float = 0.02,
    beside: Path | None = None,
) -> None:
    """Build (or finish) the map of a place and compare it.

    Args:
        place: Folder with seq0, intrinsics.txt and poses.txt.
        out: Folder of the map.
        features: What is matched.
        pairs: Which photos are compared.
        mapper: What makes the model.
        depth: Weights that predict depth, for the scale.
        beside: Another map of the same photos, whose cameras are laid over those of this one.
        tolerance: Metres, one standard deviation of a coordinate that counts as right in the fit.
    """
    start, cpu = time.perf_counter(), cpu_seconds()
    config = MapConfig(features=features, pairs=pairs, mapper=mapper)
    facts = build_map(place / "seq0", out, config=config, depth=depth)
    wall, cpu = time.perf_counter() - start, cpu_seconds() - cpu
    scene = read_map(out)
    truth = {name: pose for name, pose in read_mapfree_poses(place / "poses.txt").items() if pose is not None}
    named = {name: find_name(scene.names, name) for name in truth}
    common = [(name, scene.index(own)) for name, own in named.items() if own is not None]
    true = torch.stack([truth[name].center() for name, _ in common])
    own = scene.cam_from_world.center()[[number for _, number in common]]
    fit = robust_similarity(own, true, torch.full((len(true),), tolerance, dtype=torch.float64))
    print(
        f"{place.name}, {features}, {mapper}: {facts.registered} of {facts.given} photos, {facts.error_px:.3f} px, ",
        end="",
    )
    print(f"{wall:.0f} s wall, {cpu:.0f} s of processors")
    print(scale_line(facts))
    if fit is None:
        print("no similarity lays the map over the truth")
        return
    errors = (fit.transform(own) - true).norm(dim=-1)
    turns = [(scene.cam_from_world[n].R.double() @ fit.R.mT, truth[name].R.double()) for name, n in common]
    cosines = torch.stack([((a @ b.mT).trace() - 1) / 2 for a, b in turns])
    degrees = cosines.clamp(-1, 1).arccos().rad2deg()
    print(
        f"centers: median {100 * float(errors.median()):.2f} cm, 90 % {100 * float(errors.quantile(0.9)):.2f} cm, ",
        end="",
    )
    print(f"largest {100 * float(errors.max()):.2f} cm; rotations: median {float(degrees.median()):.3f} deg")
    print(f"true metres over the map's: {fit.scale:.4f}")
    apart = torch.cdist(true, true)
    i, j = divmod(int(apart.argmax()), len(true))
    known = distance_reading(scene, scene.names[common[i][1]], scene.names[common[j][1]], float(apart[i, j]))
    print(f"the {float(apart[i, j]):.2f} m of the two farthest cameras as --distance: the scale is off by ", end="")
    print(f"{100 * (math.exp(known.log_length) / fit.scale - 1):.2f} %, stated {100 * known.sigma:.2f} %")
    if beside is not None:
        other = read_map(beside)
        centers = other.cam_from_world.center()[[other.index(name) for name in scene.names]]
        laid = fit_similarity(scene.cam_from_world.center(), centers)
        if laid is not None:
            gaps = (laid.transform(scene.cam_from_world.center()) - centers).norm(dim=-1) * fit.scale / laid.scale
            print(f"centers beside {beside}: median {1000 * float(gaps.median()):.1f} mm", end="")
            print(f", largest {1000 * float(gaps.max()):.1f} mm")


if __name__ == "__main__":
    tyro.cli(main)
