"""Poses for other programs: the same pose as OpenGL, ROS or COLMAP would write it, and back again.

python examples/08_other_conventions.py
"""

from importlib.resources import files

import torch

import metriloc
from metriloc.io import read_mapfree_poses

# where the camera of the example's query stood: world to camera, OpenCV axes (x right, y down, z forward)
pose = read_mapfree_poses(files("metriloc") / "data" / "example" / "poses.txt")["query.jpg"]
x, y, z = pose.center().tolist()
print(f"{'metriloc':<12} the camera at {x:+.2f} m, {y:+.2f} m, {z:+.2f} m")

for name in ("colmap", "opengl", "arkit", "unity", "ros", "nerfstudio"):
    other = pose.to(name)
    print(f"{name:<12}", [[round(value, 2) for value in row] for row in other.matrix()[:3].tolist()])
    back = metriloc.Pose.from_convention(other, name)
    assert torch.allclose(back.matrix(), pose.matrix(), atol=1e-9)
