"""What stands in streets and squares at true size: cars, trees, lamps, benches, signs, stalls, a monument."""

from __future__ import annotations

import numpy as np

from metriloc.datasets.synthetic import furniture as things
from metriloc.datasets.synthetic import tabletop
from metriloc.datasets.synthetic.mesh import Material
from metriloc.datasets.synthetic.palette import Palette
from metriloc.datasets.synthetic.shapes import Builder
from metriloc.datasets.synthetic.textures import Rng


def car(b: Builder, m: Palette, rng: Rng) -> None:
    """A car along x. About 4.3 m long, 1.75 m wide, 1.5 m high."""
    length, w, h = rng.uniform(3.7, 4.8), rng.uniform(1.65, 1.85), rng.uniform(1.42, 1.75)
    paint, glass, dark = (
        m.plain(rng.uniform(0, 0.8), rng.uniform(0.15, 0.95)),
        m("facade_window").tinted(0.35, 0.4, 0.45),
        m.plain(0.0, 0.12),
    )
    a, waist = length / 2, 0.55 * h + 0.1
    b.prism([(-a, 0.25), (a, 0.25), (a, 0.62), (0.55 * a, waist), (-0.9 * a, waist), (-a, 0.75)], -w / 2, w / 2, paint)
    back = rng.uniform(0.55, 0.9)
    b.prism(
        [(-back * a, waist), (0.52 * a, waist), (0.2 * a, h - 0.06), (-(back - 0.2) * a, h - 0.06)],
        -w / 2 + 0.1,
        w / 2 - 0.1,
        glass,
    )
    b.prism(
        [(-(back - 0.18) * a, h - 0.08), (0.22 * a, h - 0.08), (0.16 * a, h), (-(back - 0.22) * a, h)],
        -w / 2 + 0.1,
        w / 2 - 0.1,
        paint,
    )
    angle = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    for x in (-0.62 * a, 0.62 * a):
        for y in (-w / 2 - 0.01, w / 2 - 0.19):
            wheel = [(x + 0.32 * np.cos(t), 0.32 + 0.32 * np.sin(t)) for t in angle]
            b.prism(wheel, y, y + 0.2, dark)
            hub = [(x + 0.19 * np.cos(t), 0.32 + 0.19 * np.sin(t)) for t in angle[::2]]
            b.prism(hub, y - 0.006, y + 0.206, m.plain(0.02, 0.75))
    for y in (-0.36 * w, 0.36 * w):
        b.box((a - 0.05, y - 0.16, 0.5), (a + 0.01, y + 0.16, 0.62), m.plain(0.05, 0.95))
        b.box((-a - 0.01, y - 0.16, 0.55), (-a + 0.05, y + 0.16, 0.7), m("smooth").tinted(0.6, 0.03, 0.03))
    for x in (-a - 0.012, a - 0.02):
        b.box((x, -0.26, 0.36), (x + 0.032, 0.26, 0.47), m("poster").tinted(1.1, 1.1, 0.9))
    b.named("car", (length, w, h))


def tree(b: Builder, m: Palette, rng: Rng) -> None:
    """A street tree, 4 to 7 m."""
    h, r = rng.uniform(4.0, 7.0), rng.uniform(0.1, 0.18)
    b.turned_solid([(1.3 * r, 0), (r, 0.4), (0.7 * r, 0.6 * h)], m("wood").tinted(0.5, 0.45, 0.4), 8)
    leaf = m("leaves")
    for k in range(5):
        turn, out = 1.3 * k + rng.normal(0, 0.3), 0.0 if k == 0 else rng.uniform(0.5, 0.9)
        size = rng.uniform(0.8, 1.3)
        with b.at(
            out * np.cos(turn), out * np.sin(turn), h * (0.5 if k else 0.6) + rng.uniform(0, 0.8), rng.uniform(0, 6)
        ):
            profile = [
                (0.3 * size, 0),
                (0.85 * size, 0.4 * size),
                (size, 0.9 * size),
                (0.7 * size, 1.5 * size),
                (0.15 * size, 1.8 * size),
            ]
            b.turned_solid(profile, leaf, 8)
    b.block(0, 0, 0, (1.0, 1.0, 0.03), m("grass").tinted(0.6, 0.45, 0.35))
    b.named("tree", (2.6, 2.6, h))


def lamp_post(b: Builder, m: Palette, rng: Rng) -> None:
    """A street lamp, 3.5 to 5 m."""
    h, iron = rng.uniform(3.5, 5.0), m.plain(0.2, rng.uniform(0.15, 0.5))
    b.turned_solid([(0.12, 0), (0.1, 0.7), (0.05, 0.75), (0.04, h)], iron, 8)
    with b.at(0, 0, h):
        b.turned_solid([(0.12, 0), (0.2, 0.4)], m.plain(0.1, 0.9), 6)
        b.turned_solid([(0.24, 0.4), (0.05, 0.55)], iron, 6)
    b.named("lamp post", (0.4, 0.4, h + 0.55))


def bin_(b: Builder, m: Palette, rng: Rng) -> None:
    """A litter bin, 0.9 m, with a sticker."""
    material = m.plain(0.7, rng.uniform(0.2, 0.7))
    b.block(0, 0, 0, (0.45, 0.4, 0.9), material, front=m("parcel"))
    b.block(0, 0, 0.9, (0.5, 0.45, 0.06), m.plain(0.1, 0.25))
    b.named("bin", (0.5, 0.45, 0.96))


