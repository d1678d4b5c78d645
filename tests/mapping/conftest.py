"""Photos of a rendered place with known cameras, and a map of them as COLMAP would have it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from metriloc.geometry import Camera, Pose
from metriloc.types import SfmMap

SIZE = (320, 240)
FOCAL = 300.0


def known_camera() -> Camera:
    K = torch.tensor([[FOCAL, 0, 159.5], [0, FOCAL, 119.5], [0, 0, 1]], dtype=torch.float64)
    return Camera.from_K(K, SIZE)


def path_of_cameras(count: int) -> Pose:
    """Cameras 0.3 m apart, at a height of 1.5 m, that look at something 4 m away. y is down."""
    steps = torch.linspace(-0.5, 0.5, count, dtype=torch.float64)
    centers = torch.stack(
        [0.3 * (count - 1) * steps, -1.5 + 0.1 * torch.cos(9 * steps), 0.4 * torch.sin(7 * steps)], -1
    )
    R = Pose.from_aa(torch.stack([0 * steps, 0.3 * steps, 0 * steps], -1), torch.zeros(count, 3)).R.double()
    return Pose(R, -(R @ centers[..., None]).squeeze(-1))


@pytest.fixture()
def true_map() -> SfmMap:
    """In metres: points of a wall and a floor (at y = 0), seen by eight cameras without noise."""
    generator = torch.Generator().manual_seed(3)
    wall = torch.rand(300, 3, generator=generator, dtype=torch.float64) * torch.tensor([6.0, 2.4, 1.0])
    floor = torch.rand(300, 3, generator=generator, dtype=torch.float64) * torch.tensor([6.0, 0.0, 4.0])
    xyz = torch.cat([wall - torch.tensor([3.0, 2.4, -4.0]), floor - torch.tensor([3.0, 0.0, -1.0])])
    poses, camera = path_of_cameras(8), known_camera()
    images, points, pixels = [], [], []
    for image in range(8):
        uv, valid = camera.project(poses[image].transform(xyz))
        seen = (valid & camera.in_image(uv)).nonzero().squeeze(-1)
        images.append(torch.full((len(seen),), image))
        points.append(seen)
        pixels.append(uv[seen])
    names = tuple(f"walk/{n:02d}.png" for n in range(8))
    return SfmMap(names, (camera,) * 8, poses, xyz, torch.cat(images), torch.cat(points), torch.cat(pixels))


@pytest.fixture(scope="session")
def shrunk() -> Callable[[SfmMap, float], SfmMap]:
    """The same map in units of so many metres."""

    def make(scene: SfmMap, scale: float) -> SfmMap:
        pose = Pose(scene.cam_from_world.R, scene.cam_from_world.t / scale)
        return dataclasses.replace(scene, cam_from_world=pose, xyz=scene.xyz / scale)

    return make


@pytest.fixture(scope="session")
def write_photos() -> Callable[..., Pose]:
    """``write_photos(folder, count, texture_seed)``; see ``_write_photos``."""
    return _write_photos


def _write_photos(folder: Path, count: int = 4, texture_seed: int = 5) -> Pose:
    """Photos of two planes of noise that meet in a corner, drawn by casting rays, with an intrinsics.txt; returns the poses."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(texture_seed)
    textures = [_texture(rng) for _ in range(2)]
    camera, poses = known_camera(), path_of_cameras(count)
    grid = torch.stack(torch.meshgrid(torch.arange(SIZE[0]), torch.arange(SIZE[1]), indexing="xy"), -1).reshape(-1, 2)
    rays_camera, _ = camera.unproject(grid.double())
    lines = []
    for n in range(count):
        rays = rays_camera @ poses.R[n]
        center = poses[n].center()
        values = np.zeros(len(rays))
        nearest = np.full(len(rays), np.inf)
        # z = 4 + x / 2 and z = 4 - x / 2: depth of a corner, so that nothing is a plane
        for slope, texture in zip((0.5, -0.5), textures, strict=True):
            normal = torch.tensor([-slope, 0.0, 1.0], dtype=torch.float64)
            t = ((4.0 - float(center @ normal)) / (rays @ normal)).numpy()
            hit = (center + rays * torch.from_numpy(t)[:, None]).numpy()
            good = (t > 0) & (t < nearest)
            u, v = ((hit[good, :2] + 20) * 40).T
            values[good] = _bilinear(texture, u, v)
            nearest[good] = t[good]
        picture = values.reshape(SIZE[1], SIZE[0]).clip(0, 255).astype(np.uint8)
        Image.fromarray(np.repeat(picture[..., None], 3, 2)).save(folder / f"{n:02d}.png")
        lines.append(f"{n:02d}.png {FOCAL} {FOCAL} 159.5 119.5 {SIZE[0]} {SIZE[1]}")
    (folder / "intrinsics.txt").write_text("\n".join(lines) + "\n")
    return poses


def _texture(rng: np.random.Generator) -> np.ndarray:
    """Blobs of several sizes."""
    total = np.zeros((512, 512))
    for cells in (32, 64, 128):
        coarse = rng.random((cells, cells))
        places = np.arange(512) * cells / 512
        total += _bilinear(coarse, *np.meshgrid(places, places)).reshape(512, 512) / math.sqrt(128 / cells)
    return 255 * (total - total.min()) / (total.max() - total.min())


def _bilinear(image: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    u0, v0 = np.floor(u).astype(int), np.floor(v).astype(int)
    fu, fv = u - u0, v - v0
    h, w = image.shape
    a, b = image[v0 % h, u0 % w], image[v0 % h, (u0 + 1) % w]
    c, d = image[(v0 + 1) % h, u0 % w], image[(v0 + 1) % h, (u0 + 1) % w]
    return (a * (1 - fu) + b * fu) * (1 - fv) + (c * (1 - fu) + d * fu) * fv
