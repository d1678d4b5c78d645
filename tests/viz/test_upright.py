"""Up in a map that nobody turned."""

from __future__ import annotations

import math

import torch

from metriloc.geometry import Pose, so3_exp
from metriloc.viz.upright import upright_from_world

DOUBLE = torch.float64


def cameras(yaws: list[float], pitch: float, roll: float, world: Pose) -> Pose:
    """Of people who stand on the ground and look along yaws, down by a pitch, in a world that somebody turned."""
    poses = []
    for n, yaw in enumerate(yaws):
        turn = so3_exp(torch.tensor([0.0, -yaw, 0.0], dtype=DOUBLE))
        down = so3_exp(torch.tensor([pitch, 0.0, 0.0], dtype=DOUBLE))
        roll_ = so3_exp(torch.tensor([0.0, 0.0, roll * (-1) ** n], dtype=DOUBLE))
        R = roll_ @ down @ turn
        center = torch.tensor([math.sin(yaw), 0.02 * n, math.cos(yaw)], dtype=DOUBLE)
        poses.append(Pose(R, -R @ center) @ world)
    return Pose.stack(poses)


def tilt(upright: Pose, world: Pose) -> float:
    """Degrees between down as it was found and as it is."""
    down = (upright @ world.inverse()).R @ torch.tensor([0.0, 1.0, 0.0], dtype=DOUBLE)
    return math.degrees(math.acos(min(1.0, float(down[1]))))


def test_down_is_down_however_the_world_lies_and_where_all_look_at_the_ground() -> None:
    world = Pose(so3_exp(torch.tensor([1.1, -0.4, 2.0], dtype=DOUBLE)), torch.tensor([3.0, 1.0, 2.0], dtype=DOUBLE))
    around = [0.3 * n for n in range(-5, 6)]
    for pitch in (0.0, 0.5):
        found = upright_from_world(cameras(around, pitch, 0.02, world))
        assert tilt(found, world) < 1.0
        torch.testing.assert_close(found.R @ found.R.mT, torch.eye(3, dtype=DOUBLE))
        assert float(torch.linalg.det(found.R)) > 0


def test_of_photos_that_look_one_way_down_is_that_of_the_photos() -> None:
    world = Pose(so3_exp(torch.tensor([0.3, 2.0, 0.5], dtype=DOUBLE)), torch.zeros(3, dtype=DOUBLE))
    assert tilt(upright_from_world(cameras([0.2, 0.2], 0.1, 0.0, world)), world) < 6.0
    one = upright_from_world(cameras([0.2], 0.0, 0.0, world))
    assert tilt(one, world) < 1e-3


def test_down_that_is_known_is_taken() -> None:
    world = Pose(torch.eye(3, dtype=DOUBLE), torch.zeros(3, dtype=DOUBLE))
    found = upright_from_world(cameras([0.0, 0.5], 0.2, 0.0, world), torch.tensor([0.0, 0.0, -1.0], dtype=DOUBLE))
    torch.testing.assert_close(
        found.R @ torch.tensor([0.0, 0.0, -1.0], dtype=DOUBLE), torch.tensor([0.0, 1.0, 0.0], dtype=DOUBLE)
    )


def test_the_middle_of_the_cameras_is_the_origin() -> None:
    world = Pose(torch.eye(3, dtype=DOUBLE), torch.tensor([5e6, 5e5, 100.0], dtype=DOUBLE))
    poses = cameras([0.0, 0.4, 0.8], 0.0, 0.0, world)
    assert float(upright_from_world(poses).transform(poses.center()).norm(dim=-1).max()) < 2.0
    assert upright_from_world(poses[:0]).t.tolist() == [0.0, 0.0, 0.0]
