"""The page that a notebook shows: photos, matches and the 3D view, drawn late, from small copies,
in a frame."""

from __future__ import annotations

import html
import json
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import metriloc
from metriloc.geometry import Camera, Pose
from metriloc.types import Correspondences, PairDetails, PoseEstimate, SfmMap, View
from metriloc.viz.notebook import SmallPhoto, with_map_page, with_page


def photo(width: int, height: int, name: str = "a.jpg") -> View:
    v, u = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return View(torch.stack([u, v, (u + v) / 2]), Camera.from_fov((width, height), 1.0), name=name)


def inside(estimate: PoseEstimate) -> str:
    """The page within the frame."""
    text = estimate._repr_html_()
    assert text is not None
    found = re.fullmatch(
        r'<iframe srcdoc="([^"]*)" sandbox="allow-scripts" style="[^"]*" title="[^"]*"></iframe>', text
    )
    assert found is not None
    return html.unescape(found[1])


@pytest.mark.parametrize("size", [(64, 48), (2500, 1300), (1001, 7), (3, 4000)])
def test_small_photos_see_the_same(size: tuple[int, int]) -> None:
    view = photo(*size)
    small = SmallPhoto.of(view)
    again = small.view()
    assert max(again.size) <= 1000 or small.factor == min(size)
    assert len(small.jpeg) < 400_000
    # a point in space falls on the same colour
    xyz = torch.tensor([[0.1, -0.05, 1.0], [-0.3, 0.2, 1.0]]) * torch.tensor([1.0, size[1] / size[0], 1.0])
    (large_uv, _), (small_uv, _) = view.camera.project(xyz), again.camera.project(xyz)
    assert torch.allclose((large_uv + 0.5) / small.factor - 0.5, small_uv, atol=1e-3)
    if min(size) < 10:
        return
    for large, reduced in zip(large_uv.round().long().tolist(), small_uv.round().long().tolist(), strict=True):
        assert torch.allclose(view.image[:, large[1], large[0]], again.image[:, reduced[1], reduced[0]], atol=0.03)


def estimate_of(view0: View, view1: View) -> PoseEstimate:
    uv = torch.tensor([[0.5, 0.5], [0.25, 0.75], [0.7, 0.2]]) * torch.tensor(view0.size)
    xyz = view0.camera.lift(uv, torch.full((3,), 4.0))
    pose = Pose(torch.eye(3), torch.tensor([-0.5, 0.0, 0.0]))
    uv1 = view1.camera.project(pose * xyz)[0]
    inliers = Correspondences(uv, uv1, torch.full((3,), 4.0), torch.full((3,), 4.0), torch.ones(3))
    details = PairDetails(3.0, inliers, True, "a ruler <b>")
    return PoseEstimate(pose, torch.tensor(True), torch.tensor(0.8), (None,), (details,))


def test_a_pair_is_shown_with_matches_and_3d() -> None:
    view0, view1 = photo(2400, 1200, "first<x>.jpg"), photo(800, 600, 'second".jpg')
    estimate = with_page(estimate_of(view0, view1), view0, view1, "aliked", "abc", 7)
    page = inside(estimate)
    assert page.startswith("<!doctype html>") and "<title>first&lt;x&gt;.jpg and second&quot;.jpg</title>" in page
    assert "3 inlier" not in page and "Inlier matches" in page and "a ruler &lt;b&gt;" in page and "aliked" in page
    (scene,) = (json.loads(text) for text in re.findall(r'<script type="application/json">(.*?)</script>', page))
    # the points that the small photos place are those of the large ones
    expected = view0.camera.lift(estimate.details[0].inliers.uv0, torch.full((3,), 4.0))
    assert np.allclose(sorted(scene["points"]), sorted(expected.tolist()), atol=2e-3)
    assert estimate.details[0].inliers.uv0.max() > 1000  # and the estimate itself is as it was


def test_a_failure_is_shown_too() -> None:
    view = photo(64, 48)
    page = inside(with_page(PoseEstimate.failure("degenerate"), view, view))
    assert "No pose found" in page and "application/json" not in page


def test_photos_do_not_go_into_files() -> None:
    view = photo(2000, 1000)
    estimate = with_page(PoseEstimate.failure("degenerate"), view, view)
    assert len(pickle.dumps(estimate)) < 5000


def test_a_photo_in_a_map(tmp_path: Path) -> None:
    view = photo(64, 48, "query.jpg")
    one = Pose.identity((1,), dtype=torch.float64)
    index = torch.zeros(2, dtype=torch.long)
    xyz = torch.tensor([[0.0, 0.0, 2.0], [0.1, 0.0, 2.0]], dtype=torch.float64)
    scene = SfmMap(("a.jpg",), (view.camera.double(),), one, xyz, index, torch.arange(2), torch.zeros(2, 2), tmp_path)
    found = PoseEstimate(one[0], torch.tensor(True), torch.tensor(0.9), (None,))
    page = inside(with_map_page(found, view, scene, "nre"))
    assert "query.jpg" in page and "The camera stood at" in page and tmp_path.name in page


def test_the_two_calls_put_a_page_there() -> None:
    rgb = np.zeros((48, 64, 3), np.uint8)
    estimate = metriloc.relative_pose(rgb, rgb, fov=60, method="identity")
    assert "reference and query" in inside(estimate)
