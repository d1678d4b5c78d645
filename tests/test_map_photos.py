"""Maps whose photos are not as COLMAP saw them: of another size, or with an EXIF orientation that COLMAP does not know.

Every localiser must give the pose that it gives with the photos as they were.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from metriloc.choose import LocalizerChoice, choose_localizer
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, load_view
from metriloc.io.intrinsics import resized_camera
from metriloc.io.maps import load_map_view, pixels_in, read_map
from metriloc.types import PoseEstimate, SfmMap

METHODS = ("nre-xfeat", "xfeat-pnp", "pixloc")
REFERENCES = ("seq0/frame_00003.jpg", "seq0/frame_00005.jpg")
QUERY = "seq0/frame_00004.jpg"


@pytest.fixture()
def place(shared: Callable[[str], Path]) -> Path:
    return shared("data/eval/places/fountain_p11")


def changed(place: Path, folder: Path, change: Callable[[Image.Image], tuple[Image.Image, int | None]]) -> SfmMap:
    """The map with its references' photos changed; the number is an EXIF orientation to write."""
    (folder / "seq0").mkdir(parents=True, exist_ok=True)
    for name in REFERENCES:
        image, orientation = change(Image.open(place / name))
        exif = image.getexif()
        if orientation is not None:
            exif[0x0112] = orientation
        image.save(folder / name, quality=97, subsampling=0, exif=exif)
    return read_map(place / "sparse", folder)


def error(estimate: PoseEstimate, truth: Pose) -> tuple[float, float]:
    """Degrees, metres."""
    assert bool(estimate.success), estimate.reasons
    pose = estimate.pose.to(torch.float64)
    apart = float((pose.center() - truth.center()).norm())
    return math.degrees(float((pose @ truth.inverse()).angle())), apart


def entries(scene: SfmMap) -> list[tuple[str, Camera]]:
    return list(zip(scene.names, scene.cameras, strict=True))


def solve(method: str, place: Path, scene: SfmMap) -> tuple[float, float]:
    index = scene.index(QUERY)
    query = load_view(place / QUERY, camera=scene.cameras[index])
    estimate = choose_localizer(LocalizerChoice(method)).localize(
        query, scene.without([index]), list(REFERENCES), Pose(*_near(scene, index)) if method == "pixloc" else None
    )
    return error(estimate, scene.cam_from_world[index])


def _near(scene: SfmMap, index: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A start for PixLoc: the true pose, 10 cm aside."""
    pose = scene.cam_from_world[index]
    return pose.R, pose.t + torch.tensor([0.1, 0.0, 0.0]).to(pose.t)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_photos_of_another_size(method: str, place: Path, tmp_path: Path) -> None:
    half = changed(place, tmp_path / "half", lambda i: (i.resize((i.width // 2, i.height // 2), Image.LANCZOS), None))
    degrees, metres = solve(method, place, half)
    assert degrees < 1 and metres < 0.25  # was 1.1 to 6.2 m
    # a map whose cameras and observations are those of the small photos is the same map
    cameras = [resized_camera(camera, (360, 240)) if n in REFERENCES else camera for n, camera in entries(half)]
    small = torch.tensor([n in REFERENCES for n in half.names])[half.image_index]
    uv = torch.where(small[:, None], (half.uv + 0.5) / 2 - 0.5, half.uv)
    assert solve(method, place, replace(half, cameras=tuple(cameras), uv=uv)) == pytest.approx(
        (degrees, metres), abs=1e-4
    )


@pytest.mark.slow
@pytest.mark.parametrize("orientation", [3, 6, 8, 2])
def test_photos_with_an_orientation(orientation: int, place: Path, tmp_path: Path) -> None:
    """COLMAP reads the pixels as they are stored, so a tag beside the same pixels changes nothing at all."""
    plain = changed(place, tmp_path / "plain", lambda i: (i, None))
    tagged = changed(place, tmp_path / "tagged", lambda i: (i, orientation))
    for name in REFERENCES:
        views = [load_map_view(scene, scene.index(name)) for scene in (plain, tagged)]
        assert torch.equal(views[0].image, views[1].image)
        assert torch.equal(views[0].camera.K, views[1].camera.K)
    assert solve("xfeat-pnp", place, tagged) == pytest.approx(solve("xfeat-pnp", place, plain), abs=1e-6)


def test_another_aspect_is_refused_by_name(place: Path, tmp_path: Path) -> None:
    def cut(image: Image.Image) -> tuple[Image.Image, None]:
        return image.crop((0, 0, image.width // 2, image.height)), None

    with pytest.raises(InputError, match="holds other photos than the map's"):
        changed(place, tmp_path / "all", cut)
    scene = changed(place, tmp_path / "one", lambda image: (image, None))
    cut(Image.open(place / REFERENCES[0]))[0].save(tmp_path / "one" / REFERENCES[0])
    with pytest.raises(InputError, match=rf"{Path(REFERENCES[0]).name}.*intrinsics are for"):
        load_map_view(scene, scene.index(REFERENCES[0]))


def test_pixels_follow_the_size(place: Path, tmp_path: Path) -> None:
    scene = changed(place, tmp_path / "odd", lambda i: (i.resize((i.width // 3, round(i.height / 3))), None))
    image = scene.index(REFERENCES[0])
    view = load_map_view(scene, image)
    seen = scene.observations_of(image)
    uv = pixels_in(view, scene, image, scene.uv[seen])
    world = scene.xyz[scene.point_index[seen]]
    projected, _ = view.camera.to(torch.float64).project(scene.cam_from_world[image].transform(world))
    full, _ = scene.cameras[image].project(scene.cam_from_world[image].transform(world))
    scale = view.size[0] / float(scene.cameras[image].size[0])
    # the same reprojection errors, in smaller pixels
    torch.testing.assert_close(projected - uv, (full - scene.uv[seen]) * scale, atol=2e-3, rtol=0.01)


def test_a_copied_folder_needs_nothing(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "seq0", tmp_path / "images" / "seq0")
    scene = read_map(place / "sparse", tmp_path / "images")
    image = scene.index(QUERY)
    view = load_map_view(scene, image)
    seen = scene.observations_of(image)
    assert torch.equal(pixels_in(view, scene, image, scene.uv[seen]), scene.uv[seen])
