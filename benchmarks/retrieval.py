"""How well photos of a map are found, and how fast among 10,000.

    python benchmarks/retrieval.py ../shared/data/eval/places [--photos 10000]

First, for each photo of each place: how many of the five others that share the most points of the map are among the
five that retrieval names, by mutual neighbors of all photos (brute force), by one vector a photo, and by mutual neighbors
of the 20 that are the most alike by that vector. Then as many photos as asked, made of the real ones: of each a half of the
keypoints, with noise, and keypoints of another photo. The numbers are in docs/maps.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from metriloc.io.maps import read_map
from metriloc.methods.matching import MapRetrieval
from metriloc.methods.matching.global_index import GlobalIndex
from metriloc.methods.matching.retrieval import mutual_matches
from metriloc.types import SfmMap

FIVE, SHORTLIST = 5, 20


def shared_points(scene: SfmMap, names: list[str]) -> Tensor:
    """How many points each two of the images share."""
    place = {name: n for n, name in enumerate(names)}
    found = torch.zeros(len(names), len(names))
    for i, name in enumerate(names):
        for j, count in scene.covisible(scene.index(name)):
            if scene.names[j] in place:
                found[i, place[scene.names[j]]] = count
    return found


def recall(likeness: Tensor, shared: Tensor) -> float:
    """Share of the five that share the most which are among the five most alike; the photo itself is none."""
    likeness = likeness.clone().fill_diagonal_(-torch.inf)
    found = []
    for row, wanted in zip(likeness, shared, strict=True):
        best = wanted.topk(min(FIVE, len(wanted) - 1))
        good = set(best.indices[best.values > 0].tolist())
        named = set(row.argsort(descending=True, stable=True)[:FIVE].tolist())
        found += [len(good & named) / len(good)] if good else []
    return statistics.mean(found)


def compared(place: Path, retrieval: MapRetrieval) -> tuple[list[Tensor], str]:
    """Descriptors of a place's photos, and its row."""
    scene = read_map(place / "sparse", place)
    found, _ = retrieval.prepare(scene)
    photos, shared = [d.float() for d in found.values()], shared_points(scene, list(found))
    mutual = torch.tensor([[float(mutual_matches(a, b, 0.82)) for b in photos] for a in photos])
    index = GlobalIndex.of(photos)
    alike = torch.stack([index.likeness(d) for d in photos])
    near = alike.clone().fill_diagonal_(-torch.inf).topk(min(SHORTLIST, len(photos) - 1)).indices
    both = torch.full_like(mutual, -1.0).scatter(1, near, mutual.gather(1, near))
    rows = " | ".join(f"{recall(one, shared):.2f}" for one in (mutual, alike, both))
    return photos, f"| {place.name} | {len(photos)} | {rows} |"


def perturbed(photos: list[Tensor], count: int, generator: torch.Generator) -> list[Tensor]:
    """So many photos made of real ones."""
    made = []
    for n in range(count):
        own, other = photos[n % len(photos)], photos[int(torch.randint(len(photos), (1,), generator=generator))]
        kept = torch.randperm(len(own), generator=generator)[: len(own) // 2]
        mixed = torch.cat([own[kept], other[torch.randperm(len(other), generator=generator)[: len(other) // 2]]])
        made.append(F.normalize(mixed + 0.05 * torch.randn(mixed.shape, generator=generator), dim=-1).half())
    return made


def main() -> None:
    """Both tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("places", type=Path)
    parser.add_argument("--photos", type=int, default=10_000)
    parser.add_argument("--only", nargs="+", default=["fountain_p11", "entry_p10", "kitchen", "holo_a"])
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print(f"{datetime.date.today()}, {torch.get_num_threads()} thread, load {os.getloadavg()[0]:.1f}")
    retrieval, real, place_of = MapRetrieval.from_pretrained(), list[Tensor](), list[str]()
    print(
        "| place | photos | every photo, keypoint by keypoint | one vector a photo | the 20 most alike, then keypoints |"
    )
    for place in arguments.only:
        photos, row = compared(arguments.places / place, retrieval)
        real += photos
        place_of += [place] * len(photos)
        print(row, flush=True)
    generator = torch.Generator().manual_seed(0)
    many = perturbed(real, arguments.photos, generator)
    start = time.process_time()
    index = GlobalIndex.of(many)
    built, size = time.process_time() - start, index.matrix.numel() * 4 + index.words.numel() * 4
    queries = [real[n] for n in range(0, len(real), 7)]
    took, hits = [], list[float]()
    for n, query in zip(range(0, len(real), 7), queries, strict=True):
        start = time.process_time()
        best = index.most_alike(query, 50)
        took.append(time.process_time() - start)
        hits += [float(place_of[found % len(real)] == place_of[n]) for found in best[:FIVE].tolist()]
    print(
        f"{len(many)} photos: index made in {built:.0f} s, {size / 1e6:.0f} MB; a query {1000 * statistics.median(took):.0f} "
        f"ms, {1000 * max(took):.0f} ms at most; {100 * statistics.mean(hits):.0f} % of the five most alike are of its place"
    )


if __name__ == "__main__":
    main()
