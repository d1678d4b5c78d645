"""Draw a mesh of textured quads on the CPU: a scan-line rasteriser in numpy with exact depth at pixel centres.

Visibility is found on a grid of half pixels (2W+1 by 2H+1), so that every pixel has its centre and eight neighbours. What is
seen is colored by ``shading``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metriloc.datasets.synthetic.mesh import Mesh
from metriloc.geometry import Camera, Pose

NEAR = 0.03
"""Nothing nearer than this (metres) is drawn."""


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
