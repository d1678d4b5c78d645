"""How a map is made: the settings that change its numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from metriloc.io.files import InputError

FeatureName = Literal["sift", "xfeat", "xfeat+lightglue", "aliked+lightglue", "disk+lightglue"]
"""sift: COLMAP's, which needs no weights; the others are matchers of ``metriloc.methods.matching.matchers``."""
FEATURES: tuple[FeatureName, ...] = get_args(FeatureName)
PairChoice = Literal["auto", "all", "similar", "ordered"]
"""auto: all up to ``MapConfig.all_pairs_to`` photos, else similar; similar: those that share keypoints; ordered: photos in
the order of their names, as frames of a video."""

MapperName = Literal["auto", "incremental", "global"]
"""global: all photos at once (GLOMAP); incremental: photo after photo; auto: global, and where that leaves photos out, the
one that has more."""


@dataclass(frozen=True)
class MapConfig:
    """Settings of a map. Raises InputError for one that is out of range."""

    features: FeatureName = "sift"
    """What is matched."""
    pairs: PairChoice = "auto"
    """Which photos are compared."""
    all_pairs_to: int = 40
    """So many photos and fewer are all compared with each other."""
    partners: int = 20
    """Similar photos that each photo is compared with."""
    window: int = 10
    """Following photos that each photo is compared with where they are ordered; besides every doubling up to 8 windows."""
    max_features: int = 4096
    """Keypoints of a photo, the best."""
    longest_side: int = 1600
    """Larger photos are made smaller for finding keypoints."""
    mapper: MapperName = "auto"
    """What makes the model: all photos at once (global), photo after photo (incremental), or what places more (auto)."""
    refine: Literal["auto", "always", "never"] = "auto"
    """Whether focal length and distortion are refined; auto: unless they are given."""
    threads: int = 0
    """Of COLMAP; 0 takes all processors."""

    def __post_init__(self) -> None:
        if self.features not in FEATURES:
            raise InputError(f"there are no features {self.features!r} for maps: one of {', '.join(FEATURES)}")
        if self.pairs not in get_args(PairChoice):
            raise InputError(f"pairs must be one of {', '.join(get_args(PairChoice))}, got {self.pairs!r}")
        if self.mapper not in get_args(MapperName):
            raise InputError(f"mapper must be one of {', '.join(get_args(MapperName))}, got {self.mapper!r}")
        ranges = {
            "all_pairs_to": (0, 1000),
            "partners": (1, 1000),
            "window": (1, 1000),
            "max_features": (64, 65536),
            "longest_side": (64, 20000),
            "threads": (0, 1024),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must be {low} to {high}, got {getattr(self, name)}")
