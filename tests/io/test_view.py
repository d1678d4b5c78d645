"""From files to Views: golden images and K of the Map-free layout, resizing, cutting, warnings, depth."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import metriloc
from metriloc.geometry import Camera, Pose
from metriloc.geometry.distortion import Model
from metriloc.geometry.so3 import so3_exp
from metriloc.io import InputError, crop_view, load_view, resize_view, turn_view
from metriloc.types import View

K = (60.0, 62.0, 30.0, 22.0)
EXAMPLE = Path(metriloc.__file__).parent / "data" / "example"


def gradient(width: int = 64, height: int = 48) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 4, y * 5, (x + y) * 2], -1).clip(0, 255).astype(np.uint8)


@pytest.fixture()
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    Image.fromarray(gradient()).save(path)
    return path


@pytest.mark.parametrize("item", [0, 5, 17])
def test_golden_resize_and_K(shared: Callable[[str], Path], item: int) -> None:
    root = shared("golden/mickey/mapfree_synth")
    expected = np.load(root / "expected.npz")
    for side in (0, 1):
        path = root / "train" / "s00000" / expected[f"train.{item}.pair_names"][side]
        native = load_view(path)
        assert np.abs(native.camera.K.numpy() - expected[f"train.{item}.Kori_color{side}"]).max() < 1e-5
        view = load_view(path, resize=(36, 48))
        assert view.size == (36, 48) and view.camera.size.tolist() == [36.0, 48.0]
        assert np.abs(view.camera.K.numpy() - expected[f"train.{item}.K_color{side}"]).max() < 1e-5
        # JPEG decoders and OpenCV's fixed-point resize differ by a level or two
        assert np.abs(view.image.numpy() - expected[f"train.{item}.image{side}"]).max() <= 2.01 / 255
        assert "intrinsics.txt" in view.intrinsics_source and "resized from 54x72 to 36x48" in view.intrinsics_source


DISTORTIONS: list[tuple[Model, list[float]]] = [
    ("pinhole", []),
    ("radtan", [-0.2, 0.05, 0.01, -0.02, 0.003]),
    ("fisheye", [0.05, -0.02, 0.01, 0.002]),
]


@pytest.mark.parametrize("quarters", [0, 1, 2, 3, -1, 5])
@pytest.mark.parametrize(("model", "distortion"), DISTORTIONS)
def test_turned_photos_show_the_same(
    quarters: int, model: Model, distortion: list[float], generator: torch.Generator
) -> None:
    """A point lands on the same colour and depth in the turned photo, with every distortion term on."""
    image = torch.rand(3, 40, 60, generator=generator)
    size, f, c, d = (torch.tensor(v).double() for v in ([60, 40], [55, 50], [28, 21.5], distortion))
    pose = Pose(so3_exp(torch.tensor([0.1, 0.2, -0.3]).double()), torch.tensor([0.1, -0.2, 0.3]).double())
    view = View(image, Camera(size, f, c, d, model), pose, depth=image[0])
    other, turned_from_view = turn_view(view, quarters)
    pixels = torch.tensor([[0, 0], [59, 0], [10, 30], [33, 20]])
    rays, ok = view.camera.unproject(pixels.double())
    assert ok.all()
    world = pose.inverse().transform(3 * rays)
    uv, _ = other.camera.project(other.cam_from_world.transform(world))
    torch.testing.assert_close(uv, uv.round(), rtol=0, atol=1e-9)
    torch.testing.assert_close(other.camera.project(turned_from_view.transform(3 * rays))[0], uv)
    x, y = uv.round().long().unbind(-1)
    assert torch.equal(other.image[:, y, x], image[:, pixels[:, 1], pixels[:, 0]])
    assert torch.equal(other.depth[y, x], image[0, pixels[:, 1], pixels[:, 0]])
    back, view_from_turned = turn_view(other, -quarters)
    assert torch.equal(back.image, image) and torch.allclose(back.camera.c, view.camera.c)
    torch.testing.assert_close(back.camera.distortion, view.camera.distortion)
    assert torch.equal((view_from_turned @ turned_from_view).R, torch.eye(3).double())


def test_image_and_name(photo: Path) -> None:
    view = load_view(str(photo), K=K)
    assert view.image.dtype == torch.float32 and view.image.is_contiguous() and view.size == (64, 48)
    assert np.array_equal((view.image * 255).round().byte().permute(1, 2, 0).numpy(), gradient())
    assert view.name == str(photo) and view.intrinsics_source == "K, as given" and view.cam_from_world is None


def test_only_a_guess_warns(photo: Path) -> None:
    with pytest.warns(UserWarning, match=r"photo.png: the intrinsics are a guess: 26 mm .* give K, an intrinsics.txt"):
        view = load_view(photo)
    assert "guess" in view.intrinsics_source
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_view(photo, K=K)
        load_view(photo, fov=60.0)
        load_view(photo, camera=Camera.from_fov((64, 48), 1.0))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"fov": "60"}, r"fov must be a number, got '60' \(str\)"),
        ({"fov": True}, "fov must be a number, got True"),
        ({"fov": float("nan")}, "fov must be a finite number, got nan"),
        ({"fov": -5}, "between 0 and 180 degrees, got -5"),
        ({"max_side": "640"}, "max_side must be a whole number, got '640'"),
        ({"max_side": float("nan")}, "max_side must be a finite whole number, got nan"),
        ({"max_side": 0.5}, "max_side must be a finite whole number, got 0.5"),
        ({"max_side": -1}, "max_side must be positive, got -1"),
        ({"resize": "640x480"}, "two positive whole numbers"),
        ({"resize": ("6", "4")}, r"two positive whole numbers \(width, height\), got \('6', '4'\)"),
        ({"resize": (float("nan"), 4)}, "two positive whole numbers"),
        ({"resize": 5}, r"two positive whole numbers \(width, height\), got 5"),
        ({"max_megapixels": "5"}, "max_megapixels must be a number, got '5'"),
        ({"max_megapixels": float("nan")}, "max_megapixels must be a finite number"),
        ({"max_megapixels": -1}, "max_megapixels must not be negative, got -1"),
        ({"K": "abc"}, "K must be a 3x3 matrix or four numbers"),
        ({"K": (-60.0, 62.0, 30.0, 22.0)}, "focal lengths -60 62 px are not plausible"),
        ({"camera": (60.0, 62.0, 30.0, 22.0)}, r"camera must be a Camera, got \(60.0"),
        ({"intrinsics": 5}, "intrinsics must be a path, got 5"),
        ({"depth": 5}, "depth must be a path, got 5"),
        ({"depth_scale": "5000"}, "depth_scale must be a number, got '5000'"),
        ({"depth_scale": -1.0}, "depth scale must be a positive number"),
        ({"upright": "no"}, "upright must be True or False, got 'no'"),
        ({"undistort": "no"}, "undistort must be a ColmapCamera, got 'no'"),
    ],
)
def test_arguments_of_the_wrong_kind_are_named(photo: Path, arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_view(photo, **arguments)


@pytest.mark.parametrize("path", [None, 5, ["photo.png"]])
def test_a_path_must_be_one(path: Any) -> None:
    with pytest.raises(InputError, match="path must be a path, got"):
        load_view(path)


def test_numbers_may_be_those_of_numpy(photo: Path) -> None:
    view = load_view(photo, fov=np.float32(60), max_side=np.int64(32))  # type: ignore[arg-type]
    assert view.size == (32, 24)


def test_K_refers_to_the_upright_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, seen standing
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
    view = load_view(tmp_path / "a.png", K=(60, 62, 22, 30))
    assert view.size == (48, 64) and view.camera.size.tolist() == [48.0, 64.0]
    assert view.camera.c.tolist() == [22.0, 30.0]


def test_exif_focal_of_a_turned_photo(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif.get_ifd(0x8769)[0xA405] = 26
    Image.fromarray(gradient()).save(tmp_path / "a.jpg", exif=exif)
    view = load_view(tmp_path / "a.jpg")
    assert view.camera.f.tolist() == pytest.approx([26 / 43.26661 * 80] * 2, rel=1e-5)  # the diagonal of 64x48 is 80
    assert view.camera.c.tolist() == [23.5, 31.5]


def test_resize_leaves_the_rays(photo: Path) -> None:
    before = load_view(photo, K=K)
    after = resize_view(before, (100, 30))
    corners = torch.tensor([[-0.5, -0.5], [63.5, 47.5], [10.0, 20.0]])
    scaled = (corners + 0.5) * torch.tensor([100 / 64, 30 / 48]) - 0.5
    assert torch.allclose(before.camera.unproject(corners)[0], after.camera.unproject(scaled)[0], atol=1e-6)
    assert after.image.shape == (3, 30, 100) and before.size == (64, 48)
    assert resize_view(before, (64, 48)) is before


def test_resize_moves_the_camera_as_it_says() -> None:
    view = load_view(EXAMPLE / "reference.jpg", depth=EXAMPLE / "reference.depth.png")
    half = resize_view(view, (320, 120))
    assert half.camera.f.tolist() == [0.5 * 520, 0.25 * 520] and half.camera.size.tolist() == [320, 120]
    assert half.camera.c.tolist() == [0.5 * (319.5 + 0.5) - 0.5, 0.25 * (239.5 + 0.5) - 0.5]
    assert half.depth is view.depth and half.name == view.name and half.focal_sigma == view.focal_sigma
    assert half.image.shape == (3, 120, 320) and 0 <= float(half.image.min()) <= float(half.image.max()) <= 1
    assert half.intrinsics_source.endswith("resized from 640x480 to 320x120")


def test_resize_is_half_pixel_bilinear() -> None:
    image = torch.rand(3, 4, 6, generator=torch.Generator().manual_seed(0))
    view = View(image, Camera.from_fov((6, 4), 1.0))
    # an exact halving without antialias is the mean of each 2x2 block
    half = resize_view(view, (3, 2)).image
    assert torch.allclose(half, image.unflatten(1, (2, 2)).unflatten(3, (3, 2)).mean((2, 4)), atol=1e-6)


def test_max_side(photo: Path) -> None:
    view = load_view(photo, K=K, max_side=20)
    assert view.size == (20, 15)
    assert view.camera.f.tolist() == pytest.approx([60 * 20 / 64, 62 * 15 / 48])
    assert load_view(photo, K=K, max_side=64).size == load_view(photo, K=K, max_side=500).size == (64, 48)


def test_max_side_is_antialiased(tmp_path: Path) -> None:
    y, x = np.mgrid[0:80, 0:80]
    Image.fromarray((((x + y) % 2) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    reduced = load_view(tmp_path / "a.png", fov=60.0, max_side=16).image
    assert (reduced[:, 2:-2, 2:-2] - 0.5).abs().max() < 0.05  # a checkerboard turns grey, not into stripes
    assert load_view(tmp_path / "a.png", fov=60.0, resize=(16, 16)).image.std() > 0.1


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resize": (10, 10), "max_side": 5}, r"resize \(10, 10\) and max_side 5 contradict"),
        ({"resize": (0, 10)}, r"two positive whole numbers \(width, height\), got \(0, 10\)"),
        ({"resize": (10.5, 10)}, "two positive whole numbers"),
        ({"max_side": 0}, "max_side must be positive, got 0"),
        ({"max_megapixels": 0.001}, "64x48 = 0 megapixels; the limit is 0.001"),
        ({"K": (1, 2, 3)}, "3x3 matrix or four numbers"),
        ({"depth": "none.png"}, "'none.png' does not exist"),
    ],
)
def test_wrong_use(photo: Path, options: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_view(photo, **{"K": K, **options})  # type: ignore[arg-type]


def test_depth(photo: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.png"
    Image.fromarray(np.full((24, 32), 1500, np.uint16)).save(file)
    view = load_view(photo, K=K, depth=file, resize=(40, 40))
    assert view.depth is not None and view.depth.shape == (24, 32) and float(view.depth[0, 0]) == 1.5
    Image.fromarray(np.full((32, 24), 1500, np.uint16)).save(file)
    with pytest.raises(InputError, match=r"d.png' has 24x32 pixels, which is not the shape of the 64x48 photo"):
        load_view(photo, K=K, depth=file)


def test_depth_scale(photo: Path, tmp_path: Path) -> None:
    file = tmp_path / "d.png"
    Image.fromarray(np.full((24, 32), 7500, np.uint16)).save(file)
    view = load_view(photo, K=K, depth=file, depth_scale=5000)
    assert view.depth is not None and torch.allclose(view.depth, torch.full((24, 32), 1.5))
    for bad in (0.0, -5000.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"positive number of units a metre|must be a finite number"):
            load_view(photo, K=K, depth=file, depth_scale=bad)
    with pytest.raises(InputError, match="5000 units a metre says nothing without a depth map"):
        load_view(photo, K=K, depth_scale=5000)


def test_crop(photo: Path) -> None:
    view = load_view(photo, K=K)
    depth = torch.arange(64 * 48.0).reshape(48, 64) + 1
    view = View(view.image, view.camera, depth=depth)
    window = crop_view(view, (10, 5), (20, 30))
    assert torch.equal(window.image, view.image[:, 5:35, 10:30]) and window.size == (20, 30)
    assert window.camera.c.tolist() == [20.0, 17.0] and window.camera.size.tolist() == [20.0, 30.0]
    assert window.depth is not None and torch.equal(window.depth, depth[5:35, 10:30])
    assert "cut to 20x30 at (10, 5)" in window.intrinsics_source
    window.image.zero_()
    assert view.image.any()
    for corner, size in [((-1, 0), (5, 5)), ((60, 0), (5, 5)), ((0, 40), (5, 9))]:
        with pytest.raises(InputError, match="is not inside the 64x48 photo"):
            crop_view(view, corner, size)


def test_crop_of_a_coarser_depth_map(photo: Path) -> None:
    view = load_view(photo, K=K)
    plane = 2 + torch.arange(32.0)[None].expand(24, 32) / 100  # linear in x: bilinear lookup is exact inside
    window = crop_view(View(view.image, view.camera, depth=plane), (10, 5), (20, 30))
    u = torch.arange(20) + 10
    assert window.depth is not None and window.depth.shape == (30, 20)
    assert torch.allclose(window.depth, (2 + ((u + 0.5) / 2 - 0.5) / 100).expand(30, 20), atol=1e-6)
