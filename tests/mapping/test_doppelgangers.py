"""Two fronts that look alike, laid over each other, are told; a place that is what it seems is not."""

from __future__ import annotations

from dataclasses import replace

import torch

from metriloc.mapping.check import check_map
from metriloc.mapping.doppelgangers import alike_pairs
from metriloc.types import SfmMap


def folded(scene: SfmMap, alike: float) -> SfmMap:
    """As if every second photo showed another house in the same place: of the points of the first house, the share
    ``alike`` is observed there as well; all others are points of its own."""
    count = len(scene.xyz)
    chance = torch.rand(count, generator=torch.Generator().manual_seed(0))
    other = (scene.image_index % 2 == 1) & (chance[scene.point_index] >= alike)
    return replace(
        scene,
        xyz=torch.cat([scene.xyz, scene.xyz + 0.01]),
        point_index=torch.where(other, scene.point_index + count, scene.point_index),
    )


def test_a_place_that_is_what_it_seems_gives_no_hint(true_map: SfmMap) -> None:
    assert list(alike_pairs(true_map)) and check_map(true_map).alike == ()


def test_two_places_laid_over_each_other_are_told(true_map: SfmMap) -> None:
    found = check_map(folded(true_map, 0.15)).alike
    assert found
    for pair in found:
        first, second = (true_map.index(name) for name in (pair.first, pair.second))
        assert first % 2 != second % 2 and pair.shared < 0.25 * pair.expected


def test_few_points_say_nothing(true_map: SfmMap) -> None:
    kept = torch.arange(0, len(true_map.image_index), 40)
    few = replace(
        true_map,
        image_index=true_map.image_index[kept],
        point_index=true_map.point_index[kept],
        uv=true_map.uv[kept],
    )
    assert list(alike_pairs(few)) == []
