"""Baked light of the synthetic scenes: sun, lamps, windows, sky and the shade of corners, on a coarse grid of every patch.

Rays are tested against the bounding boxes of the solids (slab test, all boxes at once). The grid is fine enough for contact
shadows (about ten texels a metre indoors) and is looked up bilinearly, which also makes the shadows' edges soft.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from metriloc.datasets.synthetic.mesh import Mesh
from metriloc.datasets.synthetic.shading import Lightmap

LIFT = 0.012
"""Rays start this far (metres) off their surface."""
CHUNK = 256
MAX_TEXELS = 40
DARKEST = 0.15
"""Share of the light from all around that reaches a closed corner."""


@dataclass(frozen=True, eq=False)
class Lamp:
    """Points [n,3] that share one light of that colour. normal: the direction a window shines in, or None for all round."""

    points: np.ndarray
    color: np.ndarray
    normal: np.ndarray | None = None


@dataclass(frozen=True, eq=False)
class Lighting:
    """All light of a scene.

    ambient: colour of the light from all around; ground: of what comes from below. sun: direction towards it, None for no
    sun; sun_colour. openings: for a room, (top left corner, normal into the room, right, down) of the windows the sun enters
    by, None outdoors. room: (low, high) inner corners that bound rays, None outdoors. reach: metres within which things
    shade a corner. texels_a_metre: of the grid, near the cameras.
    """

    ambient: np.ndarray
    ground: np.ndarray
    lamps: tuple[Lamp, ...] = ()
    sun: np.ndarray | None = None
    sun_color: np.ndarray = field(default_factory=lambda: np.zeros(3))
    openings: tuple[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray], ...] | None = None
    room: tuple[np.ndarray, np.ndarray] | None = None
    reach: float = 1.0
    texels_a_metre: float = 9.0


@dataclass(frozen=True, eq=False)
class Blockers:
    """The mesh's bounding boxes, ready for rays; float32. index: which box of the mesh each is; radius: half the diagonal."""

    center: np.ndarray
    half: np.ndarray
    cos: np.ndarray
    sin: np.ndarray
    radius: np.ndarray
    index: np.ndarray

    @classmethod
    def of(cls, mesh: Mesh) -> Blockers:
        """All of them."""
        half = np.maximum(mesh.block_half - 0.004, 0.002)
        quarter = np.round(mesh.block_yaw / (np.pi / 2))
        half = np.where(quarter[:, None] % 2 == 1, half[:, [1, 0, 2]], half)
        turn = mesh.block_yaw - quarter * np.pi / 2  # a quarter turn only swaps width and depth
        arrays = (mesh.block_center, half, np.cos(turn), np.sin(turn), np.linalg.norm(half, axis=1))
        return cls(*(a.astype(np.float32) for a in arrays), np.arange(len(turn)))  # type: ignore[call-arg]

    def near(self, start: np.ndarray, end: np.ndarray, distance: float) -> Blockers:
        """Those whose sphere comes within ``distance`` of the segment from ``start`` to ``end``."""
        way = end - start
        along = ((self.center - start) @ way / max(float(way @ way), 1e-12)).clip(0, 1)
        keep = np.linalg.norm(self.center - start - along[:, None] * way, axis=1) < distance + self.radius
        kept = (a[keep] for a in (self.center, self.half, self.cos, self.sin, self.radius, self.index))
        return Blockers(*kept)

    def distance(self, start: np.ndarray, ray: np.ndarray, own: np.ndarray) -> np.ndarray:
        """How far each ray [n,3] from its start gets before it meets a box, other than box ``own`` [n]; infinity if none."""
        way = np.full(len(start), np.inf, dtype=np.float32)
        straight = np.abs(self.sin) < 1e-6
        if straight.any():  # most boxes are: no turning, and one division a ray
            p = [start[:, k, None] - self.center[straight, k] for k in range(3)]
            way = self._slabs(p, [ray[:, k, None] for k in range(3)], straight, own)
        if not straight.all():
            turned = ~straight
            c, s, center = self.cos[turned], self.sin[turned], self.center[turned]
            x, y = start[:, :1] - center[:, 0], start[:, 1:2] - center[:, 1]
            rx, ry = ray[:, :1], ray[:, 1:2]
            p = [c * x + s * y, c * y - s * x, start[:, 2:] - center[:, 2]]
            way = np.minimum(way, self._slabs(p, [c * rx + s * ry, c * ry - s * rx, ray[:, 2:]], turned, own))
        return way

    def _slabs(self, p: list[np.ndarray], d: list[np.ndarray], which: np.ndarray, own: np.ndarray) -> np.ndarray:
        shape = p[0].shape
        enter, leave = np.full(shape, -np.inf, np.float32), np.full(shape, np.inf, np.float32)
        for k in range(3):
            inverse = 1 / (d[k] + np.float32(1e-9))
            middle, reach = p[k] * inverse, self.half[which, k] * np.abs(inverse)
            np.maximum(enter, -middle - reach, out=enter)
            np.minimum(leave, reach - middle, out=leave)
        hit = (enter < leave) & (leave > 0) & (self.index[which] != own[:, None])
        return np.where(hit, np.maximum(enter, 0), np.float32(np.inf)).min(1)


