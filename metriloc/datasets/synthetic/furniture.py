"""Furniture, people and things at real-world sizes, built at the current place of a ``Builder``; metres, front towards -y.

Each function stands its piece on z = 0 with the back at y = 0 (furniture that stands against a wall, which then reaches to
negative y) or in the middle (free-standing pieces), and records its name and size.
"""

from __future__ import annotations

import numpy as np

from metriloc.datasets.synthetic.mesh import Material
from metriloc.datasets.synthetic.palette import Palette
from metriloc.datasets.synthetic.shapes import Builder
from metriloc.datasets.synthetic.tabletop import bowl, carton, mug, on_top, vase
from metriloc.datasets.synthetic.textures import Rng


def legs(b: Builder, w: float, d: float, h: float, material: Material, thick: float = 0.05) -> None:
    """Four legs under a rectangle around the origin."""
    for x in (-1, 1):
        for y in (-1, 1):
            b.block(x * (w / 2 - thick), y * (d / 2 - thick), 0, (thick, thick, h), material)


def chair(b: Builder, m: Palette, rng: Rng) -> None:
    """Seat 0.45 m high, back to about 0.9 m."""
    w, d, seat, back = rng.uniform(0.4, 0.46), rng.uniform(0.4, 0.48), rng.uniform(0.44, 0.48), rng.uniform(0.82, 1.0)
    frame, cloth = m("wood"), m.one_of("fabric", "wood")
    legs(b, w, d, seat - 0.04, frame, 0.035)
    b.block(0, 0, seat - 0.04, (w, d, 0.05), cloth)
    for x in (-w / 2 + 0.02, w / 2 - 0.02):
        b.block(x, d / 2 - 0.02, seat, (0.035, 0.035, back - seat), frame)
    bars = int(rng.integers(1, 4))
    height = (back - seat - 0.1) / bars
    for k in range(bars):
        b.block(0, d / 2 - 0.02, seat + 0.1 + k * height, (w - 0.04, 0.02, height * 0.7), cloth)
    b.named("chair", (w, d, back))


def table(b: Builder, m: Palette, rng: Rng, w: float, d: float, h: float = 0.75) -> None:
    """A table around the origin."""
    wood = m.one_of("wood", "wood", "marble")
    b.block(0, 0, h - 0.035, (w, d, 0.035), wood)
    frame = m("wood") if rng.random() < 0.7 else m.plain(0.1, rng.uniform(0.1, 0.8))
    if rng.random() < 0.2:
        with b.at(0, 0):
            b.turned_solid([(0.25, 0), (0.22, 0.03), (0.05, 0.06), (0.05, h - 0.035)], frame)
    else:
        b.block(0, 0, h - 0.11, (w - 0.12, d - 0.12, 0.075), frame)
        legs(b, w - 0.06, d - 0.06, h - 0.035, frame, 0.06)
    b.named("table", (w, d, h))


# -- against the wall -------------------------------------------------------------------------------------------------
def bookshelf(b: Builder, m: Palette, rng: Rng, w: float, h: float) -> None:
    """Boards and rows of books, 0.3 m deep."""
    d, wood = 0.3, m("wood")
    for x in (-w / 2 + 0.01, w / 2 - 0.01):
        b.block(x, -d / 2, 0, (0.02, d, h), wood)
    b.box((-w / 2 + 0.02, -0.015, 0), (w / 2 - 0.02, 0, h), wood)
    rows = max(round((h - 0.05) / 0.36), 1)
    for k in range(rows + 1):
        z = 0.06 + k * (h - 0.08) / rows
        b.block(0, -d / 2 - 0.008, z - 0.02, (w - 0.04, d - 0.02, 0.02), wood)
        if k == rows:
            break
        room = (h - 0.08) / rows - 0.02
        x = -w / 2 + 0.02
        while x < w / 2 - 0.2:
            run = min(rng.uniform(0.2, 0.75), w / 2 - 0.02 - x)
            if rng.random() < 0.8:
                tall, deep = room * rng.uniform(0.75, 0.97), rng.uniform(0.16, 0.23)
                pages = m.plain(0.08, 0.8)
                b.box(
                    (x, -deep - 0.016, z),
                    (x + run, -0.016, z + tall),
                    pages,
                    front=m("books"),
                    left=m("fabric"),
                    right=m("fabric"),
                )
            elif rng.random() < 0.7:
                with b.at(x + run / 2, -0.15, z):
                    (vase if rng.random() < 0.5 and room > 0.3 else mug)(b, m, rng)
            x += run + 0.01
    b.named("bookshelf", (w, d, h))


