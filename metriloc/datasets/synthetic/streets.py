"""Streets and squares at true size: house fronts with windows and doors, roads, cars, trees, lamps, people, street furniture.

The street runs along x with the road's middle at y = 0 and z = 0 on the road; a square is open ground with things and people in
the middle and houses around.
"""

from __future__ import annotations

import numpy as np

from metriloc.datasets.synthetic import furniture as things
from metriloc.datasets.synthetic.light import Lighting
from metriloc.datasets.synthetic.mesh import Material
from metriloc.datasets.synthetic.palette import Palette
from metriloc.datasets.synthetic.rooms import DOOR, Stage
from metriloc.datasets.synthetic.shapes import Builder
from metriloc.datasets.synthetic.street_furniture import (
    bench,
    bin_,
    bollards,
    car,
    crates,
    kiosk,
    lamp_post,
    monument,
    sign,
    stall,
    tree,
)
from metriloc.datasets.synthetic.textures import Rng

KERB = 0.12


def street(b: Builder, m: Palette, rng: Rng, scale: float = 1.0) -> Stage:
    """A street with pavements and house fronts on both sides, closed by a house at one end or both.

    scale: how much wider than an everyday street it is; its houses are up to that much larger. What stands in it is not.
    """
    half, pave, length = scale * rng.uniform(2.5, 4.0), rng.uniform(1.5, 3.0), rng.uniform(30, 50)
    front = half + pave
    road = m.one_of("asphalt", "asphalt", "paving")
    b.ground((-length, -half), (length, half), 0, road)
    b.patch((-90, 60, -0.05), (180, 0, 0), (0, -120, 0), m.one_of("grass", "concrete"))
    walk = m.one_of("paving", "concrete")
    for side in (-1, 1):
        low, high = sorted((side * half, side * (front + 0.5)))
        b.box((-length, low, 0), (length, high, KERB), walk, top=None)
        b.ground((-length, low), (length, high), KERB, walk)
    if rng.random() < 0.7:
        white = m.plain(0.02, rng.uniform(0.6, 0.9))
        for k in range(int(-length / 4), int(length / 4)):
            b.patch((4 * k, 0.06, 0.008), (2.2, 0, 0), (0, -0.12, 0), white)
    for side in (-1, 1):
        x = -length / 2 - rng.uniform(0, 5)
        while x < length / 2:
            large = _larger(rng, scale)
            w = large * rng.uniform(6, 14)
            with b.at(x + w / 2, side * front, KERB, 0 if side > 0 else np.pi):
                house(b, m, rng, w, large)
            x += w + (rng.uniform(1.5, 4) if rng.random() < 0.2 else 0)
    for side in (-1, 1):
        with b.at(side * (length / 2 + rng.uniform(6, 10)), 0, 0, -side * np.pi / 2):
            house(b, m, rng, 2 * front + 10, _larger(rng, scale))
    _along(b, m, rng, (half, length))
    reach = min(0.28 * length, 12.0)
    focus = _focus(b)
    corner = np.array([reach, half + pave - 0.6, 2.0])
    return Stage(_daylight(rng), corner * [-1, -1, 0.6], corner, focus, True)


def square(b: Builder, m: Palette, rng: Rng, scale: float = 1.0) -> Stage:
    """Open ground with people, trees, benches, stacked things and a monument, houses around it. scale: as of ``street``."""
    half = scale * rng.uniform(9, 16)
    b.patch((-60, 60, -0.05), (120, 0, 0), (0, -120, 0), m("asphalt"))
    b.ground(
        (-half - 4, -half - 4), (half + 4, half + 4), 0, m.one_of("paving", "paving", "grass", "concrete", "asphalt")
    )
    for k in range(4):
        with b.at(0, 0, 0, k * np.pi / 2):
            x = -half - rng.uniform(0, 3)
            while x < half:
                large = _larger(rng, scale)
                w = large * rng.uniform(6, 12)
                if rng.random() < 0.85:
                    with b.at(x + w / 2, half + rng.uniform(0, 1.0)):
                        house(b, m, rng, w, large)
                x += w
    spots: list[tuple[float, float]] = []
    makers = (monument, bench, tree, stall, things.person, things.person, bin_, crates, lamp_post, car, kiosk)
    for _ in range(int(rng.integers(12, 22))):
        x, y = rng.uniform(-0.7, 0.7, 2) * half
        if all(np.hypot(x - p, y - q) > 2.2 for p, q in spots):
            spots.append((float(x), float(y)))
            with b.at(float(x), float(y), 0, rng.uniform(0, 2 * np.pi)):
                makers[int(rng.integers(len(makers)))](b, m, rng)
    reach = 0.7 * half
    return Stage(_daylight(rng), np.array([-reach, -reach, 1.1]), np.array([reach, reach, 1.9]), _focus(b), True)


def _larger(rng: Rng, scale: float) -> float:
    """How much larger than everyday one house is: from 1 to ``scale``, at most 2, as palaces and churches are."""
    return rng.uniform(1.0, min(scale, 2.0)) if scale > 1 else 1.0


def _focus(b: Builder) -> np.ndarray:
    return np.array([[*o.center[:2], min(o.center[2], 2.2)] for o in b.objects if o.name != "window"])


