"""Training pairs of reconstructions as PixLoc was trained on: turned upright, resized, cut to squares.

``RefinerScene`` says which photos make pairs, ``SfmSamples`` loads them. Points are those that the reference observes;
the published loader fills up with points of the rest of the scene, here points that nobody sees are filled in.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.datasets.augment import grayscale
from metriloc.datasets.overlap_table import npz_bytes, read_arrays
from metriloc.datasets.pixloc_pairs import PointPair, SampleConfig, points_from_map
from metriloc.datasets.pixloc_starts import draw_start
from metriloc.datasets.sources import Augmentation
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, crop_view, load_view, resize_view, turn_view, write_atomically
from metriloc.io.changed_views import quarter_turn
from metriloc.io.map_folders import photo_in
from metriloc.types import Pair, SfmMap, View


@dataclass(frozen=True)
class SquareConfig:
    """How photos become squares."""

    resize: int | None = 512
    """Side that the photo is brought to, pixels; None: none."""
    by: Literal["min", "max", "min_if"] = "min"
    """Which side is brought to ``resize``: the shorter (``min``), the longer (``max``), or a
    shorter one that is larger (``min_if``)."""
    crop: int | None = 512
    """Side of the square that is cut out; None: no cut."""
    centered: bool = False
    """Cut around the common points, else anywhere (in training) or at the top left."""
    antialias: bool = False
    """Low-pass filter when reducing; published without."""
    pad: int | None = None
    """Side of the square that whole photos are filled up to with black, right and below; None: not
    filled."""
    grayscale: bool = False
    """Without colors."""

    def __post_init__(self) -> None:
        if self.pad is not None and (self.pad < 1 or self.crop is not None):
            raise ValueError(f"SquareConfig: pad {self.pad} must be positive, and needs crop none")
        if self.by not in ("min", "max", "min_if"):
            raise ValueError(f"SquareConfig.by must be 'min', 'max' or 'min_if', got {self.by!r}")
        if (self.resize is not None and self.resize < 1) or (self.crop is not None and self.crop < 1):
            raise ValueError(f"SquareConfig: resize {self.resize} and crop {self.crop} must be positive")


@dataclass(frozen=True, eq=False)
class QueryPhotos:
    """Photos with poses that are in no map. Names are relative to the folder."""

    names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    cam_from_world: Pose
    folder: Path


@dataclass(frozen=True, eq=False)
class RefinerScene:
    """Pairs of one place. scene: the map, of the photos as they are used (turned); queries: None when they are the map's
    own. index: (reference, query) a row; overlap: of each. turns: quarter turns that the map's photos need
    (``turn_view``), None for none."""

    name: str
    scene: SfmMap
    index: Int[Tensor, "n 2"]
    overlap: Float[Tensor, " n"]
    queries: QueryPhotos | None = None
    turns: Int[Tensor, " I"] | None = None

    def __post_init__(self) -> None:
        if self.index.ndim != 2 or self.index.shape[1] != 2 or self.overlap.shape != self.index.shape[:1]:
            raise ValueError(
                f"pairs of {self.name!r}: index {list(self.index.shape)}, overlap {list(self.overlap.shape)}"
            )

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, eq=False)
class SfmSamples:
    """Samples of several scenes, one after the other. ``samples[i, seed]``: everything but the pair follows the seed;
    ``samples[i, None]`` for validation: squares at the top left, and starts by the number of the pair.
    """

    scenes: tuple[RefinerScene, ...]
    square: SquareConfig = field(default_factory=SquareConfig)
    config: SampleConfig = field(default_factory=SampleConfig)
    augment: Augmentation | None = None

    def __post_init__(self) -> None:
        if not len(self):
            raise InputError(f"there is no pair to train on in {len(self.scenes)} scenes")

    @property
    def lengths(self) -> tuple[int, ...]:
        """Pairs of each scene."""
        return tuple(len(scene) for scene in self.scenes)

    def __len__(self) -> int:
        return sum(self.lengths)

    def __getitem__(self, index: tuple[int, int | None]) -> PointPair:
        number, seed = index
        if not 0 <= number < len(self):
            raise IndexError(f"pair {number} of {len(self)}")
        at = int(np.searchsorted(np.cumsum(self.lengths), number, side="right"))
        row = number - sum(self.lengths[:at])
        generator = torch.Generator().manual_seed(int(number if seed is None else seed))
        return self._load(self.scenes[at], row, generator, seed is not None)

    def _load(self, place: RefinerScene, row: int, generator: torch.Generator, training: bool) -> PointPair:
        reference, query = place.index[row].tolist()
        views = [_reference_view(place, reference), _query_view(place, query)]
        pose0, pose1 = (_pose(view) for view in views)
        points = place.scene.point_index[place.scene.observations_of(reference)].unique()
        world = place.scene.xyz[points]
        views = [resized(view, self.square) for view in views]
        if self.square.crop is not None:
            common = _seen(views[0], world) & _seen(views[1], world)
            views = [self._cut(view, world[common], generator, training) for view in views]
        elif self.square.pad is not None:
            views = [_filled_up(view, self.square.pad) for view in views]
        if self.square.grayscale:
            views = [dataclasses.replace(view, image=grayscale(view.image)) for view in views]
        points = points[_seen(views[0], world)]
        pair = Pair(_plain(views[0]), _plain(views[1]), (pose1 @ pose0.inverse()).to(torch.float32))
        xyz = points_from_map(place.scene, reference, self.config.points, generator, points)
        if training and self.augment is not None:
            pair = self.augment(pair, generator)
        truth = (pose1 @ pose0.inverse()).to(torch.float64)
        init = draw_start(self.config.start, truth, xyz.double(), views[1].camera.to(torch.float64), generator)
        return PointPair(pair, xyz, init.to(torch.float32))

    def _cut(self, view: View, common: Tensor, generator: torch.Generator, training: bool) -> View:
        side = self.square.crop or 0
        if self.square.centered and len(common):
            center = view.camera.project(_pose(view).transform(common))[0].mean(0)
            corner = [int(c) - side // 2 for c in center.tolist()]
        elif training:
            corner = [int(torch.randint(max(1, s - side + 1), (), generator=generator)) for s in view.size]
        else:
            corner = [0, 0]
        return cut_square(view, (corner[0], corner[1]), side)


def resized(view: View, how: SquareConfig) -> View:
    """The photo with one side brought to ``how.resize``.

    The camera follows the sizes that come out of it.
    """
    if how.resize is None:
        return view
    side = max(view.size) if how.by == "max" else min(view.size)
    if how.by == "min_if" and side <= how.resize:
        return view
    factor = how.resize / side
    width, height = (max(1, round(s * factor)) for s in view.size)
    return resize_view(view, (width, height), antialias=how.antialias)


def cut_square(view: View, corner: tuple[int, int], side: int) -> View:
    """The square at ``corner`` (left, top), moved into the photo.

    What a smaller photo lacks is black, right and below.
    """
    width, height = view.size
    inside = [min(max(c, 0), max(0, s - side)) for c, s in zip(corner, (width, height), strict=True)]
    view = crop_view(view, (inside[0], inside[1]), (min(side, width), min(side, height)))
    missing = (side - view.size[0], side - view.size[1])
    if missing == (0, 0):
        return view
    # the camera keeps the size of what was photographed, so that nothing counts as seen in the border
    image = torch.nn.functional.pad(view.image, (0, missing[0], 0, missing[1]))
    return dataclasses.replace(view, image=image)


def _filled_up(view: View, side: int) -> View:
    if max(view.size) > side:
        width, height = view.size
        raise InputError(f"'{view.name}' of {width}x{height} pixels does not fit into a square of {side}: resize it")
    return cut_square(view, (0, 0), side)


def turned_map(scene: SfmMap, turns: Int[Tensor, " I"]) -> SfmMap:
    """The map as if its photos had been stored turned. Cameras, poses and observations."""
    cameras, poses, uv = [], [], scene.uv.clone()
    for image, quarters in enumerate(turns.tolist()):
        cameras.append(scene.cameras[image].turn(quarters))
        poses.append(quarter_turn(quarters, scene.cam_from_world.dtype) @ scene.cam_from_world[image])
        seen, width = scene.observations_of(image), scene.cameras[image].size[0]
        height = scene.cameras[image].size[1]
        for _ in range(quarters % 4):
            x, y = uv[seen].unbind(-1)
            uv[seen] = torch.stack([y, width - 1 - x], -1)
            width, height = height, width
    stacked = Pose.stack(poses) if poses else scene.cam_from_world
    return dataclasses.replace(scene, cameras=tuple(cameras), cam_from_world=stacked, uv=uv)


def write_pairs(
    path: str | os.PathLike[str], names: Sequence[str], index: Int[Tensor, "n 2"], overlap: Float[Tensor, " n"]
) -> None:
    """Keep the pairs of a scene in an ``.npz``. names: of the photos that the indices mean, to recognise them."""
    arrays = {"names": np.array(list(names)), "index": index.numpy(), "overlap": overlap.numpy()}
    write_atomically(path, npz_bytes(arrays))


def read_stored_pairs(
    path: str | os.PathLike[str], names: Sequence[str]
) -> tuple[Int[Tensor, "n 2"], Float[Tensor, " n"]]:
    """The pairs of ``write_pairs``. Raises InputError for a damaged file, or one of other photos."""
    arrays = read_arrays(Path(path), ("names", "index", "overlap"))
    if any(arrays.get(key) is None for key in ("names", "index", "overlap")):
        raise InputError(f"'{path}' holds no pairs")
    if arrays["names"].tolist() != list(names):
        raise InputError(f"'{path}' was made for other photos: delete it to have it made again")
    index, overlap = torch.from_numpy(arrays["index"]), torch.from_numpy(arrays["overlap"])
    if index.ndim != 2 or index.shape[1] != 2 or overlap.shape != index.shape[:1]:
        raise InputError(f"'{path}' is damaged: pairs {list(index.shape)}, overlaps {list(overlap.shape)}")
    return index.long(), overlap.float()


def _reference_view(place: RefinerScene, image: int) -> View:
    """A photo of the map, turned; camera and pose are those of the map, which is of turned photos."""
    scene = place.scene
    quarters = 0 if place.turns is None else int(place.turns[image])
    camera, pose = scene.cameras[image], scene.cam_from_world[image]
    if scene.folder is None:
        raise InputError(f"the photos of {place.name!r} are not at hand, so {scene.names[image]!r} cannot be read")
    original = scene.originals.get(scene.names[image])
    path = photo_in(scene.folder, scene.names[image])
    stored = load_view(path, camera=camera.turn(-quarters), undistort=original, upright=False)
    upright, _ = turn_view(stored, quarters)
    return dataclasses.replace(upright, cam_from_world=pose, name=f"{place.name}/{scene.names[image]}")


def _query_view(place: RefinerScene, query: int) -> View:
    if place.queries is None:
        return _reference_view(place, query)
    queries = place.queries
    view = load_view(queries.folder / queries.names[query], camera=queries.cameras[query])
    pose = queries.cam_from_world[query]
    return dataclasses.replace(view, cam_from_world=pose, name=f"{place.name}/{queries.names[query]}")


def _pose(view: View) -> Pose:
    if view.cam_from_world is None:
        raise ValueError(f"{view.name!r} has no pose")
    return view.cam_from_world


def _seen(view: View, world: Float[Tensor, "N 3"]) -> Bool[Tensor, " N"]:
    return view.camera.to(torch.float64).project(_pose(view).transform(world))[1]


def _plain(view: View) -> View:
    return dataclasses.replace(view, camera=view.camera.to(torch.float32))
