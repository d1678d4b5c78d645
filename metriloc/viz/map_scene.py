"""The 3D view of a localisation: references, query, truth, the points the references see, and the way of an alignment."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.viz.localized import LocalizedQuery, reference_points
from metriloc.viz.scene import Scene, frustum_of
from metriloc.viz.words import has_pose

SCENE_POINTS = 2000
_WAY, _WAY_DOTS = (29, 160, 78), 120


def map_scene(entry: LocalizedQuery) -> Scene | None:
    """The scene of a photo that was looked for in a map. It has references, query and truth, and the points the
    references see, in the frame of the first reference camera; None where there is no pose (nor any step of an
    alignment that failed), or no reference can be read."""
    end = _end(entry)
    if end is None:
        return None
    seen = reference_points(entry)
    poses = [view.cam_from_world.to("cpu", torch.float64) for view in seen.views if view.cam_from_world is not None]
    if not poses:
        return None
    base_from_world, world_from_base = poses[0], poses[0].inverse()
    query = end @ world_from_base
    frusta = [
        frustum_of("reference", Path(view.name).stem, pose @ world_from_base, view)
        for view, pose in zip(seen.views, poses, strict=True)
    ]
    name = "query" if has_pose(entry.estimate) else "last step, no pose"
    frusta.insert(1, frustum_of("query", name, query, entry.query))
    # outlines alone: where the search began (PixLoc's does at a reference), and where it should have ended
    start = entry.details.stages[0] if entry.details.stages else None
    if start is not None and start.name in ("init", "start") and bool(start.cam_from_world.is_finite()):
        at = start.cam_from_world.to("cpu", torch.float64) @ world_from_base
        if min(float((at.center() - (pose @ world_from_base).center()).norm()) for pose in poses) > 1e-9:
            frusta.append(frustum_of("reference", start.name, at, entry.query, with_photo=False))
    if entry.truth is not None and bool(entry.truth.is_finite()):
        at = entry.truth.to("cpu", torch.float64) @ world_from_base
        frusta.append(frustum_of("truth", "true pose", at, entry.query, with_photo=False))
    chosen = np.linspace(0, len(seen.xyz) - 1, min(SCENE_POINTS, len(seen.xyz))).round().astype(int)
    points = base_from_world.transform(torch.from_numpy(seen.xyz[chosen])).numpy()
    way = base_from_world.transform(_way(entry)).numpy()
    points = np.concatenate([points, way])
    colors = np.concatenate([seen.colors[chosen], np.broadcast_to(np.array(_WAY, np.uint8), way.shape)])
    return Scene(tuple(frusta), points, colors, float(query.center().norm()), True)


def _end(entry: LocalizedQuery) -> Pose | None:
    """The pose, else where an alignment came to before it failed."""
    if has_pose(entry.estimate):
        return entry.estimate.pose.to("cpu", torch.float64)
    steps = [pose for course in entry.trace.courses for pose in course.poses if bool(pose.is_finite())]
    return steps[-1].to("cpu", torch.float64) if steps else None


def _way(entry: LocalizedQuery) -> Float[Tensor, "n 3"]:
    """Where the camera went, in the map, as a dotted line; nothing where the steps are not known."""
    steps = [pose for course in entry.trace.courses for pose in course.poses]
    if not steps:
        return torch.zeros(0, 3, dtype=torch.float64)
    poses = [*(stage.cam_from_world for stage in entry.details.stages[:1]), *steps]
    centers = torch.stack([pose.to("cpu", torch.float64).center() for pose in poses])
    centers = centers[torch.isfinite(centers).all(-1)]
    length = torch.cat([centers.new_zeros(1), (centers[1:] - centers[:-1]).norm(dim=-1).cumsum(0)])
    at = torch.linspace(0, float(length[-1]), _WAY_DOTS, dtype=torch.float64)
    low = (torch.searchsorted(length, at, right=True) - 1).clamp(0, max(0, len(length) - 2))
    high = (low + 1).clamp(max=len(length) - 1)
    share = (at - length[low]) / (length[high] - length[low]).clamp(min=1e-12)
    return centers[low] + share[:, None] * (centers[high] - centers[low])
