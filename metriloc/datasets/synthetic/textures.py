"""Procedural surface textures that repeat without a seam: noise, wood, bricks, tiles, cloth, plaster, stone, plants.

Every function takes a random generator and the side in pixels and returns a square image [T,T,3], 0..1 (display values).
How many metres one repetition covers is told by the palette that uses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from metriloc.datasets.synthetic.shading import Atlas

Color = tuple[float, float, float]
Rng = np.random.Generator


# -- building blocks --------------------------------------------------------------------------------------------------
@lru_cache(maxsize=64)
def _smooth_matrix(side: int, cells: int) -> np.ndarray:
    """[side,cells]: periodic interpolation of a lattice with a smooth step."""
    x = (np.arange(side) + 0.5) * cells / side
    i = np.floor(x).astype(int)
    s = x - i
    s = s * s * (3 - 2 * s)
    matrix = np.zeros((side, cells), dtype=np.float32)
    matrix[np.arange(side), i % cells] += 1 - s
    matrix[np.arange(side), (i + 1) % cells] += s
    return matrix


def noise(rng: Rng, side: int, cells: int | tuple[int, int]) -> np.ndarray:
    """Periodic value noise 0..1 with (rows, columns) lattice cells."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    lattice = rng.random((min(rows, side), min(columns, side)), dtype=np.float32)
    return _smooth_matrix(side, lattice.shape[0]) @ lattice @ _smooth_matrix(side, lattice.shape[1]).T


def fractal(rng: Rng, side: int, cells: int | tuple[int, int] = 4, octaves: int = 5, fade: float = 0.55) -> np.ndarray:
    """Noise over several scales, 0..1 with mean 0.5."""
    rows, columns = (cells, cells) if isinstance(cells, int) else cells
    total, weight = np.zeros((side, side), dtype=np.float32), 0.0
    for k in range(octaves):
        if k > 0 and max(rows, columns) << k > side:
            break
        total += fade**k * noise(rng, side, (rows << k, columns << k))
        weight += fade**k
    return np.clip(0.5 + 1.5 * (total / weight - 0.5), 0, 1)


