"""A photo in any form is the same View, or one sentence that says why not."""

from __future__ import annotations

import io
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import metriloc
from metriloc.geometry import Camera
from metriloc.io import InputError, as_view, load_view
from metriloc.types import View

K = (60.0, 62.0, 30.0, 22.0)
K3 = [[60.0, 0.0, 30.0], [0.0, 62.0, 22.0], [0.0, 0.0, 1.0]]


def picture(width: int = 64, height: int = 48) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack([x * 3, y * 4, x + y], -1).clip(0, 255).astype(np.uint8)


def saved(folder: Path, orientation: int = 1, kind: str = "png") -> Path:
    """A photo with a focal length and an orientation in its EXIF."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0xA405] = 28
    path = folder / f"photo.{kind}"
    Image.fromarray(picture()).save(path, exif=exif)
    return path


def same(a: View, b: View) -> bool:
    parts = ((a.image, b.image), (a.camera.K, b.camera.K), (a.camera.size, b.camera.size))
    known = (a.intrinsics_source, a.focal_sigma) == (b.intrinsics_source, b.focal_sigma)
    return known and all(torch.equal(x, y) for x, y in parts)


# -- every form is the same photo -------------------------------------------------------------------------------------
@pytest.mark.parametrize("orientation", [1, 3, 6, 8, 5])
@pytest.mark.parametrize("kind", ["png", "jpg"])
@pytest.mark.parametrize("given", [{}, {"K": "upright"}, {"fov": 55.0}])
def test_files_bytes_and_pillow_images_agree(
    tmp_path: Path, orientation: int, kind: str, given: dict[str, Any]
) -> None:
    path = saved(tmp_path, orientation, kind)
    if given.get("K"):
        given = {"K": (60.0, 60.0, 30.0, 22.0)}
    expected = load_view(path, K=given.get("K"), fov=given.get("fov"))
    assert expected.size == ((48, 64) if orientation >= 5 else (64, 48))
    assert same(as_view(path, **given), expected) and same(as_view(str(path), **given), expected)
    data = path.read_bytes()
    assert same(as_view(data, **given), expected) and same(as_view(bytearray(data), **given), expected)  # type: ignore[arg-type]
    with Image.open(path) as image:
        assert same(as_view(image, **given), expected)
        assert image.getexif()[0x0112] == orientation and image.size == (64, 48)  # it stays as it is
    assert same(as_view(Image.open(io.BytesIO(data)), **given), expected)


def test_a_list_beside_the_file_of_a_pillow_image_counts(tmp_path: Path) -> None:
    path = saved(tmp_path)
    (tmp_path / "intrinsics.txt").write_text("photo.png 60 62 30 22 64 48\n")
    expected = load_view(path)
    assert "intrinsics.txt" in expected.intrinsics_source
    with Image.open(path) as image:
        assert same(as_view(image), expected) and as_view(image).name == str(path)
        resized = as_view(image.resize((32, 24)), K=K)  # no file's image any more
    assert resized.size == (32, 24) and resized.name == "photo"


def test_modes_of_pillow_images() -> None:
    gray = as_view(Image.fromarray(picture()[..., 0]), fov=50)
    assert torch.equal(gray.image[0], gray.image[2])
    transparent = Image.new("RGBA", (4, 3), (200, 100, 50, 0))
    assert float(as_view(transparent, fov=50).image.max()) == 0
    with pytest.raises(InputError, match="holds 'F' values"):
        as_view(Image.new("F", (4, 3)), fov=50)


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64", ">f4"])
@pytest.mark.parametrize("K_given", [K, list(K), K3, np.array(K3), torch.tensor(K3), np.array(K)])
def test_arrays_and_tensors_equal_the_file(tmp_path: Path, dtype: str, K_given: Any) -> None:
    expected = load_view(saved(tmp_path), K=K)
    whole = picture()
    array = whole if dtype == "uint8" else (whole / 255).astype(dtype)
    found = as_view(array, K=K_given)
    atol = 1e-3 if dtype == "float16" else 1e-7
    assert torch.allclose(found.image, expected.image, atol=atol) and found.image.dtype == torch.float32
    assert torch.equal(found.camera.K, expected.camera.K) and found.intrinsics_source == "K, as given"
    if dtype != ">f4":
        tensor = torch.from_numpy(np.moveaxis(array, -1, 0).copy())
        assert torch.equal(as_view(tensor, K=K_given).image, found.image)


def test_views_into_larger_arrays_and_copies() -> None:
    whole = np.zeros((60, 70, 3), np.uint8)
    whole[5:53, 3:67] = picture()
    mirrored = whole[5:53, 3:67][:, ::-1]
    assert torch.equal(as_view(mirrored, fov=50).image, as_view(np.ascontiguousarray(mirrored), fov=50).image)
    for photo in (np.zeros((3, 1, 3), np.float32), torch.zeros(3, 4, 5, requires_grad=True), torch.zeros(3, 4, 5)):
        view = as_view(photo, fov=50)
        assert not view.image.requires_grad
        view.image.fill_(1.0)  # an own copy: what came in is as it was
        assert not bool((photo != 0).any())
    frozen = picture()
    frozen.setflags(write=False)
    assert as_view(frozen, fov=50).size == (64, 48)


def test_fov_and_the_guess() -> None:
    view = as_view(picture(), fov=60)
    assert float(view.camera.f[0]) == pytest.approx(32 / math.tan(math.radians(30)))
    assert as_view(picture(), fov=np.float32(60)).focal_sigma == view.focal_sigma  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="query: the intrinsics are a guess"):
        guessed = as_view(picture(), name="query")
    assert guessed.focal_is_guessed and guessed.name == "query"


def test_depth_maps_come_along(tmp_path: Path) -> None:
    np.save(tmp_path / "depth.npy", np.full((24, 32), 2.0, np.float32))
    view = as_view(picture(), fov=60, depth=tmp_path / "depth.npy")
    assert view.depth is not None and float(view.depth.mean()) == 2.0
    half = as_view(picture(), fov=60, depth=tmp_path / "depth.npy", depth_scale=2.0)
    assert half.depth is not None and float(half.depth.mean()) == 1.0


def test_a_view_comes_back_as_it_is() -> None:
    view = as_view(picture(), K=K)
    assert as_view(view) is view


# -- what is refused --------------------------------------------------------------------------------------------------
NAN = np.full((4, 5, 3), 0.5, np.float32)
NAN[2, 3, 1] = np.nan


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_view_of_half_precision_is_made_single(dtype: torch.dtype) -> None:
    image = torch.rand(3, 4, 5).to(dtype)
    view = View(image, Camera.from_fov((5, 4), 1.0))
    assert view.image.dtype == torch.float32 and torch.equal(view.image, image.float())


def test_a_view_with_one_unknown_pixel_is_refused_by_name() -> None:
    image = torch.rand(3, 4, 5)
    image[1, 2, 3] = torch.nan
    with pytest.raises(InputError, match="'hole' has pixels that are not finite"):
        as_view(View(image, Camera.from_fov((5, 4), 1.0), name="hole"))


WRONG: list[tuple[Any, str]] = [
    (np.zeros((4, 5), np.uint8), r"shape \(H, W, 3\), got \(4, 5\): a grey photo"),
    (np.zeros((4, 5, 1), np.uint8), r"got \(4, 5, 1\): a grey photo"),
    (np.zeros((4, 5, 4), np.uint8), r"got \(4, 5, 4\): leave out the fourth channel"),
    (np.zeros((3, 4, 5), np.uint8), r"got \(3, 4, 5\): put the channels last"),
    (np.zeros((1, 4, 5, 3), np.uint8), "one photo at a time"),
    (np.zeros((4, 5, 3), np.int64), "got an array of int64"),
    (np.zeros((4, 5, 3), bool), "got an array of bool"),
    (np.zeros((4, 5, 3), np.uint16), "got an array of uint16"),
    (np.zeros((4, 5, 3), object), "got an array of object"),
    (np.full((4, 5, 3), 200.0), r"in 0..1, got values from 200 to 200: divide by 255"),
    (np.full((4, 5, 3), 1.5, np.float32), "got values from 1.5 to 1.5: divide by 255"),
    (np.linspace(-2, 2, 60).reshape(4, 5, 3), "got values from -2 to 2: undo the normalization"),
    (NAN, "not finite"),
    (np.full((4, 5, 3), np.inf), "not finite"),
    (np.full((4, 5, 3), 1e300), "not finite"),
    (np.zeros((0, 5, 3), np.uint8), "has no pixels"),
    (torch.zeros(4, 5, 3), r"shape \[3, H, W\], got \[4, 5, 3\]: put the channels first"),
    (torch.zeros(4, 5), r"got \[4, 5\]"),
    (torch.zeros(1, 3, 4, 5), "one photo at a time"),
    (torch.zeros(3, 4, 5, dtype=torch.int32), "got a tensor of torch.int32"),
    (torch.full((3, 4, 5), 255.0), "divide by 255"),
    (torch.full((3, 4, 5), float("nan")), "not finite"),
    (b"", "'photo' is empty"),
    (b"no image at all", "'photo' is not an image that can be read"),
    (Path("nowhere.png"), "'nowhere.png' does not exist"),
    ([[0.5]], "got list"),
    (None, "got NoneType"),
    (7, "got int"),
]


@pytest.mark.parametrize(("photo", "words"), WRONG)
def test_what_is_no_photo_is_refused_in_one_sentence(photo: Any, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        as_view(photo, K=(60.0, 60.0, 2.0, 2.0))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    data = saved(tmp_path, kind="jpg").read_bytes()
    for length in (1, 20, len(data) // 2):
        with pytest.raises(InputError, match="'query' is"):
            as_view(data[:length], K=K, name="query")
    with Image.open(io.BytesIO(data[:-100])) as image, pytest.raises(InputError, match="truncated"):
        as_view(image, K=K)


def test_the_limit_of_megapixels_holds_for_all() -> None:
    large = np.broadcast_to(np.zeros((1, 1, 3), np.uint8), (8000, 7000, 3))  # no memory behind it
    tensor = torch.zeros(3, 1, 1, dtype=torch.uint8).expand(3, 8000, 7000)
    header = b"P6\n8000 7000\n255\n"
    for photo in (large, tensor, header):
        with pytest.raises(InputError, match="56 megapixels; the limit is 50"):
            as_view(photo, fov=50)
    with pytest.raises(InputError, match="56 megapixels"):
        as_view(Image.new("1", (8000, 7000)), fov=50)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"K": K, "fov": 50}, "K and fov are both given"),
        ({"fov": "wide"}, "fov must be a number of degrees, got 'wide'"),
        ({"fov": True}, "fov must be a number of degrees, got True"),
        ({"fov": 0}, "between 0 and 180"),
        ({"fov": math.nan}, "between 0 and 180"),
        ({"K": (1.0, 2.0)}, "K must be a 3x3 matrix or four numbers"),
        ({"K": np.eye(3)}, "not plausible"),
        ({"fov": 50, "depth_scale": 5000}, "says nothing without a depth map"),
    ],
)
def test_intrinsics_that_cannot_be(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        as_view(picture(), **given)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"K": K}, "K was given for a query that is a View already"),
        ({"fov": 50}, "fov 50 was given for a query"),
        ({"depth": Path("d.npy")}, "depth 'd.npy' was given for a query"),
        ({"depth_scale": 5000}, "depth_scale 5000 was given for a query"),
    ],
)
def test_a_view_has_its_own_camera(given: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        as_view(as_view(picture(), K=K), name="query", **given)


# -- the two calls ----------------------------------------------------------------------------------------------------
def test_relative_pose_takes_every_form(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is guessed
        for photo in (picture(), path.read_bytes(), Image.open(path), torch.zeros(3, 48, 64)):
            estimate = metriloc.relative_pose(path, photo, K=K, method="identity")
            assert bool(estimate.success)
        assert bool(metriloc.relative_pose(picture(), picture(32, 24), fov=60, method="identity").success)


def test_one_K_for_two_sizes_is_refused() -> None:
    with pytest.raises(InputError, match="'reference' has 64x48 pixels and 'query' 32x24: give each photo its own"):
        metriloc.relative_pose(picture(), picture(32, 24), K=K, method="identity")
    query = as_view(picture(32, 24), K=(30.0, 31.0, 15.0, 11.0))
    with pytest.raises(InputError, match="K was given for a query that is a View already"):
        metriloc.relative_pose(picture(), query, K=K, method="identity")
    assert bool(metriloc.relative_pose(as_view(picture(), K=K), query, method="identity").success)