def bake(mesh: Mesh, lighting: Lighting, low: np.ndarray, high: np.ndarray) -> Lightmap:
    """Light at the grid points of every patch.

    Fine where cameras between ``low`` and ``high`` come near.
    """
    shape = _grid_shape(mesh, lighting, low, high)
    count = shape.prod(1)
    start = np.concatenate([[0], np.cumsum(count)[:-1]])
    patch = np.repeat(np.arange(len(count)), count)
    within = np.arange(len(patch)) - start[patch]
    across, down = within % shape[patch, 0], within // shape[patch, 0]
    rounded = (mesh.axis[patch] != 0).any(1)
    # round solids take their light at the very edges of facets, so that neighbours agree there
    a = np.where(rounded, across / np.maximum(shape[patch, 0] - 1, 1), (across + 0.5) / shape[patch, 0])
    b = np.where(rounded, down / np.maximum(shape[patch, 1] - 1, 1), (down + 0.5) / shape[patch, 1])
    points = mesh.origin[patch] + a[:, None] * mesh.right[patch] + b[:, None] * mesh.down[patch]
    normal = _normals(mesh, patch, points)
    points = (points + LIFT * normal).astype(np.float32)
    values = np.zeros((len(patch), 3), dtype=np.float32)
    blockers, own = Blockers.of(mesh), mesh.owner[patch]
    for begin in range(0, len(patch), CHUNK):
        part = slice(begin, begin + CHUNK)
        values[part] = _light_at(points[part], normal[part].astype(np.float32), own[part], blockers, lighting)
    return Lightmap(values, start, shape)


