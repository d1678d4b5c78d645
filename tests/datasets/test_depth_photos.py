"""Photos with depth: the two readers, and the windows that a network sees with the logarithm of their depth."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from metriloc.datasets.depth_photos import DOOR_M, WINDOW_M, DepthAugment, DepthPhoto, read_facades, read_rgbd_photos
from metriloc.geometry import Camera
from metriloc.io import InputError
from metriloc.types import View

CANONICAL, STRIDE = 220.0, 8
SIZE = (64, 48)


def save_photo(path: Path, size: tuple[int, int] = (80, 60)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "teal").save(path)


def save_depth(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint16)).save(path)


# -- readers ----------------------------------------------------------------------------------------------------------
def test_photos_with_depth_in_a_folder_of_its_own(tmp_path: Path) -> None:
    lines = []
    for i in range(4):
        save_photo(tmp_path / f"rgb/{i:03d}.jpg")
        lines.append(f"rgb/{i:03d}.jpg 70 {70 + 4 * i} 39.5 29.5 80 60\n")
    (tmp_path / "intrinsics.txt").write_text("".join(lines))
    for i in (0, 2, 3):
        save_depth(tmp_path / f"depth/{i:03d}.png", np.full((30, 40), 20_000 + 1000 * i))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # streets are farther than rooms, which is no reason to doubt them
        photos = read_rgbd_photos(tmp_path)
    assert [float(photo.depth[0, 0]) for photo in photos] == [20.0, 22.0, 23.0]
    assert [photo.focal for photo in photos] == pytest.approx([math.sqrt(70 * (70 + 4 * i)) for i in (0, 2, 3)])
    assert all(photo.image.shape == (3, 60, 80) and photo.image.dtype == torch.uint8 for photo in photos)
    assert not any(photo.weak for photo in photos)
    assert [float(photo.depth[0, 0]) for photo in read_rgbd_photos(tmp_path, every=2)] == [20.0, 22.0]


def test_photos_with_poses_and_depth_beside_them(tmp_path: Path) -> None:
    names = [f"seq0/frame_{i:05d}" for i in range(2)]
    (tmp_path / "poses.txt").write_text("".join(f"{n}.jpg 1 0 0 0 {-0.3 * i} 0 0\n" for i, n in enumerate(names)))
    (tmp_path / "intrinsics.txt").write_text("".join(f"{n}.jpg 80 80 39.5 29.5 80 60\n" for n in names))
    for name in names:
        save_photo(tmp_path / f"{name}.jpg")
        save_depth(tmp_path / f"{name}.depth.png", np.full((30, 40), 1500))
    photos = read_rgbd_photos(tmp_path)
    assert len(photos) == 2 and float(photos[1].depth[3, 3]) == 1.5 and photos[0].focal == pytest.approx(80)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    save_photo(tmp_path / "rgb/a.jpg")
    with pytest.raises(InputError, match="holds no photo with a depth map"):
        read_rgbd_photos(tmp_path)
    (tmp_path / "intrinsics.txt").write_text("rgb/a.jpg 70 70 39.5 29.5 80 60\n")
    save_depth(tmp_path / "depth/a.png", np.full((40, 30), 1500))
    with pytest.raises(InputError, match="is not the shape of the 80x60 photo"):
        read_rgbd_photos(tmp_path)
    with pytest.raises(InputError, match="'a' has no depth map"):
        DepthPhoto.of_view(View(torch.zeros(3, 6, 8), Camera.from_fov((8, 6), 1.0), name="a"))


def test_large_photos_are_reduced_with_their_focal_length() -> None:
    camera = Camera.from_K(torch.tensor([[900.0, 0, 639.5], [0, 900.0, 479.5], [0, 0, 1]]), (1280, 960))
    photo = DepthPhoto.of_view(View(torch.full((3, 960, 1280), 0.5), camera, depth=torch.full((96, 128), 2.0)))
    assert photo.image.shape == (3, 480, 640) and photo.focal == pytest.approx(450) and photo.depth.shape == (96, 128)
    assert photo.image.unique().tolist() == [128]


def test_facades_are_as_far_as_their_doors_say(tmp_path: Path) -> None:
    for name in "abcd":
        save_photo(tmp_path / f"rgb/{name}.jpg", (400, 300))
    focal = 200 / math.tan(math.radians(30))
    (tmp_path / "boxes.txt").write_text(
        "# name class x y w h\n"
        "a 5 100 150 30 60\n"  # a door counts, not the window beside it
        "a 0 200 100 30 20\n"
        "b 0 200 100 30 50\nb 0 300 100 30 40\nb 0 350 100 30 20\n"  # the median of three windows
        "c 3 200 100 90 50\n"  # a signboard has no known height
        "d 5 200 100 30 7\n"  # too small to measure
    )
    photos = read_facades(tmp_path)
    assert len(photos) == 2 and all(photo.weak for photo in photos)
    door, windows = DOOR_M / 60 * focal, WINDOW_M / 40 * focal
    for photo, expected in zip(photos, (door, windows), strict=True):
        known = photo.depth[photo.depth > 0]
        assert torch.allclose(known, torch.full_like(known, expected), rtol=1e-3)
        assert photo.focal == pytest.approx(focal, rel=1e-6)
    assert int((photos[0].depth > 0).sum()) == 30 * 60 + 30 * 20
    assert float(photos[0].depth[150, 100]) > 0 and float(photos[0].depth[110, 100]) == 0


@pytest.mark.parametrize("line", ["a five 1 2 3 4", "a", "a 5 1 2 3", "a 5 1 2 3 x"])
def test_malformed_boxes(tmp_path: Path, line: str) -> None:
    save_photo(tmp_path / "rgb/a.jpg")
    (tmp_path / "boxes.txt").write_text(f"a 5 40 30 20 20\n{line}\n")
    with pytest.raises(InputError, match=r"boxes\.txt:2: not a box"):
        read_facades(tmp_path)


def test_facades_without_anything_known(tmp_path: Path) -> None:
    save_photo(tmp_path / "rgb/a.jpg")
    (tmp_path / "boxes.txt").write_text("b 5 40 30 20 20\n")
    with pytest.raises(InputError, match="holds no photo with a thing of known height"):
        read_facades(tmp_path)


# -- what the network sees --------------------------------------------------------------------------------------------
def plane(depth: float = 3.0, focal: float = 150.0, size: tuple[int, int] = (160, 120)) -> DepthPhoto:
    """A wall that faces the camera; its picture says where each pixel is (red across, green down, in 0..255)."""
    width, height = size
    u = torch.linspace(0, 255, width).expand(height, width)
    v = torch.linspace(0, 255, height)[:, None].expand(height, width)
    image = torch.stack([u, v, torch.zeros(height, width)]).round().byte()
    return DepthPhoto(image, torch.full((height // 2, width // 2), depth), focal)


def zoom_seen(seen: torch.Tensor, axis: int) -> float:
    """Share of the photo that a window shows along an axis, from the ramp in its colours; both may be turned."""
    ramp = seen[:2].mean(axis)  # [2, n]: the mean over the other side
    inner = ramp[:, 4:-4]  # the ends are blurred
    slope = (inner[:, -1] - inner[:, 0]) / (inner.shape[1] - 1)
    return float(slope.abs().max()) * ramp.shape[1]


@pytest.mark.parametrize("seed", range(12))
def test_a_crop_changes_the_focal_length_and_no_depth(seed: int) -> None:
    photo = plane()
    generator = torch.Generator().manual_seed(seed)
    seen, target = DepthAugment(turned=0.0)(photo, SIZE, CANONICAL, STRIDE, generator)
    assert seen.shape == (3, 48, 64) and target.shape == (6, 8)
    width = zoom_seen(seen, 1) * 160  # pixels of the photo that the window shows
    height = zoom_seen(seen, 2) * 120
    focal = 150.0 * math.sqrt(64 / width * 48 / height)
    assert torch.allclose(target, torch.full_like(target, math.log(3.0 * CANONICAL / focal)), atol=0.03)
    assert float(target.max() - target.min()) < 1e-6


def test_the_whole_photo_is_exact() -> None:
    _, target = DepthAugment(smallest=1.0, turned=0.0)(
        plane(), SIZE, CANONICAL, STRIDE, torch.Generator().manual_seed(0)
    )
    # 160 pixels become 64: the focal length is 150 * 0.4
    torch.testing.assert_close(target, torch.full((6, 8), math.log(3.0 * CANONICAL / 60.0)))


def test_windows_are_drawn_over_the_whole_range_of_zooms() -> None:
    generator, augment = torch.Generator().manual_seed(0), DepthAugment(smallest=0.25, turned=0.0)
    focal = [
        3 * CANONICAL / math.exp(float(augment(plane(), SIZE, CANONICAL, STRIDE, generator)[1][0, 0]))
        for _ in range(200)
    ]
    zoom = torch.tensor(focal) / 60
    assert 0.98 < float(zoom.min()) < 1.1 and 3.4 < float(zoom.max()) <= 4.2
    assert 1.8 < float(zoom.median()) < 2.2  # as many of each zoom: the median is the root of the range


def test_a_quarter_turn_and_a_mirror_move_depth_with_the_picture() -> None:
    width, height = 160, 120
    near, far = 2.0, 8.0
    depth = torch.full((height, width), near)
    depth[:, width // 2 :] = far
    image = torch.zeros(3, height, width, dtype=torch.uint8)
    image[0, :, width // 2 :] = 255  # what is red is far
    photo = DepthPhoto(image, depth, 150.0)
    shapes = set()
    for seed in range(16):
        augment = DepthAugment(smallest=0.9, turned=0.5)
        seen, target = augment(photo, SIZE, CANONICAL, STRIDE, torch.Generator().manual_seed(seed))
        red = torch.nn.functional.avg_pool2d(seen[:1], STRIDE)[0]
        middle = 0.5 * (target.max() + target.min())
        sure = (red - 0.5).abs() > 0.45
        assert bool(sure.any()) and torch.equal((target > middle)[sure], (red > 0.5)[sure])
        assert float(target.max() - target.min()) == pytest.approx(math.log(far / near), abs=1e-4)
        shapes.add((bool(red[0, 0] > 0.5), bool(red[0, -1] > 0.5), bool(red[-1, 0] > 0.5)))
    assert len(shapes) == 4  # left, right, top and bottom


def test_cells_of_which_nothing_is_known_stay_unknown() -> None:
    photo = plane()
    photo.depth[:30] = 0  # the upper half
    _, target = DepthAugment(smallest=1.0, turned=0.0)(photo, SIZE, CANONICAL, STRIDE, torch.Generator().manual_seed(0))
    assert bool(target[:3].isnan().all()) and bool(target[3:].isfinite().all())


def test_the_same_generator_gives_the_same_window() -> None:
    first, second = (
        DepthAugment()(plane(), SIZE, CANONICAL, STRIDE, torch.Generator().manual_seed(5)) for _ in range(2)
    )
    assert torch.equal(first[0], second[0]) and torch.equal(first[1], second[1])
