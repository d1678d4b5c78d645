"""Hints of places that look alike: photos that show the same by the map, and yet hardly share a point.

Where two buildings with the same front were put on top of each other, the photos of both stand in one place of the map.
What is alike in them was matched, all else was not: of the points of one photo that lie in front of the other, the other
observes few. Photos of one place observe many of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from metriloc.types import SfmMap

MAX_ANGLE_DEG = 20.0
"""Between the looks of two photos at a point, so that its keypoint should be found in both."""
MAX_RATIO = 1.4
"""Of the distances of two photos from a point."""
FACING = 0.5
"""Share of the points of each of two photos that must lie in front of the other, seen so."""
FEW_EXPECTED = 50
"""Points that are expected to be shared, below which nothing is said."""

FEW_SHARED = 0.3
"""Of what the best tenth of pairs share: in three maps of places that are what they seem the least was 0.5, in a fourth
one of 1,200 pairs had 0.296."""


@dataclass(frozen=True)
class Doppelganger:
    """expected: points of the one that lie in the other photo, seen alike, and the other way about (the smaller number);
    shared: how many both observe."""

    first: str
    second: str
    expected: int
    shared: int


def find_doppelgangers(scene: SfmMap) -> tuple[Doppelganger, ...]:
    """Pairs that share far less of what they should than the best of such pairs in the map, the least first."""
    pairs = list(alike_pairs(scene))
    if not pairs:
        return ()
    shown = sorted(shared / expected for _, _, expected, shared in pairs)
    usual = shown[int(0.9 * (len(shown) - 1))]  # where two places are one, half of the pairs and more are of both
    found = [Doppelganger(scene.names[i], scene.names[j], n, k) for i, j, n, k in pairs if k < FEW_SHARED * usual * n]
    return tuple(sorted(found, key=lambda pair: (pair.shared / pair.expected, pair.first, pair.second)))


def alike_pairs(scene: SfmMap) -> Iterator[tuple[int, int, int, int]]:
    """(image, image, expected, shared points) of all pairs that see the same from about the same side."""
    points = [scene.point_index[scene.observations_of(n)].unique() for n in range(len(scene))]
    mask = torch.zeros(len(scene.xyz), dtype=torch.bool)
    ahead = scene.cam_from_world.R[:, 2]
    turned = (ahead @ ahead.mT).clamp(-1, 1).arccos().rad2deg()
    for i in range(len(scene)):
        mask.fill_(False)
        mask[points[i]] = True
        for j in range(i + 1, len(scene)):
            if min(len(points[i]), len(points[j])) < FEW_EXPECTED or float(turned[i, j]) > 2 * MAX_ANGLE_DEG:
                continue
            here = int(_seen_alike(scene, points[i], i, j).sum())
            if here < max(FEW_EXPECTED, FACING * len(points[i])):
                continue
            there = int(_seen_alike(scene, points[j], j, i).sum())
            if there >= max(FEW_EXPECTED, FACING * len(points[j])):
                yield i, j, min(here, there), int(mask[points[j]].sum())


def _seen_alike(scene: SfmMap, points: Int[Tensor, " n"], own: int, other: int) -> Bool[Tensor, " n"]:
    """Which points of an image lie in another one, from about the same side and as far away."""
    xyz = scene.xyz[points]
    camera = scene.cameras[other].to(xyz.dtype)
    uv, valid = camera.project(scene.cam_from_world[other].transform(xyz))
    looks = [xyz - scene.cam_from_world[n].center() for n in (own, other)]
    far = [look.norm(dim=-1).clamp_min(1e-12) for look in looks]
    angle = ((looks[0] * looks[1]).sum(-1) / (far[0] * far[1])).clamp(-1, 1).arccos().rad2deg()
    ratio = far[0] / far[1]
    return valid & camera.in_image(uv) & (angle <= MAX_ANGLE_DEG) & (ratio <= MAX_RATIO) & (1 / ratio <= MAX_RATIO)
