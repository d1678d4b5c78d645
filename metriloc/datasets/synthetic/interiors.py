"""What stands in a synthetic room: furniture along the walls and in the middle, pictures and small shelves on the walls.

Wall k is reached by turning k quarter turns clockwise: in its own frame it is the wall at the back, its middle at the origin,
and pieces stand at negative y.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from metriloc.datasets.synthetic import furniture as things
from metriloc.datasets.synthetic import tabletop
from metriloc.datasets.synthetic.palette import Palette
from metriloc.datasets.synthetic.shapes import Builder
from metriloc.datasets.synthetic.textures import Rng

Piece = Callable[[], None]
Against = Callable[[int, float], AbstractContextManager[Builder]]
"""(wall, position along it) -> the place there, in the wall's frame."""
Rectangle = tuple[float, float, float, float]


@dataclass
class Wall:
    """One wall while it is filled. length: metres; taken: rectangles already used, as (start, stop, bottom, top)."""

    index: int
    length: float
    taken: list[tuple[float, float, float, float]] = field(default_factory=list)

    def find(self, rng: Rng, w: float, bottom: float, top: float) -> float | None:
        """A free middle for a piece of that width between two heights.

        None when there is no room.
        """
        free = self.length / 2 - w / 2 - 0.05
        if free <= 0:
            return None
        for _ in range(12):
            x = rng.uniform(-free, free)
            if all(x + w / 2 < a or x - w / 2 > b or top < low or bottom > high for a, b, low, high in self.taken):
                return x
        return None


def furnish(
    b: Builder,
    m: Palette,
    rng: Rng,
    walls: list[Wall],
    size: tuple[float, float, float],
    against: Against,
    floor: list[Rectangle],
) -> None:
    """Pieces along the walls, until the walls are full or the list is done."""
    w, d, h = size
    for width, depth, height, piece in _pieces(b, m, rng, h):
        for k in rng.permutation(4):
            x = walls[k].find(rng, width, 0.0, height)
            if x is None:
                continue
            turn = -k * np.pi / 2
            s, c = np.sin(turn), np.cos(turn)
            away = d / 2 if k % 2 == 0 else w / 2
            corners = np.array([[x - width / 2, away], [x + width / 2, away - depth]]) @ np.array([[c, s], [-s, c]])
            (x0, y0), (x1, y1) = corners.min(0), corners.max(0)
            if any(x0 < q[2] and x1 > q[0] and y0 < q[3] and y1 > q[1] for q in floor):
                continue
            floor.append((x0, y0, x1, y1))
            walls[k].taken.append((x - width / 2, x + width / 2, 0.0, height))
            with against(int(k), x), b.at(0, -rng.uniform(0.02, 0.05)):
                piece()
            break


_KINDS = (
    ("sofa", "tv", "armchair", "shelf", "floor lamp", "plant", "chest", "armchair"),
    ("bed", "wardrobe", "bedside", "chest", "bedside", "shelf", "plant", "chair"),
    ("kitchen", "shelf", "chair", "plant", "chest", "cartons", "person"),
    ("desk", "desk2", "shelf", "shelf2", "person", "plant", "cartons", "wardrobe"),
    ("shelf", "shelf2", "shelf", "armchair", "floor lamp", "desk", "person", "cartons"),
)
"""What rooms of each kind may have along their walls."""


def _pieces(b: Builder, m: Palette, rng: Rng, h: float) -> list[tuple[float, float, float, Piece]]:
    """(width, depth, height, how to build it) of what a room of a random kind has along its walls."""
    catalog = _catalog(b, m, rng, h)
    names = list(_KINDS[int(rng.integers(len(_KINDS)))])
    names += [str(n) for n in rng.choice(list(catalog), 2)]
    return [catalog[name] for name in names if rng.random() < 0.9]


