"""Metric depth of single photos that no network of ours has seen: NYUv2's test half, a KITTI street, four mapped places.

    python benchmarks/single_photo_depth.py ../shared/data/eval [--depth metriloc-depth metriloc-small]

Against dense truth (NYUv2, KITTI): mean absolute relative error, share of depths within 25 %, error of the scale of a
photo (its median ratio), and by how much crops of 80, 60 and 40 % of a photo drift. Against maps (places): the median of
predicted over true depth at the points of the map, and its spread over the photos.
"""

from __future__ import annotations

import argparse
import math
import warnings
from pathlib import Path

import numpy as np
import torch

from metriloc.choose import depth_source
from metriloc.datasets.depth_photos import read_rgbd_photos
from metriloc.geometry import sample_depth
from metriloc.io.maps import load_map_view, read_map
from metriloc.lessons.depth_validation import crop_drift, photo_errors, view_of
from metriloc.methods.matching.depth import DepthSource
from metriloc.types import View


def dense(source: DepthSource, folder: Path, every: int) -> str:
    """One row of the first table."""
    views = [view_of(photo) for photo in read_rgbd_photos(folder)[::every]]
    errors = [photo_errors(source, view) for view in views]
    drift = [crop_drift(source, view) for view in views[::4]]
    return (
        f"{len(views)} | {np.mean([e.abs_rel for e in errors]):.3f} | {np.mean([e.within for e in errors]):.3f} | "
        f"{np.mean([abs(e.log_scale) for e in errors]):.3f} | {np.median(drift):.2f}"
    )


def in_map(source: DepthSource, folder: Path, photos: int) -> str:
    """One row of the second table."""
    scene = read_map(folder / "sparse", folder)
    ratios = []
    for image in range(0, len(scene), max(1, len(scene) // photos)):
        view, seen = load_map_view(scene, image), scene.observations_of(image)
        true = scene.cam_from_world[image].transform(scene.xyz[scene.point_index[seen]])[:, 2]
        found = source(View(view.image, view.camera, name=view.name))
        if found is None:
            continue
        at, valid = sample_depth(found.double(), scene.uv[seen].double(), view.size)
        known = valid & (true > 0)
        ratios.append(float((at[known] / true[known]).median()))
    logs = np.log(ratios)
    return f"{len(ratios)} | {math.exp(float(np.median(logs))):.2f} | {float(np.std(logs)):.2f}"


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--depth", nargs="+", default=["metriloc-depth", "metriloc-small"])
    parser.add_argument("--every", type=int, default=1, help="take every so-manieth photo of the dense sets")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sources = {name: depth_source(name)[0] for name in arguments.depth}
    print("| depth | set | photos | abs-rel | within 25 % | scale | drift of crops |\n|---|---|--:|--:|--:|--:|--:|")
    for name, source in sources.items():
        for part in ("nyuv2", "kitti_street1"):
            if (arguments.data / part).is_dir():
                print(f"| {name} | {part} | {dense(source, arguments.data / part, arguments.every)} |", flush=True)
    print("\n| depth | place | photos | predicted / true | spread (log) |\n|---|---|--:|--:|--:|")
    for name, source in sources.items():
        for place in sorted((arguments.data / "places").iterdir()):
            print(f"| {name} | {place.name} | {in_map(source, place, 10)} |", flush=True)


if __name__ == "__main__":
    main()
