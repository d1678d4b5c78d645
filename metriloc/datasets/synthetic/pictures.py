"""Procedural pictures that are stretched over one face: doors, windows, books, posters, paintings, screens, signs, rugs.

As in ``textures``: a random generator and the side in pixels in, a square image [T,T,3], 0..1, out.
"""

from __future__ import annotations

import numpy as np

from metriloc.datasets.synthetic.textures import (
    Rng,
    colored,
    fractal,
    grid,
    hue,
    mix,
    noise,
    planks,
    soft,
)


def rectangle(image: np.ndarray, box: tuple[float, float, float, float], color: np.ndarray | float) -> None:
    """Fill (left, top, right, bottom), in 0..1, of an image that belongs to the caller."""
    side = image.shape[0]
    left, top, right, bottom = (round(float(v) * side) for v in box)
    image[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = color


def text(
    rng: Rng, image: np.ndarray, box: tuple[float, float, float, float], height: float, color: np.ndarray | float
) -> None:
    """Lines of made-up letters in a box.

    Words of glyphs drawn with a few strokes on a 4 x 6 raster.
    """
    side = image.shape[0]
    left, top, right, bottom = (round(float(v) * side) for v in box)
    right, bottom = min(right, side), min(bottom, side)
    cell = height * side / 6  # a letter is 3 x 6 cells, a step to the right 4, a line 9
    lines, letters = int((bottom - top) / cell / 9) + 1, int((right - left) / cell / 4)
    if right <= left or bottom <= top or letters < 1 or cell <= 0:
        return
    glyphs = rng.random((lines, letters, 6, 3)) < 0.3
    line, letter = np.ogrid[:lines, :letters]
    glyphs[line, letter, :, rng.integers(3, size=(lines, letters))] = True
    glyphs[line, letter, rng.integers(6, size=(lines, letters))] = True
    spaces = rng.random((lines, letters)) < 0.17
    glyphs &= ~(spaces | (letter > letters * rng.uniform(0.7, 1.0, (lines, 1))))[..., None, None]
    raster = np.zeros((lines, 9, letters, 4), dtype=bool)
    raster[:, :6, :, :3] = glyphs.transpose(0, 2, 1, 3)
    page = raster.reshape(lines * 9, letters * 4)
    down = (np.arange(bottom - top) / cell).astype(int)
    across = (np.arange(right - left) / cell).astype(int)
    down, across = down[down // 9 * 9 + 6 <= (bottom - top) / cell], across[across < letters * 4]
    part = image[top : top + len(down), left : left + len(across)]
    part[page[down][:, across]] = color


def landscape(rng: Rng, side: int) -> np.ndarray:
    """A made-up photograph: sky, ranges of hills, meadow, trees, sometimes houses."""
    x, y = grid(side)
    top, low = (
        np.array([0.35, 0.55, 0.85]) * rng.uniform(0.8, 1.2),
        np.array([0.85, 0.85, 0.85]) * rng.uniform(0.85, 1.1),
    )
    if rng.random() < 0.3:
        top, low = hue(rng, 0.5, 0.6), np.array([0.95, 0.65, 0.4])
    image = mix(
        np.broadcast_to(top, (side, side, 3)).astype(np.float32), low, np.broadcast_to(y * 1.6, (side, side)).clip(0, 1)
    )
    image = mix(image, [0.97, 0.97, 0.97], soft(fractal(rng, side, (5, 3), 5) - 0.6, 0.25) * 0.8)
    ground = rng.uniform(0.35, 0.6)
    for k in range(3):
        ridge = ground + 0.13 * k + (0.22 - 0.05 * k) * (fractal(rng, side, 2 + k, 5)[:1] - 0.5)
        color = hue(rng, 0.3, 0.5) * 0.5 + np.array([0.25, 0.36, 0.2]) * (0.5 + 0.3 * k)
        shade = 0.7 + 0.6 * fractal(rng, side, 10 + 6 * k, 5, 0.7)
        image = mix(image, colored(shade, color), soft(y - ridge, 0.01))
    for _ in range(int(rng.integers(2, 7))):
        cx, foot, size = rng.random(), rng.uniform(ground + 0.1, 0.95), rng.uniform(0.06, 0.2)
        if rng.random() < 0.3:
            wall = hue(rng, 0.2, rng.uniform(0.5, 0.9))
            rectangle(image, (cx - size, foot - size, cx + size, foot), wall)
            rectangle(
                image,
                (cx - 1.1 * size, foot - 1.4 * size, cx + 1.1 * size, foot - size),
                wall * np.array([0.6, 0.35, 0.3]),
            )
            for dx in (-0.5, 0.2):
                rectangle(image, (cx + dx * size, foot - 0.7 * size, cx + (dx + 0.3) * size, foot - 0.4 * size), 0.2)
        else:
            rectangle(image, (cx - 0.08 * size, foot - size, cx + 0.08 * size, foot), np.array([0.25, 0.17, 0.1]))
            blob = np.hypot(x - cx, (y - foot + 1.3 * size) * 0.8) / size + 0.9 * (fractal(rng, side, 16, 3) - 0.5)
            image = mix(image, colored(0.4 + 0.8 * noise(rng, side, 64), [0.2, 0.4, 0.15]), soft(0.7 - blob, 0.1))
    return image


def abstract(rng: Rng, side: int) -> np.ndarray:
    """Cells around scattered points in a few colours, with outlines and shapes on top."""
    count = int(rng.integers(6, 20))
    points = rng.random((count, 2)).astype(np.float32)
    x, y = grid(side)
    stretch = rng.uniform(0.5, 2.0)
    distance = np.stack([np.hypot(x - px, (y - py) * stretch) for px, py in points])
    nearest = np.partition(distance, 1, 0)[:2]
    colors = np.stack([hue(rng, rng.uniform(0.1, 0.9), rng.uniform(0.15, 0.95)) for _ in range(6)])
    image = colors[rng.integers(0, 6, count)][distance.argmin(0)]
    image = image * (1 - 0.9 * (1 - soft(nearest[1] - nearest[0] - 0.012, 0.006)))[..., None]
    for _ in range(int(rng.integers(0, 6))):
        cx, cy, r = rng.random(), rng.random(), rng.uniform(0.05, 0.25)
        ring = np.abs(np.hypot(x - cx, y - cy) - r) - rng.uniform(0.01, 0.1)
        image = mix(image, colors[int(rng.integers(6))], soft(-ring, 0.01))
    return image * (0.85 + 0.3 * fractal(rng, side, 16, 4))[..., None]


def poster(rng: Rng, side: int) -> np.ndarray:
    """A headline, a picture and small print on coloured paper."""
    image = colored(0.95 + 0.1 * fractal(rng, side, 3, 3), hue(rng, rng.uniform(0, 0.7), rng.uniform(0.4, 0.98)))
    ink = np.array([0.08, 0.08, 0.1]) if image.mean() > 0.5 else np.array([0.95, 0.93, 0.88])
    split = rng.uniform(0.25, 0.7)
    text(
        rng,
        image,
        (0.07, 0.06, 0.95, 0.06 + 0.18),
        rng.uniform(0.06, 0.12),
        hue(rng, 0.8, 0.5) if rng.random() < 0.4 else ink,
    )
    inset = (landscape if rng.random() < 0.6 else abstract)(rng, side)
    top, bottom = round(0.27 * side), round((0.3 + 0.45 * split) * side)
    image[top:bottom, round(0.07 * side) : round(0.93 * side)] = inset[
        top:bottom, round(0.07 * side) : round(0.93 * side)
    ]
    text(rng, image, (0.07, 0.34 + 0.45 * split, 0.93, 0.95), rng.uniform(0.025, 0.05), ink)
    return image


def framed(rng: Rng, side: int, picture: np.ndarray) -> np.ndarray:
    """A picture in a frame, with or without a mount."""
    image = planks(rng, side, 1) * rng.uniform(0.3, 1.0)
    rim, mount = rng.uniform(0.02, 0.05), rng.uniform(0.0, 0.12)
    if mount > 0.04:
        rectangle(image, (rim, rim, 1 - rim, 1 - rim), np.array([0.93, 0.91, 0.86]))
        rim += mount
    a, b = round(rim * side), side - round(rim * side)
    rows = np.linspace(0, side - 1, b - a).astype(int)
    image[a:b, a:b] = picture[rows][:, rows]
    return image


def books(rng: Rng, side: int) -> np.ndarray:
    """One row of spines of many widths, heights and colours with bands and lettering (about 0.8 m x 0.28 m)."""
    image = np.full((side, side, 3), 0.05, dtype=np.float32)
    _, y = grid(side)
    x = 0.0
    while x < 1.0:
        w, top = rng.uniform(0.02, 0.07), rng.uniform(0.0, 0.3)
        if rng.random() < 0.05:
            x += w
            continue
        color = hue(rng, rng.uniform(0.05, 0.9), rng.uniform(0.15, 0.95))
        a, b = round(x * side), min(round((x + w) * side), side)
        if b - a > 2:
            round_back = 1 - 0.45 * np.abs(np.linspace(-1, 1, b - a)) ** 3
            spine = np.broadcast_to(color * round_back[:, None], (side, b - a, 3)).copy()
            ink = 1 - 0.85 * color if rng.random() < 0.7 else np.array([0.85, 0.7, 0.3])
            for center in rng.uniform(0.3, 0.95, int(rng.integers(1, 4))):
                spine = mix(spine, ink, np.broadcast_to(soft(0.012 - np.abs(y - center), 0.005), spine.shape[:2]))
            letters = rng.random((40, 2)) < 0.5
            at, gap = rng.uniform(0.35, 0.6), max((b - a) // 4, 1)
            block = np.repeat(np.repeat(letters, max(side // 120, 1), 0), max((b - a - 2 * gap) // 2, 1), 1)
            r0 = round(at * side)
            block = block[: max(side - r0 - 4, 0), : b - a - gap]
            patch = spine[r0 : r0 + block.shape[0], gap : gap + block.shape[1]]
            patch[block[: patch.shape[0], : patch.shape[1]]] = ink
            image[round(top * side) :, a:b] = spine[round(top * side) :]
        x += w
    return image


def screen(rng: Rng, side: int) -> np.ndarray:
    """A monitor or television. A dark rim and windows with text, or a film."""
    image = np.full((side, side, 3), 0.04, dtype=np.float32)
    inner = (
        landscape(rng, side)
        if rng.random() < 0.5
        else np.full((side, side, 3), 0.1, dtype=np.float32) + hue(rng, 0.5, 0.2)
    )
    if rng.random() < 0.6:
        for _ in range(int(rng.integers(1, 4))):
            x0, y0 = rng.uniform(0.02, 0.5), rng.uniform(0.05, 0.5)
            x1, y1 = x0 + rng.uniform(0.3, 0.5), y0 + rng.uniform(0.3, 0.5)
            paper = rng.choice([0.95, 0.15])
            rectangle(inner, (x0, y0, x1, y1), paper)
            text(rng, inner, (x0 + 0.02, y0 + 0.05, x1, y1), 0.03, 0.9 - 0.8 * paper)
    a = round(0.025 * side)
    image[a:-a, a:-a] = inner[a:-a, a:-a]
    return image


def parcel(rng: Rng, side: int) -> np.ndarray:
    """Cardboard or a printed carton: tape, a label, a mark."""
    base = np.array([0.72, 0.56, 0.38]) if rng.random() < 0.6 else hue(rng, 0.6, 0.8)
    image = colored(0.85 + 0.25 * fractal(rng, side, 6, 5), base)
    at = rng.uniform(0.1, 0.8)
    rectangle(image, (0, at, 1, at + 0.12), base * 1.15)
    x0, y0 = rng.uniform(0.05, 0.5), rng.uniform(0.05, 0.5)
    rectangle(image, (x0, y0, x0 + 0.4, y0 + 0.3), 0.95)
    text(rng, image, (x0 + 0.03, y0 + 0.03, x0 + 0.38, y0 + 0.28), 0.05, 0.1)
    text(rng, image, (0.08, 0.72, 0.9, 0.95), 0.13, base * 0.35)
    return image
