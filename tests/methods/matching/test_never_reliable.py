"""Photos and depth maps that fix no pose or no metres, made from the bundled photos: each was called reliable once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

import metriloc
from metriloc.geometry import so3_exp
from metriloc.io import load_view
from metriloc.types import View

pytest.importorskip("kornia")
EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


def turned(view: View, w: tuple[float, float, float]) -> View:
    """The photo as the same camera sees it after a mere turn."""
    K = view.camera.K.double()
    H = K @ so3_exp(torch.tensor(w, dtype=torch.float64)) @ torch.linalg.inv(K)
    height, width = view.image.shape[1:]
    v, u = torch.meshgrid(torch.arange(height).double(), torch.arange(width).double(), indexing="ij")
    seen = torch.stack([u, v, torch.ones_like(u)], -1) @ torch.linalg.inv(H).mT
    grid = 2 * (seen[..., :2] / seen[..., 2:] + 0.5) / torch.tensor([width, height]) - 1
    image = torch.nn.functional.grid_sample(view.image[None], grid[None].float(), align_corners=False)[0]
    return replace(view, image=image)


@pytest.mark.slow
@pytest.mark.parametrize("distance", [None, 0.5])
def test_a_camera_that_only_turned_went_nowhere(distance: float | None) -> None:
    view = load_view(EXAMPLE / "query.jpg")
    again = turned(view, (0.08, 0.05, 0.0))
    estimate = metriloc.relative_pose(view, again, method="xfeat", distance=distance)
    assert estimate.verdict != "reliable"
    assert "turned" in " ".join((*estimate.doubts, *estimate.details[0].messages))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["noise", "constant"])
def test_a_depth_map_of_something_else_gives_no_metres(kind: str) -> None:
    right = [load_view(EXAMPLE / name) for name in ("reference.jpg", "query.jpg")]
    size = right[0].image.shape[1:]
    noise = 0.5 + 4.5 * torch.rand(size, generator=torch.Generator().manual_seed(0))
    depth = noise if kind == "noise" else torch.full(size, 2.0)
    estimate = metriloc.relative_pose(replace(right[0], depth=depth), right[1], method="xfeat")
    assert estimate.verdict == "doubtful" and "does not fit" in estimate.doubts[0]
    low, high = estimate.distance_interval or (0.0, 0.0)
    assert low < 0.61 < high  # the true distance
