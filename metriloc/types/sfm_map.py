"""A reconstruction to localize in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.geometry import Camera, ColmapCamera, Pose
from metriloc.types.photos import View


@dataclass(frozen=True, eq=False)
class SfmMap:
    """A reconstruction to localise in.

    It has images with known cameras and poses, and the 3D points they see.

    - names: of the images, as in the reconstruction.
    - cameras: one an image, pixels with the first centre at (0, 0).
    - cam_from_world: float64.
    - xyz: the points, float64, world.
    - image_index, point_index, uv: the observations as parallel arrays, sorted by image; uv in
      pixels of that image.
    - folder: where the image files are, if they are at hand.
    - originals: by name, cameras of photos whose distortion is none of ours; for them, the map is
      about undistorted copies, which ``load_map_view`` makes.
    - views: by name, photos that are in memory already, so that no file is read.

    >>> scene = metriloc.read_map("map")
    >>> scene.names, len(scene.xyz)
    (('query.jpg', 'reference.jpg'), 2120)
    """

    names: tuple[str, ...]
    cameras: tuple[Camera, ...]
    cam_from_world: Pose
    xyz: Float[Tensor, "P 3"]
    image_index: Int[Tensor, " O"]
    point_index: Int[Tensor, " O"]
    uv: Float[Tensor, "O 2"]
    folder: Path | None = None
    originals: Mapping[str, ColmapCamera] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)

    def __post_init__(self) -> None:
        images, observations = len(self.names), len(self.image_index)
        if len(self.cameras) != images or self.cam_from_world.shape != (images,):
            raise ValueError(
                f"SfmMap: {images} names, {len(self.cameras)} cameras, poses {tuple(self.cam_from_world.shape)}"
            )
        if len(set(self.names)) != images:
            raise ValueError("SfmMap: two images have the same name")
        if len(self.point_index) != observations or self.uv.shape != (observations, 2):
            raise ValueError(f"SfmMap: {observations} image indices, {len(self.point_index)} point indices")
        for what, index, count in (("image", self.image_index, images), ("point", self.point_index, len(self.xyz))):
            if observations and not 0 <= int(index.min()) <= int(index.max()) < count:
                raise ValueError(f"SfmMap: an observation names {what} {int(index.max())} of {count}")
        if bool((self.image_index.diff() < 0).any()):
            raise ValueError("SfmMap: observations must be sorted by image")

    def __len__(self) -> int:
        return len(self.names)

    def detach(self) -> SfmMap:
        """Without gradients; the map itself where there are none."""
        tensors = (self.xyz, self.uv, self.cam_from_world.R, self.cam_from_world.t)
        own = any(tensor.requires_grad for tensor in tensors)
        if not own and not any(camera.f.requires_grad or camera.c.requires_grad for camera in self.cameras):
            return self
        return replace(
            self,
            cameras=tuple(camera.detach() for camera in self.cameras),
            cam_from_world=self.cam_from_world.detach(),
            xyz=self.xyz.detach(),
            uv=self.uv.detach(),
        )

    def index(self, name: str) -> int:
        """Which image has this name; ValueError when none has."""
        try:
            return self.names.index(name)
        except ValueError:
            raise ValueError(f"the map has no image {name!r} (it has {len(self)})") from None

    def observations_of(self, image: int) -> slice:
        """Where the observations of an image stand in ``image_index``, ``point_index`` and ``uv``."""
        low, high = torch.searchsorted(self.image_index, torch.tensor([image, image + 1])).tolist()
        return slice(low, high)

    def track_lengths(self) -> Int[Tensor, " P"]:
        """How many observations each point has."""
        return torch.bincount(self.point_index, minlength=len(self.xyz))

    def points_seen_by(self, images: Sequence[int], min_track: int = 1) -> Int[Tensor, " n"]:
        """Sorted indices of the points that images observe.

        Any of the images does, and at least ``min_track`` images in all.
        """
        seen = torch.zeros(len(self.xyz), dtype=torch.bool)
        for image in images:
            seen[self.point_index[self.observations_of(image)]] = True
        return (seen & (self.track_lengths() >= min_track)).nonzero().squeeze(-1)

    def assign_points(self, images: Sequence[int], min_track: int = 1) -> list[tuple[int, Int[Tensor, " n"]]]:
        """(image, its observations that are used), in the order given.

        Each point goes to the first image that sees it. Only points that at least ``min_track``
        images observe. Images that are left with no point are not listed.
        """
        free = self.track_lengths() >= min_track
        found = []
        for image in images:
            seen = self.observations_of(image)
            chosen = free[self.point_index[seen]].nonzero().squeeze(-1) + seen.start
            free[self.point_index[chosen]] = False
            if len(chosen):
                found.append((image, chosen))
        return found

    def covisible(self, image: int, min_shared: int = 1) -> list[tuple[int, int]]:
        """The other images that share points with this one.

        (image, shared points) each, the most first (ties by index).
        """
        seen = torch.zeros(len(self.xyz), dtype=torch.bool)
        seen[self.point_index[self.observations_of(image)]] = True
        shared = torch.bincount(self.image_index[seen[self.point_index]], minlength=len(self))
        found = [(i, n) for i, n in enumerate(shared.tolist()) if n >= min_shared and i != image]
        return sorted(found, key=lambda entry: -entry[1])

    def without(self, images: Sequence[int]) -> SfmMap:
        """The map as if these images had never been taken.

        They and their observations are gone, points stay.
        """
        gone = set(images)
        kept = [i for i in range(len(self)) if i not in gone]
        place = torch.full((len(self),), -1)
        place[kept] = torch.arange(len(kept))
        observed = place[self.image_index] >= 0
        return SfmMap(
            tuple(self.names[i] for i in kept),
            tuple(self.cameras[i] for i in kept),
            self.cam_from_world[torch.tensor(kept, dtype=torch.long)],
            self.xyz,
            place[self.image_index[observed]],
            self.point_index[observed],
            self.uv[observed],
            self.folder,
            self.originals,
        )
