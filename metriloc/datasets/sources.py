"""What every data set is made of: scenes of posed photos that are read only when asked for.

A ``PosedScene`` knows names, cameras, poses and depth files of its photos, a ``FramePair`` is two of them with the true
relative pose, a ``PairList`` many such pairs as index arrays, and ``PairDataset`` is what a trainer draws from.
Poses are float64 ``cam_from_world`` in metres (NaN where unknown); whatever else a loaded ``Pair`` holds is float32.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, ColmapCamera, Pose
from metriloc.io import InputError, check_depth_covers, load_view, read_depth, resize_view
from metriloc.types import Pair, View

DEPTH_ENDINGS = (".png", ".npy", ".tiff", ".pgm")
"""File kinds that a depth map beside a photo may have (``frame_00000.depth.png``), in the order they are tried."""


@dataclass(frozen=True, eq=False)
class DepthFormat:
    """How the depth maps of a set are to be read.

    scale: metres a unit (None: as ``read_depth`` decides). limit: depths beyond it, in metres, are unknown (sensors
    that write 65535 for "nothing"). camera: of the depth sensor, when it is not registered to the colour camera; the
    maps are then looked up along the rays of the colour camera, the distance between the two lenses neglected.
    """

    scale: float | None = None
    limit: float | None = None
    camera: Camera | None = None

    def read(self, path: Path, color: Camera) -> Float[Tensor, "h w"]:
        """A depth map in metres, 0 where unknown. It covers the colour camera's field of view."""
        depth = read_depth(path, scale=self.scale, doubt=False)
        if self.limit is not None:
            depth = torch.where(depth <= self.limit, depth, torch.zeros_like(depth))
        if self.camera is not None:
            return resample_depth(depth, self.camera, color, (depth.shape[1], depth.shape[0]))
        width, height = color.size.tolist()
        check_depth_covers(depth, (int(width), int(height)), path)
        return depth


def resample_depth(
    depth: Float[Tensor, "h w"],
    source: Camera,
    target: Camera,
    size: tuple[int, int],
    target_from_source: Pose | None = None,
) -> Float[Tensor, "H W"]:
    """The depth map as a camera at the same place sees it, ``size`` (width, height) cells over its field of view.

    Nearest cell, because a mean of two surfaces lies on neither; 0 outside. ``target_from_source`` may only turn about
    the optical axis: depths along it stay as they are.
    """
    h, w = depth.shape
    width, height = size
    here = source.scale(torch.tensor([w, h]).to(source.size) / source.size)
    there = target.scale(torch.tensor([width, height]).to(target.size) / target.size)
    v, u = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    rays, possible = there.unproject(torch.stack([u, v], -1).reshape(-1, 2).to(there.c))
    if target_from_source is not None:
        rays = target_from_source.inverse().transform(rays)
    uv, _ = here.project(rays.to(here.c))
    x, y = uv.round().clamp(-1, max(w, h)).long().unbind(-1)
    inside = possible & (x >= 0) & (x < w) & (y >= 0) & (y < h)
    values = depth[y.clamp(0, h - 1), x.clamp(0, w - 1)]
    return torch.where(inside, values, torch.zeros_like(values)).reshape(height, width)


@dataclass(frozen=True, eq=False)
class PosedFrame:
    """One photo on disk and what is known of it. Nothing is read before ``load``.

    name: within its scene. camera: float64, of the stored photo. cam_from_world: float64, None when unknown.
    depth: file of a depth map or None. upright: whether the camera belongs to the photo as EXIF says it is to be held, or
    to its pixels as they are stored (COLMAP). original: the camera of the stored pixels, where the photo is to be an
    undistorted copy.
    """

    scene: str
    name: str
    path: Path
    camera: Camera
    cam_from_world: Pose | None = None
    depth: Path | None = None
    depth_format: DepthFormat = DepthFormat()
    intrinsics_source: str = "given"
    upright: bool = True
    original: ColmapCamera | None = None

    def load(self, size: tuple[int, int] | None = None, *, depth: bool = True) -> View:
        """Read the photo, and its depth map if there is one. size: (width, height), aspect not kept.

        The view is named ``scene/name``. Raises InputError when a file cannot be used.
        """
        view = load_view(self.path, camera=self.camera, upright=self.upright, undistort=self.original)
        metres = None
        if depth and self.depth is not None:
            metres = self.depth_format.read(self.depth, self.camera)
        view = dataclasses.replace(
            view,
            camera=view.camera.to(torch.float32),
            cam_from_world=self.cam_from_world,
            name=f"{self.scene}/{self.name}",
            intrinsics_source=view.intrinsics_source.replace("camera, as given", self.intrinsics_source),
            depth=metres,
        )
        return view if size is None else resize_view(view, size)


