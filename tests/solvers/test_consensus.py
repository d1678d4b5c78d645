"""Scores of hypotheses equal their formula. All tests are seeded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metriloc.geometry import Pose, so3_exp
from metriloc.solvers import consensus
from metriloc.solvers.consensus import best_hypothesis, residuals, score_hypotheses, soft_inliers


@pytest.mark.parametrize("threshold", [0.15, 0.3, 0.5])
def test_soft_inliers_golden(threshold: float, shared: Callable[[str], Path]) -> None:
    golden = load_file(shared("golden/mickey/kabsch.safetensors"))
    pose = Pose(golden["mask256.R"], golden["mask256.t"][:, 0])
    residual = residuals(pose, golden["mask256.A"], golden["mask256.B"])
    assert (soft_inliers(residual, threshold) - golden[f"score.soft_th{threshold}"][:, 0]).abs().max() < 1e-4
    hard = (residual <= threshold).float()
    assert (hard - golden[f"score.hard_th{threshold}"]).abs().max() == 0


def test_scores_in_place_equal_the_formula(generator: torch.Generator) -> None:
    poses = Pose(so3_exp(torch.randn(3, 7, 3, generator=generator)), torch.randn(3, 7, 3, generator=generator))
    xyz0, xyz1 = torch.randn(2, 3, 40, 3, generator=generator)
    copies = xyz0.clone(), xyz1.clone()
    scores = score_hypotheses(poses, xyz0, xyz1, 0.3)
    expected = torch.stack([soft_inliers(residuals(poses[:, j], xyz0, xyz1), 0.3) for j in range(7)], 1)
    assert (scores - expected).abs().max() < 1e-4
    assert torch.equal(xyz0, copies[0]) and torch.equal(xyz1, copies[1])


@pytest.mark.parametrize("away", [0.0, 300.0], ids=["narrow", "wide"])
def test_the_best_of_quick_scores_is_the_best(away: float, generator: torch.Generator) -> None:
    """Among poses that are nearly alike, and where squares of coordinates would drown those of residuals."""
    wiggle = 10 ** -torch.linspace(0, 5, 40)[:, None] * torch.randn(6, 40, 6, generator=generator)
    poses = Pose(so3_exp(wiggle[..., :3]), wiggle[..., 3:])
    xyz0 = torch.randn(6, 500, 3, generator=generator)
    xyz0[:, 3] += away
    xyz1 = xyz0 + 0.1 * torch.randn(6, 500, 3, generator=generator)
    exact = score_hypotheses(poses, xyz0, xyz1, 0.3)
    assert float((consensus._quick_scores(poses, xyz0, xyz1, 0.3) - exact).abs().max()) < 0.1 * 1e-3 * 500
    usable = torch.ones(6, 40, dtype=torch.bool)
    for _ in range(5):
        found = best_hypothesis(poses, usable, xyz0, xyz1, 0.3)
        assert found is not None
        rest = exact.where(usable, -torch.inf)
        assert float(rest[found]) > float(rest.max()) - 1e-4
        usable[found] = False
    assert best_hypothesis(poses, torch.zeros_like(usable), xyz0, xyz1, 0.3) is None


def test_wrong_use_raises() -> None:
    poses, xyz = Pose.identity((2, 4)), torch.zeros(2, 5, 3)
    with pytest.raises(ValueError, match=r"poses \[Q, J\]"):
        score_hypotheses(poses, xyz[:1], xyz[:1], 0.3)
    with pytest.raises(ValueError, match="positive metres"):
        score_hypotheses(poses, xyz, xyz, 0.0)
    with pytest.raises(ValueError, match="positive metres"):
        soft_inliers(torch.zeros(5), -0.1)
