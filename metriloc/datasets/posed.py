"""Any folder of photos with poses, its form told from the files in it.

| found | form | reader |
|---|---|---|
| ``poses.txt`` | Map-free scene | ``read_mapfree_scene`` |
| ``transforms.json`` | nerfstudio, OpenGL axes | ``read_nerfstudio`` |
| ``cameras.bin`` or ``.txt``, also in ``sparse/``, ``sparse/0/`` | COLMAP model | ``read_colmap`` |
| ``rgb.txt`` and ``groundtruth.txt`` | TUM RGB-D | ``read_tum_folder`` |
| ``sensor_data/`` | ScanNet scan | ``read_scannet_scan`` |
| ``seq-*/`` or ``frame-*.color.png`` | 7-Scenes | ``read_sevenscenes`` |
| ``color/`` (or alike) and ``pose/`` | RGB-D folder | ``read_rgbd`` |
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import torch

from metriloc.datasets.mapfree import read_mapfree_scene
from metriloc.datasets.nerfstudio import FILE_NAME, read_nerfstudio
from metriloc.datasets.rgbd import COLOR_FOLDERS, POSE_FOLDERS, read_rgbd
from metriloc.datasets.scannet import read_scannet_scan
from metriloc.datasets.sevenscenes import read_sevenscenes
from metriloc.datasets.sources import PosedScene
from metriloc.datasets.tum import read_tum_folder
from metriloc.io import InputError
from metriloc.io.map_folders import is_model
from metriloc.io.maps import read_map
from metriloc.types import SfmMap

MODEL_FOLDERS = ("", "sparse/0", "sparse", "colmap/sparse/0", "colmap")


def read_posed(folder: str | os.PathLike[str]) -> PosedScene:
    """The photos of a folder of posed photos.

    It may have any form that the table of this module lists. Raises InputError when the form is not
    recognised (naming what was looked for) or a file in it is malformed.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder")
    for fits, read in _FORMS:
        if fits(folder):
            return read(folder)
    raise InputError(
        f"'{folder}' is no folder of posed photos: it has no poses.txt, transforms.json, COLMAP model, "
        "rgb.txt with groundtruth.txt, sensor_data, seq-01, or color with pose"
    )


def is_scene(folder: Path) -> bool:
    """Whether the folder itself has one of the forms."""
    return any(fits(folder) for fits, _ in _FORMS)


def scene_folders(root: str | os.PathLike[str]) -> list[Path]:
    """The folder itself when it is a scene, or holds none.

    Else each folder in it that is one, sorted by name. Raises InputError when it is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"'{root}' is not a folder")
    if is_scene(root):
        return [root]
    inside = sorted(path for path in root.iterdir() if path.is_dir() and is_scene(path))
    # read_posed says what was looked for
    return inside or [root]


def read_posed_scenes(root: str | os.PathLike[str]) -> list[PosedScene]:
    """``read_posed`` of each of ``scene_folders``; InputError when there is none."""
    return [read_posed(folder) for folder in scene_folders(root)]


# -- COLMAP -----------------------------------------------------------------------------------------------------------
def read_colmap(
    model: str | os.PathLike[str], images: str | os.PathLike[str] | None = None, *, scale: float = 1.0
) -> PosedScene:
    """The registered photos of a COLMAP model.

    - model: its folder.
    - images: the folder their names are relative to; by default ``images`` beside the model, or the folder that holds the
      first photo.
    - scale: metres a unit of the model (COLMAP's own scale is arbitrary).

    Raises InputError for a damaged model and when the photos are not found.
    """
    model = Path(model)
    folder = find_model(model)
    if folder is None:
        raise InputError(f"'{model}' holds no COLMAP model (cameras.bin or cameras.txt)")
    return scene_from_map(read_map(folder, images), model, scale=scale)


def scene_from_map(sfm: SfmMap, root: Path, *, scale: float = 1.0) -> PosedScene:
    """The photos of a map as a scene.

    - sfm: the map.
    - root: where to look for the photos when the map does not say.
    - scale: metres a unit of the map.

    Raises InputError when the map has no image or the first one is not found.
    """
    if not len(sfm):
        raise InputError(f"the map of '{root}' has no image with a pose")
    if not 0 < scale < float("inf"):
        raise ValueError(f"scale must be positive metres a unit, got {scale}")
    candidates = [sfm.folder] if sfm.folder is not None else _image_folders(root)
    photos = next((folder for folder in candidates if (folder / sfm.names[0]).is_file()), None)
    if photos is None:
        raise InputError(f"'{sfm.names[0]}' of the map is in none of {', '.join(str(path) for path in candidates)}")
    pose = dataclasses.replace(sfm.cam_from_world, t=sfm.cam_from_world.t.to(torch.float64) * scale)
    return PosedScene(
        name=next((name for name in reversed(root.resolve().parts) if name not in _MODEL_PARTS), root.name),
        folder=photos,
        names=sfm.names,
        cameras=sfm.cameras,
        cam_from_world=pose,
        intrinsics_source=f"the COLMAP model of {root}",
        upright=False,
        originals=sfm.originals,
    )


def find_model(folder: Path) -> Path | None:
    """Where a folder has its COLMAP model. In itself, ``sparse/0``, ``sparse`` or ``colmap``."""
    return next((folder / name for name in MODEL_FOLDERS if is_model(folder / name)), None)


_MODEL_PARTS = ("0", "sparse", "colmap", "model")


def _image_folders(root: Path) -> list[Path]:
    near = [root, root.parent, root.parent.parent]
    return [base / name for base in near for name in ("images", "")]


def _is_sevenscenes(folder: Path) -> bool:
    return next(folder.glob("seq-*"), None) is not None or next(folder.glob("frame-*.color.png"), None) is not None


def _has_one_of(folder: Path, names: tuple[str, ...]) -> bool:
    return any((folder / name).is_dir() for name in names)


_FORMS: tuple[tuple[Callable[[Path], bool], Callable[[Path], PosedScene]], ...] = (
    (lambda folder: (folder / "poses.txt").is_file(), lambda folder: read_mapfree_scene(folder).posed),
    (lambda folder: (folder / FILE_NAME).is_file(), read_nerfstudio),
    (lambda folder: find_model(folder) is not None, read_colmap),
    (lambda folder: (folder / "rgb.txt").is_file() and (folder / "groundtruth.txt").is_file(), read_tum_folder),
    (lambda folder: (folder / "sensor_data").is_dir(), read_scannet_scan),
    (_is_sevenscenes, read_sevenscenes),
    (lambda folder: _has_one_of(folder, COLOR_FOLDERS) and _has_one_of(folder, POSE_FOLDERS), read_rgbd),
)