def bench(b: Builder, m: Palette, rng: Rng) -> None:
    """A bench: seat 0.45 m high, 1.6 m long."""
    wood, iron = m("wood"), m.plain(0.1, 0.25)
    for x in (-0.65, 0.65):
        b.block(x, 0, 0, (0.06, 0.4, 0.42), iron)
        b.block(x, 0.22, 0.42, (0.05, 0.05, 0.42), iron)
    for k in range(3):
        b.block(0, -0.14 + 0.14 * k, 0.42, (1.6, 0.12, 0.035), wood)
        b.block(0, 0.2, 0.5 + 0.12 * k, (1.6, 0.03, 0.09), wood)
    b.named("bench", (1.6, 0.45, 0.84))


def sign(b: Builder, m: Palette, rng: Rng) -> None:
    """A hoarding or a sign on a post."""
    iron = m.plain(0.05, 0.6)
    if rng.random() < 0.4:
        b.block(0, 0, 0.35, (1.2, 0.14, 1.75), iron, front=m.printed(), back=m.printed())
        b.block(0, 0, 0, (0.3, 0.1, 0.35), iron)
        b.named("hoarding", (1.2, 0.14, 2.1))
        return
    b.turned_solid([(0.035, 0), (0.035, 2.6)], iron, 6)
    b.block(0, -0.05, 2.0, (0.6, 0.02, 0.6), m("parcel"), front=m("poster"))
    b.named("sign", (0.6, 0.1, 2.6))


def bollards(b: Builder, m: Palette, rng: Rng) -> None:
    """Three posts, 0.9 m."""
    iron = m.plain(0.3, rng.uniform(0.15, 0.7))
    for x in (-1.2, 0.0, 1.2):
        with b.at(x, 0):
            b.turned_solid([(0.08, 0), (0.07, 0.75), (0.09, 0.78), (0.04, 0.9)], iron, 8)
    b.named("bollards", (2.6, 0.18, 0.9))


def crates(b: Builder, m: Palette, rng: Rng) -> None:
    """Boxes and crates, stacked."""
    for k in range(int(rng.integers(2, 6))):
        size = rng.uniform(0.35, 0.6)
        with b.at(rng.uniform(-0.4, 0.4), 0.35 * (k // 3), 0.5 * (k % 3), rng.normal(0, 0.3)):
            b.block(0, 0, 0, (size, size * 0.8, 0.5 if k < 3 else size), m.printed(), top=m("parcel"))
    b.named("crates", (1.2, 1.0, 1.0))


def monument(b: Builder, m: Palette, rng: Rng) -> None:
    """A figure or an urn on a plinth."""
    stone, base = m.one_of("marble", "concrete"), rng.uniform(0.8, 1.6)
    b.block(0, 0, 0, (1.9, 1.9, 0.2), stone)
    b.block(0, 0, 0.2, (1.2, 1.2, base - 0.2), stone, front=m("marble"))
    with b.at(0, 0, base):
        if rng.random() < 0.5:
            things.person(b, m, rng)
        else:
            b.turned_solid([(0.4, 0), (0.15, 0.25), (0.5, 0.8), (0.42, 1.1), (0.55, 1.3)], stone, 14)
    b.named("monument", (1.9, 1.9, base + 1.5))


def stall(b: Builder, m: Palette, rng: Rng) -> None:
    """A market stall. A counter 0.9 m high with goods under a roof."""
    wood = m("wood")
    b.block(0, 0, 0, (2.0, 0.9, 0.9), wood, front=m("fabric"))
    tabletop.on_top(b, m, rng, (1.7, 0.6), 0.9, 6)
    for x in (-1.0, 1.0):
        for y in (-0.6, 0.6):
            b.block(x, y, 0, (0.05, 0.05, 2.1 if y < 0 else 2.4), wood)
    roof = m("fabric")
    b.prism([(-1.2, 2.2), (1.2, 2.2), (1.0, 2.55), (-1.0, 2.55)], -0.9, 0.8, roof)
    b.named("stall", (2.4, 1.7, 2.55))


def kiosk(b: Builder, m: Palette, rng: Rng) -> None:
    """A kiosk or an advertising pillar."""
    if rng.random() < 0.5:
        with b.at(0, 0):
            b.turned_solid([(0.65, 0), (0.65, 0.3)], m("concrete"), 14)
            b.turned_solid([(0.6, 0.3), (0.6, 2.5)], Material(m("poster").texture, (0.94, 1.1)), 16)
            b.turned_solid([(0.72, 2.5), (0.72, 2.6), (0.1, 3.0)], m.plain(0.5, 0.35), 14)
        b.named("pillar", (1.44, 1.44, 3.0))
        return
    b.block(0, 0, 0, (2.4, 2.0, 2.4), m.one_of("planks", "tiles"), front=m("shop"), back=m("shop"))
    b.block(0, -0.2, 2.4, (2.8, 2.7, 0.15), m.plain(0.4, 0.5))
    b.named("kiosk", (2.8, 2.7, 2.55))
