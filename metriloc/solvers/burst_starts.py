"""Where the reference of a burst may stand: starts for the refinement, each from other evidence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.solvers.absolute import absolute_pose
from metriloc.solvers.pinhole import pinhole_points
from metriloc.solvers.relative import essential_pose
from metriloc.solvers.tracks import Tracks
from metriloc.solvers.two_view import scale_from_depth

_NEEDED = 8
_PLENTY = 60  # points that PnP agrees on, with which the generalized camera has nothing to add
_ITERATIONS = 2000


def reference_starts(
    tracks: Tracks,
    xyz: Float[Tensor, "P 3"],
    fixed: Bool[Tensor, " P"],
    cam_from_device: Pose,
    cameras: Sequence[Camera],
    trusted: Sequence[int],
    max_error_px: float,
    seed: int,
) -> list[Pose]:
    """``reference_from_device`` by PnP, by the essential matrix with the newest good frame and the depths of ``xyz`` in
    it, and by all frames as one camera; float64.

    xyz: the points of the tracks as the frames see them, of which ``fixed`` ones are worth something.
    """
    starts: list[Pose] = []
    seen = fixed & tracks.seen[:, -1]
    agreeing = 0
    if int(seen.sum()) >= _NEEDED:
        found = absolute_pose(tracks.uv[seen, -1], xyz[seen], cameras[-1], 2 * max_error_px, seed)
        if found.pose is not None:
            starts.append(found.pose)
            agreeing = int(found.inliers.sum())
    both = [int((tracks.seen[:, f] & tracks.seen[:, -1]).sum()) for f in trusted]
    frame = trusted[max(range(len(trusted)), key=lambda k: (both[k], k))]
    pose = _by_essential(tracks, xyz, fixed, cam_from_device, cameras, frame, max_error_px, seed)
    if pose is not None:
        starts.append(pose)
    if agreeing < _PLENTY:
        pose = _as_one_camera(tracks, cam_from_device, cameras, trusted, max_error_px, seed)
        if pose is not None:
            starts.append(pose)
    return starts


def _by_essential(
    tracks: Tracks,
    xyz: Tensor,
    fixed: Tensor,
    cam_from_device: Pose,
    cameras: Sequence[Camera],
    frame: int,
    max_error_px: float,
    seed: int,
) -> Pose | None:
    """Rotation and direction from two photos, the length from the points that the frames place in one of them."""
    shared = tracks.seen[:, frame] & tracks.seen[:, -1]
    if int(shared.sum()) < _NEEDED:
        return None
    uv0, uv1 = tracks.uv[shared, frame], tracks.uv[shared, -1]
    pair = cameras[frame].to(torch.float64), cameras[-1].to(torch.float64)
    found = essential_pose(uv0, uv1, pair, max_error_px, seed, _ITERATIONS)
    if found.pose is None:
        return None
    depth = cam_from_device[frame].transform(xyz[shared])[:, 2]
    depth = torch.where(fixed[shared], depth, torch.nan)
    i = found.inliers
    scale = scale_from_depth(found.pose, uv0[i], depth[i], uv1[i], pair)
    if scale is None:
        return None
    return Pose(found.pose.R, found.pose.t * scale.scale).to(torch.float64) @ cam_from_device[frame]


def _as_one_camera(
    tracks: Tracks,
    cam_from_device: Pose,
    cameras: Sequence[Camera],
    trusted: Sequence[int],
    max_error_px: float,
    seed: int,
) -> Pose | None:
    """poselib's generalized relative pose: rays of the reference against rays of all frames at their device poses."""
    import poselib

    pairs, rig, models = list[Any](), list[Any](), list[Any]()
    points1, usable1, camera1 = pinhole_points(tracks.uv[:, -1], cameras[-1])
    for frame in trusted:
        points0, usable0, camera0 = pinhole_points(tracks.uv[:, frame], cameras[frame])
        shared = (tracks.seen[:, frame] & tracks.seen[:, -1]).numpy() & usable0 & usable1
        one = poselib.PairwiseMatches()
        one.cam_id1, one.cam_id2, one.x1, one.x2 = len(rig), 0, points0[shared], points1[shared]
        pairs.append(one)
        rig.append(_as_poselib(cam_from_device[frame]))
        models.append(camera0)
    if sum(len(one.x1) for one in pairs) < _NEEDED or sum(len(one.x1) > 0 for one in pairs) < 2:
        return None
    options = {"max_epipolar_error": max_error_px, "seed": seed, "max_iterations": _ITERATIONS}
    found, _ = poselib.estimate_generalized_relative_pose(
        pairs, rig, models, [_as_poselib(Pose.identity())], [camera1], options
    )
    pose = Pose(torch.from_numpy(np.array(found.R)), torch.from_numpy(np.array(found.t)).reshape(3))
    return pose if bool(pose.is_finite()) else None


def _as_poselib(pose: Pose) -> Any:
    import poselib

    found = poselib.CameraPose()
    found.R, found.t = pose.R.double().numpy(), pose.t.double().numpy()
    return found
