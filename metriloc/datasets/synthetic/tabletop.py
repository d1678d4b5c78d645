"""Small things at true size that stand on furniture: bowls, vases, books, boxes, lamps, laptops, plants."""

from __future__ import annotations

import numpy as np

from metriloc.datasets.synthetic.mesh import Material
from metriloc.datasets.synthetic.palette import Palette
from metriloc.datasets.synthetic.shapes import Builder
from metriloc.datasets.synthetic.textures import Rng


def on_top(b: Builder, m: Palette, rng: Rng, area: tuple[float, float], z: float, count: int) -> None:
    """Small things scattered over a rectangle around the origin at height z."""
    makers = (bowl, vase, pile, carton, lamp, mug, laptop, potted)
    for _ in range(count):
        x, y = rng.uniform(-0.5, 0.5, 2) * np.array(area)
        with b.at(float(x), float(y), z, rng.uniform(-np.pi, np.pi)):
            makers[int(rng.integers(len(makers)))](b, m, rng)


def bowl(b: Builder, m: Palette, rng: Rng) -> None:
    """A bowl with fruit."""
    r = rng.uniform(0.09, 0.15)
    b.turned_solid([(0.5 * r, 0), (r, 0.07)], m.plain(0.4, rng.uniform(0.3, 0.95)), 10)
    for k in range(3):
        with b.at(0.45 * r * np.cos(2.1 * k), 0.45 * r * np.sin(2.1 * k), 0.05):
            b.turned_solid([(0.012, 0), (0.035, 0.02), (0.035, 0.045), (0.01, 0.07)], m.plain(0.9, 0.75), 7)


def vase(b: Builder, m: Palette, rng: Rng) -> None:
    """A vase or bottle."""
    r, h = rng.uniform(0.03, 0.08), rng.uniform(0.14, 0.4)
    material = m.plain(rng.uniform(0.1, 0.8), rng.uniform(0.2, 0.95)) if rng.random() < 0.6 else m("marble")
    b.turned_solid([(0.7 * r, 0), (r, 0.35 * h), (0.4 * r, 0.75 * h), (0.55 * r, h)], material, 10)


def mug(b: Builder, m: Palette, rng: Rng) -> None:
    """A mug, 0.1 m high."""
    b.turned_solid([(0.036, 0), (0.042, 0.1)], m.plain(0.5, rng.uniform(0.3, 0.95)), 9)


def pile(b: Builder, m: Palette, rng: Rng) -> None:
    """A few books lying."""
    z = 0.0
    for _ in range(int(rng.integers(1, 5))):
        w, d, h = rng.uniform(0.14, 0.24), rng.uniform(0.2, 0.3), rng.uniform(0.015, 0.045)
        with b.at(0, 0, z, rng.normal(0, 0.2)):
            side = m.plain(0.5, rng.uniform(0.3, 0.9))
            b.block(0, 0, 0, (w, d, h), side, top=m.one_of("poster", "abstract"), right=m.plain(0.05, 0.92))
        z += h


def carton(b: Builder, m: Palette, rng: Rng) -> None:
    """A small box."""
    print_, side = m.printed(), m("parcel")
    b.block(
        0,
        0,
        0,
        (rng.uniform(0.1, 0.3), rng.uniform(0.08, 0.25), rng.uniform(0.08, 0.28)),
        print_,
        left=side,
        right=side,
    )


def lamp(b: Builder, m: Palette, rng: Rng, height: float = 0.45) -> None:
    """A lamp with a shade."""
    foot = m.plain(0.2, rng.uniform(0.1, 0.8))
    wide = 0.12 + 0.06 * height
    b.turned_solid([(0.08, 0), (0.07, 0.02), (0.012, 0.04), (0.012, height * 0.65)], foot, 8)
    with b.at(0, 0, height - wide * 1.3):
        shade = m("fabric")
        b.turned_solid(
            [(wide, 0), (0.65 * wide, wide * 1.3)], Material(shade.texture, shade.tile, shade.tint, 0.35), 12
        )
    b.named("lamp", (2 * wide, 2 * wide, height))


def laptop(b: Builder, m: Palette, rng: Rng) -> None:
    """An open laptop."""
    shell = m.plain(0.05, rng.uniform(0.2, 0.75))
    b.block(0, 0, 0, (0.33, 0.23, 0.018), shell, top=m("parcel").tinted(0.08, 0.08, 0.08))
    b.block(0, 0.115, 0.018, (0.33, 0.012, 0.21), shell, front=m("screen"))


def potted(b: Builder, m: Palette, rng: Rng, height: float = 0.35) -> None:
    """A plant in a pot: crossed tufts of leaves."""
    r = 0.16 * height + 0.03
    b.turned_solid([(0.75 * r, 0), (r, 0.35 * height)], m.plain(0.5, rng.uniform(0.3, 0.8)), 10)
    leaf = m("leaves")
    for k in range(int(rng.integers(4, 8))):
        turn, lean = rng.uniform(0, 2 * np.pi), rng.uniform(0.1, 0.4) * height
        with b.at(lean * np.cos(turn), lean * np.sin(turn), height * rng.uniform(0.35, 0.6), rng.uniform(0, 6)):
            size = height * rng.uniform(0.12, 0.22)
            b.turned_solid(
                [(0.2 * size, 0), (size, 0.6 * size), (0.7 * size, 1.4 * size), (0.1 * size, 2 * size)], leaf, 6, 0.6
            )
        if k == 0:
            b.turned_solid([(0.015, 0.3 * height), (0.012, 0.8 * height)], m("wood"), 5)
    b.named("plant", (2.4 * r, 2.4 * r, height))
