"""Training data of NRE: pairs of photos with shared points, from reconstructions, RGB-D folders and synthetic scenes.

``--data DIR`` holds any of ``real/<scene>/`` (a COLMAP model with its photos, MegaDepth-style, or any folder of posed
photos with depth maps; their ``overlaps.npz`` in the scene or in ``overlaps/<scene>/`` where there is one), and
``synthetic/`` (made when missing, where the recipe wants it). A folder with neither is itself taken for the scenes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import torch

from metriloc.datasets import Augment, Geometric, Photometric, uniform_pairs
from metriloc.datasets.overlap_table import OVERLAPS_FILE, overlapping_pairs
from metriloc.datasets.posed import find_model, read_posed, scene_folders, scene_from_map
from metriloc.datasets.sources import PairList
from metriloc.datasets.synthetic import SyntheticConfig
from metriloc.datasets.synthetic.cache import CachedSyntheticPairs
from metriloc.io import InputError, resize_view
from metriloc.io.maps import load_map_view, read_map
from metriloc.methods.nre.training_points import PointPair, points_from_depth, points_from_map
from metriloc.training import generator_of
from metriloc.types import Pair, SfmMap, View

ATTEMPTS = 20
"""Pairs drawn before one with few shared points is taken all the same."""
SYNTHETIC_SIZE = (256, 192)


@dataclass(frozen=True)
class Look:
    """How photos are prepared. longest_side: pixels; larger ones are made smaller. smallest: each photo is then made
    smaller by a random factor of at least this, which changes the apparent scale between the two. multiple: sides are
    rounded to multiples of it (XFeat: 32). points: drawn of a pair; min_points: pairs with fewer are drawn again."""

    longest_side: int = 1024
    smallest: float = 0.7
    multiple: int = 1
    points: int = 512
    min_points: int = 64

    def __post_init__(self) -> None:
        if self.longest_side < 32 or not 0 < self.smallest <= 1 or self.multiple < 1:
            raise ValueError(
                f"longest_side must be at least 32, smallest in (0, 1] and multiple at least 1, "
                f"got {self.longest_side}, {self.smallest}, {self.multiple}"
            )
        if not 1 <= self.min_points <= self.points:
            raise ValueError(f"min_points must lie in 1..points, got {self.min_points} of {self.points}")


class PointSource(Protocol):
    """Where pairs come from."""

    def draw(self, look: Look, augment: Augment | None, generator: torch.Generator) -> PointPair:
        """A random pair, with the points both photos show, up to ``look.points``. Perhaps none."""
        ...


@dataclass(frozen=True, eq=False)
class ListedPairs:
    """Pairs of posed photos with depth maps."""

    pairs: PairList

    def draw(self, look: Look, augment: Augment | None, generator: torch.Generator) -> PointPair:
        """See ``PointSource``."""
        pair = self.pairs[int(torch.randint(len(self.pairs), (), generator=generator))].load()
        return _from_depth(pair, look, augment, generator)


@dataclass(frozen=True, eq=False)
class RenderedPairs:
    """Pairs of synthetic scenes."""

    pairs: CachedSyntheticPairs

    def draw(self, look: Look, augment: Augment | None, generator: torch.Generator) -> PointPair:
        """See ``PointSource``."""
        pair = self.pairs[int(torch.randint(len(self.pairs), (), generator=generator))]
        return _from_depth(pair, look, augment, generator)


@dataclass(frozen=True, eq=False)
class ReconstructedPairs:
    """Photos of a COLMAP model that share at least ``min_shared`` points. No depth is needed."""

    scene: SfmMap
    min_shared: int = 64

    def draw(self, look: Look, augment: Augment | None, generator: torch.Generator) -> PointPair:
        """See ``PointSource``. Photos are not mirrored, as the map's points would have to be too."""
        first = int(torch.randint(len(self.scene), (), generator=generator))
        others = self.scene.covisible(first, self.min_shared)
        if not others:
            empty = torch.zeros(0, 2)
            return PointPair(torch.zeros(3, 32, 32), torch.zeros(3, 32, 32), empty, empty, self.scene.names[first])
        second = others[int(torch.randint(len(others), (), generator=generator))][0]
        views = [_fitted(load_map_view(self.scene, image), look) for image in (first, second)]
        pair = Pair(views[0], views[1])
        if augment is not None:
            geometric = None if augment.geometric is None else replace(augment.geometric, mirror=0.0)
            pair = replace(augment, geometric=geometric)(pair, generator)
        points = points_from_map(self.scene, (first, second), (pair.view0, pair.view1), look.points, generator)
        return _shrunk(points, look, augment is not None, generator)


@dataclass(frozen=True, eq=False)
class PointBatches:
    """Every pair of a batch comes from a source drawn with these shares (``BatchSource``)."""

    sources: Sequence[PointSource]
    shares: Sequence[float]
    look: Look
    augment: Augment | None
    batch_size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.sources or len(self.sources) != len(self.shares) or min(self.shares) < 0 or not sum(self.shares):
            raise ValueError(f"{len(self.sources)} sources need as many shares, not all 0, got {list(self.shares)}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {self.batch_size}")

    def batch(self, step: int, part: int = 0, parts: int = 1) -> tuple[PointPair, ...]:
        """See ``BatchSource``; a pure function of its arguments."""
        if self.batch_size % parts or not 0 <= part < parts:
            raise ValueError(f"a batch of {self.batch_size} cannot be cut into {parts} equal parts (part {part})")
        size = self.batch_size // parts
        return tuple(self.pair(step, place) for place in range(part * size, (part + 1) * size))

    def pair(self, step: int, place: int) -> PointPair:
        """The pair at one place of the batch of a step.

        The first of ``ATTEMPTS`` with enough points, else the best.
        """
        generator = generator_of(self.seed, step, place)
        best: PointPair | None = None
        for _ in range(ATTEMPTS):
            index = int(torch.multinomial(torch.tensor(self.shares, dtype=torch.float64), 1, generator=generator))
            found = self.sources[index].draw(self.look, self.augment, generator)
            if best is None or len(found) > len(best):
                best = found
            if len(best) >= self.look.min_points:
                break
        if best is None:
            raise RuntimeError("no attempt was made")
        return best


