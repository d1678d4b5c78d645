"""Starts of alignments: golden draws, and how far from the truth they lie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.datasets.pixloc_starts import Start, draw_start, partway, start_at_error
from metriloc.geometry import Camera, Pose, so3_exp

TRUTH = Pose(so3_exp(torch.tensor([0.1, -0.25, 0.05]).double()), torch.tensor([0.4, 0.1, -0.2]).double())
CAMERA = Camera(*(torch.tensor(v, dtype=torch.float64) for v in ([320.0, 240.0], [300.0, 300.0], [159.5, 119.5])))


@pytest.fixture()
def points() -> torch.Tensor:
    cloud = torch.rand(200, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return (cloud - 0.5) * torch.tensor([2.0, 2.0, 2.0]) + torch.tensor([0.0, 0.0, 4.0])


def errors(pose: Pose, xyz: torch.Tensor) -> float:
    uv, seen = CAMERA.project(pose.transform(xyz))
    true, seen_true = CAMERA.project(TRUTH.transform(xyz))
    return float((uv - true)[seen & seen_true].norm(dim=-1).quantile(0.5))


def test_golden_draws(shared: Callable[[str], Path]) -> None:
    with np.load(shared("golden/pixloc/misc.npz")) as file:
        golden = {key: torch.from_numpy(file[key]) for key in file.files if key.startswith("sampling/")}

    def pose(key: str) -> Pose:
        return Pose(golden[key][:9].reshape(3, 3), golden[key][9:])

    truth = pose("sampling/T")
    for seed in (0, 1, 7):
        share = np.random.RandomState(seed).uniform(0.75, 1)
        torch.testing.assert_close(
            partway(truth, share).matrix(), pose(f"sampling/interval_seed{seed}").matrix(), rtol=0, atol=1e-12
        )
    w, h, *rest = golden["sampling/cam"].tolist()
    camera = Camera(*(torch.tensor(v, dtype=torch.float64) for v in ([w, h], rest[:2], rest[2:])))
    for limit in (20.0, 200.0):
        found = start_at_error(lambda s: partway(truth, s), golden["sampling/p3d"], camera, limit, steps=20)
        torch.testing.assert_close(found.matrix(), pose(f"sampling/reproj_{limit}").matrix(), rtol=0, atol=1e-12)


def test_ends_of_the_way() -> None:
    torch.testing.assert_close(partway(TRUTH, 1.0).matrix(), TRUTH.matrix(), rtol=0, atol=1e-12)
    torch.testing.assert_close(partway(TRUTH, 0.0).matrix(), torch.eye(4, dtype=torch.float64), rtol=0, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("disturbed", [0.0, 1.0])
def test_starts_keep_to_the_error(points: torch.Tensor, disturbed: float, generator: torch.Generator) -> None:
    how = Start("error", error=(5.0, 30.0), disturbed=disturbed)
    found = [errors(draw_start(how, TRUTH, points, CAMERA, generator), points) for _ in range(40)]
    assert max(found) < 30.0
    # as far as the path and its steps allow, not all at the truth
    assert np.median(found) > 3.0 and len({round(e, 3) for e in found}) > 10


def test_draws_repeat_and_differ(points: torch.Tensor) -> None:
    how = Start("error", disturbed=0.5)
    draws = [draw_start(how, TRUTH, points, CAMERA, torch.Generator().manual_seed(seed)).matrix() for seed in (0, 0, 1)]
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_identity_and_share(points: torch.Tensor, generator: torch.Generator) -> None:
    identity = draw_start(Start(), TRUTH, points, CAMERA, generator)
    assert torch.equal(identity.matrix(), torch.eye(4, dtype=torch.float64))
    found = draw_start(Start("share", share=(0.5, 0.5)), TRUTH, points, CAMERA, generator)
    torch.testing.assert_close(found.matrix(), partway(TRUTH, 0.5).matrix())


def test_no_points_in_view_start_at_the_truth(generator: torch.Generator) -> None:
    behind = torch.tensor([0.0, 0.0, -1.0]).double().expand(50, 3)
    for disturbed in (0.0, 1.0):
        how = Start("error", disturbed=disturbed)
        found = draw_start(how, TRUTH, behind, CAMERA, generator)
        torch.testing.assert_close(found.matrix(), TRUTH.matrix())


@pytest.mark.parametrize(
    "wrong", [{"kind": "far"}, {"share": (0.5, 0.1)}, {"error": (-1.0, 2.0)}, {"disturbed": 1.5}, {"steps": 0}]
)
def test_wrong_settings_raise(wrong: dict) -> None:
    with pytest.raises(ValueError, match=r"Start\."):
        Start(**wrong)