@dataclass(frozen=True, eq=False)
class FramePair:
    """A reference and a query of one scene. overlap: share of shared surface, NaN when unknown."""

    frame0: PosedFrame
    frame1: PosedFrame
    overlap: float = float("nan")

    @property
    def scene(self) -> str:
        """Name of the scene both photos are of."""
        return self.frame0.scene

    @property
    def cam1_from_cam0(self) -> Pose | None:
        """The true relative pose, float64. None when one of the two poses is unknown."""
        if self.frame0.cam_from_world is None or self.frame1.cam_from_world is None:
            return None
        return self.frame1.cam_from_world @ self.frame0.cam_from_world.inverse()

    def load(self, size: tuple[int, int] | None = None, *, depth: bool = True) -> Pair:
        """Read both photos, see ``PosedFrame.load``. Their pose is float32, for training."""
        view0, view1 = (frame.load(size, depth=depth) for frame in (self.frame0, self.frame1))
        pose = self.cam1_from_cam0
        return Pair(view0, view1, None if pose is None else pose.to(torch.float32))


@dataclass(frozen=True, eq=False)
class PosedScene:
    """Photos of one place, in a fixed order.

    names: relative to ``folder``. cameras: one a photo, as a batch or a tuple. cam_from_world: batch (n,), float64,
    metres, NaN where unknown. depths: one file or None a photo, or None when they are found by ``depth_suffix``:
    ``a/b.jpg`` has ``a/b.<depth_suffix>.png`` (or .npy, .tiff, .pgm) beside it, if at all. upright: see ``PosedFrame``.
    originals: by name, see ``PosedFrame.original``.
    """

    name: str
    folder: Path
    names: tuple[str, ...]
    cameras: Camera | tuple[Camera, ...]
    cam_from_world: Pose
    depths: tuple[Path | None, ...] | None = None
    depth_suffix: str | None = None
    depth_format: DepthFormat = DepthFormat()
    intrinsics_source: str = "given"
    upright: bool = True
    originals: Mapping[str, ColmapCamera] = field(default_factory=dict)

    def __post_init__(self) -> None:
        count = len(self.names)
        cameras = self.cameras.shape[:1].numel() if isinstance(self.cameras, Camera) else len(self.cameras)
        if cameras != count or self.cam_from_world.shape != (count,):
            raise ValueError(
                f"scene {self.name!r}: {count} names, {cameras} cameras, poses {tuple(self.cam_from_world.shape)}"
            )
        if self.depths is not None and len(self.depths) != count:
            raise ValueError(f"scene {self.name!r}: {count} names but {len(self.depths)} depth files")
        if len(set(self.names)) != count:
            raise ValueError(f"scene {self.name!r}: two photos have the same name")

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[PosedFrame]:
        return (self.frame(index) for index in range(len(self)))

    def index(self, name: str) -> int:
        """Which photo has this name; InputError when none has."""
        try:
            return self.names.index(name)
        except ValueError:
            raise InputError(f"'{self.folder}' has no photo {name!r} (it has {len(self)})") from None

    def frame(self, index: int) -> PosedFrame:
        """What is known of one photo."""
        pose = self.cam_from_world[index]
        path = self.folder / self.names[index]
        return PosedFrame(
            scene=self.name,
            name=self.names[index],
            path=path,
            camera=self.cameras[index],
            cam_from_world=pose if bool(pose.is_finite()) else None,
            depth=self.depths[index] if self.depths is not None else depth_beside(path, self.depth_suffix),
            depth_format=self.depth_format,
            intrinsics_source=self.intrinsics_source,
            upright=self.upright,
            original=self.originals.get(self.names[index]),
        )

    def pair(self, index0: int, index1: int, overlap: float = float("nan")) -> FramePair:
        """Two photos as reference and query."""
        return FramePair(self.frame(index0), self.frame(index1), overlap)


