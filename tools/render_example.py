"""Render metriloc's bundled example: one furnished room corner, two cameras, exact depth and pose.

An analytic ray caster over boxes with procedural textures: no photo, no texture file and no mesh goes in, so the
pictures are the project's own (Apache-2.0). Deterministic; about 20 seconds on one core:

    python tools/render_example.py metriloc/data/example

World frame = reference camera: x right, y down, z forward, metres. ``--scale`` renders smaller pictures for tests.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (640, 480)
SUPERSAMPLING = 3
FOCALS = {"reference": 520.0, "query": 560.0}
QUERY_YAW, QUERY_PITCH = np.radians(-21.0), np.radians(4.0)
QUERY_CENTER = np.array([0.58, -0.16, 0.12])
LIGHT = np.array([0.5, -1.25, 0.9])
CHUNK = 16_000  # rays at a time: small enough for the processor's cache, four times as fast as 200,000
Texture = Callable[[np.ndarray, np.ndarray], np.ndarray]


# -- noise ------------------------------------------------------------------------------------------------------------
def hashed(*keys: np.ndarray | int) -> np.ndarray:
    """A number in 0..1 from integers, the same on every machine."""
    state = np.uint32(2166136261)
    with np.errstate(over="ignore"):
        for key in keys:
            state = (state ^ np.asarray(key).astype(np.int64).astype(np.uint32)) * np.uint32(16777619)
            state = (state ^ (state >> np.uint32(15))) * np.uint32(2246822519)
            state = state ^ (state >> np.uint32(13))
    return state.astype(np.float64) / 2**32


def noise(u: np.ndarray, v: np.ndarray, seed: int) -> np.ndarray:
    """Smooth value noise in 0..1 with one lattice cell a unit."""
    i, j = np.floor(u), np.floor(v)
    s, t = u - i, v - j
    s, t = s * s * (3 - 2 * s), t * t * (3 - 2 * t)
    corner = [[hashed(i + a, j + b, seed) for b in (0, 1)] for a in (0, 1)]
    top = corner[0][0] * (1 - s) + corner[1][0] * s
    return top * (1 - t) + (corner[0][1] * (1 - s) + corner[1][1] * s) * t


def fractal(u: np.ndarray, v: np.ndarray, seed: int, octaves: int = 4) -> np.ndarray:
    """Noise over several scales, 0..1."""
    return sum(noise(u * 2**k, v * 2**k, seed + k) * 0.5 ** (k + 1) for k in range(octaves)) / (1 - 0.5**octaves)


def palette(h: np.ndarray, colors: list[tuple[float, float, float]]) -> np.ndarray:
    """One of the colours by a number in 0..1."""
    return np.array(colors)[np.minimum((h * len(colors)).astype(int), len(colors) - 1)]


# -- textures: metres on a face -> colour -----------------------------------------------------------------------------
def wood(u: np.ndarray, v: np.ndarray, seed: int = 0, plank: float = 0.13) -> np.ndarray:
    row = np.floor(u / plank)
    shifted = v / 0.9 + 7.3 * hashed(row, seed)
    tint = 0.75 + 0.4 * hashed(row, np.floor(shifted), seed + 1)
    grain = fractal(u * 60, v * 4 + 40 * hashed(row, seed + 2), seed + 3)
    seam = (np.abs(u / plank - row - 0.5) > 0.48) | (np.abs(shifted - np.floor(shifted) - 0.5) > 0.495)
    color = np.array([0.55, 0.36, 0.2]) * (tint * (0.65 + 0.6 * grain))[:, None]
    return np.where(seam[:, None], 0.35 * color, color)


def bricks(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    row = np.floor(v / 0.085)
    x = u / 0.24 + 0.5 * (row % 2)
    column = np.floor(x)
    mortar = (np.abs(v / 0.085 - row - 0.5) > 0.42) | (np.abs(x - column - 0.5) > 0.47)
    tint = 0.55 + 0.7 * hashed(row, column, 11)
    rough = 0.7 + 0.6 * fractal(u * 50, v * 50, 12)
    hue = np.array([0.62, 0.3, 0.22]) + 0.12 * (hashed(row, column, 13)[:, None] - 0.5)
    return np.where(mortar[:, None], np.array([0.6, 0.58, 0.55]) * rough[:, None], hue * (tint * rough)[:, None])


def plaster(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    wear = fractal(u * 5, v * 5, 21, 6)
    return np.array([0.78, 0.76, 0.68]) * (0.75 + 0.4 * wear)[:, None]


def books(u: np.ndarray, v: np.ndarray, seed: int = 31, shelf: float = 0.3) -> np.ndarray:
    """Rows of spines of many widths, heights and colours, with bands and lettering."""
    row = np.floor(v / shelf)
    height = v / shelf - row
    slot = np.floor(u / 0.11)
    inside = u / 0.11 - slot
    cuts = np.stack([0.25 + 0.16 * hashed(row, slot, seed), 0.58 + 0.2 * hashed(row, slot, seed + 1)])
    which = (inside[None] > cuts).sum(0)
    edges = np.concatenate([np.zeros((1, len(u))), cuts, np.ones((1, len(u)))])
    index = np.arange(len(u))
    left, right = edges[which, index], edges[which + 1, index]
    across = (inside - left) / (right - left)
    key = slot * 3 + which
    top = 0.12 + 0.32 * hashed(row, key, seed + 2)
    shades = [
        (0.6, 0.12, 0.1),
        (0.1, 0.25, 0.5),
        (0.12, 0.4, 0.25),
        (0.85, 0.8, 0.65),
        (0.2, 0.2, 0.22),
        (0.8, 0.55, 0.1),
    ]
    color = palette(hashed(row, key, seed + 3), shades) * (0.7 + 0.6 * hashed(row, key, seed + 4))[:, None]
    band = np.abs(height - 0.35 - 0.5 * hashed(row, key, seed + 5)) < 0.035
    letters = (hashed(row, key, np.floor(height * 40), np.floor(across * 3), seed + 6) > 0.55) & (
        np.abs(across - 0.5) < 0.28
    )
    color = np.where((band | (letters & (height > 0.5) & (height < 0.85)))[:, None], 1 - 0.8 * color, color)
    color = color * (1 - 0.5 * np.abs(2 * across - 1) ** 4)[:, None]
    board = height > 0.93
    return np.where(board[:, None], wood(v, u, 41), np.where((height < top)[:, None], 0.06, color))


def picture(u: np.ndarray, v: np.ndarray, seed: int, scale: float = 0.12) -> np.ndarray:
    """An abstract painting: cells around scattered points, at two scales, with outlines and strokes."""
    shades = [
        (0.9, 0.85, 0.7),
        (0.85, 0.3, 0.15),
        (0.1, 0.2, 0.45),
        (0.15, 0.5, 0.5),
        (0.95, 0.7, 0.2),
        (0.1, 0.1, 0.1),
    ]
    color = np.zeros((len(u), 3))
    for octave, weight in ((1.0, 0.65), (0.31, 0.35)):
        x, y = u / (scale * octave), v / (scale * octave)
        best = np.full((2, len(u)), np.inf)
        owner = np.zeros(len(u))
        for a in (-1, 0, 1):
            for b in (-1, 0, 1):
                i, j = np.floor(x) + a, np.floor(y) + b
                distance = np.hypot(i + hashed(i, j, seed) - x, j + hashed(i, j, seed + 1) - y)
                closer = distance < best[0]
                best[1] = np.where(closer, best[0], np.minimum(best[1], distance))
                owner = np.where(closer, hashed(i, j, seed + 2), owner)
                best[0] = np.where(closer, distance, best[0])
        line = (best[1] - best[0] < 0.06)[:, None]
        color += weight * np.where(line, 0.05, palette(owner, shades))
    return color * (0.85 + 0.3 * fractal(u * 90, v * 90, seed + 3))[:, None]


def rug(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    diamond = np.abs(u / 0.22 - np.round(u / 0.22)) + np.abs(v / 0.22 - np.round(v / 0.22))
    ring = np.floor(diamond * 6)
    tile = hashed(np.round(u / 0.22), np.round(v / 0.22), ring, 51)
    shades = [(0.55, 0.1, 0.12), (0.8, 0.7, 0.5), (0.12, 0.18, 0.35), (0.7, 0.4, 0.15)]
    weave = 0.75 + 0.5 * hashed(np.floor(u * 180), np.floor(v * 180), 52)
    return palette(tile, shades) * weave[:, None]


def parcel(u: np.ndarray, v: np.ndarray, seed: int, base: tuple[float, float, float]) -> np.ndarray:
    """Cardboard with a printed grid of glyphs and a strip of tape."""
    paper = np.array(base) * (0.75 + 0.45 * fractal(u * 30, v * 30, seed))[:, None]
    i, j = np.floor(u / 0.014), np.floor(v / 0.02)
    block = hashed(np.floor(i / 7), np.floor(j / 5), seed + 1) > 0.35
    ink = block & (hashed(i, j, seed + 2) > 0.5) & (i % 7 != 0) & (j % 5 != 0)
    tape = np.abs(u - 0.05) < 0.02
    return np.where(tape[:, None], np.array([0.75, 0.65, 0.4]), np.where(ink[:, None], 0.25 * paper, paper))


# -- scene ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Box:
    """A box turned about the vertical axis: centre, half sizes, yaw; one texture, or one for each axis of the normal."""

    center: tuple[float, float, float]
    half: tuple[float, float, float]
    textures: tuple[Texture, Texture, Texture]
    yaw: float = 0.0
    inward: bool = False


def box(
    center: tuple[float, float, float], size: tuple[float, float, float], texture: Texture, yaw: float = 0.0
) -> Box:
    """A box with one texture all around; ``size`` is its full width, height and depth."""
    return Box(center, (size[0] / 2, size[1] / 2, size[2] / 2), (texture, texture, texture), np.radians(yaw))


def room() -> list[Box]:
    """The corner of a room: brick and plaster walls, shelf, paintings, rug, table and things on it."""

    def painting(seed: int, scale: float) -> Texture:
        return lambda u, v: picture(u, v, seed, scale)

    def package(seed: int, base: tuple[float, float, float]) -> Texture:
        return lambda u, v: parcel(u, v, seed, base)

    def table_wood(u: np.ndarray, v: np.ndarray) -> np.ndarray:
        return 0.8 * wood(u, v, 61, 0.09)

    shell = Box((0.1, -0.1, 1.6), (2.3, 1.3, 2.6), (bricks, wood, plaster), inward=True)
    legs = [box((x, 0.83, z), (0.07, 0.74, 0.07), table_wood) for x in (-0.45, 0.75) for z in (1.75, 2.45)]
    things = [
        box((-0.28, 0.29, 2.2), (0.34, 0.26, 0.3), package(71, (0.72, 0.55, 0.36)), 25),
        box((0.12, 0.33, 1.95), (0.24, 0.18, 0.2), package(72, (0.85, 0.82, 0.75)), -18),
        box((0.5, 0.27, 2.25), (0.26, 0.3, 0.22), painting(73, 0.05), 40),
        box((-0.22, 0.1, 2.22), (0.22, 0.12, 0.2), package(74, (0.35, 0.5, 0.6)), 8),
        box((0.28, 0.395, 1.78), (0.3, 0.05, 0.22), painting(75, 0.04), -35),
        box((-1.15, 0.95, 1.9), (0.45, 0.5, 0.45), package(76, (0.7, 0.5, 0.3)), 32),
        box((-1.2, 0.58, 1.92), (0.3, 0.24, 0.3), painting(77, 0.06), 10),
        box((1.35, 1.0, 2.2), (0.4, 0.4, 0.5), package(78, (0.5, 0.55, 0.4)), -28),
    ]
    return [
        shell,
        box((0.1, 1.195, 2.2), (2.4, 0.01, 1.8), rug),
        box((-1.25, 0.05, 3.95), (1.1, 2.3, 0.42), lambda u, v: books(u + 5, v + 5)),
        box((0.35, -0.35, 4.18), (0.9, 0.65, 0.04), painting(81, 0.13)),
        box((1.45, -0.2, 4.18), (0.7, 0.95, 0.04), painting(82, 0.1)),
        box((1.95, 0.55, 3.4), (0.7, 1.3, 0.6), lambda u, v: books(u + 9, v + 3, 83, 0.26), -30),
        box((0.15, 0.44, 2.1), (1.35, 0.04, 0.85), table_wood),
        *legs,
        *things,
    ]


def to_box(points: np.ndarray, shape: Box) -> np.ndarray:
    """World directions into the box's axes."""
    c, s = np.cos(shape.yaw), np.sin(shape.yaw)
    return points @ np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def intersect(origin: np.ndarray, rays: np.ndarray, shape: Box) -> tuple[np.ndarray, np.ndarray]:
    """Distance along each ray (infinity for a miss) and the axis of the face that was hit."""
    o, d = to_box(origin - np.array(shape.center), shape), to_box(rays, shape)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = (-np.sign(d) * shape.half - o) / d
        far = (np.sign(d) * shape.half - o) / d
    near, far = np.nan_to_num(near, nan=-np.inf), np.nan_to_num(far, nan=np.inf)
    enter = np.maximum(np.maximum(near[:, 0], near[:, 1]), near[:, 2])  # far faster than max(-1) over three
    leave = np.minimum(np.minimum(far[:, 0], far[:, 1]), far[:, 2])
    if shape.inward:
        return leave, far.argmin(-1)
    hit = (enter < leave) & (enter > 1e-6)
    return np.where(hit, enter, np.inf), near.argmax(-1)


