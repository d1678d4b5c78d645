"""What is weak in a map: photos that hang on little, photos that are twice in it, and places that look alike."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.mapping.doppelgangers import Doppelganger, find_doppelgangers
from metriloc.types import SfmMap

FEW_POINTS = 50
"""Points below which a photo's pose hangs on little."""
TIE_POINTS = 15
"""Points that two photos must share to hold each other."""
FEW_TIES = 2
SAME_PLACE, SAME_ANGLE_DEG = 0.002, 0.5
"""Distance of two cameras, as a share of the median depth, and angle, below which one of the photos adds nothing."""


@dataclass(frozen=True)
class PhotoTies:
    """Of one photo. points: that it observes; ties: photos that share ``TIE_POINTS`` with it; error_px: its median
    reprojection error, NaN without points."""

    name: str
    points: int
    ties: int
    error_px: float

    @property
    def weak(self) -> str | None:
        """One phrase where the pose hangs on little."""
        if self.points < FEW_POINTS:
            return f"observes only {self.points} points"
        if self.ties < FEW_TIES:
            return f"is tied to {self.ties} other photo{'s' if self.ties != 1 else ''} only"
        return None


@dataclass(frozen=True)
class MapCheck:
    """photos: in the order of the map. parts: groups of photos that are tied among themselves but hardly to the others,
    the largest first; one group where all hold together. duplicates: pairs of names taken from one place. alike: pairs that
    should share many points and do not, perhaps of two places that look alike: hints, no findings."""

    photos: tuple[PhotoTies, ...]
    parts: tuple[tuple[str, ...], ...]
    duplicates: tuple[tuple[str, str], ...]
    alike: tuple[Doppelganger, ...] = ()

    @property
    def weak(self) -> tuple[PhotoTies, ...]:
        """The photos that hang on little."""
        return tuple(photo for photo in self.photos if photo.weak is not None)


def check_map(scene: SfmMap, alike: bool = True) -> MapCheck:
    """Counts what each photo observes and shares, and looks for photos of one place. alike: look for places that look alike,
    too, which costs the most."""
    shared = shared_points(scene)
    tied = shared >= TIE_POINTS
    tied.fill_diagonal_(False)
    photos = tuple(
        PhotoTies(name, int(shared[n, n]), int(tied[n].sum()), _median_error(scene, n))
        for n, name in enumerate(scene.names)
    )
    parts = tuple(tuple(scene.names[n] for n in part) for part in _components(tied))
    return MapCheck(photos, parts, tuple(_duplicates(scene)), find_doppelgangers(scene) if alike else ())


def shared_points(scene: SfmMap) -> Int[Tensor, "N N"]:
    """How many points each two photos both observe. On the diagonal, how many each does."""
    count = len(scene)
    shared = torch.zeros(count, count, dtype=torch.long)
    for image in range(count):
        shared[image, image] = scene.point_index[scene.observations_of(image)].unique().numel()
        for other, number in scene.covisible(image):
            shared[image, other] = number
    return torch.minimum(shared, shared.T)


def _median_error(scene: SfmMap, image: int) -> float:
    seen = scene.observations_of(image)
    if seen.start == seen.stop:
        return float("nan")
    xyz = scene.cam_from_world[image].transform(scene.xyz[scene.point_index[seen]])
    uv, valid = scene.cameras[image].to(xyz.dtype).project(xyz)
    errors = (uv - scene.uv[seen]).norm(dim=-1)[valid]
    return float(errors.median()) if len(errors) else float("nan")


def _components(tied: Tensor) -> list[list[int]]:
    """Connected photos, the largest group first."""
    left, found = set(range(len(tied))), []
    while left:
        group, border = set(), {min(left)}
        while border:
            group |= border
            near = {int(n) for m in border for n in tied[m].nonzero().squeeze(-1)}
            border = near - group
        left -= group
        found.append(sorted(group))
    return sorted(found, key=lambda group: (-len(group), group))


def _duplicates(scene: SfmMap) -> list[tuple[str, str]]:
    depth = median_depth(scene)
    centers, R = scene.cam_from_world.center(), scene.cam_from_world.R
    near = torch.cdist(centers, centers) <= SAME_PLACE * depth
    i, j = torch.triu(near, diagonal=1).nonzero(as_tuple=True)
    cosine = ((R[i] @ R[j].mT).diagonal(dim1=-2, dim2=-1).sum(-1) - 1) / 2
    same = cosine.clamp(-1, 1).arccos().rad2deg() <= SAME_ANGLE_DEG
    return [(scene.names[int(a)], scene.names[int(b)]) for a, b in zip(i[same], j[same], strict=True)]


def median_depth(scene: SfmMap) -> float:
    """Of what photos observe, in units of the map. 0 where they observe nothing."""
    depths: list[Float[Tensor, " n"]] = []
    for image in range(len(scene)):
        seen = scene.observations_of(image)
        depths.append(scene.cam_from_world[image].transform(scene.xyz[scene.point_index[seen]])[:, 2])
    every = torch.cat(depths) if depths else torch.zeros(0)
    return float(every.median()) if len(every) else 0.0


def extent(scene: SfmMap) -> float:
    """Of all camera centers. The diagonal of their box, in units of the map."""
    centers = scene.cam_from_world.center()
    return float((centers.amax(0) - centers.amin(0)).norm()) if len(scene) else 0.0


def cameras_in_words(scene: SfmMap) -> list[str]:
    """One phrase for each kind of camera, the most frequent first."""
    found = Counter(
        f"{int(camera.size[0])}x{int(camera.size[1])}, {camera.model}, f {float(camera.f.mean()):.1f} px"
        for camera in scene.cameras
    )
    return [f"{camera} ({count} photos)" for camera, count in found.most_common()]