def _grid_shape(mesh: Mesh, lighting: Lighting, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """[P,2] grid points across and down: fewer far away, one where no camera sees the patch's front."""
    length = np.stack([np.linalg.norm(mesh.right, axis=1), np.linalg.norm(mesh.down, axis=1)], 1)
    corners = np.stack([mesh.origin + a * mesh.right + b * mesh.down for a in (0, 1) for b in (0, 1)])
    gap = np.maximum(np.maximum(low - corners.max(0), corners.min(0) - high), 0)
    density = lighting.texels_a_metre / np.maximum(np.linalg.norm(gap, axis=1) / 2.5, 1)
    shape = np.clip(np.ceil(length * density[:, None]), 1, MAX_TEXELS).astype(np.int64)
    shape[(mesh.axis != 0).any(1)] = 2  # facets of round solids: enough to blend into their neighbours
    extreme = np.where(mesh.normal > 0, high, low)  # the camera that is farthest in front of the patch
    hidden = ((extreme - mesh.origin) * mesh.normal).sum(1) < 0
    shape[hidden | (mesh.glow > 0)] = 1
    return shape


def _normals(mesh: Mesh, patch: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The patch's normal, or for a round solid that of the smooth surface."""
    flat, axis = mesh.normal[patch], mesh.axis[patch]
    radial = points - mesh.axis_point[patch]
    radial -= axis * (radial * axis).sum(-1, keepdims=True)
    radial /= np.maximum(np.linalg.norm(radial, axis=-1, keepdims=True), 1e-9)
    tilt = (flat * axis).sum(-1, keepdims=True)
    smooth = axis * tilt + radial * np.sqrt(np.maximum(1 - tilt**2, 0))
    return np.where((axis != 0).any(-1, keepdims=True), smooth, flat)


def _light_at(
    points: np.ndarray, normal: np.ndarray, own: np.ndarray, blockers: Blockers, light: Lighting
) -> np.ndarray:
    middle = 0.5 * (points.min(0) + points.max(0))
    radius = float(np.linalg.norm(points - middle, axis=1).max())
    up = 0.5 * (1 + normal[:, 2:])
    openness = _openness(points, normal, own, blockers.near(middle, middle, radius + light.reach), light)
    total = (light.ground * (1 - up) + light.ambient * up) * openness[:, None]
    if light.sun is not None:
        share = (normal @ light.sun.astype(np.float32)).clip(0) * _sun_enters(points, light)
        lit = np.nonzero(share > 0)[0]
        if len(lit):
            between = blockers.near(middle, middle + 100 * light.sun, radius)
            rays = np.broadcast_to(light.sun.astype(np.float32), (len(lit), 3))
            share[lit] *= np.isinf(between.distance(points[lit], rays, own[lit]))
            total = total + share[:, None] * light.sun_color
    for lamp in light.lamps:
        total = total + _lamp_light(points, normal, own, blockers.near(middle, lamp.points.mean(0), radius + 0.5), lamp)
    return total


def _lamp_light(points: np.ndarray, normal: np.ndarray, own: np.ndarray, between: Blockers, lamp: Lamp) -> np.ndarray:
    towards = (lamp.points - points[:, None]).astype(np.float32)
    far = np.maximum(np.linalg.norm(towards, axis=2), 1e-6)
    rays = towards / far[..., None]
    share = (normal[:, None] * rays).sum(2).clip(0) / (0.15 + far**2) / len(lamp.points)
    if lamp.normal is not None:
        share *= (-rays @ lamp.normal.astype(np.float32)).clip(0)
    n = len(lamp.points)
    way = between.distance(np.repeat(points, n, 0), rays.reshape(-1, 3), np.repeat(own, n)).reshape(far.shape)
    return (share * (way > far - 0.05)).sum(1)[:, None] * lamp.color


def _sun_enters(points: np.ndarray, light: Lighting) -> np.ndarray:
    """1 where the way to the sun leaves the room through a window, and everywhere outdoors."""
    if light.openings is None or light.sun is None:
        return np.ones(len(points))
    inside = np.zeros(len(points))
    for origin, normal, right, down in light.openings:
        slope = float(light.sun @ normal)
        if slope >= -1e-3:  # the sun is behind this wall
            continue
        crossing = points + (((origin - points) @ normal) / slope)[:, None] * light.sun - origin
        a, b = crossing @ right / (right @ right), crossing @ down / (down @ down)
        inside = np.maximum(inside, (a > 0.04) & (a < 0.96) & (b > 0.04) & (b < 0.96))
    return inside


# a fixed fan of directions around the normal: (slant, turn), the same for all points of a patch, so that shade has no grain
FAN = ((0.0, 0.0), *((0.75, 0.4 * k * np.pi) for k in range(5)), *((1.25, (k + 0.5) * np.pi / 2) for k in range(4)))


def _openness(points: np.ndarray, normal: np.ndarray, own: np.ndarray, near: Blockers, light: Lighting) -> np.ndarray:
    """From dark in a closed corner to 1 in the open: how far rays around the normal get, up to ``reach``."""
    helper = np.where(np.abs(normal[:, 2:]) > 0.9, np.array([[1.0, 0.0, 0.0]]), np.array([[0.0, 0.0, 1.0]]))
    side = np.cross(helper, normal)
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(normal, side)
    slant, turn = np.array(FAN).T
    rays = normal[:, None] * np.cos(slant)[:, None] + np.sin(slant)[:, None] * (
        np.cos(turn)[:, None] * side[:, None] + np.sin(turn)[:, None] * other[:, None]
    )
    starts, rays = np.repeat(points, len(FAN), 0), rays.reshape(-1, 3).astype(np.float32)
    way = near.distance(starts, rays, np.repeat(own, len(FAN)))
    if light.room is not None:
        low, high = (corner.astype(np.float32) for corner in light.room)
        safe = np.where(np.abs(rays) < 1e-6, np.float32(1e-6), rays)
        way = np.minimum(way, (np.where(safe > 0, high - starts, low - starts) / safe).min(1).clip(0))
    share = np.cos(slant) + 0.25
    return DARKEST + (1 - DARKEST) * np.sqrt(np.minimum(way / light.reach, 1)).reshape(len(points), -1) @ (
        share / share.sum()
    )