def shade(origin: np.ndarray, rays: np.ndarray, scene: list[Box]) -> tuple[np.ndarray, np.ndarray]:
    """Colour (linear, 0..1) and distance along each ray."""
    distances, axes = zip(*(intersect(origin, rays, shape) for shape in scene), strict=True)
    nearest = np.argmin(distances, 0)
    index = np.arange(len(rays))
    distance, axis = np.array(distances)[nearest, index], np.array(axes)[nearest, index]
    points = origin + rays * distance[:, None]
    color, normal = np.zeros_like(points), np.zeros_like(points)
    for number, shape in enumerate(scene):
        for face in range(3):
            chosen = (nearest == number) & (axis == face)
            if not chosen.any():
                continue
            local = to_box(points[chosen] - np.array(shape.center), shape)
            u, v = local[:, [2, 0, 0][face]], local[:, [1, 2, 1][face]]
            color[chosen] = shape.textures[face](u, v)
            axis_vector = np.eye(3)[face] * (-1 if shape.inward else 1)
            outward = np.sign(local[:, face])[:, None] * axis_vector
            normal[chosen] = outward @ to_box(np.eye(3), shape).T
    return np.clip(color, 0, 1) * light(points, normal, scene)[:, None], distance


def light(points: np.ndarray, normal: np.ndarray, scene: list[Box]) -> np.ndarray:
    """One lamp with soft falloff and shadows, a sky of ambient light, and darker corners."""
    towards = LIGHT - points
    distance = np.linalg.norm(towards, axis=-1)
    cosine = np.clip((normal * towards).sum(-1) / distance, 0, 1)
    starts, rays = points + 1e-4 * normal, towards / distance[:, None]
    blocked = np.zeros(len(points), dtype=bool)
    for shape in scene[1:]:
        blocked |= intersect(starts, rays, shape)[0] < distance
    shell = scene[0]
    gap = np.sort(np.array(shell.half) - np.abs(points - np.array(shell.center)), -1)[:, 1]
    ambient = 0.38 * (0.55 + 0.45 * np.clip(gap / 0.5, 0, 1)) * (1 - 0.15 * normal[:, 1])
    return ambient + np.where(blocked, 0.0, 1.35 * cosine / (0.6 + 0.35 * distance**2))


