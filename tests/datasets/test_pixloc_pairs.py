"""Points and pairs to train alignment with, from depth and from maps."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.datasets.pixloc_pairs import (
    DepthSamples,
    PointPair,
    SampleConfig,
    covisible_pairs,
    filled,
    points_from_depth,
    points_from_map,
    sample_from_pair,
    shared_points,
)
from metriloc.datasets.pixloc_starts import Start
from metriloc.geometry import Camera, Pose
from metriloc.io.maps import read_map
from metriloc.types import Pair, SfmMap, View


def plane_view(depth: float = 2.0) -> View:
    """A wall with texture in its left half only."""
    image = torch.zeros(3, 48, 64)
    image[:, ::2, :32] = 1.0
    camera = Camera(torch.tensor([64.0, 48.0]), torch.tensor([50.0, 50.0]), torch.tensor([31.5, 23.5]))
    return View(image, camera, Pose.identity(), "wall", depth=torch.full((24, 32), depth))


def test_points_lie_on_the_depth_map(generator: torch.Generator) -> None:
    view = plane_view()
    xyz = points_from_depth(view, 200, generator, texture=0.0)
    assert xyz.shape == (200, 3) and xyz.dtype == torch.float32
    torch.testing.assert_close(xyz[:, 2], torch.full((200,), 2.0))
    uv, seen = view.camera.project(xyz)
    assert seen.all()
    torch.testing.assert_close(uv, uv.round(), rtol=0, atol=1e-4)  # at pixel centres
    assert len(torch.unique(uv.round(), dim=0)) == 200  # without repetition
    left = (uv[:, 0] < 32).float().mean()
    textured = view.camera.project(points_from_depth(view, 200, generator, texture=1.0))[0]
    assert 0.3 < left < 0.7 and (textured[:, 0] < 33).all()


def test_unknown_depth_gives_points_nobody_sees(generator: torch.Generator) -> None:
    view = plane_view()
    half = view.depth.clone()
    half[:, 16:] = 0
    xyz = points_from_depth(dataclasses.replace(view, depth=half), 4000, generator, texture=0.0)
    assert xyz.shape == (4000, 3)
    uv, seen = view.camera.project(xyz)
    assert 0 < seen.sum() <= 32 * 48 + 48 and (uv[seen][:, 0] < 33).all()
    nothing = points_from_depth(dataclasses.replace(view, depth=torch.zeros(24, 32)), 10, generator)
    assert not view.camera.project(nothing)[1].any()
    with pytest.raises(ValueError, match="'wall' has none"):
        points_from_depth(dataclasses.replace(view, depth=None), 10, generator)
    assert filled(torch.ones(5, 3), 3).shape == (3, 3)


def test_depth_samples_repeat() -> None:
    pose = Pose.from_tangent(torch.tensor([0.1, 0.0, 0.0, 0.0, 0.02, 0.0]))
    view = plane_view()
    pair = Pair(view, dataclasses.replace(view, name="other"), pose)

    class One:
        lengths = (1,)

        def __len__(self) -> int:
            return 1

        def __getitem__(self, index: tuple[int, int]) -> Pair:
            return pair

    samples = DepthSamples(One(), SampleConfig(50, start=Start("error", error=(1, 5), disturbed=0.5)))
    first, again, other = samples[0, 3], samples[0, 3], samples[0, 4]
    assert torch.equal(first.xyz, again.xyz) and torch.equal(first.init.t, again.init.t)
    assert not torch.equal(first.xyz, other.xyz)
    assert first.query_from_reference is pose and first.init.dtype == torch.float32 and len(samples) == 1
    with pytest.raises(ValueError, match="true pose, 'other' has none"):
        sample_from_pair(Pair(view, pair.view1), SampleConfig(5), torch.Generator())
    with pytest.raises(ValueError, match=r"\[N, 3\]"):
        PointPair(pair, torch.zeros(3), Pose.identity())
    with pytest.raises(ValueError, match="SampleConfig"):
        SampleConfig(0)


@pytest.fixture(scope="module")
def fountain(shared: Callable[[str], Path]) -> SfmMap:
    pytest.importorskip("pycolmap")
    folder = shared("data/eval/places/fountain_p11")
    return read_map(folder / "sparse", folder)


def test_overlaps_against_a_plain_count(fountain: Any) -> None:
    common = shared_points(fountain)
    sets = [set(fountain.point_index[fountain.observations_of(i)].tolist()) for i in range(len(fountain))]
    for a in range(len(sets)):
        for b in range(len(sets)):
            assert int(common[a, b]) == len(sets[a] & sets[b])
    index, overlap = covisible_pairs(fountain, 0.3, 1.0)
    expected = {
        (a, b): len(sets[a] & sets[b]) / len(sets[a])
        for a in range(len(sets))
        for b in range(len(sets))
        if a != b and len(sets[a] & sets[b]) >= 50 and 0.3 < len(sets[a] & sets[b]) / len(sets[a]) <= 1
    }
    found = {(a, b): o for (a, b), o in zip(index.tolist(), overlap.tolist(), strict=True)}
    assert found.keys() == expected.keys() and len(found) > 10
    assert all(abs(found[key] - expected[key]) < 1e-6 for key in found)


def test_map_points_are_seen(fountain: Any, generator: torch.Generator) -> None:
    xyz = points_from_map(fountain, 2, 300, generator)
    uv, seen = fountain.cameras[2].project(xyz.double())
    assert seen.all() and len(torch.unique(xyz, dim=0)) == 300
    observed = fountain.uv[fountain.observations_of(2)]
    nearest = torch.cdist(uv, observed).min(1).values
    assert float(nearest.median()) < 0.5  # reprojection of the map, pixels
    few = points_from_map(fountain, 2, 100_000, generator)
    assert len(few) == 100_000 and not fountain.cameras[2].project(few[-1:].double())[1].any()
