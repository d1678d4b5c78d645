"""How exact focal lengths from maps are, and whether the stated error is honest.

    python benchmarks/focal_from_map.py ../shared/data/eval/places

Photos are left out of their maps, changed (smaller, cut off the center, bent), and looked for in them with a guessed
focal length. The table is in docs/localization.md.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import cast

import torch

from metriloc.backbones.local import DenseExtractor
from metriloc.geometry import Camera
from metriloc.io import crop_view, resize_view
from metriloc.io.local_features import load_extractor
from metriloc.io.maps import load_map_view, read_map
from metriloc.methods.matching import MapRetrieval
from metriloc.methods.matching.focal import with_estimated_focal
from metriloc.methods.matching.localizer import MatchingLocalizer
from metriloc.types import View

STEPS = {"fountain_p11": 2, "entry_p10": 2, "holo_a": 24, "kitchen": 10}
GUESS_35MM, DIAGONAL_35MM = 26.0, 43.2666


def bent(view: View, k1: float) -> View:
    """The photo as if a lens of that radial distortion had taken it."""
    width, height = view.size
    v, u = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    pixels = torch.stack([u, v], -1).reshape(-1, 2)
    lens = replace(view.camera.to(torch.float64), model="radtan", distortion=torch.tensor([k1, 0, 0, 0, 0]).double())
    straight, _ = view.camera.to(torch.float64).project(lens.unproject(pixels)[0])
    grid = ((2 * straight + 1) / torch.tensor([width, height]) - 1).reshape(1, height, width, 2).to(view.image)
    image = torch.nn.functional.grid_sample(view.image[None], grid, padding_mode="border", align_corners=False)
    return replace(view, image=image[0].clamp(0, 1))


def changed(view: View) -> Iterator[tuple[str, View]]:
    """The photo and what may become of it, by name."""
    width, height = view.size
    share = 256 / max(view.size)
    cut = round(0.65 * width), round(0.65 * height)
    yield "whole", view
    yield "halved", resize_view(view, (width // 2, height // 2), antialias=True)
    yield "256 px", resize_view(view, (round(width * share), round(height * share)), antialias=True)
    yield "cut, top left", crop_view(view, (0, 0), cut)
    yield "cut, bottom right", crop_view(view, (width - cut[0], height - cut[1]), cut)
    yield "k1 -0.2", bent(view, -0.2)
    yield "k1 0.1", bent(view, 0.1)


def measured(place: Path, step: int) -> Iterator[tuple[str, float, float] | tuple[str, None, None]]:
    """(change, error of log f, stated standard deviation) of some photos of a place; None where it stays a guess."""
    scene, retrieval = read_map(place / "sparse", place), MapRetrieval.from_pretrained()
    features, identity = load_extractor("xfeat")
    matching = MatchingLocalizer(cast(DenseExtractor, features), identity)
    for image in range(1, len(scene), step):
        view = load_map_view(scene, image)
        without = scene.without([image])
        references = retrieval.rank(view, without, 3).names
        for name, photo in changed(view):
            guess = GUESS_35MM / DIAGONAL_35MM * math.hypot(*photo.size)
            camera = Camera.from_fov(photo.size, 2 * math.atan(photo.size[0] / 2 / guess))
            query = replace(photo, camera=camera, focal_sigma=0.25)
            found = with_estimated_focal(query, without, references, matching)
            if found is query:
                yield name, None, None
            else:
                yield name, math.log(float(found.camera.f.mean() / photo.camera.f.mean())), found.focal_sigma


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("places", type=Path)
    places: Path = parser.parse_args().places
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    asked: dict[str, int] = defaultdict(int)
    for place, step in STEPS.items():
        for name, error, sigma in measured(places / place, step):
            asked[name] += 1
            if error is not None and sigma is not None:
                rows[name].append((abs(error), sigma))
    rows["all"] = [row for found in list(rows.values()) for row in found]
    asked["all"] = sum(asked.values())
    for name, found in rows.items():
        within = [sum(error < times * sigma for error, sigma in found) for times in (1, 2)]
        middle = median(error for error, _ in found)
        print(f"| {name} | {len(found)} of {asked[name]} | {middle:.1%} | {within[0]} | {within[1]} |")


if __name__ == "__main__":
    main()
