"""A map as a scene: its photos in their cameras, its points by how many photos see them, and what holds it together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from metriloc.geometry import Pose
from metriloc.io.map_folders import is_photo_in
from metriloc.mapping.check import FEW_POINTS, MapCheck, PhotoTies, check_map, shared_points
from metriloc.types import MapUnit, SfmMap
from metriloc.viz.map_looks import look_at_photo
from metriloc.viz.pictures import Rgb
from metriloc.viz.scene import Frustum, Link, Scene, frustum_at
from metriloc.viz.scene_picture import height_colors
from metriloc.viz.seen_photos import small_photo_at
from metriloc.viz.upright import upright_from_world

MAP_POINTS = 60_000
"""Points of a map that are shown; of more, an even selection."""
MAP_PHOTOS = 300
"""Photos that are shown in their cameras; of more, an even selection, and outlines of the others."""
SEEN_BY = "photos that see the point: 2 red, 5 yellow, 8 and more green"
_GRAY = 150
_Z_DOWN = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)


@dataclass(frozen=True, eq=False)
class ShownMap:
    """A map made ready to be shown. upright: the turn from its axes to those of the scene. check: what is weak in it."""

    content: SfmMap
    scene: Scene
    upright: Pose
    check: MapCheck

    def turned(self, cam_from_world: Pose) -> Pose:
        """A pose in the map as a pose in the scene."""
        return cam_from_world.to("cpu", torch.float64) @ self.upright.inverse()


def shown_map(
    content: SfmMap,
    unit: MapUnit,
    *,
    max_points: int = MAP_POINTS,
    max_photos: int = MAP_PHOTOS,
    z_is_up: bool = False,
    alike: bool = False,
) -> ShownMap:
    """The scene of a map. z_is_up: in the map, as GPS knows; else it is turned as its photos were held. alike: look for
    places that look alike, too, as reports tell them."""
    upright = upright_from_world(content.cam_from_world, _Z_DOWN if z_is_up else None)
    check = check_map(content, alike)
    photos = _photos(content, max_photos)
    frusta = [_frustum(content, n, upright, photos[n], check.photos[n]) for n in range(len(content))]
    xyz, colors, tracks = _points(content, photos, max_points)
    places = upright.transform(xyz).numpy()
    scene = Scene(
        tuple(frusta),
        places,
        colors if any(photo is not None for photo in photos) else height_colors(places),
        0.0,
        unit == "metre",
        probability=np.clip((tracks - 1) / 7, 0, 1),
        meaning=SEEN_BY,
        links=_links(content, [f.center for f in frusta]),
        unit="m" if unit == "metre" else "map units",
    )
    return ShownMap(content, scene, upright, check)


def center_spread(cam_from_world: Pose, covariance: Float[Tensor, "6 6"], upright: Pose) -> Float[np.ndarray, "3 3"]:
    """The covariance of where a camera stands. It is in the scene, made of that of its pose
    (``PoseEstimate.covariance``)."""
    # exp(delta) @ pose puts the center at world_from_cam * -t, to first order
    turn = upright.R @ cam_from_world.R.to(upright.R).mT
    return (turn @ covariance.to(upright.R)[:3, :3] @ turn.mT).numpy()


def _photos(content: SfmMap, most: int) -> list[Rgb | None]:
    """The photos, small, as far as they are at hand; of more than ``most`` an even selection."""
    chosen = set(np.linspace(0, len(content) - 1, min(most, len(content))).round().astype(int).tolist())
    return [_photo(content, n) if n in chosen else None for n in range(len(content))]


def _photo(content: SfmMap, image: int) -> Rgb | None:
    if content.folder is None or not is_photo_in(content.folder, content.names[image]):
        return None
    return small_photo_at(content.folder / content.names[image], upright=False)


def _frustum(content: SfmMap, image: int, upright: Pose, photo: Rgb | None, ties: PhotoTies) -> Frustum:
    pose, name = content.cam_from_world[image], content.names[image]
    bare = frustum_at(
        "map" if ties.weak is None else "weak", name, pose @ upright.inverse(), content.cameras[image], photo
    )
    x, y, z = pose.center().tolist()
    facts = [
        ("stands at", f"{x:.3f} {y:.3f} {z:.3f}"),
        ("points", str(ties.points)),
        ("tied to", f"{ties.ties} photo{'' if ties.ties == 1 else 's'}"),
        ("error", "unknown" if math.isnan(ties.error_px) else f"{ties.error_px:.2f} px"),
    ]
    if ties.weak is not None:
        facts.append(("weak", ties.weak))
    return replace(bare, facts=tuple(facts), look=lambda: look_at_photo(content, image))


def _points(
    content: SfmMap, photos: Sequence[Rgb | None], most: int
) -> tuple[Float[Tensor, "n 3"], UInt8[np.ndarray, "n 3"], Int[np.ndarray, " n"]]:
    """Points that photos see, the colors they have there (gray where no photo is at hand), and how many see each."""
    tracks = content.track_lengths()
    seen = (tracks > 0).nonzero().squeeze(-1)
    chosen = seen[torch.linspace(0, len(seen) - 1, min(most, len(seen))).round().long()]
    colors = np.full((len(content.xyz), 3), _GRAY, np.uint8)
    for image, photo in enumerate(photos):
        if photo is None:
            continue
        observed = content.observations_of(image)
        size = content.cameras[image].size.double()
        scale = torch.tensor(photo.shape[1::-1], dtype=torch.float64) / size
        uv = ((content.uv[observed] + 0.5) * scale - 0.5).round().long().numpy()
        x, y = np.clip(uv[:, 0], 0, photo.shape[1] - 1), np.clip(uv[:, 1], 0, photo.shape[0] - 1)
        colors[content.point_index[observed].numpy()] = photo[y, x]
    return content.xyz[chosen], colors[chosen.numpy()], tracks[chosen].numpy()


def _links(content: SfmMap, centers: Sequence[np.ndarray]) -> tuple[Link, ...]:
    """The strongest ties that join all photos that can be joined (a spanning tree), weak where few points are shared."""
    shared = shared_points(content).numpy().copy()
    np.fill_diagonal(shared, 0)
    best, parent = shared[0].copy(), np.zeros(len(shared), int)
    left, links = set(range(1, len(shared))), []
    while left:
        nearest = max(left, key=lambda n: (best[n], -n))
        left.remove(nearest)
        if best[nearest] > 0:
            ends = np.stack([centers[nearest], centers[parent[nearest]]])
            links.append(Link(ends, "tie" if best[nearest] >= FEW_POINTS else "weak"))
        better = shared[nearest] > best
        parent[better], best[better] = nearest, shared[nearest][better]
    return tuple(links)
