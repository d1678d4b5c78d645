"""Draw a mesh of textured quads on the CPU: a scan-line rasteriser in numpy with exact depth at pixel centres.

Visibility is found on a grid of half pixels (2W+1 by 2H+1), so that every pixel has its centre and eight neighbours. A pixel
that sees one patch only is shaded once, with mip-mapped texture; the others, at edges, are shaded at all nine samples and
averaged with the tent (1 2 1)/4, which costs little and leaves no jagged edges. Texture and light are looked up in patch
coordinates, which are ratios of affine functions of the pixel.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metriloc.datasets.synthetic.shapes import Mesh
from metriloc.geometry import Camera, Pose

Sky = Callable[[np.ndarray], np.ndarray]
CHUNK = 8192
"""Samples shaded at a time: small enough for the processor's cache."""
NEAR = 0.03
"""Nothing nearer than this (metres) is drawn."""
TENT = np.array([1, 2, 1, 2, 4, 2, 1, 2, 1], dtype=np.float32) / 16


@dataclass(frozen=True, eq=False)
class Atlas:
    """Square textures of one size with their mip levels, packed: texels [N] of four bytes (r, g, b square-root coded),
    level_start: where each level begins within a texture; stride: texels a texture takes."""

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


@dataclass(frozen=True, eq=False)
class Visible:
    """What each half-pixel sample sees. patch [2H+1,2W+1] (-1: sky); depth [H,W]: metres along z at pixel centres, 0 for sky;
    coefficients [P,9]: (a w, b w, w) of a patch as affine functions of the ray (x, y, 1), w = 1/z."""

    patch: np.ndarray
    depth: np.ndarray
    coefficients: np.ndarray
    f: np.ndarray
    c: np.ndarray


def look_through(mesh: Mesh, camera: Camera, cam_from_world: Pose) -> Visible:
    """Which patch is seen where, and the exact depth. The camera must be a single pinhole camera (the caller checks)."""
    R, t = cam_from_world.R.double().numpy(), cam_from_world.t.double().numpy()
    f, c = camera.f.double().numpy(), camera.c.double().numpy()
    width, height = (round(float(x)) for x in camera.size)
    coefficients = _patch_coefficients(mesh, R, t)
    facing = ((-R.T @ t - mesh.origin) * mesh.normal).sum(-1) > 1e-6
    index = np.nonzero(facing[mesh.patch_of])[0]
    corners = mesh.quads[index] @ R.T + t
    corners, owner = _in_view(corners, mesh.patch_of[index], f, c, (width, height))
    patch = np.full((2 * height + 1, 2 * width + 1), -1, dtype=np.int32)
    if len(corners):
        _fill(patch, corners, owner, coefficients, f, c)
    center = patch[1::2, 1::2]
    rays_x, rays_y = (np.arange(width) - c[0]) / f[0], (np.arange(height) - c[1]) / f[1]
    plane = coefficients[np.maximum(center, 0), 6:]
    inverse = plane[..., 0] * rays_x + plane[..., 1] * rays_y[:, None] + plane[..., 2]
    depth = np.where(center >= 0, 1 / np.where(center >= 0, inverse, 1.0), 0.0)
    return Visible(patch, depth, coefficients, f, c)


