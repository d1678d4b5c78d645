"""COLMAP reconstructions in, as ``SfmMap``; through pycolmap, so that old three-file and new five-file models are read.

The only place that moves pixel centres: COLMAP puts the centre of the first pixel at (0.5, 0.5), the library at (0, 0).
"""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.geometry import Camera, ColmapCamera, Pose, sample_depth
from metriloc.io.colmap_files import check_binary_model
from metriloc.io.colmap_rules import NAMED, camera_fault
from metriloc.io.colmap_text import check_text_model
from metriloc.io.files import InputError
from metriloc.io.images import stored_size
from metriloc.io.intrinsics import same_aspect
from metriloc.io.map_folders import find_images, find_model, first_names, is_photo_in, photo_in, require_images
from metriloc.io.undistortion import MISSING_PYCOLMAP, pinhole_copy, undistorted_pixels
from metriloc.io.view import load_view
from metriloc.types import SfmMap, View

_ASKED = 9  # photos of a map whose size is looked at before all else


def read_map(folder: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> SfmMap:
    """The map of a COLMAP model, text or binary. It has the observations of its 3D points.

    folder: with the model, or with ``sparse`` or ``sparse/0`` that holds it. images: the folder that the names of the
    images are relative to; by default ``images`` (or ``images_2``, ...) beside ``sparse``, where it holds them. Images
    without a pose are left out, and so are, with a ``UserWarning``, those of a camera that photos do not have
    (panoramas). Photos of cameras whose distortion is none of ours become undistorted copies (``SfmMap.originals``).
    Raises InputError for a folder that holds no model, a damaged one, numbers that cannot be,
    with file and line (or entry), and a folder of images that holds none of the map, or other photos of those names;
    ImportError, with the pip command, without pycolmap.

    >>> scene = metriloc.read_map("map")
    >>> scene.names, tuple(scene.cam_from_world.shape)
    (('query.jpg', 'reference.jpg'), (2,))
    """
    model = find_model(folder)
    if images is not None and not Path(images).is_dir():
        raise InputError(f"'{images}' is not a folder of images")
    scene = map_from_reconstruction(read_reconstruction(model), str(model))
    if images is not None:
        require_images(Path(images), model, scene.names)
    photos = find_images(model, scene.names) if images is None else Path(images)
    if photos is not None:
        _require_its_photos(scene, photos)
    return dataclasses.replace(scene, folder=photos)


def require_content(scene: SfmMap, place: object) -> None:
    """Refuse a map without photos. Raises InputError, since nothing can be looked for in it."""
    if not len(scene):
        raise InputError(
            f"the map '{place}' is empty (0 photos with a pose, {len(scene.xyz)} points): make it anew with "
            "metriloc map build, or give the folder of another"
        )


def _require_its_photos(scene: SfmMap, folder: Path) -> None:
    """Raises InputError, naming the first, when most of some photos have another shape than their cameras: they are of
    another map, or were cut. A single one costs itself alone."""
    at_hand = [n for n, name in enumerate(scene.names) if is_photo_in(folder, name)]
    asked = [at_hand[round(k)] for k in np.linspace(0, len(at_hand) - 1, min(_ASKED, len(at_hand)))]
    wrong = []
    for image in asked:
        original = scene.originals.get(scene.names[image])
        width, height = scene.cameras[image].size.tolist() if original is None else (original.width, original.height)
        with suppress(InputError):  # one that cannot be read is told where it is needed
            found = stored_size(folder / scene.names[image])
            if not same_aspect((width, height), found):
                wrong.append((scene.names[image], found, (width, height)))
    if 2 * len(wrong) > len(asked):
        name, found, (width, height) = wrong[0]
        raise InputError(
            f"'{folder}' holds other photos than the map's: '{folder / name}' has {found[0]}x{found[1]} pixels, its camera "
            f"in the map {width:g}x{height:g} ({len(wrong)} of {len(asked)} looked at differ; --images names the folder)"
        )


def read_reconstruction(folder: Path) -> Any:
    """The ``pycolmap.Reconstruction`` of a folder with a model. InputError and ImportError as ``read_map``."""
    try:
        import pycolmap
    except ImportError as error:
        raise ImportError(MISSING_PYCOLMAP) from error
    model = pycolmap.Reconstruction()
    binary = (folder / "cameras.bin").is_file()
    names: Mapping[int, str] = {}
    if binary:
        check_binary_model(folder)
    else:
        names = check_text_model(folder)
    try:
        if binary:
            model.read_binary(str(folder))
        else:
            model.read_text(str(folder))
    except (RuntimeError, ValueError, IndexError, MemoryError, OverflowError) as error:
        raise InputError(f"'{folder}' is not a COLMAP model, or is damaged: {_first_line(error)}") from error
    for number, image in model.images.items():
        try:
            _ = image.name
        except UnicodeDecodeError as error:
            raise InputError(f"'{folder}': the name of image {number} is not UTF-8") from error
    for image, name in names.items():
        # pycolmap ends names in text files at their first blank
        if image in model.images and model.images[image].name != name:
            model.images[image].name = name
    return model


def map_from_reconstruction(model: Any, name: str = "reconstruction", images: Path | None = None) -> SfmMap:
    """A map of a ``pycolmap.Reconstruction``. It is what ``read_map`` makes of its files; points that no image with a pose
    observes are kept."""
    cameras = _usable_cameras(model, name)
    _warn_of_lost(model, cameras, name)
    ids = _images_of(model, cameras)
    point_ids = sorted(model.points3D)
    column = {point: n for n, point in enumerate(point_ids)}
    xyz = np.array([model.points3D[point].xyz for point in point_ids], dtype=np.float64).reshape(-1, 3)
    poses = [model.images[i].cam_from_world().matrix() for i in ids]
    matrices = torch.from_numpy(np.array(poses, dtype=np.float64).reshape(-1, 3, 4))
    pose = Pose(matrices[:, :, :3], matrices[:, :, 3])
    if not (bool(pose.is_finite().all()) and np.isfinite(xyz).all()):
        raise InputError(f"'{name}' holds a pose or a point that is not finite")
    names = tuple(model.images[i].name for i in ids)
    if len(set(names)) < len(names):
        twice = next(a for a, b in pairwise(names) if a == b)  # they are sorted
        raise InputError(f"'{name}': two images are called {twice!r}")
    of_image = [cameras[model.images[i].camera_id] for i in ids]
    seen = [_observations(model.images[i], column, camera) for i, camera in zip(ids, of_image, strict=True)]
    counts = torch.tensor([len(index) for index, _ in seen], dtype=torch.long)
    return SfmMap(
        names=names,
        cameras=tuple(camera for camera, _ in of_image),
        cam_from_world=pose,
        xyz=torch.from_numpy(xyz),
        image_index=torch.repeat_interleave(torch.arange(len(ids)), counts),
        point_index=torch.cat([torch.zeros(0, dtype=torch.long), *(index for index, _ in seen)]),
        uv=torch.cat([torch.zeros(0, 2, dtype=torch.float64), *(uv for _, uv in seen)]),
        folder=images,
        originals={name: original for name, (_, original) in zip(names, of_image, strict=True) if original is not None},
    )


def map_from_view(view: View, spacing: int = 12) -> SfmMap:
    """A map of one photo with a depth map. Its pixels are the points.

    view: with ``depth``; the map keeps its pixels, and no file is read. spacing: pixels from one point to the next; 12
    gives some 2,000 points of a photo of 640 x 480. The map's frame is the world of ``cam_from_world``, or the photo's own
    camera where that is None; metres. Raises InputError for a photo without depth, or whose depth is known nowhere.

    >>> photo = metriloc.load_view("reference.jpg", depth="reference.depth.png")
    >>> estimate = metriloc.localize("query.jpg", map_from_view(photo), references=["reference.jpg"])
    """
    if view.depth is None:
        raise InputError(f"'{view.name}' has no depth map, of which a map could be made: load it with depth=FILE")
    if spacing < 1:
        raise ValueError(f"spacing must be at least 1 pixel, got {spacing}")
    camera, (width, height) = view.camera.to(torch.float64), view.size
    half = spacing // 2
    v, u = torch.meshgrid(torch.arange(half, height, spacing), torch.arange(half, width, spacing), indexing="ij")
    uv = torch.stack([u, v], -1).reshape(-1, 2).double()
    depth, known = sample_depth(view.depth.double(), uv, view.size)
    ray, possible = camera.unproject(uv)
    kept = known & possible
    if not bool(kept.any()):
        raise InputError(f"the depth map of '{view.name}' is known at none of its pixels")
    cam_from_world = (view.cam_from_world or Pose.identity((), dtype=torch.float64)).to(torch.float64)
    count, path = int(kept.sum()), Path(view.name)
    return SfmMap(
        (path.name,),
        (camera,),
        cam_from_world[None],
        cam_from_world.inverse().transform(ray[kept] * depth[kept, None]),
        torch.zeros(count, dtype=torch.long),
        torch.arange(count),
        uv[kept],
        path.parent,
        views={path.name: view},
    )


def image_ids(model: Any) -> list[int]:
    """COLMAP's ids of the images that a map has, in its order. All have a pose, and a camera that photos can have."""
    return _images_of(model, _usable_cameras(model, "reconstruction"))


def load_map_view(scene: SfmMap, image: int) -> View:
    """The photo of an image of the map. It has its camera and pose.

    Photos that the map has in memory are taken from there. Pixels of files are taken as they are stored, without EXIF
    orientation, because that is what the camera of the map belongs to. A photo of another size and the same aspect
    (``images_2``) has its camera scaled to it; ``pixels_in`` does the same for what the map observed. Raises InputError when
    the photo is not at hand, cannot be read, or has another aspect.
    """
    kept = scene.views.get(scene.names[image])
    if kept is not None:
        return dataclasses.replace(
            kept, camera=scene.cameras[image], name=scene.names[image], cam_from_world=scene.cam_from_world[image]
        )
    if scene.folder is None:
        raise InputError(
            f"the photos of the map are not at hand, so {scene.names[image]!r} cannot be looked at: "
            "read the map with their folder (images=..., --images)"
        )
    path = photo_in(scene.folder, scene.names[image])
    original = scene.originals.get(scene.names[image])
    try:
        view = load_view(path, camera=scene.cameras[image], undistort=original, upright=False)
    except InputError as error:
        text = str(error)
        raise error if str(path) in text else InputError(f"'{path}': {text}") from error
    return dataclasses.replace(view, name=scene.names[image], cam_from_world=scene.cam_from_world[image])


def pixels_in(view: View, scene: SfmMap, image: int, uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Pixels of an image of the map as pixels of its photo. ``view`` may be of another size (half-pixel rule)."""
    scale = view.camera.size.to(uv) / scene.cameras[image].size.to(uv)
    return (uv + 0.5) * scale - 0.5


_Usable = dict[int, tuple[Camera, ColmapCamera | None]]
"""By COLMAP's ids: the camera, and the original where that is of an undistorted copy."""


def _usable_cameras(model: Any, name: str) -> _Usable:
    """Those of images with a pose, without the ones that no photo has."""
    found: _Usable = {}
    for number in {image.camera_id for image in model.images.values() if image.has_pose}:
        theirs = model.cameras[number]
        original = ColmapCamera(theirs.model.name, theirs.width, theirs.height, tuple(map(float, theirs.params)))
        _refuse_absurd(original, f"'{name}', camera {number}")
        try:
            ours = Camera.from_colmap(original.model, original.width, original.height, original.params)
            found[number] = (ours, None)
        except ValueError:
            with suppress(InputError):  # its photos are named by the caller
                found[number] = (pinhole_copy(original), original)
    return found


def _refuse_absurd(camera: ColmapCamera, place: str) -> None:
    rules = NAMED.get(camera.model)
    fault = None if rules is None else camera_fault(rules, camera.width, camera.height, camera.params)
    if fault is not None:
        raise InputError(f"{place}: {fault}")


def _images_of(model: Any, cameras: _Usable) -> list[int]:
    found = (i for i in model.images if model.images[i].has_pose and model.images[i].camera_id in cameras)
    return sorted(found, key=lambda i: model.images[i].name)


def _warn_of_lost(model: Any, cameras: _Usable, name: str) -> None:
    lost: dict[str, list[str]] = {}
    for image in model.images.values():
        if image.has_pose and image.camera_id not in cameras:
            lost.setdefault(model.cameras[image.camera_id].model.name, []).append(image.name)
    for kind, names in sorted(lost.items()):
        warnings.warn(
            f"'{name}': cameras of the model {kind} have no pinhole copy, so the map goes without "
            f"{first_names(sorted(names))}",
            stacklevel=4,
        )


def _observations(
    image: Any, column: Mapping[int, int], camera: tuple[Camera, ColmapCamera | None]
) -> tuple[Int[Tensor, " n"], Float[Tensor, "n 2"]]:
    """Points and pixels, the latter of the undistorted copy if there is one."""
    seen = [p for p in image.points2D if p.has_point3D() and p.point3D_id in column]
    index = torch.tensor([column[p.point3D_id] for p in seen], dtype=torch.long)
    uv = torch.from_numpy(np.array([p.xy for p in seen], dtype=np.float64).reshape(-1, 2) - 0.5)
    copy, original = camera
    if original is None:
        return index, uv
    uv = undistorted_pixels(original, copy, uv)
    kept = torch.isfinite(uv).all(-1)
    return index[kept], uv[kept]


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
