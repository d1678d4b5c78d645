"""Costs and damping of one's own: the loop takes them, equal ones give equal poses, and no file pretends to hold them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.methods.pixloc import (
    AlignConfig,
    AlignmentProblem,
    CostConfig,
    FeatureTable,
    GaussianConfig,
    NetworkConfig,
    PixLocNetwork,
    RobustCost,
    Settings,
    save_pretrained,
)
from metriloc.methods.pixloc.align import align, evaluate
from metriloc.solvers.robust import huber, scaled
from metriloc.training import override


def problem() -> tuple[AlignmentProblem, Pose]:
    """Smooth features of a wall, seen a little beside where they are."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    fmap = torch.stack([torch.sin(x / 9), torch.cos(y / 7), torch.sin((x + y) / 11)])[None]
    camera = Camera(torch.tensor([[64.0, 48.0]]), torch.tensor([[50.0, 50.0]]), torch.tensor([[31.5, 23.5]]))
    generator = torch.Generator().manual_seed(0)
    xyz = torch.rand(1, 60, 3, generator=generator) * torch.tensor([1.4, 1.0, 1.0]) + torch.tensor([-0.7, -0.5, 2.0])
    uv = camera.project(xyz)[0]
    grid = 2 * uv / torch.tensor([63.0, 47.0]) - 1
    features = torch.nn.functional.grid_sample(fmap, grid[:, None], align_corners=True)[0, :, 0].mT[None]
    table = FeatureTable.from_maps(fmap, normalize=False)
    return AlignmentProblem(xyz, features, table, camera), Pose(torch.eye(3)[None], torch.tensor([[0.03, -0.02, 0.01]]))


FIXED = AlignConfig(damping="fixed", num_iters=20)


def aligned(config: AlignConfig) -> Pose:
    task, start = problem()
    found = align(task, start, config, early_stop=False)
    assert not bool(found.failed)
    return found.pose


def test_an_equal_loss_gives_the_same_pose() -> None:
    own = replace(FIXED, cost=CostConfig(lambda x: scaled(x, huber, 0.3)))
    known = replace(FIXED, cost=CostConfig(RobustCost("huber", scale=0.3)))
    assert torch.equal(aligned(own).matrix(), aligned(known).matrix())
    assert float(aligned(known).distance()) < 1e-3


def test_an_equal_rule_gives_the_same_pose_and_is_asked_in_every_iteration() -> None:
    asked: list[int] = []

    def rule(index: int, at: Any, H: torch.Tensor) -> torch.Tensor:
        assert H.shape == (1, 6, 6) and at.cost.shape == (1, 60, 1)
        asked.append(index)
        return H.new_full((1, 1), 0.01)

    assert torch.equal(aligned(replace(FIXED, damping=rule)).matrix(), aligned(FIXED).matrix())
    assert asked == list(range(20))
    stiff = aligned(replace(FIXED, damping=lambda index, at, H: 1e6))
    assert float(stiff.distance()) > 0.03  # it hardly moved


@dataclass(frozen=True)
class HalfOfThem(CostConfig):
    """Half of the points have no say."""

    def linearize(self, problem: AlignmentProblem, pose: Pose) -> Any:
        at = super().linearize(problem, pose)
        silent = torch.arange(at.cost.shape[1])[None, :, None] % 2 == 0
        return replace(at, valid=at.valid & silent)


def test_a_cost_of_ones_own_is_asked_everywhere() -> None:
    task, start = problem()
    cost = HalfOfThem()
    assert int(evaluate(task, start, cost).count()) * 2 == int(evaluate(task, start, CostConfig()).count()) == 60
    assert float(aligned(replace(FIXED, cost=cost)).distance()) < 1e-3
    adaptive = replace(FIXED, cost=cost, damping="adaptive")
    assert float(aligned(adaptive).distance()) < 1e-3


def test_files_do_not_hold_them(tmp_path: Path) -> None:
    network = PixLocNetwork(NetworkConfig(GaussianConfig(), learned_damping=False))
    for align_config in (
        replace(FIXED, damping=lambda index, at, H: 0.1),
        replace(FIXED, cost=HalfOfThem()),
        replace(FIXED, cost=CostConfig(lambda x: scaled(x, huber, 0.3))),
    ):
        with pytest.raises(InputError, match="cost or damping of one's own"):
            save_pretrained(network, tmp_path / "weights", Settings(align=align_config))
    assert not (tmp_path / "weights").exists()


def test_wrong_names_of_damping_are_told() -> None:
    with pytest.raises(ValueError, match="'fixed', 'adaptive' or 'learned', got 'none'"):
        AlignConfig(damping="none")  # type: ignore[arg-type]
    assert override(AlignConfig(), ["damping=adaptive"]).damping == "adaptive"
    with pytest.raises(ValueError, match="must be one of fixed, adaptive, learned"):
        override(AlignConfig(), ["damping=none"])