def _daylight(rng: Rng) -> Lighting:
    high = rng.uniform(0.35, 1.2)
    turn = rng.uniform(0, 2 * np.pi)
    sun = np.array([np.cos(turn) * np.cos(high), np.sin(turn) * np.cos(high), np.sin(high)])
    cloudy = rng.random() < 0.35
    strength = rng.uniform(0.05, 0.3) if cloudy else rng.uniform(0.9, 1.6)
    sky = np.array([0.8, 0.9, 1.05]) * (rng.uniform(0.7, 0.9) if cloudy else rng.uniform(0.35, 0.6))
    return Lighting(
        ambient=sky,
        ground=sky * 0.5 * np.array([1.1, 1.0, 0.85]),
        sun=sun,
        sun_color=strength * np.array([1.0, rng.uniform(0.85, 0.97), rng.uniform(0.65, 0.9)]),
        reach=2.0,
        texels_a_metre=4.0,
    )


# -- houses -----------------------------------------------------------------------------------------------------------
def house(b: Builder, m: Palette, rng: Rng, w: float, large: float = 1.0) -> None:
    """A house front of width ``w`` facing -y at the current place.

    Storeys of about 3 m, windows, a door or shops below. large: factor on its storeys, windows and
    bays.
    """
    storeys, storey = int(rng.integers(2, 5)), large * rng.uniform(2.8, 3.3)
    h = storeys * storey + 0.4
    wall = m.one_of("bricks", "bricks", "bricks", "plaster", "plaster", "concrete", "planks")
    tile = wall.tile or (2.0, 2.0)
    shade = rng.uniform(0.8, 1.1)
    wall = Material(wall.texture, tile, (shade, shade * rng.uniform(0.93, 1.0), shade * rng.uniform(0.85, 1.0)))
    trim = m.plain(0.1, rng.uniform(0.45, 0.95))
    b.box((-w / 2, 0, 0), (w / 2, 8, h), wall, back=None, top=None)
    b.box((-w / 2 - 0.15, -0.25, h), (w / 2 + 0.15, 8.2, h + 0.3), trim, back=None)
    if rng.random() < 0.4:
        b.prism(
            [(-w / 2, h + 0.3), (w / 2, h + 0.3), (0, h + 0.3 + 0.25 * w)], 0.2, 7.8, m("bricks").tinted(0.8, 0.55, 0.5)
        )
    if rng.random() < 0.5:
        b.box((-w / 2, -0.06, storey - 0.1), (w / 2, 0, storey + 0.1), trim)
    bays = max(int(w / (large * rng.uniform(2.0, 3.2))), 1)
    step, ww, wh = w / bays, large * rng.uniform(0.9, 1.3), large * rng.uniform(1.2, 1.7)
    shops = rng.random() < 0.45
    door_at = int(rng.integers(bays))
    for k in range(bays):
        x = -w / 2 + (k + 0.5) * step
        if k == door_at:
            _entrance(b, m, rng, x, trim, large)
        elif shops:
            b.box((x - 0.44 * step, -0.08, 0.02), (x + 0.44 * step, 0, 2.75 * large), trim, front=m("shop"))
        else:
            _outer_window(b, m, x, (ww, wh, 0.95 * large), trim)
        for s in range(1, storeys):
            _outer_window(b, m, x, (ww, wh, s * storey + 0.85 * large), trim)
            if rng.random() < 0.08:
                b.box((x - 0.8, -0.9, s * storey), (x + 0.8, 0, s * storey + 0.12), m("concrete"))
                b.box(
                    (x - 0.8, -0.9, s * storey + 0.12),
                    (x + 0.8, -0.86, s * storey + 1.0),
                    m("ribs").tinted(0.5, 0.5, 0.5),
                )
    b.named("house", (w, 8.0, h))


def _entrance(b: Builder, m: Palette, rng: Rng, x: float, trim: Material, large: float) -> None:
    w, h = large * rng.uniform(0.9, DOOR[1] + 0.1), large * rng.uniform(*DOOR[2:])
    with b.at(x, 0):
        b.box((-w / 2, -0.05, 0), (w / 2, 0, h), m("door"))
        for side in (-1, 1):
            b.block(side * (w / 2 + 0.08), -0.05, 0, (0.16, 0.1, h + 0.2), trim)
        b.box((-w / 2, -0.1, h), (w / 2, 0, h + 0.2), trim)
        b.block(0, -0.25, 0, (w + 0.6, 0.5, 0.1), m("concrete"))
        b.named("door", (w, 0.05, h))


def _outer_window(b: Builder, m: Palette, x: float, size: tuple[float, float, float], trim: Material) -> None:
    w, h, z = size
    b.patch((x - w / 2, -0.03, z + h), (w, 0, 0), (0, 0, -h), m("facade_window"))
    b.box((x - w / 2 - 0.1, -0.14, z - 0.1), (x + w / 2 + 0.1, 0, z), trim)
    b.box((x - w / 2 - 0.1, -0.07, z + h), (x + w / 2 + 0.1, 0, z + h + 0.14), trim)


# -- street furniture -------------------------------------------------------------------------------------------------
def _along(b: Builder, m: Palette, rng: Rng, size: tuple[float, float]) -> None:
    half, length = size
    for side in (-1, 1):
        x = -length / 2
        while x < length / 2:
            if rng.random() < 0.45:
                with b.at(x, side * (half - 1.0), 0, rng.choice([0, np.pi])):
                    car(b, m, rng)
            x += rng.uniform(5, 8)
        x = -length / 2
        while x < length / 2:
            makers = (tree, lamp_post, bin_, bench, sign, things.person, things.person, crates, bollards)
            with b.at(x, side * (half + rng.uniform(0.35, 0.6)), KERB, np.pi * (side > 0) + rng.normal(0, 0.1)):
                makers[int(rng.integers(len(makers)))](b, m, rng)
            x += rng.uniform(2.5, 6)