@dataclass(frozen=True)
class NREBatches:
    """Opens the training data below ``--data``.

    batch_size: pairs a step. synthetic_share: of the pairs, from ``synthetic/`` (0: none are made). scenes: synthetic
    ones. overlap: limits of pairs of RGB-D photos whose overlap is known. uniform: pairs drawn in a scene where it is not.
    """

    look: Look = field(default_factory=Look)
    batch_size: int = 8
    synthetic_share: float = 0.0
    scenes: int = 300
    pairs_per_scene: int = 6
    overlap: tuple[float, float] = (0.15, 0.95)
    uniform: int = 20_000
    seed: int = 0
    geometric: Geometric = field(default_factory=lambda: Geometric(zoom=0.7, turn_deg=15.0))
    photometric: Photometric = field(default_factory=Photometric)

    def __call__(self, data: Path | None) -> PointBatches:
        if data is None:
            raise ValueError("training NRE needs --data DIR, a folder with real/<scene>/ or synthetic/")
        sources: list[PointSource] = []
        if self.synthetic_share < 1:
            sources += real_sources(data, self.overlap, self.uniform, self.look.min_points)
        shares = [(1 - self.synthetic_share) / len(sources)] * len(sources) if sources else []
        if self.synthetic_share > 0:
            config = SyntheticConfig(sizes=(SYNTHETIC_SIZE,))
            rendered = CachedSyntheticPairs(data / "synthetic", self.scenes, self.pairs_per_scene, config)
            sources.append(RenderedPairs(rendered))
            shares.append(self.synthetic_share if len(shares) else 1.0)
        if not sources:
            raise InputError(f"'{data}' holds no scene to train NRE on")
        augment = Augment(self.photometric, self.geometric)
        return PointBatches(sources, shares, self.look, augment, self.batch_size, self.seed)


def real_sources(
    data: Path, overlap: tuple[float, float] = (0.15, 0.95), uniform: int = 20_000, min_shared: int = 64
) -> list[PointSource]:
    """The scenes of ``data/real`` (or of ``data`` itself).

    Those with a COLMAP model by its points, others by depth.
    """
    root = data / "real" if (data / "real").is_dir() else data
    found: list[PointSource] = []
    for number, folder in enumerate(scene_folders(root)):
        model = find_model(folder)
        if model is not None:
            scene = read_map(model)
            scene = replace(scene, folder=scene_from_map(scene, folder).folder)
            found.append(ReconstructedPairs(scene, min_shared))
            continue
        posed = read_posed(folder)
        files = (folder / OVERLAPS_FILE, data / "overlaps" / folder.name / OVERLAPS_FILE)
        file = next((path for path in files if path.is_file()), None)
        if file is None:
            pairs = uniform_pairs(posed, uniform, generator_of(number))
        else:
            pairs = overlapping_pairs(posed, file, *overlap)
        if len(pairs):
            found.append(ListedPairs(pairs))
    return found


def _from_depth(pair: Pair, look: Look, augment: Augment | None, generator: torch.Generator) -> PointPair:
    fitted = Pair(_fitted(pair.view0, look), _fitted(pair.view1, look), pair.cam1_from_cam0)
    if augment is not None:
        fitted = augment(fitted, generator)
    points = points_from_depth(fitted, look.points, generator)
    return _shrunk(points, look, augment is not None, generator)


def _fitted(view: View, look: Look) -> View:
    """The photo, made smaller if its longer side exceeds the limit; the depth map stays as it is."""
    factor = look.longest_side / max(view.size)
    if factor >= 1:
        return view
    size = (max(1, round(view.size[0] * factor)), max(1, round(view.size[1] * factor)))
    smaller = resize_view(replace(view, depth=None), size, antialias=True)
    return replace(smaller, depth=view.depth)


def _shrunk(points: PointPair, look: Look, scale: bool, generator: torch.Generator) -> PointPair:
    """Each photo made smaller by a random factor (if ``scale``), sides rounded to ``look.multiple``; points follow."""
    images, positions = [], []
    for image, uv in ((points.image0, points.uv0), (points.image1, points.uv1)):
        chance = float(torch.rand((), generator=generator))
        factor = look.smallest**chance if scale else 1.0
        height, width = image.shape[1:]
        sides = [max(1, round(side * factor / look.multiple)) * look.multiple for side in (height, width)]
        if sides != [height, width]:
            image = torch.nn.functional.interpolate(
                image[None], size=sides, mode="bilinear", align_corners=False, antialias=True
            )[0]
        ratio = uv.new_tensor([sides[1] / width, sides[0] / height])
        images.append(image)
        positions.append((uv + 0.5) * ratio - 0.5)
    return PointPair(images[0], images[1], positions[0], positions[1], points.name)