def _catalog(b: Builder, m: Palette, rng: Rng, h: float) -> dict[str, tuple[float, float, float, Piece]]:
    u, build = rng.uniform, partial
    shelf, shelf_h = u(0.7, 1.4), u(1.2, min(2.2, h - 0.2))
    wardrobe, sofa_w, bed_w, desk_w = u(1.0, 1.9), u(1.6, 2.3), u(0.9, 1.8), u(1.1, 1.7)
    kitchen_w, board = u(2.2, 3.2), u(1.2, 1.8)
    chest = (u(0.7, 1.1), 0.45, u(0.75, 1.1))
    ours = (b, m, rng)
    return {
        "shelf": (shelf, 0.32, shelf_h, build(things.bookshelf, *ours, shelf, shelf_h)),
        "shelf2": (0.9, 0.32, 1.9, build(things.bookshelf, *ours, 0.9, 1.9)),
        "wardrobe": (wardrobe, 0.6, 2.0, build(_wardrobe, *ours, wardrobe)),
        "chest": (chest[0], 0.47, chest[2], build(_low_chest, *ours, chest)),
        "sofa": (sofa_w, 0.97, 0.85, build(things.sofa, *ours, sofa_w)),
        "armchair": (0.95, 0.97, 0.85, build(_armchair, *ours)),
        "bed": (bed_w + 0.1, 2.15, 1.1, build(things.bed, *ours, bed_w)),
        "bedside": (0.47, 0.45, 0.95, build(_bedside, *ours)),
        "desk": (desk_w, 1.1, 1.2, build(things.desk, *ours, desk_w)),
        "desk2": (1.3, 1.1, 1.2, build(things.desk, *ours, 1.3)),
        "kitchen": (kitchen_w, 0.68, 2.2, build(things.kitchen, *ours, kitchen_w)),
        "tv": (board, 0.5, 1.4, build(things.television, *ours, board)),
        "floor lamp": (0.5, 0.5, 1.7, build(_standing, *ours, tabletop.lamp, u(1.4, 1.75))),
        "plant": (0.7, 0.7, 1.4, build(_standing, *ours, tabletop.potted, u(0.7, 1.5))),
        "chair": (0.5, 0.55, 1.0, build(_standing, *ours, things.chair)),
        "cartons": (0.55, 0.6, 1.2, build(_cartons, *ours)),
        "person": (0.6, 0.6, 1.9, build(_standing, *ours, things.person)),
    }


def _wardrobe(b: Builder, m: Palette, rng: Rng, w: float) -> None:
    things.cupboard(b, m, rng, (w, 0.6, rng.uniform(1.9, 2.15)), "cupboard", "wardrobe")


def _armchair(b: Builder, m: Palette, rng: Rng) -> None:
    things.sofa(b, m, rng, rng.uniform(0.8, 0.95))


def _low_chest(b: Builder, m: Palette, rng: Rng, size: tuple[float, float, float]) -> None:
    things.cupboard(b, m, rng, size, "drawers", "chest")
    with b.at(0, -0.22):
        tabletop.on_top(b, m, rng, (size[0] * 0.8, 0.2), size[2], int(rng.integers(1, 4)))


def _bedside(b: Builder, m: Palette, rng: Rng) -> None:
    things.cupboard(b, m, rng, (0.45, 0.4, 0.5), "drawers", "nightstand")
    with b.at(0, -0.2, 0.5):
        tabletop.lamp(b, m, rng)


def _cartons(b: Builder, m: Palette, rng: Rng) -> None:
    z, u = 0.0, rng.uniform
    for _ in range(int(rng.integers(1, 5))):
        side = u(0.3, 0.5)
        with b.at(u(-0.05, 0.05), -0.3, z, u(-0.3, 0.3)):
            b.block(0, 0, 0, (side, side * 0.9, side * 0.8), m("parcel"), top=m("parcel"))
        z += side * 0.8


def _standing(b: Builder, m: Palette, rng: Rng, make: Callable[..., None], *args: float) -> None:
    with b.at(0, -0.3, 0, rng.uniform(-0.5, 0.5)):
        make(b, m, rng, *args)


