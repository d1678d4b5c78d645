"""Where PixLoc's alignment converges: success against the error of the start, and left-out photos of real maps.

    python benchmarks/pixloc_basin.py WEIGHTS --places DIR --synthetic DIR --out FILE

Real maps: every photo in turn is taken out of the map and localised from the pose of the nearest reference that is left.
Synthetic: starts drawn at given rotations and translations around the truth, in scenes that were not trained on. Rows
are written one by one, so that a run that is stopped is not lost; run again to go on.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import replace
from pathlib import Path

import torch

from metriloc.datasets.pixloc_pairs import points_from_depth
from metriloc.datasets.synthetic import SyntheticConfig
from metriloc.datasets.synthetic.cache import CachedSyntheticPairs
from metriloc.geometry import Pose
from metriloc.io.maps import load_map_view, read_map
from metriloc.lessons.pixloc_mixed import SIZE, VALIDATION_SEED
from metriloc.methods.pixloc import PixLoc
from metriloc.types import SfmMap, View

ROTATIONS_DEG = (2.0, 5.0, 10.0, 15.0, 20.0)
BASIN_DEG = 15.0
"""The basin that the model card states."""
TRANSLATIONS_M = (0.05, 0.1, 0.25, 0.5, 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights")
    parser.add_argument("--places", type=Path, help="folder of folders with sparse/ and photos")
    parser.add_argument("--synthetic", type=Path, help="folder of cached scenes that were not trained on")
    parser.add_argument("--out", type=Path, required=True, help="rows as JSON lines; a summary is printed")
    parser.add_argument("--every", type=int, default=1, help="use every n-th photo of a place")
    parser.add_argument("--scenes", type=int, default=24)
    parser.add_argument("--half", action="store_true", help="keep the features of the references in float16")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    method = PixLoc.from_pretrained(arguments.weights, calibrations=())
    method = method.adjusted(config=replace(method.config, half_references=arguments.half))
    done = set()
    if arguments.out.exists():
        done = {json.loads(line)["key"] for line in arguments.out.read_text().splitlines()}
    with arguments.out.open("a") as file:
        for row in rows(method, arguments, done):
            file.write(json.dumps(row) + "\n")
            file.flush()
    summary([json.loads(line) for line in arguments.out.read_text().splitlines()])


def rows(method: PixLoc, arguments: argparse.Namespace, done: set[str]):
    if arguments.places:
        for folder in sorted(p for p in arguments.places.iterdir() if (p / "sparse").is_dir()):
            yield from place_rows(method, folder, arguments.every, done)
    if arguments.synthetic:
        yield from synthetic_rows(method, arguments.synthetic, arguments.scenes, done)


def place_rows(method: PixLoc, folder: Path, every: int, done: set[str]):
    scene = read_map(folder / "sparse", folder)
    for image in range(0, len(scene), every):
        key = f"{folder.name}/{scene.names[image]}"
        if key in done:
            continue
        rest = scene.without([image])
        truth = scene.cam_from_world[image]
        order = nearest(rest, truth)
        query = load_map_view(scene, image)
        view = View(query.image, query.camera, name=query.name)
        estimate = method.localize(view, rest, [rest.names[n] for n in order[:3]], rest.cam_from_world[order[0]])
        start = rest.cam_from_world[order[0]]
        end = estimate.pose if bool(estimate.success) else start
        points = scene.xyz[scene.point_index[scene.observations_of(image)]]
        yield row(key, folder.name, query, truth, start, end, points, estimate)


def synthetic_rows(method: PixLoc, folder: Path, scenes: int, done: set[str]):
    method.config = replace(method.config, min_track=1)  # these maps have one photo
    pairs = CachedSyntheticPairs(folder, scenes, 2, SyntheticConfig(sizes=(SIZE,)), first_seed=VALIDATION_SEED)
    for number in range(scenes):
        pair = pairs[2 * number]
        generator = torch.Generator().manual_seed(number)
        reference, query, truth = pair.view0, pair.view1, pair.cam1_from_cam0
        assert truth is not None
        xyz = points_from_depth(reference, 500, generator)
        world = xyz[xyz[:, 2] > 0].double()
        count = len(world)
        scene = SfmMap(
            ("reference",),
            (reference.camera.to(torch.float64),),
            Pose.identity((1,), torch.float64),
            world,
            torch.zeros(count, dtype=torch.long),
            torch.arange(count),
            torch.zeros(count, 2, dtype=torch.float64),
        )
        # the map has no folder: its one photo is put where the store keeps what it has seen
        method.store = OneReference(method, reference)
        for kind, sizes in (("rotation_deg", ROTATIONS_DEG), ("translation_m", TRANSLATIONS_M)):
            for size in sizes:
                key = f"synthetic/{number}/{kind}/{size}"
                if key in done:
                    continue
                axis = torch.randn(3, generator=generator, dtype=torch.float64)
                axis = axis / axis.norm()
                zero = torch.zeros(3, dtype=torch.float64)
                turn = kind == "rotation_deg"
                tangent = torch.cat([zero, axis * math.radians(size)] if turn else [axis * size, zero])
                start = Pose.from_tangent(tangent) @ truth.to(torch.float64)
                view = View(query.image, query.camera, name=query.name)
                estimate = method.localize(view, scene, ["reference"], start)
                end = estimate.pose if bool(estimate.success) else start
                yield row(key, f"synthetic {kind} {size}", query, truth.to(torch.float64), start, end, world, estimate)


class OneReference:
    """In place of a ``ReferenceStore``: observations of one photo that lies in memory."""

    def __init__(self, method: PixLoc, view: View) -> None:
        self.method, self.view = method, view
        self.found: dict[int, object] = {}

    def get(self, scene: SfmMap, image: int, image_scale: int) -> object:
        from metriloc.methods.pixloc.reference import observe

        if image_scale not in self.found:
            extraction = self.method.extractor(self.view, image_scale)
            assert extraction is not None
            self.found[image_scale] = observe(extraction, scene, image, self.method.align.cost)
        return self.found[image_scale]


def nearest(scene: SfmMap, truth: Pose) -> list[int]:
    """References by distance, those that look more than 60 degrees elsewhere last."""
    distance = scene.cam_from_world.center_distance(truth)
    angle = scene.cam_from_world.angle_to(truth)
    return (distance + 1e6 * (angle > math.radians(60))).argsort().tolist()


def row(key, group, query, truth, start, end, points, estimate) -> dict:
    """Errors before and after. px: median distance of the points that the true query sees from their true places."""
    camera = query.camera.to(torch.float64)
    uv_true, seen = camera.project(truth.transform(points))

    def errors(pose: Pose) -> tuple[float, float, float]:
        uv, _ = camera.project(pose.transform(points))
        pixels = (uv - uv_true).norm(dim=-1)[seen]
        angle = math.degrees(float(pose.angle_to(truth)))
        return (
            float(pixels.median()) if len(pixels) else math.inf,
            angle,
            float(pose.center_distance(truth)),
        )

    found = dict(zip(("start_px", "start_deg", "start_m"), errors(start), strict=True))
    found |= dict(zip(("end_px", "end_deg", "end_m"), errors(end), strict=True))
    return {"key": key, "group": group, "success": bool(estimate.success), "reason": estimate.reasons[0], **found}


def summary(found: list[dict]) -> None:
    print(f"{'group':32s} {'n':>4s} {'reduced':>8s} {'<2px':>6s} {'<1%':>6s}  median start -> end (px, deg, m)")
    for group in dict.fromkeys(entry["group"] for entry in found):
        part = [entry for entry in found if entry["group"] == group]
        reduced = sum(entry["end_px"] < entry["start_px"] for entry in part) / len(part)
        near = sum(entry["end_px"] < 2 for entry in part) / len(part)
        fair = sum(entry["end_px"] < 6.4 for entry in part) / len(part)
        medians = {
            k: float(torch.tensor([e[k] for e in part]).median())
            for k in part[0]
            if k[-3:] in ("_px", "deg") or k.endswith("_m")
        }
        words = ", ".join(f"{medians[f'start_{u}']:.3g} -> {medians[f'end_{u}']:.3g} {u}" for u in ("px", "deg", "m"))
        print(f"{group:32s} {len(part):4d} {reduced:8.0%} {near:6.0%} {fair:6.0%}  {words}")
    inside = [e for e in found if not e["group"].startswith("synthetic") and e["start_deg"] <= BASIN_DEG]
    reduced = sum(entry["end_px"] < entry["start_px"] for entry in inside)
    print(f"real photos that start within {BASIN_DEG:g} degrees: {reduced} of {len(inside)} reduced")


if __name__ == "__main__":
    main()
