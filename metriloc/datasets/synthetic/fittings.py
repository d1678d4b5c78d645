"""Textures of what belongs to a building: doors, fronts, windows, shops, rugs, curtains, radiators, clocks."""

from __future__ import annotations

import numpy as np

from metriloc.datasets.synthetic.pictures import landscape, rectangle, text
from metriloc.datasets.synthetic.textures import (
    Rng,
    colored,
    fabric,
    fractal,
    grid,
    hue,
    mix,
    noise,
    planks,
    soft,
)


def door(rng: Rng, side: int) -> np.ndarray:
    """A door leaf with panels, sometimes glass, and a handle."""
    image = planks(rng, side, 1)
    rows, columns = int(rng.integers(1, 5)), int(rng.integers(1, 3))
    glass = rng.random() < 0.25
    for r in range(rows):
        for c in range(columns):
            x0, x1 = 0.1 + 0.84 * c / columns, 0.06 + 0.84 * (c + 1) / columns
            y0, y1 = 0.05 + 0.92 * r / rows, 0.02 + 0.92 * (r + 1) / rows
            a = slice(round(y0 * side), round(y1 * side)), slice(round(x0 * side), round(x1 * side))
            image[a] *= 0.55
            b = slice(a[0].start + 3, a[0].stop), slice(a[1].start + 3, a[1].stop)
            image[b] *= 1.9
            if glass and r == 0:
                image[b] = np.array([0.6, 0.68, 0.7]) * (0.8 + 0.4 * noise(rng, side, 6)[b][..., None])
    handle = np.array([0.75, 0.72, 0.65]) * rng.uniform(0.4, 1.2)
    rectangle(image, (0.86, 0.47, 0.93, 0.55), handle * 0.6)
    rectangle(image, (0.8, 0.485, 0.92, 0.5), handle)
    return image


def fronts(rng: Rng, side: int, rows: int, columns: int) -> np.ndarray:
    """Drawer and cupboard fronts: gaps, a faint bevel, handles."""
    image = planks(rng, side, 1)
    dark = np.full(3, 0.08)
    metal = np.full(3, rng.uniform(0.3, 0.85))
    for r in range(rows):
        for c in range(columns):
            x0, x1, y0, y1 = c / columns, (c + 1) / columns, r / rows, (r + 1) / rows
            image[round(y0 * side) : round(y1 * side), round(x0 * side) : round(x1 * side)] *= rng.uniform(0.92, 1.05)
            rectangle(image, (x0, y0, x1, y0 + 0.008), dark)
            rectangle(image, (x0, y0, x0 + 0.008, y1), dark)
            mid, half = (x0 + x1) / 2, 0.15 / columns
            if rows >= columns:
                rectangle(image, (mid - half, y0 + 0.12 / rows, mid + half, y0 + 0.12 / rows + 0.015), metal)
            else:
                edge = x1 - 0.12 / columns if c % 2 == 0 else x0 + 0.1 / columns
                rectangle(image, (edge, (y0 + y1) / 2 - 0.08, edge + 0.015, (y0 + y1) / 2 + 0.08), metal)
    return image


def view_outside(rng: Rng, side: int) -> np.ndarray:
    """What one sees through a window of a room, with its bars."""
    image = np.clip(landscape(rng, side) * 1.15, 0, 1)
    rim, bar = 0.045, 0.015
    frame = np.full(3, rng.uniform(0.6, 0.95))
    for box in ((0, 0, 1, rim), (0, 1 - rim, 1, 1), (0, 0, rim, 1), (1 - rim, 0, 1, 1)):
        rectangle(image, box, frame)
    for k in range(1, int(rng.integers(2, 4))):
        at = k / 2 if rng.random() < 0.7 else 0.33
        rectangle(image, (at - bar, 0, at + bar, 1), frame * 0.95)
    if rng.random() < 0.4:
        rectangle(image, (0, 0.35 - bar, 1, 0.35 + bar), frame * 0.95)
    return image


def facade_window(rng: Rng, side: int) -> np.ndarray:
    """A window from outside. Dark panes that mirror the sky, curtains or blinds, bars."""
    x, y = grid(side)
    sky = colored(0.15 + 0.5 * np.clip(1 - y + 0.25 * x, 0, 1) * fractal(rng, side, 3, 4), [0.75, 0.88, 1.0])
    if rng.random() < 0.5:
        edge = rng.uniform(0.1, 0.35)
        cloth = soft(np.maximum(edge - x, x - 1 + edge), 0.03) * np.ones_like(y)
        folds = 0.7 + 0.2 * np.sin(2 * np.pi * x * rng.integers(10, 25)) * np.ones_like(y)
        sky = mix(sky, colored(folds, hue(rng, 0.2, 0.8)), 0.75 * cloth)
    if rng.random() < 0.3:
        drop = rng.uniform(0.2, 0.9)
        blind = colored(0.65 + 0.1 * np.sin(2 * np.pi * y * 30) * np.ones_like(x), hue(rng, 0.1, 0.95))
        sky = mix(sky, blind, soft(drop - y, 0.01) * np.ones_like(x))
    frame = hue(rng, rng.uniform(0, 0.4), rng.uniform(0.2, 0.95))
    for box in ((0, 0, 1, 0.06), (0, 0.94, 1, 1), (0, 0, 0.06, 1), (0.94, 0, 1, 1), (0.475, 0, 0.525, 1)):
        rectangle(sky, box, frame)
    if rng.random() < 0.6:
        rectangle(sky, (0, 0.3, 1, 0.34), frame)
    return sky