# -- cameras and files ------------------------------------------------------------------------------------------------
def cam_from_world(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Rotation and translation of a camera."""
    if name == "reference":
        return np.eye(3), np.zeros(3)
    cy, sy, cp, sp = np.cos(QUERY_YAW), np.sin(QUERY_YAW), np.cos(QUERY_PITCH), np.sin(QUERY_PITCH)
    yaw = np.array([[cy, 0, -sy], [0, 1, 0], [sy, 0, cy]])
    pitch = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    R = pitch @ yaw
    return R, -R @ QUERY_CENTER


def cast(name: str, scale: float, offsets: list[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean colour over sub-pixel offsets, and z-depth of the last offset, at ``scale`` times the full size."""
    R, t = cam_from_world(name)
    width, height = round(SIZE[0] * scale), round(SIZE[1] * scale)
    f, cx, cy = FOCALS[name] * scale, (width - 1) / 2, (height - 1) / 2
    y, x = (grid.ravel().astype(float) for grid in np.mgrid[:height, :width])
    color, depth = np.zeros((len(x), 3)), np.zeros(len(x))
    scene = room()
    for du, dv in offsets:
        rays = np.stack([(x + du - cx) / f, (y + dv - cy) / f, np.ones_like(x)], -1) @ R  # depth 1: distance is z
        for start in range(0, len(rays), CHUNK):
            part = slice(start, start + CHUNK)
            shaded, depth[part] = shade(-R.T @ t, rays[part], scene)
            color[part] += shaded / len(offsets)
    return color.reshape(height, width, 3), depth.reshape(height, width)


def render(name: str, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """uint8 picture and depth in metres at pixel centres."""
    steps = (np.arange(SUPERSAMPLING) + 0.5) / SUPERSAMPLING - 0.5
    color, _ = cast(name, scale, [(u, v) for v in steps for u in steps])
    _, depth = cast(name, scale, [(0.0, 0.0)])
    exposed = np.clip(1.25 * color, 0, 1) ** (1 / 2.2)
    return np.round(255 * exposed).astype(np.uint8), depth


def quaternion(R: np.ndarray) -> np.ndarray:
    """w, x, y, z of a rotation by less than half a turn."""
    w = 0.5 * np.sqrt(1 + np.trace(R))
    return np.array([w, *(np.array([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / (4 * w))])


def write_example(folder: Path, scale: float = 1.0) -> None:
    """Pictures, reference depth, intrinsics and poses."""
    folder.mkdir(parents=True, exist_ok=True)
    intrinsics, poses = [], []
    for name in ("reference", "query"):
        rgb, depth = render(name, scale)
        file = io.BytesIO()
        Image.fromarray(rgb).save(file, "JPEG", quality=85)
        (folder / f"{name}.jpg").write_bytes(file.getvalue())
        height, width = depth.shape
        f = FOCALS[name] * scale
        intrinsics.append(f"{name}.jpg {f} {f} {(width - 1) / 2} {(height - 1) / 2} {width} {height}")
        R, t = cam_from_world(name)
        poses.append(f"{name}.jpg " + " ".join(f"{value:.10f}" for value in [*quaternion(R), *t]))
        if name == "reference":
            Image.fromarray(np.round(1000 * depth).astype(np.uint16)).save(
                folder / "reference.depth.png", optimize=True
            )
    (folder / "intrinsics.txt").write_text("# image fx fy cx cy width height\n" + "\n".join(intrinsics) + "\n")
    (folder / "poses.txt").write_text("# image qw qx qy qz tx ty tz (world to camera)\n" + "\n".join(poses) + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    arguments = parser.parse_args()
    write_example(arguments.folder, arguments.scale)


if __name__ == "__main__":
    main()
