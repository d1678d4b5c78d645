"""Colors of what is seen: mip-mapped textures, baked light and sky.

A pixel that sees one patch only is shaded once; the others, at edges, are shaded at all nine samples and averaged with the
tent (1 2 1)/4, which costs little and leaves no jagged edges. Texture and light are looked up in patch coordinates, which
are ratios of affine functions of the pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metriloc.datasets.synthetic.mesh import Mesh
from metriloc.datasets.synthetic.render import Visible

Sky = Callable[[np.ndarray], np.ndarray]
CHUNK = 8192
"""Samples shaded at a time: small enough for the processor's cache."""
TENT = np.array([1, 2, 1, 2, 4, 2, 1, 2, 1], dtype=np.float32) / 16


@dataclass(frozen=True, eq=False)
class Atlas:
    """Square textures of one size with their mip levels, packed.

    Texels [N] of four bytes (r, g, b square-root coded), level_start: where each level begins
    within a texture; stride: texels a texture takes.
    """

    texels: np.ndarray
    size: int
    level_start: np.ndarray
    stride: int


@dataclass(frozen=True, eq=False)
class Lightmap:
    """Baked light. values [T,3]: linear light; start [P]: first texel of a patch; shape [P,2]: texels across and down."""

    values: np.ndarray
    start: np.ndarray
    shape: np.ndarray


