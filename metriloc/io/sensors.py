"""Camera bodies by the name that EXIF gives them, and how much smaller than 35-mm film their sensors are.

Needed for photos that record the real focal length but neither its 35-mm equivalent nor the pixels a millimeter. A body
with several lenses has one line for each, told apart by the focal length: their sensors differ by up to a half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
SAME_LENS = 0.04
"""Relative difference of focal lengths up to which a built-in lens is the one in the table."""
_PHONE, _REFLEX = (4, 3), (3, 2)


@dataclass(frozen=True)
class Body:
    """One camera, or one lens of a camera with several.

    make, model: as EXIF writes them. crop: 35-mm equivalent over real focal length, by equal diagonals. shape: sides of
    the whole sensor, longer first. focal_mm: of the built-in lens, None where lenses can be changed. source: whose page.
    """

    make: str
    model: str
    crop: float
    shape: tuple[int, int]
    focal_mm: float | None
    source: str

    @property
    def name(self) -> str:
        """Make and model in one, without saying the make twice."""
        first = self.make.split()[0]
        return self.model if self.model.casefold().startswith(first.casefold()) else f"{first} {self.model}"


def find_body(make: str, model: str, focal_mm: float) -> Body | None:
    """The body of exactly this name with this lens, or None. Case and blanks do not count; a name that is alike is no
    match."""
    name = _name(make), _name(model)
    for body in BODIES:
        lens = body.focal_mm
        if name == (_name(body.make), _name(body.model)) and (lens is None or _same_lens(focal_mm, lens)):
            return body
    return None


def _name(text: str) -> str:
    return " ".join(text.replace("\0", " ").split()).casefold()


def _same_lens(a: float, b: float) -> bool:
    return abs(a - b) <= SAME_LENS * b


def _built_in(make: str, model: str, source: str, *lenses: tuple[float, float]) -> list[Body]:
    """lenses: (real focal length as EXIF has it, 35-mm equivalent as the maker states it)."""
    return [Body(make, model, equivalent / real, _PHONE, real, source) for real, equivalent in lenses]


def _sensor(make: str, model: str, width_mm: float, height_mm: float, shape: tuple[int, int], source: str) -> Body:
    return Body(make, model, FILM_DIAGONAL_MM / math.hypot(width_mm, height_mm), shape, None, source)


def _apple(model: str, *lenses: tuple[float, float]) -> list[Body]:
    return _built_in("Apple", model, f"Apple, {model}: Technical Specifications (support.apple.com)", *lenses)


def _dji(model: str, product: str, *lenses: tuple[float, float], make: str = "DJI") -> list[Body]:
    return _built_in(make, model, f"DJI, {product}: Specs (dji.com), 'Lens'", *lenses)


BODIES: tuple[Body, ...] = (
    *_apple("iPhone 7", (3.99, 28.0)),
    *_apple("iPhone 8", (3.99, 28.0)),
    *_apple("iPhone X", (4.0, 28.0), (6.0, 52.0)),
    *_apple("iPhone XR", (4.25, 26.0)),
    *_apple("iPhone XS", (4.25, 26.0), (6.0, 52.0)),
    *_apple("iPhone 11", (4.25, 26.0), (1.54, 13.0)),
    *_apple("iPhone 11 Pro", (4.25, 26.0), (1.54, 13.0), (6.0, 52.0)),
    *_apple("iPhone 12", (4.2, 26.0), (1.55, 13.0)),
    *_apple("iPhone 12 Pro", (4.2, 26.0), (1.54, 13.0), (6.0, 52.0)),
    *_apple("iPhone 13", (5.1, 26.0), (1.54, 13.0)),
    *_apple("iPhone 13 Pro", (5.7, 26.0), (1.57, 13.0), (9.0, 77.0)),
    *_apple("iPhone 14 Pro", (6.86, 24.0), (2.22, 13.0), (9.0, 77.0)),
    *_dji("FC220", "Mavic Pro", (4.73, 26.0)),
    *_dji("L1D-20c", "Mavic 2 Pro", (10.26, 28.0), make="Hasselblad"),
    *_dji("FC3170", "Mavic Air 2", (4.5, 24.0)),
    *_dji("FC7303", "Mini 2", (4.49, 24.0)),
    _sensor("DJI", "FC6310", 13.2, 8.8, _REFLEX, "DJI, Phantom 4 Pro: Specs (dji.com), 1-inch sensor"),
    _sensor("Canon", "Canon EOS 5D Mark II", 36.0, 24.0, _REFLEX, "Canon, EOS 5D Mark II: Specifications"),
    _sensor("Canon", "Canon EOS 550D", 22.3, 14.9, _REFLEX, "Canon, EOS 550D: Specifications"),
    _sensor("NIKON CORPORATION", "NIKON D90", 23.6, 15.8, _REFLEX, "Nikon, D90: Technical Specifications"),
    _sensor("NIKON CORPORATION", "NIKON D850", 35.9, 23.9, _REFLEX, "Nikon, D850: Technical Specifications"),
    _sensor("SONY", "ILCE-6000", 23.5, 15.6, _REFLEX, "Sony, ILCE-6000: Specifications"),
    _sensor("SONY", "ILCE-7M3", 35.6, 23.8, _REFLEX, "Sony, ILCE-7M3: Specifications"),
    _sensor("Panasonic", "DMC-GH4", 17.3, 13.0, _PHONE, "Panasonic, DMC-GH4: Specifications"),
)