def grid(side: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates 0..1 of pixel centres: (across [1,T], down [T,1])."""
    x = ((np.arange(side) + 0.5) / side).astype(np.float32)
    return x[None, :], x[:, None]


def soft(x: np.ndarray, width: float) -> np.ndarray:
    """A step at 0 that takes ``width``: 0 below, 1 above."""
    return np.clip(x / width + 0.5, 0, 1)


def colored(value: np.ndarray, color: Sequence[float] | np.ndarray) -> np.ndarray:
    """A grey image times a colour."""
    return value[..., None] * np.asarray(color, dtype=np.float32)


def mix(a: np.ndarray, b: np.ndarray | Sequence[float], share: np.ndarray) -> np.ndarray:
    """``a`` where ``share`` is 0 and ``b`` where it is 1."""
    other = np.asarray(b, dtype=np.float32)
    return a + (other - a) * share[..., None]


def hue(rng: Rng, saturation: float, value: float) -> np.ndarray:
    """A random colour of that saturation and brightness, warm ones more often."""
    h = rng.random() if rng.random() < 0.5 else rng.normal(0.08, 0.05) % 1.0
    wheel = np.clip(np.abs((h * 6 + np.array([0.0, 4.0, 2.0])) % 6 - 3) - 1, 0, 1)
    return (value * (1 - saturation + saturation * wheel)).astype(np.float32)


def lattice(side: int, rows: int, columns: int, bond: float) -> tuple[np.ndarray, ...]:
    """Cells of a masonry bond.

    (row, column, distance to the left/right joint, distance to the joint above/below), in cells.
    """
    x, y = grid(side)
    v = np.broadcast_to(y * rows, (side, side))
    row = np.floor(v)
    u = x * columns + bond * row
    column = np.floor(u) % columns
    fu, fv = u - np.floor(u), v - row
    return row.astype(int), column.astype(int), np.minimum(fu, 1 - fu), np.minimum(fv, 1 - fv)


# -- materials --------------------------------------------------------------------------------------------------------
def plaster(rng: Rng, side: int, color: np.ndarray | None = None) -> np.ndarray:
    """Painted wall: faint clouds, grain, a few stains."""
    base = color if color is not None else wall_color(rng)
    clouds, grain = fractal(rng, side, 3, 5), noise(rng, side, side // 2)
    value = 1 + rng.uniform(0.05, 0.2) * (clouds - 0.5) + rng.uniform(0.03, 0.1) * (grain - 0.5)
    stains = soft(fractal(rng, side, 5, 5) - 0.78, 0.2) * rng.uniform(0, 0.08)
    return colored(value * (1 - stains), base)


def wall_color(rng: Rng) -> np.ndarray:
    """Mostly white to cream or grey, sometimes a colour."""
    if rng.random() < 0.65:
        tone = rng.uniform(0, 1)
        return (rng.uniform(0.72, 0.94) * np.array([1.0, 1 - 0.06 * tone, 1 - 0.2 * tone])).astype(np.float32)
    return hue(rng, rng.uniform(0.08, 0.3), rng.uniform(0.6, 0.9))


def wallpaper(rng: Rng, side: int) -> np.ndarray:
    """A printed motif, mirrored and repeated, or stripes."""
    ground, ink = (
        hue(rng, rng.uniform(0.05, 0.3), rng.uniform(0.7, 0.92)),
        hue(rng, rng.uniform(0.1, 0.6), rng.uniform(0.35, 0.8)),
    )
    if rng.random() < 0.3:
        x, _ = grid(side)
        wave = np.sin(2 * np.pi * x * rng.integers(4, 12)) + 0.5 * np.sin(2 * np.pi * x * 2 * rng.integers(4, 12))
        shape = np.broadcast_to(soft(wave, 0.3), (side, side))
    else:
        repeats = int(2 ** rng.integers(1, 3))
        part = side // repeats // 2
        quarter = fractal(rng, side, 3, 3)[:part, :part]
        half = np.concatenate([quarter, quarter[:, ::-1]], 1)
        motif = np.concatenate([half, half[::-1]], 0)
        shape = soft(np.tile(motif, (repeats, repeats)) - np.median(motif), 0.06)
    paper = 1 + 0.12 * (fractal(rng, side, 4, 5) - 0.5)
    return (
        mix(colored(np.ones((side, side), np.float32), ground), ink, shape * rng.uniform(0.4, 1.0)) * paper[..., None]
    )


def planks(rng: Rng, side: int, rows: int | None = None, color: np.ndarray | None = None) -> np.ndarray:
    """Boards along x with grain, tints and seams (1: one plain board)."""
    rows = rows if rows is not None else int(rng.choice([6, 8, 12]))
    base = color if color is not None else wood_color(rng)
    columns = 1 if rows == 1 else 2
    row, column, gap_u, gap_v = lattice(side, rows, columns, 0.37)
    tint = 1 + 0.35 * (rng.random((rows, columns)) - 0.5)[row, column] * (rows > 1)
    grain = fractal(rng, side, (32, 2), 4, 0.7)
    rings = np.sin(2 * np.pi * (4 * fractal(rng, side, (6, 1), 3) + 2 * noise(rng, side, (48, 2))))
    shifted = np.take_along_axis(grain, (np.arange(side)[None] + (row * 67 + column * 29)) % side, 1)
    value = tint * (0.72 + 0.45 * shifted + 0.06 * rings)
    image = colored(value, base)
    if rows > 1:
        joint = np.maximum(1 - soft(gap_v - 0.03, 0.03), 1 - soft(gap_u * 8 - 0.03, 0.03))
        image = image * (1 - 0.65 * joint)[..., None]
    return image


def wood_color(rng: Rng) -> np.ndarray:
    """From pale birch to dark walnut, sometimes painted."""
    if rng.random() < 0.25:
        return wall_color(rng) if rng.random() < 0.7 else hue(rng, rng.uniform(0, 0.4), rng.uniform(0.3, 0.9))
    dark = rng.random()
    pale, deep = np.array([0.86, 0.72, 0.53]), np.array([0.36, 0.22, 0.13])
    return ((pale + (deep - pale) * dark) * rng.uniform(0.9, 1.1)).astype(np.float32)


def bricks(rng: Rng, side: int) -> np.ndarray:
    """Running bond, 16 courses and 5 stretchers: 1.2 m x 1.2 m."""
    row, column, gap_u, gap_v = lattice(side, 16, 5, 0.5)
    red = (
        np.array([0.62, 0.33, 0.25])
        if rng.random() < 0.6
        else hue(rng, rng.uniform(0.05, 0.25), rng.uniform(0.5, 0.85))
    )
    tint = rng.uniform(0.7, 1.2, (17, 5))[row, column]
    shade = rng.normal(0, 0.04, (17, 5, 3))[row, column]
    rough = 0.8 + 0.4 * fractal(rng, side, 16, 4)
    face = (red + shade) * (tint * rough)[..., None]
    joint = np.maximum(1 - soft(gap_v - 0.1, 0.08), 1 - soft(gap_u * 3 - 0.1, 0.08))
    return mix(face, np.array([0.72, 0.7, 0.66]) * rng.uniform(0.6, 1.1), joint)


def tiles(rng: Rng, side: int, count: int | None = None) -> np.ndarray:
    """Square tiles with grout: one colour, chequered or patterned, slightly different each."""
    n = count if count is not None else int(rng.choice([4, 8]))
    row, column, gap_u, gap_v = lattice(side, n, n, 0.0)
    a, b = hue(rng, rng.uniform(0, 0.35), rng.uniform(0.6, 0.95)), hue(rng, rng.uniform(0, 0.5), rng.uniform(0.25, 0.8))
    style = rng.random()
    other = (row + column) % 2 if style < 0.35 else rng.random((n, n))[row, column] < (0.25 if style < 0.6 else 0.0)
    image = mix(np.broadcast_to(a, (side, side, 3)).astype(np.float32), b, other.astype(np.float32))
    if style > 0.8:  # a printed figure on each tile
        part = side // n
        figure = fractal(rng, side, 4, 3)[:part, :part]
        figure = np.minimum(figure, figure[::-1, ::-1])
        image = mix(image, b, soft(np.tile(figure, (n, n)) - 0.45, 0.08))
    value = (1 + 0.12 * (rng.random((n, n)) - 0.5))[row, column] * (0.9 + 0.2 * fractal(rng, side, 6, 5))
    joint = 1 - soft(np.minimum(gap_u, gap_v) - 0.025, 0.025)
    return mix(image * value[..., None], np.full(3, rng.uniform(0.35, 0.8)), joint)


def fabric(rng: Rng, side: int) -> np.ndarray:
    """Woven cloth: threads, sometimes stripes or a check."""
    base = hue(rng, rng.uniform(0.1, 0.7), rng.uniform(0.25, 0.85))
    x, y = grid(side)
    threads = 0.5 + 0.25 * np.sin(2 * np.pi * x * side / 4) * np.sin(2 * np.pi * y * side / 4)
    image = colored(0.8 + 0.25 * fractal(rng, side, 8, 5) + 0.2 * (threads - 0.5), base)
    if rng.random() < 0.45:
        accent = hue(rng, rng.uniform(0.2, 0.8), rng.uniform(0.3, 0.9))
        stripes = soft(np.sin(2 * np.pi * (x * rng.integers(2, 9) + rng.random())) - rng.uniform(-0.2, 0.6), 0.15)
        check = soft(np.sin(2 * np.pi * y * rng.integers(2, 9)) - 0.3, 0.15) * (rng.random() < 0.5)
        image = mix(image, accent, np.broadcast_to(np.maximum(stripes, check) * 0.7, (side, side)))
    return image


def carpet(rng: Rng, side: int) -> np.ndarray:
    """Floor carpet: speckled pile."""
    base = hue(rng, rng.uniform(0.05, 0.5), rng.uniform(0.3, 0.75))
    return colored(0.7 + 0.35 * noise(rng, side, side // 2) + 0.3 * (fractal(rng, side, 4, 4) - 0.5), base)


def concrete(rng: Rng, side: int, value: float | None = None) -> np.ndarray:
    """Concrete, or asphalt when dark: speckles, clouds, cracks."""
    value = value if value is not None else rng.uniform(0.45, 0.75)
    image = 0.75 + 0.35 * fractal(rng, side, 3, 6, 0.7) + 0.2 * (rng.random((side, side), dtype=np.float32) - 0.5)
    crack = 1 - soft(np.abs(fractal(rng, side, 3, 5) - 0.5) - 0.004, 0.012)
    image *= 1 - rng.uniform(0, 0.5) * crack * soft(fractal(rng, side, 3, 2) - 0.55, 0.1)
    tint = np.array([1.0, 1.0, 1.0]) + rng.normal(0, 0.02, 3)
    return colored(value * image, tint)


def paving(rng: Rng, side: int) -> np.ndarray:
    """Slabs or cobbles."""
    rows, columns, bond = [(4, 4, 0.5), (8, 5, 0.5), (16, 16, 0.5), (4, 4, 0.0)][int(rng.integers(4))]
    row, column, gap_u, gap_v = lattice(side, rows, columns, bond)
    tint = rng.uniform(0.75, 1.15, (rows + 1, columns))[row, column]
    joint = 1 - soft(np.minimum(gap_u * rows / columns, gap_v) - 0.04, 0.05)
    return mix(concrete(rng, side, rng.uniform(0.5, 0.75)) * tint[..., None], np.full(3, 0.25), 0.8 * joint)


def grass(rng: Rng, side: int) -> np.ndarray:
    """Grass or leaves. Blades over clumps, with a few dry and dark spots."""
    blades, clumps = noise(rng, side, (side // 4, side // 2)), fractal(rng, side, 6, 5, 0.7)
    green = np.array([0.4, 0.47, 0.25]) * rng.uniform(0.8, 1.15, 3)
    image = colored(0.45 + 0.6 * blades * clumps + 0.4 * clumps, green)
    return mix(image, [0.55, 0.5, 0.3], soft(fractal(rng, side, 5, 4) - 0.65, 0.2) * 0.6)


def marble(rng: Rng, side: int) -> np.ndarray:
    """Veined or speckled stone for worktops and floors."""
    base = hue(rng, rng.uniform(0, 0.15), rng.uniform(0.25, 0.95))
    veins = 1 - soft(np.abs(fractal(rng, side, 3, 6, 0.65) - 0.5) - 0.01, 0.08)
    speckle = noise(rng, side, side) > 0.8
    return mix(colored(0.9 + 0.2 * fractal(rng, side, 4, 4), base), 1 - 0.8 * base, 0.5 * veins + 0.15 * speckle)


def smooth(rng: Rng, side: int) -> np.ndarray:
    """Lacquer, plastic, metal: nearly plain, with faint marks; white, to be tinted."""
    scratches = fractal(rng, side, (2, 24), 4, 0.8)
    return colored(0.93 + 0.1 * (fractal(rng, side, 3, 5) - 0.5) + 0.05 * (scratches - 0.5), np.ones(3))


# -- packing ----------------------------------------------------------------------------------------------------------
def pack(images: Sequence[np.ndarray]) -> Atlas:
    """Images [T,T,3], 0..1, T a power of two -> atlas with mip levels."""
    side = images[0].shape[0]
    levels = side.bit_length()
    sizes = [side >> k for k in range(levels)]
    starts = np.concatenate([[0], np.cumsum([s * s for s in sizes])])
    texels = np.zeros((len(images), int(starts[-1]), 4), dtype=np.uint8)
    for index, image in enumerate(images):
        level = np.clip(image, 0, 1).astype(np.float32)
        for size, start in zip(sizes, starts[:-1], strict=True):
            texels[index, start : start + size * size, :3] = (level * 255 + 0.5).reshape(-1, 3)
            if size > 1:
                half = level.reshape(size // 2, 2, size // 2, 2, 3)
                level = 0.25 * (half[:, 0, :, 0] + half[:, 0, :, 1] + half[:, 1, :, 0] + half[:, 1, :, 1])
    return Atlas(texels.reshape(-1, 4).view(np.uint32).reshape(-1), side, starts[:-1], int(starts[-1]))
