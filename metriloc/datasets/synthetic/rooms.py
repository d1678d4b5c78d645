"""Furnished rooms at true size: walls with doors and windows, furniture along the walls and in the middle, lamps and sun.

The floor is z = 0 with the room's centre at the origin; ``interiors`` says what stands in it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass

import numpy as np

from metriloc.datasets.synthetic import furniture as things
from metriloc.datasets.synthetic.interiors import Against, Wall, fill_middle, furnish, hang_pictures
from metriloc.datasets.synthetic.light import Lamp, Lighting
from metriloc.datasets.synthetic.mesh import Material
from metriloc.datasets.synthetic.palette import Palette
from metriloc.datasets.synthetic.shapes import Builder
from metriloc.datasets.synthetic.textures import Rng

DOOR = (0.8, 1.0, 1.98, 2.1)
"""Door leaves: smallest and largest width, smallest and largest height, metres."""


@dataclass(frozen=True, eq=False)
class Stage:
    """A built place. lighting: see there; low, high: corners of the box camera centres are drawn from, metres; focus [n,3]:
    points worth looking at; sky: whether there is one."""

    lighting: Lighting
    low: np.ndarray
    high: np.ndarray
    focus: np.ndarray
    sky: bool


def room(b: Builder, m: Palette, rng: Rng) -> Stage:
    """Build one room; the kind of room decides what stands in it."""
    w, d, h = rng.uniform(3.0, 6.5), rng.uniform(2.8, 5.5), rng.uniform(2.4, 2.9)
    walls = [Wall(k, w if k % 2 == 0 else d) for k in range(4)]
    depth_of = [d / 2, w / 2, d / 2, w / 2]

    def against(k: int, x: float) -> AbstractContextManager[Builder]:
        # wall 0 is at +y; each next one a quarter turn clockwise
        turn = -k * np.pi / 2
        s, c = np.sin(turn), np.cos(turn)
        y = depth_of[k]
        return b.at(c * x - s * y, s * x + c * y, 0, turn)

    _shell(b, m, rng, (w, d, h))
    openings = _doors_and_windows(b, m, rng, walls, h, against)
    floor_taken: list[tuple[float, float, float, float]] = []
    furnish(b, m, rng, walls, (w, d, h), against, floor_taken)
    fill_middle(b, m, rng, (w, d), floor_taken)
    hang_pictures(b, m, rng, walls, h, against)
    lighting = _lighting(b, m, rng, (w, d, h), openings)
    low, high = np.array([-w / 2 + 0.25, -d / 2 + 0.25, 0.9]), np.array([w / 2 - 0.25, d / 2 - 0.25, min(h - 0.4, 1.9)])
    focus = np.array([[*o.center[:2], min(o.center[2] + 0.2, 1.8)] for o in b.objects if o.name != "wall"])
    return Stage(lighting, low, high, focus, False)


def _shell(b: Builder, m: Palette, rng: Rng, size: tuple[float, float, float]) -> None:
    w, d, h = size
    floor = m.one_of("planks", "planks", "carpet", "tiles", "marble", "concrete")
    b.patch((-w / 2, d / 2, 0), (w, 0, 0), (0, -d, 0), floor)
    ceiling = m("plaster", new=True).tinted(1.1, 1.1, 1.1) if rng.random() < 0.85 else m("planks")
    b.patch((-w / 2, -d / 2, h), (w, 0, 0), (0, d, 0), ceiling)
    usual = m.one_of("plaster", "plaster", "wallpaper", "plaster", "bricks")
    photo = m.photo()
    skirting = m.plain(0.1, rng.uniform(0.3, 0.95))
    for k in range(4):
        material = usual
        if rng.random() < 0.3:
            material = m.one_of("plaster", "wallpaper", "bricks", "planks")
        if photo is not None and rng.random() < 0.15:
            material = photo
        length, away = (w, d / 2) if k % 2 == 0 else (d, w / 2)
        with b.at(0, 0, 0, -k * np.pi / 2):
            b.patch((-length / 2, away, h), (length, 0, 0), (0, 0, -h), material)
            b.box((-length / 2, away - 0.015, 0), (length / 2, away, 0.09), skirting)
            if rng.random() < 0.15:
                b.box((-length / 2, away - 0.05, h - 0.09), (length / 2, away, h), skirting)


def _doors_and_windows(
    b: Builder, m: Palette, rng: Rng, walls: list[Wall], h: float, against: Against
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]]:
    """Doors and windows with frames; the windows as (corner, normal, right, down) in the world."""
    for k in rng.permutation(4)[: int(rng.integers(1, 3))]:
        w, height = rng.uniform(*DOOR[:2]), rng.uniform(*DOOR[2:])
        x = walls[k].find(rng, w + 0.2, 0.0, height)
        if x is None:
            continue
        walls[k].taken.append((x - w / 2 - 0.12, x + w / 2 + 0.12, 0.0, h))
        frame = m.plain(0.15, rng.uniform(0.2, 0.95))
        with against(int(k), x):
            b.box((-w / 2, -0.035, 0), (w / 2, 0, height), m("door"))
            for side in (-1, 1):
                b.block(side * (w / 2 + 0.035), -0.03, 0, (0.07, 0.06, height + 0.07), frame)
            b.box((-w / 2, -0.06, height), (w / 2, 0, height + 0.07), frame)
            b.named("door", (w, 0.04, height))
    openings = []
    for k in rng.permutation(4)[: int(rng.integers(1, 4))]:
        w, sill = rng.uniform(0.8, 2.0), rng.uniform(0.75, 1.0)
        top = min(rng.uniform(2.0, 2.3), h - 0.12)
        x = walls[k].find(rng, w + 0.4, 0.0, h)
        if x is None:
            continue
        walls[k].taken.append((x - w / 2 - 0.4, x + w / 2 + 0.4, sill - 0.1, h))
        with against(int(k), x):
            openings.append(_window(b, m, rng, (w, sill, top)))
    return openings


def _window(
    b: Builder, m: Palette, rng: Rng, size: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    w, sill, top = size
    view = m("view")
    b.patch(
        (-w / 2, -0.012, top),
        (w, 0, 0),
        (0, 0, sill - top),
        Material(view.texture, None, (1.0, 1.0, 1.0), rng.uniform(0.25, 0.8)),
    )
    frame = m.plain(0.1, rng.uniform(0.6, 0.97))
    for low, high in (
        ((-w / 2 - 0.06, -0.05, sill - 0.06), (w / 2 + 0.06, 0, sill)),
        ((-w / 2 - 0.06, -0.05, top), (w / 2 + 0.06, 0, top + 0.06)),
        ((-w / 2 - 0.06, -0.05, sill), (-w / 2, 0, top)),
        ((w / 2, -0.05, sill), (w / 2 + 0.06, 0, top)),
    ):
        b.box(low, high, frame)
    b.box((-w / 2 - 0.1, -0.2, sill - 0.09), (w / 2 + 0.1, 0, sill - 0.06), frame)
    if rng.random() < 0.5:
        cloth = m("curtain")
        wide = rng.uniform(0.2, 0.4)
        for side in (-1, 1):
            b.block(side * (w / 2 + 0.08), -0.11, 0.05, (wide, 0.1, top + 0.1), cloth)
        b.box((-w / 2 - 0.35, -0.12, top + 0.15), (w / 2 + 0.35, -0.1, top + 0.17), frame)
    elif rng.random() < 0.5:
        things.radiator(b, m, w * 0.8)
    b.named("window", (w, 0.05, top - sill), sill)
    corner = np.array(b.to_world((-w / 2, 0.0, top)))
    inward, right, down = (np.array(b.turned(v)) for v in ((0.0, -1.0, 0.0), (w, 0.0, 0.0), (0.0, 0.0, sill - top)))
    return corner, inward, right, down


def _ceiling_lamp(b: Builder, m: Palette, rng: Rng, size: tuple[float, float, float], warm: np.ndarray) -> Lamp:
    w, d, h = size
    x, y, spread = rng.uniform(-0.15, 0.15) * w, rng.uniform(-0.15, 0.15) * d, 0.12
    drop = rng.uniform(0.15, 0.5)
    with b.at(x, y, h - drop):
        shade = m.plain(0.2, 0.95)
        glowing = Material(shade.texture, shade.tile, shade.tint, 1.2)
        b.patch((-0.2, -0.2, 0), (0.4, 0, 0), (0, 0.4, 0), glowing)
        b.patch((-0.2, 0.2, 0.01), (0.4, 0, 0), (0, -0.4, 0), shade)
        b.patch((-0.01, 0, drop), (0.02, 0, 0), (0, 0, -drop), shade)
    spots = np.array([[x + i * spread, y + j * spread, h - drop - 0.06] for i in (-1, 1) for j in (-1, 1)])
    return Lamp(spots, warm * rng.uniform(1.5, 3.5))


def _sun_through(inward: np.ndarray, rng: Rng) -> np.ndarray:
    """A direction to the sun from which it shines in through an opening."""
    aside = np.cross(inward, [0, 0, 1.0]) * rng.uniform(-0.9, 0.9)
    sun = -inward + aside + np.array([0, 0, rng.uniform(0.35, 1.0)])
    return sun / np.linalg.norm(sun)


def _lighting(
    b: Builder,
    m: Palette,
    rng: Rng,
    size: tuple[float, float, float],
    openings: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> Lighting:
    w, d, h = size
    day = rng.random() < 0.75
    warm = np.array([1.0, rng.uniform(0.8, 0.95), rng.uniform(0.55, 0.85)])
    cool = np.array([rng.uniform(0.8, 1.0), rng.uniform(0.93, 1.0), 1.0])
    lamps = []
    for origin, normal, right, down in openings if day else ():
        spots = np.array([origin + right * a + down * c + 0.06 * normal for a in (0.25, 0.75) for c in (0.25, 0.75)])
        area = float(np.linalg.norm(right) * np.linalg.norm(down))
        lamps.append(Lamp(spots, cool * area * rng.uniform(0.7, 1.5), normal))
    if not day or rng.random() < 0.5 or not openings:
        lamps.append(_ceiling_lamp(b, m, rng, size, warm))
    base = rng.uniform(0.28, 0.5)
    sun = None
    if day and openings and rng.random() < 0.6:
        sun = _sun_through(openings[int(rng.integers(len(openings)))][1], rng)
    corner = np.array([w / 2, d / 2, h])
    return Lighting(
        ambient=base * (cool if day else warm),
        ground=base * 0.75 * np.array([1.0, 0.95, 0.88]),
        lamps=tuple(lamps),
        sun=sun,
        sun_color=np.array([1.0, 0.93, 0.8]) * rng.uniform(1.2, 2.5),
        openings=tuple(openings),
        room=(np.array([-w / 2, -d / 2, 0.0]), corner),
        reach=0.8,
    )
