"""Photos left out of maps that metriloc made, beside the same photos left out of the given maps.

    python benchmarks/own_maps.py ../shared/data/eval/places/fountain_p11 --own MAP [--bundle FILE.metriloc] [--step 2]

MAP is of ``benchmarks/map_build.py``. It is laid over the true cameras by a similarity, so that both maps are in metres.
Every ``step``-th photo is taken out and looked for among its three nearest photos, with its camera and with a guessed one
(26 mm equivalent). "own pose" compares with the pose that the photo has in the map that it was taken out of; in the given
map that is the true one. With --bundle, each query is also asked of the bundle, made with --no-photos.
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch

import metriloc
from metriloc.evaluation.benchmarks import nearest_images
from metriloc.geometry import Camera, Pose
from metriloc.io.maps import load_map_view, read_map
from metriloc.io.poses import read_mapfree_poses
from metriloc.localizer import Asked
from metriloc.mapping.names import find_name
from metriloc.opened_map import open_map
from metriloc.solvers.similarity import Similarity, robust_similarity
from metriloc.types import GUESSED_FOCAL, PoseEstimate, SfmMap, View

GUESS_35MM, DIAGONAL_35MM = 26.0, 43.2666


def overlay(scene: SfmMap, truth: dict[str, Pose], sigma: float) -> tuple[Similarity, dict[int, Pose]]:
    """The similarity that lays a map over the true cameras, and those by the images of the map."""
    own = {name: find_name(scene.names, name) for name in truth}
    poses = {scene.index(found): truth[name] for name, found in own.items() if found is not None}
    centers = scene.cam_from_world.center()[list(poses)]
    true = torch.stack([pose.center() for pose in poses.values()])
    fit = robust_similarity(centers, true, torch.full((len(true),), sigma, dtype=torch.float64))
    if fit is None:
        raise SystemExit("no similarity lays the map over the true cameras")
    return fit, poses


def guessed(view: View) -> View:
    """The photo as if nothing were known of its camera."""
    width, height = view.size
    focal = GUESS_35MM / DIAGONAL_35MM * float(torch.tensor([width, height]).double().norm())
    K = torch.tensor([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]], dtype=torch.float64)
    return replace(view, camera=Camera.from_K(K, view.size), intrinsics_source="a guess", focal_sigma=GUESSED_FOCAL)


def asked(localizer: metriloc.Localizer, scene: SfmMap, image: int, view: View, names: tuple[str, ...]) -> PoseEstimate:
    """The estimate of a photo in the map without it."""
    return localizer.answer(view, lambda turned, _: Asked(names), scene=scene.without([image])).estimate


def main() -> None:
    """A line a map and kind of camera."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("--own", type=Path, required=True)
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--method", default="nre-xfeat")
    parser.add_argument("--step", type=int, default=1)
    parser.add_argument("--sigma", type=float, default=0.02)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    truth = {n: p for n, p in read_mapfree_poses(arguments.place / "poses.txt").items() if p is not None}
    given = read_map(arguments.place / "sparse", arguments.place)
    bundle = None if arguments.bundle is None else metriloc.Localizer(arguments.bundle, method=arguments.method)
    print("| map | camera | queries | lost | rotation | center | from its own pose | bundle differs by |")
    for kind, scene in (("given", given), ("own", open_map(arguments.own).scene)):
        localizer = metriloc.Localizer(scene, method=arguments.method)
        fit, poses = overlay(scene, truth, arguments.sigma)
        near = nearest_images(scene)
        for camera in ("known", "guessed"):
            angles, centers, own, apart, lost = [], [], [], [], 0
            for image in sorted(poses)[:: arguments.step]:
                view = load_map_view(scene, image)
                view = view if camera == "known" else guessed(view)
                names = tuple(scene.names[j] for j in near[image][:3])
                found = asked(localizer, scene, image, view, names)
                if not bool(found.success):
                    lost += 1
                    continue
                pose = found.pose.to(torch.float64)
                turned = Pose(pose.R @ fit.R.mT, torch.zeros(3, dtype=torch.float64))
                straight = Pose(poses[image].R.double(), torch.zeros(3, dtype=torch.float64))
                angles.append(float(turned.angle_to(straight).rad2deg()))
                centers.append(float((fit.transform(pose.center()[None])[0] - poses[image].center()).norm()))
                own.append(fit.scale * float(pose.center_distance(scene.cam_from_world[image])))
                if bundle is not None and kind == "own":
                    again = asked(bundle, scene, image, view, names)
                    apart.append(float(again.pose.to(torch.float64).center_distance(pose)))
            shown = f"{max(apart):.1e}" if apart else "-"
            print(
                f"| {kind} | {camera} | {len(own) + lost} | {lost} | {median(angles):.3f}° | {100 * median(centers):.2f} cm "
                f"| {100 * median(own):.2f} cm | {shown} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