def fill_middle(b: Builder, m: Palette, rng: Rng, size: tuple[float, float], floor: list[Rectangle]) -> None:
    """A rug, and a table with chairs or a low table where the floor is free."""
    w, d = size
    x, y = rng.uniform(-0.12, 0.12) * w, rng.uniform(-0.12, 0.12) * d
    if rng.random() < 0.6:
        rw, rd = min(rng.uniform(1.4, 2.6), w - 1), min(rng.uniform(1.2, 2.0), d - 1)
        with b.at(x, y, 0, rng.normal(0, 0.1)):
            b.block(0, 0, 0.0, (rw, rd, 0.012), m("rug"))

    def free(tw: float, td: float) -> bool:
        return all(x + tw / 2 < q[0] or x - tw / 2 > q[2] or y + td / 2 < q[1] or y - td / 2 > q[3] for q in floor)

    tw, td = rng.uniform(1.1, 1.9), rng.uniform(0.75, 0.95)
    if rng.random() < 0.6 and free(tw + 0.3, td + 1.0) and min(w, d) > 3.2:
        with b.at(x, y, 0, rng.normal(0, 0.12)):
            things.table(b, m, rng, tw, td, rng.uniform(0.72, 0.77))
            tabletop.on_top(b, m, rng, (0.8 * tw, 0.7 * td), 0.77, int(rng.integers(2, 6)))
            for side in (-1, 1):
                for k in range(2):
                    if rng.random() < 0.8:
                        turn = 0.0 if side > 0 else np.pi
                        with b.at(
                            (k - 0.5) * 0.55 * tw,
                            side * (td / 2 + rng.uniform(-0.05, 0.3)),
                            0,
                            turn + rng.normal(0, 0.2),
                        ):
                            things.chair(b, m, rng)
    elif free(1.0, 0.6) and rng.random() < 0.8:
        with b.at(x, y, 0, rng.normal(0, 0.15)):
            low = rng.uniform(0.38, 0.48)
            things.table(b, m, rng, rng.uniform(0.8, 1.2), rng.uniform(0.5, 0.65), low)
            b.objects.pop()  # a low table is no dining table
            tabletop.on_top(b, m, rng, (0.7, 0.35), low, int(rng.integers(1, 5)))


def hang_pictures(b: Builder, m: Palette, rng: Rng, walls: list[Wall], h: float, against: Against) -> None:
    """Pictures, posters, a clock and small shelves where the walls are still free above low furniture."""
    for wall in walls:
        for _ in range(int(rng.integers(1, 5))):
            w = rng.uniform(0.3, 1.1)
            height, z = w * rng.uniform(0.6, 1.3), rng.uniform(1.4, 1.65)
            height = min(height, 2 * (h - 0.15 - z))
            low, high = z - max(height / 2, 0.05), z + max(height / 2, 0.35)
            x = wall.find(rng, w + 0.1, low, high)
            if x is None:
                continue
            wall.taken.append((x - w / 2, x + w / 2, low, high))
            with against(wall.index, x):
                if rng.random() < 0.12:
                    corners = [
                        (0.5 + 0.5 * np.cos(t), 0.5 + 0.5 * np.sin(t))
                        for t in np.linspace(0, 2 * np.pi, 16, endpoint=False)
                    ]
                    b.patch((-0.16, -0.03, z + 0.32), (0.32, 0, 0), (0, 0, -0.32), m("clock"), corners)
                elif rng.random() < 0.2:
                    b.box((-w / 2, -0.2, z), (w / 2, 0, z + 0.025), m("wood"))
                    with b.at(0, -0.1):
                        tabletop.on_top(b, m, rng, (0.8 * w, 0.02), z + 0.025, int(rng.integers(1, 4)))
                else:
                    b.box(
                        (-w / 2, -0.03, z - height / 2),
                        (w / 2, 0, z + height / 2),
                        m("wood"),
                        front=m.picture() if rng.random() < 0.7 else m.printed(),
                    )
