"""From where a scene is first seen: the same for a still picture, the view of a report, and the live one."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from metriloc.viz.scene import Scene

_PAIR_PITCH, _MAP_PITCH = 0.45, 0.6
_SIDE = 0.4  # radians to the side of where cameras look


@dataclass(frozen=True, eq=False)
class Eye:
    """Where to look from, in the axes of the scene (y down).

    target: what it looks at. yaw: its direction, 0 along z, to x; pitch: downwards; radians. extent: how far from the target
    things are. frustum: how deep cameras are drawn. ground: the y of the grid.
    """

    target: Float[np.ndarray, "3"]
    yaw: float
    pitch: float
    extent: float
    frustum: float
    ground: float

    @property
    def axes(self) -> Float[np.ndarray, "3 3"]:
        """Right, up and back as rows."""
        sy, cy, sp, cp = math.sin(self.yaw), math.cos(self.yaw), math.sin(self.pitch), math.cos(self.pitch)
        forward, right = np.array([sy * cp, sp, cy * cp]), np.array([cy, 0.0, -sy])
        return np.stack([right, np.cross(right, forward), -forward])

    def place(self, distance: float) -> Float[np.ndarray, "3"]:
        """Where the eye is, ``distance`` extents from the target."""
        return self.target + distance * self.extent * self.axes[2]

    def to_json(self) -> dict[str, object]:
        """For the view of a report."""
        numbers = {
            name: float(f"{getattr(self, name):.6g}") for name in ("yaw", "pitch", "extent", "frustum", "ground")
        }
        return {**numbers, "target": [float(f"{v:.6g}") for v in self.target]}


def first_eye(scene: Scene) -> Eye:
    """The eye that has cameras and points in sight. It is a little above and behind the cameras."""
    centers = np.stack([f.center for f in scene.frusta]) if scene.frusta else np.zeros((1, 3))
    main = centers[:2] if scene.is_pair else centers
    between = main.mean(0) if scene.is_pair else np.median(main, 0)
    middle = np.median(scene.points, 0) if len(scene.points) else between
    target = (between + middle) / 2
    away = np.linalg.norm(np.concatenate([scene.points, centers]) - target, axis=1)
    far = np.linalg.norm(centers - target, axis=1)
    extent = max(float(np.quantile(away, 0.9 if scene.is_pair else 0.75)), float(far.max()), 1e-6)
    frustum = _frustum_size(scene, centers, extent)
    ends = np.concatenate([f.center + frustum * f.corners for f in scene.frusta] or [centers])
    lowest = float(np.quantile(scene.points[:, 1], 0.97)) if len(scene.points) else -math.inf
    ground = max(lowest, float(ends[:, 1].max()))
    pitch = _PAIR_PITCH if scene.is_pair else _MAP_PITCH
    eyes = [Eye(target, _forward_yaw(scene) + side, pitch, extent, frustum, ground) for side in (_SIDE, -_SIDE)]
    # from the side from which the cameras are further apart
    return max(eyes, key=lambda eye: float(np.ptp(main @ eye.axes[0])))


def _frustum_size(scene: Scene, centers: Float[np.ndarray, "n 3"], extent: float) -> float:
    if scene.is_pair:
        return min(max(0.18 * extent, 0.25 * scene.baseline), 0.35 * extent)
    if len(centers) < 2:
        return 0.12 * extent
    some = centers[:: math.ceil(len(centers) / 500)]
    apart = np.linalg.norm(some[:, None] - some[None], axis=-1)
    np.fill_diagonal(apart, np.inf)
    return min(max(0.6 * float(np.median(apart.min(0))), 0.06 * extent), 0.12 * extent)


def _forward_yaw(scene: Scene) -> float:
    """Where the cameras look on the whole, seen from above."""
    chosen = scene.frusta[:2] if scene.is_pair else scene.frusta
    looks = [f.corners.mean(0) / np.linalg.norm(f.corners.mean(0)) for f in chosen]
    forward = np.sum(looks, axis=0) if looks else np.array([0.0, 0.0, 1.0])
    return math.atan2(float(forward[0]), float(forward[2]))
