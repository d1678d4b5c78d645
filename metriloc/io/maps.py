"""COLMAP reconstructions in, as ``SfmMap``; through pycolmap, so that old three-file and new five-file models are read.

The only place that moves pixel centres: COLMAP puts the centre of the first pixel at (0.5, 0.5), the library at (0, 0).
"""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.geometry import Camera, Pose
from metriloc.io.colmap_files import check_binary_model
from metriloc.io.files import InputError
from metriloc.io.view import load_view
from metriloc.types import SfmMap, View

MISSING_PYCOLMAP = 'reading maps needs pycolmap: pip install "metriloc[maps]"'


def read_map(folder: str | os.PathLike[str], images: str | os.PathLike[str] | None = None) -> SfmMap:
    """The map of a COLMAP model, text or binary, with the observations of its 3D points.

    images: the folder that the names of the images are relative to, if they are at hand. Images without a pose are left
    out. Raises InputError for a folder that holds no model, a damaged one, a camera model that is not supported, and
    for a pose or a point that is not finite; ImportError, with the pip command, without pycolmap.
    """
    folder = Path(folder)
    kinds = [kind for kind in ("bin", "txt") if (folder / f"cameras.{kind}").is_file()]
    if not kinds:
        raise InputError(f"'{folder}' holds no COLMAP model (cameras.bin or cameras.txt)")
    for name in ("images", "points3D"):
        if not (folder / f"{name}.{kinds[0]}").is_file():
            raise InputError(f"'{folder}' holds no {name}.{kinds[0]}")
    if images is not None and not Path(images).is_dir():
        raise InputError(f"'{images}' is not a folder of images")
    return map_from_reconstruction(
        read_reconstruction(folder, kinds[0]), str(folder), None if images is None else Path(images)
    )


def read_reconstruction(folder: Path, kind: str) -> Any:
    """The ``pycolmap.Reconstruction`` of a folder; kind: ``bin`` or ``txt``. InputError and ImportError as ``read_map``."""
    try:
        import pycolmap
    except ImportError as error:
        raise ImportError(MISSING_PYCOLMAP) from error
    model = pycolmap.Reconstruction()
    if kind == "bin":
        check_binary_model(folder)
    try:
        if kind == "bin":
            model.read_binary(str(folder))
        else:
            model.read_text(str(folder))
    except (RuntimeError, ValueError, IndexError, MemoryError, OverflowError) as error:
        raise InputError(f"'{folder}' is not a COLMAP model, or is damaged: {_first_line(error)}") from error
    return model


def map_from_reconstruction(model: Any, name: str = "reconstruction", images: Path | None = None) -> SfmMap:
    """The same from a ``pycolmap.Reconstruction``; points that no image with a pose observes are kept."""
    ids = sorted((i for i in model.images if model.images[i].has_pose), key=lambda i: model.images[i].name)
    point_ids = sorted(model.points3D)
    column = {point: n for n, point in enumerate(point_ids)}
    xyz = np.array([model.points3D[point].xyz for point in point_ids], dtype=np.float64).reshape(-1, 3)
    cameras = {camera: _camera(model.cameras[camera], name) for camera in {model.images[i].camera_id for i in ids}}
    poses = [model.images[i].cam_from_world().matrix() for i in ids]
    counts, points, uv = [], [], []
    for i in ids:
        seen = [p for p in model.images[i].points2D if p.has_point3D() and p.point3D_id in column]
        counts.append(len(seen))
        points += [column[p.point3D_id] for p in seen]
        uv += [p.xy for p in seen]
    matrices = torch.from_numpy(np.array(poses, dtype=np.float64).reshape(-1, 3, 4))
    pose = Pose(matrices[:, :, :3], matrices[:, :, 3])
    if not (bool(pose.is_finite().all()) and np.isfinite(xyz).all()):
        raise InputError(f"'{name}' holds a pose or a point that is not finite")
    return SfmMap(
        names=tuple(model.images[i].name for i in ids),
        cameras=tuple(cameras[model.images[i].camera_id] for i in ids),
        cam_from_world=pose,
        xyz=torch.from_numpy(xyz),
        image_index=torch.repeat_interleave(torch.arange(len(ids)), torch.tensor(counts, dtype=torch.long)),
        point_index=torch.tensor(points, dtype=torch.long),
        uv=torch.from_numpy(np.array(uv, dtype=np.float64).reshape(-1, 2) - 0.5),
        folder=images,
    )


def load_map_view(scene: SfmMap, image: int) -> View:
    """The photo of an image of the map, with its camera and pose.

    Pixels are taken as they are stored, without EXIF orientation, because that is what the camera of the map belongs to.
    A photo of another size and the same aspect (``images_2``) has its camera scaled to it; ``pixels_in`` does the same
    for what the map observed. Raises InputError when the photo is not at hand, cannot be read, or has another aspect.
    """
    if scene.folder is None:
        raise InputError(f"the photos of the map are not at hand, so {scene.names[image]!r} cannot be looked at")
    path = scene.folder / scene.names[image]
    try:
        view = load_view(path, camera=scene.cameras[image], upright=False)
    except InputError as error:
        text = str(error)
        raise error if str(path) in text else InputError(f"'{path}': {text}") from error
    return dataclasses.replace(view, name=scene.names[image], cam_from_world=scene.cam_from_world[image])


def pixels_in(view: View, scene: SfmMap, image: int, uv: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Pixels of an image of the map -> pixels of its photo ``view``, which may be of another size (half-pixel rule)."""
    scale = view.camera.size.to(uv) / scene.cameras[image].size.to(uv)
    return (uv + 0.5) * scale - 0.5


def _camera(camera: Any, name: str) -> Camera:
    try:
        return Camera.from_colmap(camera.model.name, camera.width, camera.height, [float(p) for p in camera.params])
    except ValueError as error:
        raise InputError(f"'{name}', camera {camera.camera_id}: {error}") from error


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
