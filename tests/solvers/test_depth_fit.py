"""A depth map against triangulated depths: noise that is expected fits, foreign depths do not, few say nothing."""

from __future__ import annotations

import pytest
import torch

from metriloc.calibration.probability import depth_doubts
from metriloc.geometry import Camera, Pose
from metriloc.solvers.depth_fit import DepthFit, depth_fit
from metriloc.solvers.joint import DepthError
from metriloc.types import View

CAMERA = Camera(torch.tensor([640.0, 480.0]), torch.tensor([520.0, 520.0]), torch.tensor([319.5, 239.5]))
ERROR = DepthError(scale=0.03, correlation=0.5, tilt=0.03, shape=0.05, votes=400)
POSE = Pose.from_tangent(torch.tensor([0.6, -0.1, 0.2, 0.05, -0.15, 0.1]))


def fitted(generator: torch.Generator, kind: str, count: int = 300) -> DepthFit | None:
    uv0 = torch.rand(count, 2, generator=generator) * torch.tensor([639.0, 479.0])
    depth = 2 + 4 * torch.rand(count, generator=generator)
    uv1 = CAMERA.project(POSE.transform(CAMERA.lift(uv0, depth)))[0]
    given = {
        "own": 1.3 * depth * (0.05 * torch.randn(count, generator=generator)).exp(),
        "shuffled": depth[torch.randperm(count, generator=generator)],
        "constant": torch.full_like(depth, 2.0),
        "reversed": 8 - depth,
    }[kind]
    return depth_fit(POSE, (uv0, uv1), given, (CAMERA, CAMERA), ERROR, 0.5)


def test_a_map_with_the_errors_of_its_kind_fits_whatever_its_scale(generator: torch.Generator) -> None:
    fit = fitted(generator, "own")
    assert fit is not None and fit.fits and fit.count == 300
    assert fit.scatter == pytest.approx(0.05, abs=0.01) and fit.excess == pytest.approx(1, abs=0.2) and fit.order > 0.9


@pytest.mark.parametrize("kind", ["shuffled", "constant", "reversed"])
def test_foreign_depths_do_not_fit(generator: torch.Generator, kind: str) -> None:
    fit = fitted(generator, kind)
    assert fit is not None and not fit.fits and fit.scatter > 0.2


def test_few_depths_say_nothing(generator: torch.Generator) -> None:
    assert fitted(generator, "shuffled", count=10) is None


@pytest.mark.parametrize(("metres", "doubted"), [(0.01, True), (3.0, False), (100.0, False), (3700.0, True)])
def test_a_median_that_hardly_any_scene_has_is_doubted(metres: float, doubted: bool) -> None:
    view = View(torch.zeros(3, 480, 640), CAMERA, depth=torch.full((480, 640), metres))
    assert bool(depth_doubts((view,))) is doubted
    assert not depth_doubts((View(torch.zeros(3, 480, 640), CAMERA),))