def depth_beside(path: Path, suffix: str | None) -> Path | None:
    """The depth map ``stem.suffix.png`` (or .npy, .tiff, .pgm) beside a photo, or None when there is none.

    ``frame.color.jpg`` may have it without the ``color`` (ScanNet). Raises InputError for a suffix that is no name.
    """
    if suffix is None:
        return None
    if not suffix or Path(suffix).name != suffix:
        raise InputError(f"{suffix!r} is not the name of depth maps (frame.NAME.png)")
    for stem in dict.fromkeys((path.stem, path.stem.removesuffix(".color"))):
        for ending in DEPTH_ENDINGS:
            candidate = path.with_name(f"{stem}.{suffix}{ending}")
            if candidate.is_file():
                return candidate
    return None


@dataclass(frozen=True, eq=False)
class PairList:
    """Many pairs of one scene, compactly. index0, index1: into the scene [N]; overlap [N]: NaN where unknown."""

    scene: PosedScene
    index0: np.ndarray
    index1: np.ndarray
    overlap: np.ndarray

    def __post_init__(self) -> None:
        if not (self.index0.shape == self.index1.shape == self.overlap.shape) or self.index0.ndim != 1:
            raise ValueError(
                f"pairs of {self.scene.name!r}: shapes {self.index0.shape}, {self.index1.shape}, {self.overlap.shape}"
            )

    def __len__(self) -> int:
        return len(self.index0)

    def __getitem__(self, index: int) -> FramePair:
        return self.scene.pair(int(self.index0[index]), int(self.index1[index]), float(self.overlap[index]))


Augmentation = Callable[[Pair, torch.Generator], Pair]
"""Changes a loaded pair and keeps cameras, depth and pose right; all chance comes from the generator (CPU)."""


class PairDataset:
    """Training pairs of several scenes as one indexed collection, scene after scene.

    ``dataset[index]`` reads a pair as it is; ``dataset[index, seed]`` also augments it, where ``seed`` alone decides
    how, so that a resumed run sees the same pictures. Works in the workers of a ``torch.utils.data.DataLoader``.
    """

    def __init__(
        self,
        pairs: Sequence[PairList],
        size: tuple[int, int] | None = None,
        *,
        depth: bool = True,
        augment: Augmentation | None = None,
    ) -> None:
        """pairs: one list a scene, empty ones allowed; size: (width, height) to resize to; depth: read depth maps."""
        self.pairs = tuple(pairs)
        self.size = size
        self.depth = depth
        self.augment = augment
        self.lengths = tuple(len(part) for part in self.pairs)
        self._ends = np.cumsum(self.lengths, dtype=np.int64)
        if not len(self):
            raise InputError(f"there is no pair to train on in {len(self.pairs)} scenes")

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def frame_pair(self, index: int) -> FramePair:
        """The pair of a global index, not read yet. Raises IndexError beyond the end."""
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        part = int(np.searchsorted(self._ends, index, side="right"))
        return self.pairs[part][index - int(self._ends[part]) + self.lengths[part]]

    def __getitem__(self, index: int | tuple[int, int]) -> Pair:
        index, seed = index if isinstance(index, tuple) else (index, None)
        pair = self.frame_pair(int(index)).load(self.size, depth=self.depth)
        if self.augment is None or seed is None:
            return pair
        return self.augment(pair, torch.Generator().manual_seed(int(seed)))
