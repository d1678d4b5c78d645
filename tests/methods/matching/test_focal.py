"""Positions between cells, and focal lengths that two photos contradict."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import metriloc
from metriloc.backbones.local import DenseMap
from metriloc.geometry import Camera
from metriloc.io import load_view
from metriloc.methods.matching.stated_focal import between_cells, pair_contradiction
from metriloc.solvers.shared_focal import FocalFactor
from metriloc.types import View


def test_a_peak_between_cells_is_found() -> None:
    """Descriptors whose similarity falls off as a parabola from a point between cells."""
    peak = torch.tensor([3.3, 1.8])
    v, u = torch.meshgrid(torch.arange(5.0), torch.arange(7.0), indexing="ij")
    similarity = 1 - 0.1 * (u - peak[0]) ** 2 - 0.2 * (v - peak[1]) ** 2
    dense = DenseMap(torch.stack([similarity, torch.zeros_like(similarity)]), (8.0, 8.0), (3.5, 3.5))
    descriptors = torch.tensor([[1.0, 0.0]]).expand(3, 2)
    cells = torch.tensor([[3.0, 2.0], [0.0, 2.0], [6.0, 4.0]])
    found = between_cells(descriptors, dense, cells)
    torch.testing.assert_close(found[0], peak)
    assert found[1, 0] == 0 and found[2].tolist() == [6.0, 4.0]  # at the border nothing is known of the other side


def photo(focal: float, sigma: float = 0.0) -> View:
    camera = Camera(torch.tensor([64.0, 48.0]), torch.tensor([focal, focal]), torch.tensor([31.5, 23.5]))
    return View(torch.zeros(3, 48, 64), camera, focal_sigma=sigma)


def test_focal_lengths_are_contradicted_by_clear_evidence_only() -> None:
    both = photo(60.0), photo(60.0)
    double = FocalFactor(math.log(2), 0.05, 400.0)
    assert pair_contradiction(both, double) == "the matches speak for a focal length of 120 px, not of 60 px"
    unlike = pair_contradiction((photo(60.0), photo(30.0)), double)
    assert unlike == "the matches speak for focal lengths of 120 and 60 px, not of 60 and 30 px"
    assert pair_contradiction(both, None) is None
    assert pair_contradiction(both, replace(double, sigma=0.2)) is None
    assert pair_contradiction(both, replace(double, gain=10.0)) is None
    assert pair_contradiction(both, replace(double, log_factor=0.1)) is None
    assert pair_contradiction((photo(60.0), photo(60.0, sigma=0.3)), double) is None


@pytest.mark.slow
def test_twice_the_focal_length_is_not_reliable() -> None:
    """The bundled photos, 21 degrees apart: with twice the focal length, 42 degrees were called reliable."""
    pytest.importorskip("kornia")
    method = metriloc.load("xfeat+lightglue", depth="none")
    folder = Path(metriloc.__file__).parent / "data" / "example"
    right = [load_view(folder / name) for name in ("reference.jpg", "query.jpg")]
    wrong = [replace(view, camera=replace(view.camera, f=2 * view.camera.f)) for view in right]
    assert method.relative_pose(*right).verdict == "reliable"
    estimate = method.relative_pose(*wrong)
    assert estimate.verdict == "doubtful" and "the matches speak for focal lengths" in estimate.doubts[0]
