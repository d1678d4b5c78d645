"""Queries to fit the verdicts of localisers on: photos left out of maps, easy and hard, and photos of anything else.

Maps are those of ``tools/make_training_maps.py`` and, of one photo each, rendered ones. Nothing is read from
``../shared/data/eval``.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from training_pairs import rendered_pairs

from metriloc.evaluation.held_out import nearest_images
from metriloc.geometry import Camera, Pose
from metriloc.io import load_view, resize_view
from metriloc.io.maps import load_map_view, read_map
from metriloc.methods.matching import MapRetrieval
from metriloc.types import SfmMap, View
from metriloc.viz import encode_jpeg

FOLDERS = {"kitchen": "kitchen", "fr1_rpy": "fr1_rpy", "street00": "kitti/street00", "street2": "kitti/street2"}
_RANKS = ((0, 1, 2), (3, 4, 5), (7,), (2,), (11, 12, 13))
_HARDER = ("plain", "crop", "blur", "plain", "dark", "small", "turned")


@dataclass(frozen=True, eq=False)
class KnownQuery:
    """cam_from_world: None for photos of other places. place: for which it counts; kind: what was done to it."""

    place: str
    kind: str
    view: View
    scene: SfmMap
    references: tuple[str, ...]
    cam_from_world: Pose | None


def left_out(place: str, scene: SfmMap, count: int) -> Iterator[KnownQuery]:
    """Photos of a map in the map without them, with references from the nearest to far ones, in turn made harder."""
    order = nearest_images(scene)
    for number, i in enumerate(range(0, len(scene), max(1, len(scene) // count))):
        ranks, kind = _RANKS[number % len(_RANKS)], _HARDER[number % len(_HARDER)]
        names = [scene.names[order[i][rank]] for rank in ranks if rank < len(order[i])]
        view = replace(load_map_view(scene, i), cam_from_world=None)
        view, pose = changed(view, scene.cam_from_world[i], kind, number)
        yield KnownQuery(place, f"{kind} {ranks[0]}", view, scene.without([i]), tuple(names), pose)


def changed(view: View, pose: Pose, kind: str, seed: int) -> tuple[View, Pose]:
    """A photo cropped and enlarged, blurred, dark and noisy, made small, or turned upside down; and its pose."""
    w, h = view.size
    noise = torch.Generator().manual_seed(seed)
    if kind == "crop":
        cw, ch = int(0.55 * w), int(0.55 * h)
        x, y = int((w - cw) * torch.rand((), generator=noise)), int((h - ch) * torch.rand((), generator=noise))
        part = replace(view, image=view.image[:, y : y + ch, x : x + cw], camera=view.camera.crop((x, y), (cw, ch)))
        return resize_view(part, (w, h)), pose
    if kind == "blur":
        small = resize_view(view, (max(32, w // 4), max(32, h // 4)))
        image = F.interpolate(small.image[None], (h, w), mode="bilinear", align_corners=False)[0]
        return replace(view, image=image), pose
    if kind == "dark":
        image = (0.12 * view.image + 0.02 * torch.randn(view.image.shape, generator=noise)).clamp(0, 1)
        return replace(view, image=image), pose
    if kind == "small":
        return resize_view(view, (max(96, w // 2), max(64, h // 2))), pose
    if kind == "turned":
        camera = replace(view.camera, c=view.camera.size - 1 - view.camera.c)
        flip = Pose(torch.diag(pose.R.new_tensor([-1.0, -1.0, 1.0])), pose.t.new_zeros(3))
        return replace(view, image=view.image.flip(1, 2), camera=camera), flip @ pose
    return view, pose


def rendered_queries(folder: Path, scenes: int, pairs: int) -> Iterator[KnownQuery]:
    """Pairs of rendered photos: the first is the whole map, with the points of its depth where it is textured."""
    for number, pair in enumerate(rendered_pairs(scenes, pairs)):
        assert pair.view1_from_view0 is not None
        scene = map_of_one(pair.view0, folder, f"{number}.jpg")
        yield KnownQuery("rendered", "plain", pair.view1, scene, scene.names, pair.view1_from_view0.to(torch.float64))


def map_of_one(view: View, folder: Path, name: str) -> SfmMap:
    """A map of one photo with depth, in its own frame."""
    assert view.depth is not None
    (folder / name).write_bytes(encode_jpeg((view.image * 255).round().byte().permute(1, 2, 0).numpy()))
    uv = _corners(view.image.mean(0), 800)
    h, w = view.depth.shape
    scale = torch.tensor([w / view.size[0], h / view.size[1]])
    x, y = ((uv + 0.5) * scale).long().unbind(-1)
    z = view.depth[y, x].double()
    uv, z = uv[z > 0].double(), z[z > 0]
    rays, _ = view.camera.to(torch.float64).unproject(uv)
    one = Pose.stack([Pose(torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64))])
    index = torch.arange(len(z))
    return SfmMap((name,), (view.camera,), one, rays * z[:, None], torch.zeros_like(index), index, uv, folder)


def _corners(gray: Tensor, count: int) -> Tensor:
    """The pixels where the photo changes most in both directions, one in each field of 6 x 6."""
    dx, dy = torch.gradient(gray, dim=(1, 0))
    moments = torch.stack([dx * dx, dy * dy, dx * dy])
    a, b, c = F.avg_pool2d(moments[:, None], 5, 1, 2)[:, 0]
    score = (a + b) / 2 - (((a - b) / 2) ** 2 + c * c).sqrt()
    best, index = F.max_pool2d(score[None, None], 6, return_indices=True)
    chosen = index.flatten()[best.flatten().argsort(descending=True)[:count]]
    return torch.stack([chosen % gray.shape[1], chosen // gray.shape[1]], -1).float()


def unrelated_queries(root: Path, maps: dict[str, SfmMap], count: int, retrieval: MapRetrieval) -> Iterator[KnownQuery]:
    """Photos of other places, mirrored ones of the same, noise and bare walls; compared with what looks most alike, or
    with some corner of the map."""
    generator = torch.Generator().manual_seed(0)

    def draw(limit: int) -> int:
        return int(torch.randint(limit, (), generator=generator))

    sources = {
        "nyuv2": sorted((root / "nyuv2" / "rgb").glob("*.jpg")),
        "facades": sorted((root / "facades" / "rgb").glob("*")),
        "lidar": sorted((root / "kitti").glob("lidar_*/rgb/*")),
    }
    for place, scene in maps.items():
        order = nearest_images(scene)
        others = [name for name in maps if name != place]
        kinds = ("nyuv2", "facades", "other", "mirrored", "lidar", "nyuv2", "other", "facades", "mirrored", "bare")
        for number in range(count):
            kind = kinds[number % len(kinds)]
            near = draw(len(scene))
            if kind == "other":
                other = maps[others[draw(len(others))]]
                view = load_map_view(other, draw(len(other)))
            elif kind == "mirrored":
                view = load_map_view(scene, near)
                camera = replace(view.camera, c=view.camera.c * 1.0)
                camera.c[..., 0] = view.camera.size[0] - 1 - view.camera.c[..., 0]
                view = replace(view, image=view.image.flip(2), camera=camera)
            elif kind == "bare":
                view = _bare(generator, number)
            else:
                path = sources[kind][draw(len(sources[kind]))]
                known = (path.parent.parent / "intrinsics.txt").is_file()
                view = load_view(path, fov=None if known else 60.0)
            view = replace(view, cam_from_world=None, depth=None)
            names: Sequence[str] = [scene.names[k] for k in (near, *order[near][:2])]
            if number % 2 == 0 and kind != "mirrored":
                names = retrieval.rank(view, scene, 3).names or names
            yield KnownQuery(place, kind, view, scene, tuple(names), None)


def _bare(generator: torch.Generator, number: int) -> View:
    """A wall in one colour that fades, or noise in patches."""
    w, h = 320, 240
    if number % 20 < 10:
        image = 0.6 + 0.2 * torch.linspace(0, 1, w).expand(3, h, w)
        image = image + 0.01 * torch.randn(3, h, w, generator=generator)
    else:
        small = torch.rand(1, 3, h // 8, w // 8, generator=generator)
        image = F.interpolate(small, (h, w), mode="bilinear", align_corners=False)[0]
    return View(image.clamp(0, 1), Camera.from_fov((w, h), math.radians(60)), name="bare")


def training_queries(root: Path, folder: Path, related: int, unrelated: int, scenes: int) -> Iterator[KnownQuery]:
    """All of them. folder: with the maps; related, unrelated: a map; scenes: rendered ones."""
    maps = {name: read_map(folder / name, root / path) for name, path in FOLDERS.items()}
    for name, scene in maps.items():
        yield from left_out(name, scene, related)
    with tempfile.TemporaryDirectory() as photos:
        yield from rendered_queries(Path(photos), scenes, 2)
    retrieval = MapRetrieval.from_pretrained(cache=folder / "retrieval")
    yield from unrelated_queries(root, maps, unrelated, retrieval)