def _patch_coefficients(mesh: Mesh, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """[P,9]: with X = z (x, y, 1), the plane gives w = 1/z affine in (x, y), and a = p.(X - o), b = q.(X - o) give a w, b w."""
    o, u, v = mesh.origin @ R.T + t, mesh.right @ R.T, mesh.down @ R.T
    n = np.cross(
        v, u
    )  # not R n: a float32 rotation is not quite orthogonal, and depth shall be exact for the given numbers
    d = (n * o).sum(-1, keepdims=True)
    w = n / np.where(np.abs(d) < 1e-9, 1e-9, d)
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    det = uu * vv - uv * uv
    p = (u * vv[:, None] - v * uv[:, None]) / det[:, None]
    q = (v * uu[:, None] - u * uv[:, None]) / det[:, None]
    a = p - w * (p * o).sum(-1, keepdims=True)
    b = q - w * (q * o).sum(-1, keepdims=True)
    return np.concatenate([a, b, w], 1)


def _in_view(
    corners: np.ndarray, owner: np.ndarray, f: np.ndarray, c: np.ndarray, size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Quads [n,4,3] that can be seen, in front of the near plane (cut there if they cross it, which adds quads)."""
    left, right = (-0.5 - c[0]) / f[0], (size[0] - 0.5 - c[0]) / f[0]
    top, bottom = (-0.5 - c[1]) / f[1], (size[1] - 0.5 - c[1]) / f[1]
    x, y, z = corners[..., 0], corners[..., 1], corners[..., 2]
    outside = (z <= NEAR).all(1) | (x < left * z).all(1) | (x > right * z).all(1) | (y < top * z).all(1)
    keep = ~(outside | (y > bottom * z).all(1))
    corners, owner = corners[keep], owner[keep]
    crossing = (corners[..., 2] < NEAR).any(1)
    if not crossing.any():
        return corners, owner
    pieces, owners = [corners[~crossing]], [owner[~crossing]]
    for quad, patch in zip(corners[crossing], owner[crossing], strict=True):
        cut = _clip_near(quad)
        for i in range(1, len(cut) - 1, 2):
            pieces.append(cut[[0, i, i + 1, min(i + 2, len(cut) - 1)]][None])
            owners.append(np.array([patch]))
    return np.concatenate(pieces), np.concatenate(owners)


def _clip_near(polygon: np.ndarray) -> np.ndarray:
    """The part of a convex polygon beyond the near plane (Sutherland and Hodgman)."""
    out = []
    for a, b in zip(polygon, np.roll(polygon, -1, 0), strict=True):
        if a[2] >= NEAR:
            out.append(a)
        if (a[2] >= NEAR) != (b[2] >= NEAR):
            out.append(a + (b - a) * ((NEAR - a[2]) / (b[2] - a[2])))
    return np.array(out).reshape(-1, 3)


def _fill(
    patch: np.ndarray, corners: np.ndarray, owner: np.ndarray, coefficients: np.ndarray, f: np.ndarray, c: np.ndarray
) -> None:
    """Scan conversion into ``patch`` with a buffer of inverse depth; sample i of the grid lies at pixel (i - 1) / 2."""
    rows, columns = patch.shape
    grid = 2 * (corners[..., :2] / corners[..., 2:] * f + c) + 1
    low = np.maximum(np.ceil(grid.min(1) - 1e-6), 0).astype(np.int64)
    high = np.minimum(np.floor(grid.max(1) + 1e-6), [columns - 1, rows - 1]).astype(np.int64)
    seen = (low <= high).all(1)
    grid, low, high, owner = grid[seen], low[seen], high[seen], owner[seen]
    first, start, stop = _spans(grid, low, high)
    plane = coefficients[owner, 6:]
    # inverse depth as an affine function of the grid indices
    step = plane[:, :2] / (2 * f)
    offset = plane[:, 2] - plane[:, 0] * (0.5 + c[0]) / f[0] - plane[:, 1] * (0.5 + c[1]) / f[1]
    nearest = np.zeros(patch.shape, dtype=np.float32)
    x = np.arange(max(columns, rows), dtype=np.float64)
    order = np.argsort(-(1 / corners[seen][..., 2]).max(1), kind="stable")  # near quads first: far ones then write less
    for k in order:
        (x0, y0), (x1, y1) = low[k], high[k] + 1
        here = slice(first[k], first[k] + y1 - y0)
        left, right = start[here, None], stop[here, None]
        rise = (offset[k] + step[k, 1] * x[y0:y1]).astype(np.float32)[:, None]
        w = rise + (step[k, 0] * x[x0:x1]).astype(np.float32)
        window = nearest[y0:y1, x0:x1]
        wins = w > window
        if left.max() > x0 or right.min() < x1 - 1:
            columns_here = x[x0:x1]
            wins &= columns_here >= left
            wins &= columns_here <= right
        np.copyto(window, w, where=wins)
        np.copyto(patch[y0:y1, x0:x1], owner[k], where=wins)


def _spans(grid: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For the rows of all quads, one after the other: where each quad's rows begin, and the span [start, stop] of each row."""
    count = high[:, 1] - low[:, 1] + 1
    first = np.concatenate([[0], np.cumsum(count)[:-1]])
    quad = np.repeat(np.arange(len(count)), count)
    y = (np.arange(len(quad)) - first[quad] + low[quad, 1]).astype(np.float64)
    start, stop = np.full(len(quad), np.inf), np.full(len(quad), -np.inf)
    for a in range(4):
        p, q = grid[:, a], grid[:, (a + 1) % 4]
        rise = q[:, 1] - p[:, 1]
        flat = np.abs(rise) < 1e-9
        slope = np.where(flat, 0.0, (q[:, 0] - p[:, 0]) / np.where(flat, 1.0, rise))
        bottom, top = np.minimum(p[:, 1], q[:, 1]) - 1e-6, np.maximum(p[:, 1], q[:, 1]) + 1e-6
        crossed = (y >= bottom[quad]) & (y <= top[quad])
        x = (p[:, 0] - slope * p[:, 1])[quad] + slope[quad] * y
        other = np.where(flat[quad], q[quad, 0], x)  # a level edge covers from one end to the other
        x = np.where(flat[quad], p[quad, 0], x)
        start = np.where(crossed, np.minimum(start, np.minimum(x, other)), start)
        stop = np.where(crossed, np.maximum(stop, np.maximum(x, other)), stop)
    return first, start - 1e-6, stop + 1e-6


# -- colour -----------------------------------------------------------------------------------------------------------
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