def shop(rng: Rng, side: int) -> np.ndarray:
    """A shop front: sign with letters, goods behind glass, a door."""
    image = facade_window(rng, side) * 0.6
    for _ in range(14):
        cx, foot = rng.random(), rng.uniform(0.6, 0.93)
        w, h = rng.uniform(0.02, 0.08), rng.uniform(0.04, 0.2)
        rectangle(image, (cx - w, foot - h, cx + w, foot), hue(rng, 0.7, rng.uniform(0.3, 1.0)))
    board = hue(rng, rng.uniform(0.2, 0.9), rng.uniform(0.2, 0.9))
    rectangle(image, (0, 0, 1, 0.24), board)
    text(rng, image, (0.08, 0.05, 0.98, 0.22), 0.14, 1 - 0.9 * board)
    at = rng.uniform(0.1, 0.6)
    rectangle(image, (at, 0.3, at + 0.26, 1), board * 0.7)
    rectangle(image, (at + 0.03, 0.34, at + 0.23, 0.96), np.array([0.25, 0.3, 0.33]))
    rectangle(image, (0, 0.94, at, 1), board * 0.5)
    return image


def rug(rng: Rng, side: int) -> np.ndarray:
    """Borders around a field of mirrored motifs."""
    x, y = grid(side)
    half = fractal(rng, side, 12, 3)
    half = np.minimum(half, half[::-1])
    field = np.minimum(half, half[:, ::-1])
    colors = [hue(rng, rng.uniform(0.3, 0.9), rng.uniform(0.2, 0.85)) for _ in range(4)]
    image = np.broadcast_to(colors[0], (side, side, 3)).astype(np.float32)
    image = mix(image, colors[1], soft(field - 0.4, 0.03))
    image = mix(image, colors[2], soft(field - 0.52, 0.03))
    edge = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y)) * np.ones_like(x + y)
    for k, limit in enumerate(np.sort(rng.uniform(0.02, 0.2, 3))[::-1]):
        image = mix(image, colors[(k + 2) % 4], soft(limit - edge, 0.006))
    return image * (0.75 + 0.4 * noise(rng, side, side // 2))[..., None]


def curtain(rng: Rng, side: int) -> np.ndarray:
    """Cloth in folds."""
    x, _ = grid(side)
    folds = 0.75 + 0.25 * np.sin(2 * np.pi * (x * rng.integers(5, 10) + 0.6 * noise(rng, side, (2, 4))))
    return fabric(rng, side) * folds[..., None]


def ribs(rng: Rng, side: int) -> np.ndarray:
    """A radiator, a vent or a roller shutter: lit ribs."""
    x, y = grid(side)
    ridge = np.abs(np.sin(np.pi * x * 16)) * np.ones_like(y)
    return colored(0.55 + 0.4 * ridge - 0.3 * (np.abs(y - 0.5) > 0.46), np.ones(3) * rng.uniform(0.85, 1.0))


def clock(rng: Rng, side: int) -> np.ndarray:
    """A clock face with hour marks and hands."""
    x, y = grid(side)
    dx, dy = x - 0.5, y - 0.5
    r, angle = np.hypot(dx, dy), np.arctan2(dx, -dy)
    image = np.full((side, side, 3), 0.93, dtype=np.float32)
    mark = (np.abs((angle * 6 / np.pi + 0.5) % 1 - 0.5) < 0.12) & (r > 0.36) & (r < 0.43)
    image = mix(image, [0.05, 0.05, 0.05], mark.astype(np.float32))
    for length in (0.22, 0.33):
        turn = rng.uniform(0, 2 * np.pi)
        along, off = dx * np.sin(turn) - dy * np.cos(turn), dx * np.cos(turn) + dy * np.sin(turn)
        image = mix(
            image, [0.05, 0.05, 0.05], ((np.abs(off) < 0.014) & (along > -0.04) & (along < length)).astype(np.float32)
        )
    return mix(image, hue(rng, 0.5, 0.4), soft(r - 0.455, 0.02))
