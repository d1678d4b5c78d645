"""What callers hand in from Python and cannot be: refused by name before anything is computed."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

import metriloc
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, as_view
from metriloc.types import View

CAMERA = Camera.from_fov((64, 48), 1.0)
VIEW = View(torch.zeros(3, 48, 64), CAMERA, name="a.jpg", depth=torch.ones(24, 32))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"image": VIEW.image[:, :40]}, "the camera of 'a.jpg' is for 64x48 pixels, but the photo has 64x40"),
        ({"depth": torch.ones(10, 32)}, "'depth of a.jpg' has 32x10 pixels"),
        ({"camera": dataclasses.replace(CAMERA, f=torch.full((2,), torch.nan))}, "the camera of 'a.jpg' needs finite"),
        (
            {"camera": dataclasses.replace(CAMERA, size=-CAMERA.size)},
            "the camera of 'a.jpg' needs finite numbers, sizes",
        ),
    ],
)
def test_a_view_that_cannot_be(changes: dict[str, Any], says: str) -> None:
    assert as_view(VIEW) is VIEW  # a depth map of another size covers the same field of view
    with pytest.raises(InputError, match=says):
        metriloc.relative_pose(VIEW, dataclasses.replace(VIEW, **changes), method="identity")


def test_arguments_that_are_none() -> None:
    with pytest.raises(InputError, match="seed must be a whole number, got None"):
        metriloc.relative_pose(VIEW, VIEW, method="identity", seed=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="photos must be a path, got None"):
        metriloc.build_map(None, None)  # type: ignore[arg-type]


def test_what_is_no_rotation() -> None:
    for R in (2 * np.eye(3), np.diag([1.0, 1.0, -1.0]), torch.ones(2, 3, 3)):
        with pytest.raises(ValueError, match="R must be a rotation"):
            Pose.from_Rt(R, np.zeros((*R.shape[:-2], 3)))
    assert not bool(Pose.from_Rt(np.full((3, 3), np.nan), np.full(3, np.nan)).is_finite())