def cupboard(b: Builder, m: Palette, rng: Rng, size: tuple[float, float, float], front: str, name: str) -> None:
    """A closed cupboard with a textured front."""
    w, d, h = size
    face = m(front)
    body = Material(face.texture, (2.0, 4.0), face.tint) if rng.random() < 0.4 else m("wood")
    b.box((-w / 2, -d, 0), (w / 2, 0, h), body, front=face)
    b.named(name, size)


def sofa(b: Builder, m: Palette, rng: Rng, w: float) -> None:
    """Seat 0.43 m high, 0.9 m deep, back to 0.82 m."""
    cloth, d = m("fabric"), rng.uniform(0.82, 0.95)
    back, arm = rng.uniform(0.75, 0.9), rng.uniform(0.12, 0.22)
    b.box((-w / 2, -d, 0.1), (w / 2, -0.02, 0.28), cloth)
    b.box((-w / 2, -0.24, 0.28), (w / 2, 0, back), cloth)
    for x in (-w / 2, w / 2 - arm):
        b.box((x, -d, 0.1), (x + arm, -0.2, 0.6), cloth)
    seats = max(round((w - 2 * arm) / 0.65), 1)
    step = (w - 2 * arm) / seats
    for k in range(seats):
        x = -w / 2 + arm + k * step
        b.box((x + 0.01, -d - 0.02, 0.28), (x + step - 0.01, -0.24, 0.43), cloth)
        if rng.random() < 0.6:
            with b.at(x + step / 2 + rng.normal(0, 0.06), -0.36, 0.43, rng.normal(0, 0.25)):
                s = rng.uniform(0.34, 0.46)
                b.prism([(-s / 2, 0), (s / 2, 0), (0.42 * s, s), (-0.42 * s, s)], -0.07, 0.07, m("fabric"))
    for x in (-w / 2 + 0.08, w / 2 - 0.08):
        for y in (-d + 0.08, -0.1):
            b.block(x, y, 0, (0.05, 0.05, 0.1), m("wood"))
    b.named("sofa" if w > 1.3 else "armchair", (w, d, back))


def bed(b: Builder, m: Palette, rng: Rng, w: float) -> None:
    """Mattress 2 m long, top at about 0.5 m, with the head at the wall."""
    wood, sheet, cover = m("wood"), m("fabric").tinted(1.3, 1.3, 1.3), m("fabric")
    top = rng.uniform(0.42, 0.56)
    b.box((-w / 2, -2.08, 0.08), (w / 2, -0.06, top - 0.18), wood)
    b.box((-w / 2 + 0.02, -2.05, top - 0.18), (w / 2 - 0.02, -0.06, top), sheet)
    fold = rng.uniform(0.6, 0.9)
    b.box((-w / 2 - 0.03, -2.1, top - 0.22), (w / 2 + 0.03, -fold, top + 0.04), cover)
    b.box((-w / 2, -0.06, 0), (w / 2, 0, rng.uniform(0.8, 1.15)), m.one_of("wood", "fabric"))
    for k in range(2 if w > 1.2 else 1):
        x = (k - 0.5) * 0.5 * w if w > 1.2 else 0.0
        with b.at(x, -0.36, top, rng.normal(0, 0.08)):
            b.prism([(-0.3, 0), (0.3, 0), (0.33, 0.06), (0.24, 0.14), (-0.24, 0.14), (-0.33, 0.06)], -0.2, 0.2, sheet)
    b.named("bed", (w, 2.1, top))


def desk(b: Builder, m: Palette, rng: Rng, w: float) -> None:
    """A writing desk with a screen, a keyboard, things and drawers."""
    d, h = rng.uniform(0.65, 0.8), rng.uniform(0.72, 0.76)
    with b.at(0, -d / 2):
        table(b, m, rng, w, d, h)
        with b.at(rng.uniform(-0.15, 0.15) * w, 0.12, h, rng.normal(0, 0.15)):
            dark = m.plain(0.05, rng.uniform(0.05, 0.3))
            b.block(0, 0, 0, (0.24, 0.18, 0.015), dark)
            b.block(0, 0.03, 0, (0.05, 0.03, 0.14), dark)
            wide = rng.uniform(0.5, 0.72)
            b.block(0, 0, 0.11, (wide, 0.04, 0.58 * wide), dark, front=m("screen"))
            b.block(0, -0.24, 0, (0.43, 0.14, 0.02), dark, top=m("parcel").tinted(0.06, 0.06, 0.06))
        on_top(b, m, rng, (0.85 * w, 0.4 * d), h, int(rng.integers(1, 4)))
        side = (w / 2 - 0.25) * (1 if rng.random() < 0.5 else -1)
        b.block(side, 0, 0, (0.42, d - 0.1, 0.6), m("wood"), front=m("drawers"))
    with b.at(rng.uniform(-0.2, 0.2), -d - 0.25, 0, np.pi + rng.normal(0, 0.5)):
        chair(b, m, rng)


