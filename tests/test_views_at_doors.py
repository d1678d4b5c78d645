"""What callers hand in from Python and cannot be: refused by name before anything is computed."""

from __future__ import annotations

import dataclasses
from importlib.resources import files
from typing import Any

import numpy as np
import pytest
import torch

import metriloc
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, as_view
from metriloc.io.maps import map_from_view
from metriloc.types import View

CAMERA = Camera.from_fov((64, 48), 1.0)
EXAMPLE_VIEW = metriloc.load_view(files("metriloc") / "data/example/reference.jpg")
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


def bent(scale: float) -> Pose:
    return Pose(scale * torch.eye(3), torch.zeros(3))


@pytest.mark.parametrize(
    ("pose", "says"), [(bent(2.0), "R must be a rotation"), (bent(float("nan")), "finite numbers")]
)
def test_poses_that_are_none(pose: Pose, says: str) -> None:
    """The raw constructor looks at no number, as training makes poses by the thousand; whoever takes one from a user does."""
    with pytest.raises(InputError, match=f"cam_from_world of 'a.jpg'.*{says}"):
        metriloc.relative_pose(dataclasses.replace(VIEW, cam_from_world=pose), VIEW, method="identity")
    mapped = dataclasses.replace(EXAMPLE_VIEW, depth=torch.ones(480, 640))
    with pytest.raises(InputError, match=f"init.*{says}"):
        metriloc.localize(EXAMPLE_VIEW, map_from_view(mapped), method="xfeat-pnp", init=pose)


@pytest.mark.parametrize("K", [torch.eye(3) * float("nan"), -torch.eye(3), torch.zeros(2, 3, 3)])
def test_matrices_that_no_camera_has(K: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="K must be finite, with focal lengths above 0"):
        Camera.from_K(K, (64, 48))
    with pytest.raises(ValueError, match="needs finite numbers and focal lengths above 0"):
        Camera.from_colmap("PINHOLE", 64, 48, [float(K.flatten()[0]), 1.0, 32.0, 24.0])


def test_arguments_that_are_none() -> None:
    with pytest.raises(InputError, match="seed must be a whole number, got None"):
        metriloc.relative_pose(VIEW, VIEW, method="identity", seed=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="photos must be a path, got None"):
        metriloc.build_map(None, None)  # type: ignore[arg-type]


def test_what_is_no_rotation() -> None:
    with pytest.raises(ValueError, match="R must be a rotation"):
        Pose.from_matrix(torch.diag(torch.tensor([1.0, 1.0, -1.0, 1.0])))
    for R in (2 * np.eye(3), np.diag([1.0, 1.0, -1.0]), torch.ones(2, 3, 3)):
        with pytest.raises(ValueError, match="R must be a rotation"):
            Pose.from_Rt(R, np.zeros((*R.shape[:-2], 3)))
    assert not bool(Pose.from_Rt(np.full((3, 3), np.nan), np.full(3, np.nan)).is_finite())


@pytest.mark.slow
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_depth_map_that_knows_nothing_is_told(value: float) -> None:
    pytest.importorskip("kornia")
    empty = dataclasses.replace(EXAMPLE_VIEW, depth=torch.full((48, 64), value))
    found = metriloc.relative_pose(empty, files("metriloc") / "data/example/query.jpg", method="xfeat")
    plain = metriloc.relative_pose(EXAMPLE_VIEW, files("metriloc") / "data/example/query.jpg", method="xfeat")
    assert any("depth map of the reference knows no depth" in said for said in found.details[0].messages)
    assert torch.equal(found.pose.R, plain.pose.R) and found.verdict == plain.verdict and not plain.details[0].messages
