"""``--export``: matches, their 3D points and depth maps as arrays."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.runs.relpose_export import export_paths, is_export_of, pair_arrays, write_export
from metriloc.runs.relpose_results import PairFound
from metriloc.types import Correspondences, PairDetails, PoseEstimate, View

CAMERA = Camera(torch.tensor([120.0, 90.0]), torch.tensor([100.0, 110.0]), torch.tensor([59.5, 44.5]))
POSE = Pose.from_aa(torch.tensor([0.1, -0.2, 0.0]), torch.tensor([-0.5, 0.1, 0.2]))


class Features:
    cell, depth_origin = (30.0, 30.0), "predicted by test"

    def __init__(self, name: str, predicted: bool, depth: torch.Tensor | None = None) -> None:
        self.view = View(torch.zeros(3, 90, 120), CAMERA, name=name, depth=depth)
        self.predicted = predicted

    def score_map(self) -> torch.Tensor:
        return torch.arange(12.0).reshape(3, 4)

    def depth_map(self) -> torch.Tensor | None:
        return torch.full((3, 4), 2.0) if self.predicted else None


def found(*, keep: bool = True, success: bool = True, metric: bool = True) -> tuple[PairFound, torch.Tensor]:
    xyz = torch.tensor([[0.1, 0.2, 2.0], [-0.3, 0.1, 3.0], [0.2, -0.2, 2.5], [0.0, 0.0, 4.0]])
    there = POSE.transform(xyz)
    uv0, uv1 = CAMERA.project(xyz)[0], CAMERA.project(there)[0]
    known = torch.tensor([2.0, 3.0, torch.nan, 4.0])
    matches = Correspondences(uv0, uv1, known, there[:, 2], torch.tensor([0.1, 0.2, 0.3, 0.4]))
    order = torch.tensor([3, 0, 2])
    inliers = Correspondences(*(getattr(matches, f.name)[order] for f in dataclasses.fields(matches)))
    details = PairDetails(1.0, inliers, metric=metric, matches=matches if keep else None)
    estimate = PoseEstimate(POSE, torch.tensor(True), torch.tensor(0.7), (None,), (details,))
    if not success:
        estimate = PoseEstimate.failure("degenerate", details)
    return PairFound(estimate, Features("query.jpg", True)), xyz  # type: ignore[arg-type]


def test_points_are_those_of_both_cameras(tmp_path: Path) -> None:
    pair, xyz = found()
    file = tmp_path / "pair.npz"
    write_export(file, Features("reference.jpg", True), pair, "abc")  # type: ignore[arg-type]
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["inlier"].tolist() == [True, True, True, False]
        assert arrays["probability"] == pytest.approx([0.4, 0.1, 0.3, 0.2])
        np.testing.assert_allclose(arrays["xyz0"][[0, 1, 3]], xyz[[3, 0, 1]], atol=1e-5)
        assert np.isnan(arrays["xyz0"][2]).all() and np.isnan(arrays["depth0"][2])
        pose = arrays["query_from_reference"]
        moved = arrays["xyz0"][[0, 1, 3]] @ pose[:3, :3].T + pose[:3, 3]
        np.testing.assert_allclose(moved, arrays["xyz1"][[0, 1, 3]], atol=1e-5)
        # the pixels by K alone
        pixels = arrays["xyz0"][0] @ arrays["K0"].T
        np.testing.assert_allclose(pixels[:2] / pixels[2], arrays["uv0"][0], atol=1e-3)
        assert arrays["depth_map0"].shape == arrays["score_map1"].shape == (3, 4)
        assert arrays["depth_cell0"].tolist() == arrays["score_cell0"].tolist() == [30, 30]
        assert bool(arrays["success"]) and bool(arrays["metric"]) and float(arrays["confidence"]) == pytest.approx(0.7)
        assert str(arrays["name0"]) == "reference.jpg" and arrays["size1"].tolist() == [120, 90]
    assert [p.name for p in tmp_path.iterdir()] == ["pair.npz"]


def test_a_depth_map_from_a_file_has_cells_of_its_own() -> None:
    pair, _ = found(keep=False)
    arrays = pair_arrays(Features("r.jpg", False, torch.full((45, 40), 3.0)), pair)  # type: ignore[arg-type]
    assert arrays["depth_map0"].shape == (45, 40) and arrays["depth_cell0"].tolist() == [3, 2]
    assert arrays["inlier"].tolist() == [True] * 3
    assert "depth_map0" not in pair_arrays(Features("r.jpg", False), pair)  # type: ignore[arg-type]


def test_a_failure_has_no_pose() -> None:
    arrays = pair_arrays(Features("r.jpg", True), found(success=False)[0])  # type: ignore[arg-type]
    assert np.isnan(arrays["query_from_reference"]).all()
    assert not arrays["success"] and not arrays["metric"] and arrays["confidence"] == 0


def test_a_run_knows_its_own(tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    write_export(file, Features("r.jpg", True), found()[0], "abc")  # type: ignore[arg-type]
    assert is_export_of(file, "abc") and not is_export_of(file, "abd") and not is_export_of(tmp_path / "b.npz", "abc")
    for junk in (b"", b"PK\x03\x04 cut", b"no archive"):
        file.write_bytes(junk)
        assert not is_export_of(file, "abc")


def test_many_queries_have_a_file_each() -> None:
    name = export_paths(Path("out/pairs.npz"), single=False)
    assert name(3, Path("photos/a.jpg")) == Path("out/pairs.0003_a.npz")
    assert export_paths(Path("out/pairs.npz"), single=True)(0, Path("a.jpg")) == Path("out/pairs.npz")
    with pytest.raises(InputError, match=r"'pairs.zip' does not end in .npz"):
        export_paths(Path("pairs.zip"), single=True)
