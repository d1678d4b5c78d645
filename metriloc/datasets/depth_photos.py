"""Single photos with what is known of their depth: measured maps, and facades with things of known height.

All are kept small and as bytes in memory, so that a training on two processors computes networks and not JPEG.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from metriloc.datasets.posed import read_posed
from metriloc.datasets.sources import depth_beside
from metriloc.io import InputError, check_depth_covers, load_view, read_depth, read_text
from metriloc.types import View

DOOR_M, WINDOW_M, ARCH_M = 2.4, 1.97, 3.4
"""Heights of street doors with their transom, of the windows beside them (0.82 of a door), and of gateways."""
_HEIGHTS = {0: WINDOW_M, 2: ARCH_M, 5: DOOR_M}
_DOOR_CLASS = 5
_MAX_SIDE = 640


@dataclass(frozen=True, eq=False)
class DepthPhoto:
    """image: as bytes. depth: metres, 0 unknown, over the same field of view. focal: pixels, of this image. weak: depth
    is right on the whole only; then focal may be any number, as depth over focal is what is known."""

    image: UInt8[Tensor, "3 H W"]
    depth: Float[Tensor, "h w"]
    focal: float
    weak: bool = False

    @classmethod
    def of_view(cls, view: View, weak: bool = False) -> DepthPhoto:
        """From a photo with a depth map. Larger ones are reduced to 640 pixels."""
        if view.depth is None:
            raise InputError(f"'{view.name}' has no depth map")
        image, focal = view.image, float(view.camera.f.log().mean().exp())
        scale = _MAX_SIDE / max(view.size)
        if scale < 1:
            size = (round(view.size[1] * scale), round(view.size[0] * scale))
            image = F.interpolate(image[None], size, mode="bilinear", antialias=True, align_corners=False)[0]
            focal *= scale
        return cls((255 * image).round().clamp(0, 255).byte(), view.depth.half().float(), focal, weak)


def read_rgbd_photos(folder: Path, every: int = 1) -> list[DepthPhoto]:
    """Photos with depth maps beside them or in ``depth/``, poses or not.

    ``intrinsics.txt`` has the cameras. Raises InputError when there is none.
    """
    return [DepthPhoto.of_view(load_rgbd(*files)) for files in rgbd_files(folder, every)]


def rgbd_files(folder: Path, every: int = 1) -> list[tuple[Path, Path]]:
    """(photo, depth map) of the photos of ``read_rgbd_photos``. Raises InputError when there is none."""
    found = []
    for path in _photos(folder)[::every]:
        file = depth_beside(path, "depth") or _first(path.parent.parent / "depth", path.stem)
        if file is not None:
            found.append((path, file))
    if not found:
        raise InputError(f"'{folder}' holds no photo with a depth map")
    return found


def load_rgbd(path: Path, file: Path) -> View:
    """A photo with its depth map. Raises InputError for a map of another shape."""
    view, depth = load_view(path), read_depth(file, doubt=False)  # streets are farther than rooms
    check_depth_covers(depth, view.size, file)
    return dataclasses.replace(view, depth=depth)


def read_facades(folder: Path) -> list[DepthPhoto]:
    """Street photos with ``boxes.txt``.

    One depth a photo, from its doors, else from all things of known height. No intrinsics are
    needed: a thing of h metres that is p pixels high is h / p focal lengths away. Photos without
    such a thing are left out.
    """
    boxes: dict[str, list[tuple[int, float, float, float, float]]] = {}
    for number, line in enumerate(read_text(folder / "boxes.txt").splitlines(), 1):
        parts = line.split()
        if not parts or line.startswith("#"):
            continue
        try:
            name, kind, values = parts[0], int(parts[1]), [float(v) for v in parts[2:6]]
            boxes.setdefault(name, []).append((kind, values[0], values[1], values[2], values[3]))
        except (ValueError, IndexError) as error:
            raise InputError(f"{folder / 'boxes.txt'}:{number}: not a box: {line!r}") from error
    photos = []
    for path in sorted((folder / "rgb").iterdir()):
        found = [box for box in boxes.get(path.stem, []) if box[0] in _HEIGHTS and box[4] >= 8]
        if found:
            photos.append(_facade(path, found))
    if not photos:
        raise InputError(f"'{folder}' holds no photo with a thing of known height")
    return photos


def _facade(path: Path, boxes: Sequence[tuple[int, float, float, float, float]]) -> DepthPhoto:
    doors = [box for box in boxes if box[0] == _DOOR_CLASS] or boxes
    ratio = float(torch.tensor([_HEIGHTS[box[0]] / box[4] for box in doors]).median())
    view = load_view(path, fov=60.0)
    focal = float(view.camera.f[0])
    width, height = view.size
    depth = torch.zeros(height, width)
    for _, x, y, w, h in boxes:
        top, bottom, left, right = (round(v) for v in (y - h / 2, y + h / 2, x - w / 2, x + w / 2))
        depth[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] = ratio * focal
    return DepthPhoto.of_view(View(view.image, view.camera, depth=depth), weak=True)


@dataclass(frozen=True)
class DepthAugment:
    """A window of the photo, upright or on its side, seen by the network at one size.

    smallest: share of the longest possible window that the smallest one has. turned: probability of a quarter turn.
    """

    smallest: float = 0.35
    turned: float = 0.06

    def __call__(
        self, photo: DepthPhoto, size: tuple[int, int], canonical: float, stride: int, generator: torch.Generator
    ) -> tuple[Float[Tensor, "3 H W"], Float[Tensor, "h w"]]:
        """Image of ``size`` (width, height), and the logarithm of the depth for a camera of focal length ``canonical``
        on its cells of ``stride`` pixels, NaN where unknown. A crop changes no depth, and the focal length by its zoom."""

        def chance() -> float:
            return float(torch.rand((), generator=generator))

        image, depth = photo.image, photo.depth
        if chance() < self.turned:
            quarter = 1 if chance() < 0.5 else 3
            image, depth = image.rot90(quarter, (-2, -1)), depth.rot90(quarter, (-2, -1))
        if chance() < 0.5:
            image, depth = image.flip(-1), depth.flip(-1)
        height, width = image.shape[-2:]
        largest = min(width / size[0], height / size[1])
        share = self.smallest ** chance()  # as many of each zoom
        w, h = max(8, round(largest * share * size[0])), max(8, round(largest * share * size[1]))
        w, h = min(w, width), min(h, height)
        left, top = round((width - w) * chance()), round((height - h) * chance())
        window = image[:, top : top + h, left : left + w].float().div(255)
        seen = F.interpolate(window[None], (size[1], size[0]), mode="bilinear", antialias=True, align_corners=False)[0]
        focal = photo.focal * (size[0] / w * size[1] / h) ** 0.5
        cells = _cells(
            depth, (left / width, top / height, w / width, h / height), (size[0] // stride, size[1] // stride)
        )
        return seen.clamp(0, 1), (cells * (canonical / focal)).log()


def _cells(
    depth: Float[Tensor, "h w"], window: tuple[float, float, float, float], grid: tuple[int, int]
) -> Float[Tensor, "gh gw"]:
    """Median of 3 x 3 samples of each cell of a window (left, top, width, height as shares); NaN where none is known."""
    h, w = depth.shape
    x = (window[0] + (torch.arange(3 * grid[0]) + 0.5) / (3 * grid[0]) * window[2]) * w
    y = (window[1] + (torch.arange(3 * grid[1]) + 0.5) / (3 * grid[1]) * window[3]) * h
    samples = depth[y.long().clamp(0, h - 1)][:, x.long().clamp(0, w - 1)]
    samples = torch.where(samples > 0, samples, torch.nan)
    parts = samples.reshape(grid[1], 3, grid[0], 3).permute(0, 2, 1, 3).flatten(2)
    return parts.nanmedian(-1).values


def _photos(folder: Path) -> list[Path]:
    if (folder / "rgb").is_dir():
        return sorted((folder / "rgb").iterdir())
    scene = read_posed(folder)
    return [scene.folder / name for name in scene.names]


def _first(folder: Path, stem: str) -> Path | None:
    path = folder / f"{stem}.png"
    return path if path.is_file() else None
