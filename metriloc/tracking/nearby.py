"""Which images of a map see what a camera sees whose pose is known about: no retrieval is needed then."""

from __future__ import annotations

import math

import torch

from metriloc.geometry import Camera, Pose
from metriloc.solvers.absolute_support import median_depth
from metriloc.types import SfmMap

_TURN = math.radians(25)  # by which two photos of one thing look clearly less alike


def nearby_images(scene: SfmMap, cam_from_world: Pose, camera: Camera, count: int) -> tuple[str, ...]:
    """Names of the images that share the most points with a view from there, and look the same way from about there;
    the best first, none where nothing is in view."""
    pose, camera = cam_from_world.to(torch.float64), camera.to(torch.float64)
    _, seen = camera.project(pose.transform(scene.xyz))
    if not bool(seen.any()):
        return ()
    shared = torch.bincount(scene.image_index[seen[scene.point_index]], minlength=len(scene)).double()
    depth = median_depth(pose, scene.xyz, camera)
    away = (scene.cam_from_world.center().double() - pose.center()).norm(dim=-1) / depth
    turn = scene.cam_from_world.to(torch.float64).angle_to(pose)
    score = shared * torch.exp(-away - turn / _TURN)
    best = score.argsort(descending=True)[:count]
    return tuple(scene.names[int(i)] for i in best if shared[i] > 0)
