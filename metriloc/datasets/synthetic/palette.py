"""Which materials a synthetic scene has: textures are made on first use, a few of each kind, and packed at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from metriloc.datasets.synthetic import fittings, pictures, textures
from metriloc.datasets.synthetic.mesh import Material
from metriloc.datasets.synthetic.shading import Atlas
from metriloc.datasets.synthetic.textures import Rng

Make = Callable[[Rng, int], np.ndarray]

# kind -> (function, metres of one repetition or None to stretch, how many different ones a scene has)
KINDS: dict[str, tuple[Make, tuple[float, float] | None, int]] = {
    "plaster": (textures.plaster, (2.6, 2.6), 3),
    "wallpaper": (textures.wallpaper, (1.1, 1.1), 2),
    "planks": (textures.planks, (1.4, 1.4), 1),
    "wood": (lambda rng, side: textures.planks(rng, side, 1), (0.9, 0.5), 3),
    "bricks": (textures.bricks, (1.2, 1.2), 3),
    "tiles": (textures.tiles, (1.2, 1.2), 2),
    "fabric": (textures.fabric, (0.6, 0.6), 6),
    "carpet": (textures.carpet, (1.5, 1.5), 1),
    "concrete": (textures.concrete, (3.0, 3.0), 2),
    "asphalt": (lambda rng, side: textures.concrete(rng, side, 0.33), (5.0, 5.0), 1),
    "paving": (textures.paving, (1.6, 1.6), 2),
    "grass": (textures.grass, (1.8, 1.8), 1),
    "leaves": (textures.grass, (0.8, 0.8), 2),
    "marble": (textures.marble, (1.3, 1.3), 2),
    "smooth": (textures.smooth, (1.5, 1.5), 1),
    "landscape": (pictures.landscape, None, 3),
    "abstract": (pictures.abstract, None, 2),
    "poster": (pictures.poster, None, 4),
    "books": (pictures.books, None, 5),
    "door": (fittings.door, None, 2),
    "drawers": (lambda rng, side: fittings.fronts(rng, side, int(rng.integers(2, 5)), 1), None, 2),
    "cupboard": (lambda rng, side: fittings.fronts(rng, side, 1, int(rng.integers(2, 4))), None, 2),
    "unit": (lambda rng, side: fittings.fronts(rng, side, int(rng.integers(1, 4)), 1), None, 3),
    "view": (fittings.view_outside, None, 3),
    "facade_window": (fittings.facade_window, None, 6),
    "shop": (fittings.shop, None, 5),
    "screen": (pictures.screen, None, 2),
    "rug": (fittings.rug, None, 2),
    "curtain": (fittings.curtain, None, 1),
    "ribs": (fittings.ribs, None, 1),
    "parcel": (pictures.parcel, None, 4),
    "clock": (fittings.clock, None, 1),
}


@dataclass
class Palette:
    """Materials by kind. photos: pictures [T,T,3] supplied by the user, shown in frames, on posters, boxes and some walls."""

    rng: Rng
    side: int
    photos: Sequence[np.ndarray] = ()
    images: list[np.ndarray] = field(default_factory=list)
    made: dict[str, list[int]] = field(default_factory=dict)

    def __call__(self, kind: str, new: bool = False) -> Material:
        """One of the scene's materials of that kind (a new one while the kind has room, or if ``new``)."""
        make, tile, limit = KINDS[kind]
        have = self.made.setdefault(kind, [])
        if len(have) < limit and (new or len(have) == 0 or self.rng.random() < 0.6):
            have.append(self._add(make(self.rng, self.side)))
            return Material(have[-1], tile)
        return Material(int(self.rng.choice(have)), tile)

    def one_of(self, *kinds: str) -> Material:
        """A material of one of several kinds."""
        return self(kinds[int(self.rng.integers(len(kinds)))])

    def plain(self, saturation: float, value: float) -> Material:
        """Lacquer, plastic or metal of a random colour (linear) with that saturation and brightness."""
        r, g, b = (textures.hue(self.rng, saturation, value) ** 2).tolist()
        return self("smooth").tinted(r, g, b)

    def skin(self) -> Material:
        """Skin, from pale to dark (linear colour)."""
        shade = self.rng.uniform(0.12, 1.0)
        return self("smooth").tinted(0.72 * shade**0.8, 0.45 * shade, 0.34 * shade**1.1)

    def picture(self) -> Material:
        """A framed picture: made up, or a photo of the user's."""
        have = self.made.setdefault("framed", [])
        if len(have) < 5:
            if self.photos and self.rng.random() < 0.7:
                inside = self.photos[int(self.rng.integers(len(self.photos)))]
            else:
                inside = KINDS["landscape" if self.rng.random() < 0.6 else "abstract"][0](self.rng, self.side)
            have.append(self._add(pictures.framed(self.rng, self.side, inside)))
            return Material(have[-1], None)
        return Material(int(self.rng.choice(have)), None)

    def photo(self) -> Material | None:
        """A photo of the user's stretched over a face, None when there are none."""
        if not self.photos:
            return None
        have = self.made.setdefault("photo", [])
        if len(have) < min(len(self.photos), 6):
            have.append(self._add(self.photos[int(self.rng.integers(len(self.photos)))]))
        return Material(int(self.rng.choice(have)), None)

    def printed(self) -> Material:
        """What a box, a poster or a hoarding shows."""
        photo = self.photo() if self.photos and self.rng.random() < 0.4 else None
        return photo or self.one_of("poster", "abstract", "parcel", "landscape")

    def _add(self, image: np.ndarray) -> int:
        self.images.append(image)
        return len(self.images) - 1

    def atlas(self) -> Atlas:
        """All textures made so far."""
        return textures.pack(self.images)
