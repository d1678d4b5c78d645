"""A query that was localised, with what pictures and reports draw from: stages, maps, steps, and points to show."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.maps import load_map_view, pixels_in
from metriloc.types import LocalizationDetails, PoseEstimate, SfmMap, Trace, View
from metriloc.viz.marks import project
from metriloc.viz.pictures import rgb_from_image
from metriloc.viz.words import has_pose

SHOWN_POINTS = 80
SHOWN_REFERENCES = 6


@dataclass(frozen=True, eq=False)
class LocalizedQuery:
    """One query and how it was localised.

    estimate: ``cam_from_world`` of batch shape (), with a trace where there is more to draw. truth: the true pose, if
    known. notes: what is to be known of the references, one sentence each.
    """

    query: View
    estimate: PoseEstimate
    scene: SfmMap
    truth: Pose | None = None
    notes: tuple[str, ...] = ()

    @property
    def details(self) -> LocalizationDetails:
        """Of the estimate, or empty ones."""
        return self.estimate.localization[0] if self.estimate.localization else LocalizationDetails()

    @property
    def trace(self) -> Trace:
        """Of the estimate, or an empty one."""
        return self.estimate.trace or Trace()

    @property
    def messages(self) -> tuple[str, ...]:
        """Notes, and what went wrong on the way."""
        return *self.notes, *self.details.messages


def pose_errors(pose: Pose, other: Pose) -> tuple[float, float]:
    """How far two poses are apart. It is (degrees between two orientations, distance of the two camera centers in units of
    the map)."""
    a, b = pose.to("cpu", torch.float64), other.to("cpu", torch.float64)
    return math.degrees(float(a.angle_to(b))), float(a.center_distance(b))


def shown_points(entry: LocalizedQuery, count: int = SHOWN_POINTS) -> Float[Tensor, "n 3"]:
    """Points to draw, evenly chosen.

    Those the last maps are of, else those that the references see, as far as the last stage (or the
    truth) puts them into the photo.
    """
    scene = entry.scene
    if entry.trace.maps:
        xyz = entry.trace.maps[-1].xyz
    else:
        known = [scene.index(name) for name in entry.details.references if name in scene.names]
        xyz = scene.xyz[scene.points_seen_by(known)]
    stages = [stage.cam_from_world for stage in entry.details.stages]
    pose = entry.estimate.pose if has_pose(entry.estimate) else stages[-1] if stages else entry.truth
    if pose is None or len(xyz) == 0:
        return xyz[:0]
    seen = torch.from_numpy(np.isfinite(project(entry.query.camera, pose, xyz)).all(-1)).nonzero().squeeze(-1)
    if len(seen) > count:
        seen = seen[torch.linspace(0, len(seen) - 1, count).round().long()]
    return xyz[seen]


@dataclass(frozen=True, eq=False)
class ReferencePoints:
    """The references that can be read, and their points. The points that they see have the colours they have there."""

    views: tuple[View, ...]
    xyz: Float[np.ndarray, "n 3"]
    colors: UInt8[np.ndarray, "n 3"]


def reference_points(entry: LocalizedQuery) -> ReferencePoints:
    """Of the references that were used, the first six."""
    scene, views, parts = entry.scene, [], [(np.zeros((0, 3)), np.zeros((0, 3), np.uint8))]
    taken = torch.zeros(len(scene.xyz), dtype=torch.bool)
    for name in entry.details.references[:SHOWN_REFERENCES]:
        image = scene.index(name)
        try:
            views.append(load_map_view(scene, image))
        except InputError:
            continue  # it was there a moment ago; the report can do without
        parts.append(_colored(scene, image, views[-1], taken))
    return ReferencePoints(tuple(views), np.concatenate([p for p, _ in parts]), np.concatenate([c for _, c in parts]))


def _colored(
    scene: SfmMap, image: int, view: View, taken: Tensor
) -> tuple[Float[np.ndarray, "n 3"], UInt8[np.ndarray, "n 3"]]:
    """Points an image sees that are not taken yet (and now are), with the colours it has there."""
    seen = scene.observations_of(image)
    points, uv = scene.point_index[seen], pixels_in(view, scene, image, scene.uv[seen])
    fresh = ~taken[points] & torch.isfinite(scene.xyz[points]).all(-1)
    taken[points] = True
    photo = rgb_from_image(view.image)
    at = uv[fresh].round().long().numpy()
    colors = photo[np.clip(at[:, 1], 0, photo.shape[0] - 1), np.clip(at[:, 0], 0, photo.shape[1] - 1)]
    return scene.xyz[points[fresh]].double().numpy(), colors
