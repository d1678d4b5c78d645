"""Poses as others write them, against what each of them says of itself.

Nothing here uses the table of axes: every convention is rebuilt from its own words.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.geometry import CONVENTIONS, Pose, so3_exp

# two cameras A (the reference, which is the world) and B; B stands 3 m to the right of A, 1 m above and 5 m ahead of it
# and is turned by 90 degrees to the right (seen from above, clockwise): it looks where A's right hand points
B_IN_A = np.array([3.0, -1.0, 5.0])  # right, down, forward
A_FROM_B = np.array([[0.0, 0, 1], [0, 1, 0], [-1, 0, 0]])  # B's forward is A's right, B's right is A's back
B_FROM_A = Pose.from_Rt(A_FROM_B.T, -A_FROM_B.T @ B_IN_A)

# one point, told for each camera in its own words
POINT_FROM_A = {"right": 10.0, "up": 2.0, "forward": 6.0}
POINT_FROM_B = {"right": -1.0, "up": 1.0, "forward": 7.0}


def numbers(point: dict[str, float], name: str) -> np.ndarray:
    """Right, up and forward in the axes that the convention's own documentation has, as
    formulas."""
    right, up, forward = point["right"], point["up"], point["forward"]
    return np.array(
        {
            "opencv": (right, -up, forward),  # x right, y down, z into the scene
            "colmap": (right, -up, forward),
            "opengl": (right, up, -forward),  # eye space: y up, the camera looks along -z
            "nerfstudio": (right, up, -forward),
            "arkit": (right, up, -forward),
            "unity": (right, up, forward),  # left-handed
            "ros": (forward, -right, up),  # REP 103: x forward, y left, z up
        }[name]
    )


CAMERA_TO_WORLD = {"nerfstudio", "arkit", "unity", "ros"}


def test_the_scene_itself() -> None:
    a, b = (torch.from_numpy(numbers(point, "opencv"))[None] for point in (POINT_FROM_A, POINT_FROM_B))
    assert torch.allclose(B_FROM_A * a, b, atol=1e-12)


@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_a_point_goes_where_the_convention_says(name: str) -> None:
    theirs = B_FROM_A.to(name)
    from_a, from_b = numbers(POINT_FROM_A, name), numbers(POINT_FROM_B, name)
    source, target = (from_b, from_a) if name in CAMERA_TO_WORLD else (from_a, from_b)
    assert np.allclose(theirs.R.numpy() @ source + theirs.t.numpy(), target, atol=1e-12)
    assert np.allclose(theirs.R @ theirs.R.mT, np.eye(3), atol=1e-12)
    assert float(torch.linalg.det(theirs.R)) == pytest.approx(1)  # a rotation, also where the axes are left-handed


def test_where_the_camera_stands_and_looks() -> None:
    right, up, ahead = 3.0, 1.0, 5.0
    arkit, unity, ros, nerfstudio = (B_FROM_A.to(n) for n in ("arkit", "unity", "ros", "nerfstudio"))
    assert arkit.t.tolist() == nerfstudio.t.tolist() == pytest.approx([right, up, -ahead])
    assert unity.t.tolist() == pytest.approx([right, up, ahead])
    assert ros.t.tolist() == pytest.approx([ahead, -right, up])
    # each looks to the right of the reference: ARKit and nerfstudio along -z, Unity along +z, ROS along +x
    assert (-arkit.R[:, 2]).tolist() == pytest.approx([1, 0, 0])
    assert unity.R[:, 2].tolist() == pytest.approx([1, 0, 0])
    assert ros.R[:, 0].tolist() == pytest.approx([0, -1, 0])
    # Unity's rotations are left-handed: a positive angle about y (up) turns to the right; ROS's about z turns left
    yaw = np.deg2rad(90)
    assert np.allclose(unity.R, [[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]], atol=1e-12)
    assert np.allclose(ros.R, [[0, 1, 0], [-1, 0, 0], [0, 0, 1]], atol=1e-12)


def test_opengl_is_the_view_matrix_of_look_at() -> None:
    """Built as gluLookAt's manual page says, from eye, target and up in a world with y up and -z
    ahead."""
    eye, forward, up = np.array([3.0, 1.0, -5.0]), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    side = np.cross(forward, up)
    expected = np.stack([side, np.cross(side, forward), -forward])
    view = B_FROM_A.to("opengl")
    assert np.allclose(view.R, expected, atol=1e-12) and np.allclose(view.t, -expected @ eye, atol=1e-12)


def test_a_map_keeps_its_world() -> None:
    """nerfstudio's transform_matrix of a COLMAP image: the inverse, its second and third column
    negated."""
    w, t = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    cam_from_world = Pose(so3_exp(w), t)
    expected = np.linalg.inv(cam_from_world.matrix().numpy())
    expected[:, :3, 1:3] *= -1
    assert np.allclose(cam_from_world.to("nerfstudio", keep_world=True).matrix(), expected, atol=1e-12)
    assert np.allclose(cam_from_world.to("arkit", keep_world=True).t, cam_from_world.center(), atol=1e-12)
    ros = cam_from_world.to("ros", keep_world=True)
    assert np.allclose(ros.R[:, :, 0], cam_from_world.R[:, 2], atol=1e-12)  # x forward is our z, in the map's world
    with pytest.raises(ValueError, match="unity is left-handed"):
        cam_from_world.to("unity", keep_world=True)


@pytest.mark.parametrize("keep_world", [False, True])
@pytest.mark.parametrize("name", sorted(CONVENTIONS))
def test_there_and_back(name: str, keep_world: bool) -> None:
    if name == "unity" and keep_world:
        pytest.skip("left-handed axes cannot keep the world")
    w, t = torch.randn(2, 4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    pose = Pose(so3_exp(w), t)
    again = Pose.from_convention(pose.to(name, keep_world=keep_world), name, keep_world=keep_world)
    assert torch.allclose(again.R, pose.R, atol=1e-12) and torch.allclose(again.t, pose.t, atol=1e-12)


def test_names_and_devices_do_not_get_mixed_up() -> None:
    pose = Pose.identity()
    assert pose.to("cpu", torch.float64).dtype == torch.float64 and pose.to("meta").device.type == "meta"
    assert pose.to(dtype=torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="no convention 'openGL': one of opencv, colmap, opengl"):
        pose.to("openGL")
    with pytest.raises(ValueError, match="takes nothing else"):
        pose.to("ros", torch.float64)
    with pytest.raises(ValueError, match="belongs to the name"):
        pose.to("cpu", keep_world=True)
    with pytest.raises(ValueError, match="no convention 'vulkan'"):
        Pose.from_convention(pose, "vulkan")


def test_the_page_tells_the_table_that_is_applied() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "conventions.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (\w+), (\w+), (\w+) \| (world to camera|camera to world) \|", page, re.MULTILINE)
    told = {name: ((x, y, z), direction == "camera to world") for name, x, y, z, direction in rows}
    assert told == {name: (c.axes, c.camera_to_world) for name, c in CONVENTIONS.items()}
    assert {name for name, c in CONVENTIONS.items() if torch.linalg.det(c.matrix()) < 0} == {"unity"}
