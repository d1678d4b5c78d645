"""Solids of the synthetic scenes: boxes, prisms and turned shapes made of textured flat patches, in metres.

World frame: x and y horizontal, z up. A patch is a parallelogram ``origin + a right + b down`` (0 <= a, b <= 1) seen from
outside, cut to a convex polygon if it is not a whole rectangle; quads of polygons are what the renderer draws, patches are
what carries texture and light. Every solid also leaves its bounding box, which blocks light and cameras.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from metriloc.datasets.synthetic.mesh import Material, Mesh, PlacedObject, Vector

SQUARE = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
MIN_BLOCKER = 0.07
"""Solids smaller than this (metres, longest side) throw no shadow."""


class _Patch(NamedTuple):
    """What ``Builder.patch`` keeps."""

    origin: Vector
    right: Vector
    down: Vector
    material: Material
    repeats: tuple[float, float, float, float]
    owner: int
    axis: Vector
    axis_point: Vector


@dataclass
class Builder:
    """Collects solids; positions are relative to the current place (see ``at``)."""

    patches: list[_Patch] = field(default_factory=list)
    quads: list[tuple[tuple[float, float], ...]] = field(default_factory=list)
    patch_of: list[int] = field(default_factory=list)
    blockers: list[tuple[Vector, Vector, float]] = field(default_factory=list)
    objects: list[PlacedObject] = field(default_factory=list)
    place: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)

    @contextmanager
    def at(self, x: float, y: float, z: float = 0.0, yaw: float = 0.0) -> Iterator[Builder]:
        """Move the origin there, turned by ``yaw`` radians, for what is built inside the ``with``."""
        before = self.place
        self.place = (*self.to_world((x, y, z)), before[3] + yaw)
        yield self
        self.place = before

    def to_world(self, xyz: Sequence[float] | np.ndarray) -> Vector:
        """A local point -> world."""
        x, y, z = self.turned(xyz)
        return x + self.place[0], y + self.place[1], z + self.place[2]

    def turned(self, xyz: Sequence[float] | np.ndarray) -> Vector:
        """A local direction -> world."""
        x, y, z = float(xyz[0]), float(xyz[1]), float(xyz[2])
        c, s = math.cos(self.place[3]), math.sin(self.place[3])
        return c * x - s * y, s * x + c * y, z

    # -- parts ----------------------------------------------------------------------------------------------------
    def patch(
        self,
        origin: Sequence[float] | np.ndarray,
        right: Sequence[float] | np.ndarray,
        down: Sequence[float] | np.ndarray,
        material: Material,
        polygon: Sequence[tuple[float, float]] = SQUARE,
        shift: tuple[float, float] | None = None,
        axis: Vector | None = None,
    ) -> None:
        """A flat face seen from the side its normal ``-(right x down)`` points to; ``polygon`` is convex, in (a, b).

        shift: metres right and down at which the texture starts (None: anywhere, so that equal things do not look equal);
        axis: direction through the current place about which the solid is round, for smooth light. Faces without area are
        left out.
        """
        o, u, v = self.to_world(origin), self.turned(right), self.turned(down)
        size_u, size_v = math.hypot(*u), math.hypot(*v)
        if size_u < 1e-6 or size_v < 1e-6:
            return
        tile = material.tile
        if tile is None:
            repeats = (1.0, 1.0, 0.0, 0.0)
        else:
            start = 0.37 * len(self.patches)
            begin = (start, 0.61 * start) if shift is None else (shift[0] / tile[0], shift[1] / tile[1])
            repeats = (size_u / tile[0], size_v / tile[1], *begin)
        owner = len(self.blockers) - 1 if self._owning else -1
        direction, point = ((0.0, 0.0, 0.0),) * 2 if axis is None else (self.turned(axis), self.place[:3])
        self.patches.append(_Patch(o, u, v, material, repeats, owner, direction, point))
        for k in range(1, len(polygon) - 1, 2):
            self.quads.append((polygon[0], polygon[k], polygon[k + 1], polygon[min(k + 2, len(polygon) - 1)]))
            self.patch_of.append(len(self.patches) - 1)

    _owning: bool = False

    @contextmanager
    def _solid(self, low: Vector, high: Vector) -> Iterator[None]:
        size = tuple(h - b for b, h in zip(low, high, strict=True))
        center = self.to_world([(b + h) / 2 for b, h in zip(low, high, strict=True)])
        self._owning = max(size) >= MIN_BLOCKER
        if self._owning:
            self.blockers.append((center, (size[0] / 2, size[1] / 2, size[2] / 2), self.place[3]))
        yield
        self._owning = False

    def box(self, low: Vector, high: Vector, material: Material, **faces: Material | None) -> None:
        """A box between two corners.

        ``faces`` names other materials, or None for no face: front (-y), back, left (-x), right,
        top, bottom.
        """
        (x0, y0, z0), (x1, y1, z1) = low, high
        w, d, h = x1 - x0, y1 - y0, z1 - z0
        with self._solid(low, high):
            parts: list[tuple[str, Vector, Vector, Vector]] = [
                ("front", (x0, y0, z1), (w, 0, 0), (0, 0, -h)),
                ("back", (x1, y1, z1), (-w, 0, 0), (0, 0, -h)),
                ("left", (x0, y1, z1), (0, -d, 0), (0, 0, -h)),
                ("right", (x1, y0, z1), (0, d, 0), (0, 0, -h)),
                ("top", (x0, y1, z1), (w, 0, 0), (0, -d, 0)),
            ]
            if self.place[2] + z0 > 0.03:
                parts.append(("bottom", (x0, y0, z0), (w, 0, 0), (0, d, 0)))
            for name, origin, right, down in parts:
                surface = faces.get(name, material)
                if surface is not None:
                    self.patch(origin, right, down, surface)

    def block(self, x: float, y: float, z: float, size: Vector, material: Material, **faces: Material | None) -> None:
        """A box that stands with the middle of its bottom at (x, y, z)."""
        w, d, h = size
        self.box((x - w / 2, y - d / 2, z), (x + w / 2, y + d / 2, z + h), material, **faces)

    def ground(
        self, low: tuple[float, float], high: tuple[float, float], z: float, material: Material, step: float = 4.0
    ) -> None:
        """A level floor of patches about ``step`` metres wide, so that light is fine where cameras are."""
        columns, rows = (max(round((b - a) / step), 1) for a, b in zip(low, high, strict=True))
        w, d = (high[0] - low[0]) / columns, (high[1] - low[1]) / rows
        for i in range(columns):
            for j in range(rows):
                self.patch((low[0] + i * w, high[1] - j * d, z), (w, 0, 0), (0, -d, 0), material, shift=(i * w, j * d))

    def prism(
        self, profile: Sequence[tuple[float, float]], y0: float, y1: float, side: Material, cap: Material | None = None
    ) -> None:
        """A convex profile in (x, z), anticlockwise as seen from -y, drawn out from y0 to y1."""
        points = np.array(profile, dtype=np.float64)
        (x0, z0), (x1, z1) = points.min(0), points.max(0)
        w, h = x1 - x0, z1 - z0
        with self._solid((x0, y0, z0), (x1, y1, z1)):
            front = [((x - x0) / w, (z1 - z) / h) for x, z in points[::-1]]
            back = [(1 - a, b) for a, b in front[::-1]]
            self.patch((x0, y0, z1), (w, 0, 0), (0, 0, -h), cap or side, front)
            self.patch((x1, y1, z1), (-w, 0, 0), (0, 0, -h), cap or side, back)
            traveled = 0.0
            for (xa, za), (xb, zb) in zip(points, np.roll(points, -1, 0), strict=True):
                # walking anticlockwise as seen from -y, the outside is on the right hand
                self.patch((xa, y1, za), (0, y0 - y1, 0), (xb - xa, 0, zb - za), side, shift=(0.0, traveled))
                traveled += math.hypot(xb - xa, zb - za)

    def turned_solid(
        self,
        profile: Sequence[tuple[float, float]],
        material: Material,
        sides: int = 10,
        squash: float = 1.0,
        cap: Material | None = None,
    ) -> None:
        """A solid of revolution about z, in facets.

        ``profile`` is (radius, z) from bottom to top; ``squash`` scales y.
        """
        radius = max(r for r, _ in profile)
        low, high = profile[0][1], profile[-1][1]
        angle = 2 * math.pi * np.arange(sides + 1) / sides
        ring = np.stack([np.cos(angle), squash * np.sin(angle), np.zeros(sides + 1)], -1)
        up = np.array([0.0, 0.0, 1.0])
        fit = 0.85 * radius
        with self._solid((-fit, -fit * squash, low), (fit, fit * squash, high)):
            for (r0, z0), (r1, z1) in pairwise(profile):
                for i in range(sides):
                    a, b = ring[i] * r0 + up * z0, ring[i + 1] * r0 + up * z0
                    around = (2 * math.pi * radius * i / sides, -z1)
                    self._facet(a, b, (ring[i], ring[i + 1], r1, z1), material, around)
            for r, z, top in ((profile[-1][0], high, True), (profile[0][0], low, False)):
                if r > 1e-3 and (top or self.place[2] + z > 0.03):
                    corners = [
                        ((1 + c) / 2, (1 - s) / 2) for c, s in zip(np.cos(angle[:-1]), np.sin(angle[:-1]), strict=True)
                    ]
                    sign = 1.0 if top else -1.0
                    self.patch(
                        (-r, sign * r * squash, z),
                        (2 * r, 0, 0),
                        (0, -sign * 2 * r * squash, 0),
                        cap or material,
                        corners[::-1],
                    )

    def _facet(self, a: np.ndarray, b: np.ndarray, top: tuple, material: Material, around: tuple[float, float]) -> None:
        """One trapezoid of a turned solid: bottom edge a -> b (anticlockwise from above), top edge at radius and height."""
        ring_a, ring_b, r1, z1 = top
        up = np.array([0.0, 0.0, 1.0])
        c, d = ring_b * r1 + up * z1, ring_a * r1 + up * z1
        wide = b - a if np.linalg.norm(b - a) >= np.linalg.norm(c - d) else c - d
        length = np.linalg.norm(wide)
        if length < 1e-9:
            return
        direction = wide / length
        across = ((c + d) - (a + b)) / 2
        slope = across - direction * (across @ direction)
        origin = (c + d) / 2 - wide / 2
        corner = [
            (float((p - origin) @ direction / length), float((p - origin) @ -slope / (slope @ slope)))
            for p in (d, c, b, a)
        ]
        self.patch(origin, wide, -slope, material, corner, around, (0.0, 0.0, 1.0))

    def named(self, name: str, size: Vector, z: float = 0.0) -> None:
        """Record the thing just built around the current place, standing at height z."""
        x, y, base, yaw = self.place
        self.objects.append(PlacedObject(name, (x, y, base + z + size[2] / 2), size, yaw))

    def mesh(self) -> Mesh:
        """Everything built so far."""
        columns = [list(column) for column in zip(*self.patches, strict=True)]
        origin, right, down = (np.array(columns[k]) for k in range(3))
        normal = -np.cross(right, down)
        normal /= np.linalg.norm(normal, axis=1, keepdims=True)
        materials: list[Material] = columns[3]
        patch_of, ab = np.array(self.patch_of), np.array(self.quads)
        corners = origin[patch_of, None] + ab[..., :1] * right[patch_of, None] + ab[..., 1:] * down[patch_of, None]
        centers, halves, yaws = zip(*self.blockers, strict=True) if self.blockers else ((), (), ())
        return Mesh(
            origin=origin,
            right=right,
            down=down,
            normal=normal,
            texture=np.array([m.texture for m in materials]),
            repeats=np.array(columns[4]),
            tint=np.array([m.tint for m in materials], dtype=np.float32),
            glow=np.array([m.glow for m in materials], dtype=np.float32),
            owner=np.array(columns[5]),
            axis=np.array(columns[6]),
            axis_point=np.array(columns[7]),
            quads=corners,
            patch_of=patch_of,
            block_center=np.array(centers).reshape(-1, 3),
            block_half=np.array(halves).reshape(-1, 3),
            block_yaw=np.array(yaws).reshape(-1),
        )
