"""Choosing references, points and first poses, against the tiny scene's recorded answers."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from metriloc.geometry import Pose, so3_exp
from metriloc.methods.pixloc.selection import (
    MapMatches,
    largest_covisible,
    rank_by_inliers,
    select_points,
    similarity_weights,
    weighted_pose,
)


@pytest.fixture(scope="module")
def golden(tiny: SimpleNamespace) -> Any:
    return json.loads((tiny.folder / "model3d_ops.json").read_text())


def test_golden_covisibility(tiny: SimpleNamespace, golden: Any) -> None:
    clusters = [{tiny.image_of[i] for i in cluster} for cluster in golden["covis_clusters"]]
    order = [tiny.scene.index(name) for name in tiny.references]
    found = largest_covisible(tiny.scene, order)
    assert set(found) == clusters[0]
    assert found == [image for image in order if image in clusters[0]]  # in the order of retrieval
    assert largest_covisible(tiny.scene, [order[2], order[0]]) == [order[2]]  # of equal groups the first
    assert largest_covisible(tiny.scene, []) == []


def test_golden_ranking(tiny: SimpleNamespace, golden: Any) -> None:
    order = [tiny.image_of[i] for i in (12, 11, 15, 13, 14)]  # as the log lists them
    assert [tiny.matches.inliers_of(i) for i in order] == golden["ninl_dbs"]
    expected = [tiny.image_of[i] for i in golden["rerank_3_min5"]]
    assert rank_by_inliers(order, tiny.matches, 5)[:3] == expected == [0, 2, 1]
    assert rank_by_inliers(order, tiny.matches, 41) == [0]
    assert rank_by_inliers(order, tiny.matches, 42) == []


@pytest.mark.parametrize("kind", ["all_track2", "all_track3", "all_track4", "inliers", "matched"])
def test_golden_points(kind: str, tiny: SimpleNamespace, golden: Any) -> None:
    """Of the images 11 and 12."""
    expected: dict[int, set[int]] = {11: set(), 12: set()}
    for point, images in golden[kind].items():
        for image in images:
            expected[image].add(tiny.point_of[int(point)])
    tracks = tiny.scene.track_lengths()
    for image, points in expected.items():
        matches = None if kind.startswith("all") else tiny.matches
        least = int(kind[-1]) if matches is None else min(int(tracks[list(points)].min()), 2)
        found = select_points(tiny.scene, tiny.image_of[image], least, matches, kind == "inliers")
        assert set(found.tolist()) == points and found.tolist() == sorted(found.tolist())


def test_golden_averages(tiny: SimpleNamespace) -> None:
    scene, golden = tiny.scene, tiny.golden
    mean = weighted_pose(scene.cam_from_world[:3], golden["weighted_pose/weights"])
    torch.testing.assert_close(mean.R, golden["weighted_pose/R"], rtol=0, atol=1e-9)
    torch.testing.assert_close(mean.t, golden["weighted_pose/t"], rtol=0, atol=1e-9)
    likeness = torch.tensor([tiny.similarity[name] for name in scene.names[:4]]).double()
    approximate = weighted_pose(scene.cam_from_world[:4], similarity_weights(likeness))
    # the descriptors were stored in single precision
    torch.testing.assert_close(approximate.R, golden["pose_approx/R"], rtol=0, atol=1e-7)
    torch.testing.assert_close(approximate.t, golden["pose_approx/t"], rtol=0, atol=1e-7)


def test_average_of_one_is_itself_and_of_two_is_between(generator: torch.Generator) -> None:
    w = torch.randn(2, 3, generator=generator).double()
    poses = Pose(so3_exp(w), torch.randn(2, 3, generator=generator).double())
    one = weighted_pose(poses, torch.tensor([0.0, 3.0]))
    torch.testing.assert_close(one.R, poses.R[1])
    torch.testing.assert_close(one.t, poses.t[1])
    mean = weighted_pose(poses, torch.tensor([1.0, 1.0]))
    torch.testing.assert_close(mean.center(), poses.center().mean(0))
    apart = (mean @ poses.inverse()).angle()
    torch.testing.assert_close(apart[0], apart[1])


def test_weights() -> None:
    weights = similarity_weights(torch.tensor([0.5, 1.0, -1.0]))
    torch.testing.assert_close(weights, torch.tensor([1 / 257, 256 / 257, 0.0]))
    torch.testing.assert_close(similarity_weights(torch.zeros(4)), torch.full((4,), 0.25))


def test_wrong_use(tiny: SimpleNamespace) -> None:
    with pytest.raises(ValueError, match="weights of positive sum"):
        weighted_pose(tiny.scene.cam_from_world[:2], torch.zeros(2))
    with pytest.raises(ValueError, match="weights of positive sum"):
        weighted_pose(tiny.scene.cam_from_world[:2], torch.ones(3))
    with pytest.raises(ValueError, match="MapMatches"):
        MapMatches(torch.zeros(2).long(), torch.zeros(3).long(), torch.ones(2).bool(), 2)