def kitchen(b: Builder, m: Palette, rng: Rng, w: float) -> None:
    """Units 0.6 m wide, worktop at 0.9 m, wall cupboards from 1.4 m, a hob, a sink and a fridge at the end."""
    fridge = rng.uniform(0.58, 0.7)
    steel, tall = m.plain(0.05, rng.uniform(0.5, 0.95)), rng.uniform(1.7, 2.0)
    b.box((w / 2 - fridge, -0.66, 0), (w / 2, 0, tall), steel, front=Material(m("unit").texture, None, steel.tint))
    end = w / 2 - fridge - 0.01
    count = max(int((end + w / 2) / 0.6), 1)
    step = (end + w / 2) / count
    top, wall, fronts = m.one_of("marble", "wood", "concrete"), m("tiles"), m("unit")
    for k in range(count):
        x = -w / 2 + k * step
        face = fronts if rng.random() < 0.75 else m("unit")
        b.box((x, -0.58, 0.1), (x + step, 0, 0.87), m("wood"), front=face)
        if rng.random() < 0.8:
            b.box((x, -0.36, 1.42), (x + step, 0, 2.12), fronts, front=fronts)
        if rng.random() < 0.5:
            with b.at(x + step / 2, -0.2, 0.91):
                (vase, carton, mug, bowl)[int(rng.integers(4))](b, m, rng)
    b.box((-w / 2, -0.52, 0), (end, -0.05, 0.1), m.plain(0.05, 0.2))
    b.box((-w / 2, -0.62, 0.87), (end, 0, 0.91), top)
    b.patch((-w / 2, -0.008, 1.42), (end + w / 2, 0, 0), (0, 0, -0.51), wall)
    b.block(-w / 2 + 0.55 * step, -0.3, 0.911, (0.52, 0.44, 0.006), steel)
    hob = -w / 2 + (count - 0.5) * step
    b.block(hob, -0.3, 0.911, (0.56, 0.5, 0.008), m.plain(0.0, 0.12))
    with b.at(hob, -0.3, 0.92):
        if rng.random() < 0.6:
            b.turned_solid([(0.11, 0), (0.12, 0.14)], m.plain(0.3, rng.uniform(0.2, 0.8)), 12)
    b.named("kitchen", (w, 0.62, 0.91))


def television(b: Builder, m: Palette, rng: Rng, w: float) -> None:
    """A low board with a television on it."""
    h = rng.uniform(0.42, 0.6)
    cupboard(b, m, rng, (w, 0.42, h), "cupboard", "sideboard")
    wide = min(rng.uniform(0.9, 1.35), w)
    dark = m.plain(0.0, 0.12)
    b.block(0, -0.2, h, (0.4, 0.2, 0.02), dark)
    b.block(0, -0.2, h + 0.06, (wide, 0.05, 0.57 * wide), dark, front=m("screen", new=True))


def radiator(b: Builder, m: Palette, w: float) -> None:
    """A heater 0.6 m high under a window."""
    b.box((-w / 2, -0.11, 0.12), (w / 2, -0.03, 0.7), m.plain(0.02, 0.95), front=m("ribs"))


def person(b: Builder, m: Palette, rng: Rng) -> None:
    """Someone standing, 1.55 to 1.9 m."""
    h = rng.uniform(1.55, 1.9)
    skin, top, trousers, shoe = m.skin(), m("fabric"), m("fabric"), m.plain(0.3, 0.25)
    stride = rng.uniform(0.0, 0.14)
    for side in (-1, 1):
        with b.at(0.095 * side, side * stride):
            b.block(0, -0.04, 0, (0.1, 0.27, 0.08), shoe)
            b.turned_solid([(0.055, 0.06), (0.065, 0.28 * h), (0.095, 0.48 * h)], trousers, 8)
        with b.at(0.235 * side, -0.5 * side * stride):
            b.turned_solid([(0.04, 0.44 * h), (0.05, 0.62 * h), (0.065, 0.81 * h)], top, 7)
            b.turned_solid([(0.03, 0.39 * h), (0.042, 0.44 * h)], skin, 6)
    b.turned_solid(
        [(0.17, 0.46 * h), (0.155, 0.58 * h), (0.21, 0.76 * h), (0.16, 0.825 * h), (0.06, 0.84 * h)], top, 12, 0.6
    )
    b.turned_solid([(0.055, 0.83 * h), (0.055, 0.87 * h)], skin, 8)
    hair = m.plain(0.4, rng.uniform(0.1, 0.5))
    b.turned_solid([(0.06, 0.868 * h), (0.088, 0.91 * h), (0.092, 0.95 * h)], skin, 10, 1.15)
    b.turned_solid([(0.098, 0.945 * h), (0.085, 0.98 * h), (0.03, h)], hair, 10, 1.15)
    b.named("person", (0.5, 0.35, h))