def paint(visible: Visible, mesh: Mesh, atlas: Atlas, lightmap: Lightmap, sky: Sky) -> np.ndarray:
    """Linear colour [H,W,3]. sky: function of camera-frame rays [n,3] -> colour [n,3]."""
    ids = visible.patch
    height, width = visible.depth.shape
    center = ids[1::2, 1::2]
    mixed = np.zeros(center.shape, dtype=bool)
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            if (dy, dx) != (1, 1):
                mixed |= ids[dy : dy + 2 * height - 1 : 2, dx : dx + 2 * width - 1 : 2] != center
    rows, columns = np.nonzero(mixed)
    needed = np.zeros(ids.shape, dtype=bool)
    needed[1::2, 1::2] = True
    for dy in (0, 1, 2):
        for dx in (0, 1, 2):
            needed[2 * rows + dy, 2 * columns + dx] = True
    j, i = np.nonzero(needed)
    colors = np.zeros((*ids.shape, 3), dtype=np.float32)
    rays = np.stack([(0.5 * (i - 1) - visible.c[0]) / visible.f[0], (0.5 * (j - 1) - visible.c[1]) / visible.f[1]], 0)
    rays, sample = rays.astype(np.float32), ids[j, i]
    tables = Tables.of(visible, mesh)
    for begin in range(0, len(j), CHUNK):
        part = slice(begin, begin + CHUNK)
        colors[j[part], i[part]] = _shade(tables, sample[part], rays[:, part], atlas, lightmap, sky)
    image = np.ascontiguousarray(colors[1::2, 1::2])
    total = np.zeros((len(rows), 3), dtype=np.float32)
    for k, weight in enumerate(TENT):
        total += weight * colors[2 * rows + k // 3, 2 * columns + k % 3]
    image[rows, columns] = total
    return image


@dataclass(frozen=True, eq=False)
class Tables:
    """What shading looks up by patch, float32. All as in Mesh and Visible; step: pixel
    size in ray units (x, y)."""

    coefficients: np.ndarray
    repeats: np.ndarray
    tint: np.ndarray
    glow: np.ndarray
    texture: np.ndarray
    step: tuple[np.float32, np.float32]

    @classmethod
    def of(cls, visible: Visible, mesh: Mesh) -> Tables:
        """For one view."""
        step = (np.float32(1 / visible.f[0]), np.float32(1 / visible.f[1]))
        coefficients, repeats = visible.coefficients.astype(np.float32), mesh.repeats.astype(np.float32)
        return cls(coefficients, repeats, mesh.tint, mesh.glow, mesh.texture, step)


def _shade(tables: Tables, ids: np.ndarray, rays: np.ndarray, atlas: Atlas, lightmap: Lightmap, sky: Sky) -> np.ndarray:
    color = np.empty((len(ids), 3), dtype=np.float32)
    solid = ids >= 0
    everywhere = bool(solid.all())
    if not everywhere:
        x, y = rays[:, ~solid]
        color[~solid] = sky(np.stack([x, y, np.ones_like(x)], -1))
        ids, rays = ids[solid], rays[:, solid]
    x, y = rays
    k = np.ascontiguousarray(tables.coefficients.take(ids, 0).T)
    z = 1 / (k[6] * x + k[7] * y + k[8])
    a, b = (k[0] * x + k[1] * y + k[2]) * z, (k[3] * x + k[4] * y + k[5]) * z
    repeats = np.ascontiguousarray(tables.repeats.take(ids, 0).T)
    zx, zy = z * tables.step[0], z * tables.step[1]
    across, along = atlas.size * repeats[0], atlas.size * repeats[1]
    dx = np.square(across * zx * (k[0] - a * k[6])) + np.square(along * zx * (k[3] - b * k[6]))
    dy = np.square(across * zy * (k[1] - a * k[7])) + np.square(along * zy * (k[4] - b * k[7]))
    # between the long and the short axis of the footprint: no plain blur at grazing angles, little aliasing
    longer, shorter = np.maximum(dx, dy), np.minimum(dx, dy)
    level = np.float32(0.35) * np.log2(longer + np.float32(1e-12)) + np.float32(0.15) * np.log2(
        shorter + np.float32(1e-12)
    )
    albedo = _texture(atlas, tables.texture[ids], a * repeats[0] + repeats[2], b * repeats[1] + repeats[3], level)
    albedo *= albedo
    albedo *= tables.tint.take(ids, 0)
    light = _light(lightmap, ids, a, b)
    light += tables.glow[ids][:, None]
    albedo *= light
    if everywhere:
        return albedo
    color[solid] = albedo
    return color


def _texture(atlas: Atlas, index: np.ndarray, s: np.ndarray, t: np.ndarray, level: np.ndarray) -> np.ndarray:
    """Trilinear lookup with repetition, square-root coded colour 0..1 [n,3]."""
    last = len(atlas.level_start) - 1
    level = np.clip(level, 0, last - 1e-3)
    lower = level.astype(np.int64)
    blend = level - lower
    s, t = s - np.floor(s), t - np.floor(t)
    base = index.astype(np.int64) * atlas.stride
    total = np.zeros((len(s), 3), dtype=np.float32)
    for up, weight in ((0, 1 - blend), (1, blend)):
        at = lower + up
        size = atlas.size >> at
        begin = base + atlas.level_start[at]
        u, v = s * size - np.float32(0.5), t * size - np.float32(0.5)
        i, j = np.floor(u), np.floor(v)
        fu, fv = u - i, v - j
        mask = size - 1
        i0, j0 = i.astype(np.int64), j.astype(np.int64)
        i1, j1 = (i0 + 1) & mask, (j0 + 1) & mask
        i0, j0 = i0 & mask, j0 & mask
        top, bottom = begin + j0 * size, begin + j1 * size
        weighted = weight * fv
        rest = weight - weighted
        for where, share in (
            (top + i0, rest * (1 - fu)),
            (top + i1, rest * fu),
            (bottom + i0, weighted * (1 - fu)),
            (bottom + i1, weighted * fu),
        ):
            texel = atlas.texels.take(where).view(np.uint8).reshape(-1, 4)
            total += texel[:, :3] * share[:, None]
    total *= np.float32(1 / 255)
    return total


def _light(lightmap: Lightmap, ids: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Bilinear lookup of the baked light, clamped to the patch, [n,3]."""
    nu, nv = lightmap.shape[ids].T
    start = lightmap.start[ids]
    u, v = np.clip(a * nu - 0.5, 0, nu - 1), np.clip(b * nv - 0.5, 0, nv - 1)
    i, j = u.astype(np.int64), v.astype(np.int64)
    fu, fv = (u - i).astype(np.float32), (v - j).astype(np.float32)
    i1, j1 = np.minimum(i + 1, nu - 1), np.minimum(j + 1, nv - 1)
    row, row1 = start + j * nu, start + j1 * nu
    values = lightmap.values
    out = values.take(row + i, 0) * ((1 - fu) * (1 - fv))[:, None]
    out += values.take(row + i1, 0) * (fu * (1 - fv))[:, None]
    out += values.take(row1 + i, 0) * ((1 - fu) * fv)[:, None]
    out += values.take(row1 + i1, 0) * (fu * fv)[:, None]
    return out
