"""RGB-D folders: photos, depth maps and camera-to-world matrices in parallel folders, as depth cameras' tools export them.

```
color/ (or rgb/, images/)   0.jpg 1.jpg ...
depth/                      0.png 1.png ...      16-bit millimetres, or what ``read_depth`` takes
pose/ (or poses/)           0.txt 1.txt ...      4x4 camera to world, metres; not finite: tracking was lost
intrinsic/intrinsic_color.txt (or intrinsics.txt, intrinsic.txt, camera.txt)
```
Files belong together by their names without ending; ScanNet's exporter, Open3D and Redwood write this.
"""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import torch

from metriloc.datasets.matrices import parse_matrix, pinhole, read_camera_pose, stack_poses
from metriloc.datasets.sources import DEPTH_ENDINGS, DepthFormat, PosedScene
from metriloc.geometry import Camera
from metriloc.io import InputError, read_image, read_text

COLOR_FOLDERS = ("color", "colour", "rgb", "images", "image")
DEPTH_FOLDERS = ("depth", "depths")
POSE_FOLDERS = ("pose", "poses")
INTRINSICS_FILES = (
    "intrinsic/intrinsic_color.txt",
    "intrinsic_color.txt",
    "intrinsics.txt",
    "intrinsic.txt",
    "camera.txt",
    "cam_K.txt",
)
PHOTO_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".ppm", ".tif", ".tiff", ".bmp")


def read_rgbd(
    folder: str | os.PathLike[str], camera: Camera | None = None, *, depth_format: DepthFormat | None = None
) -> PosedScene:
    """The photos that have a pose file. They come in the order of their numbers (or names).

    - camera: of the photos; None to read it from the folder.
    - depth_format: how depth maps are to be read, by default as registered to the photos.

    Raises InputError for missing folders, malformed files and photos without any pose.
    """
    folder = Path(folder)
    color = find_folder(folder, COLOR_FOLDERS, "photos")
    pose_folder = find_folder(folder, POSE_FOLDERS, "poses")
    photos = sorted(
        (path for path in color.iterdir() if path.suffix.lower() in PHOTO_ENDINGS and not path.name.startswith(".")),
        key=lambda path: natural_key(path.stem),
    )
    listed = {path.stem: path for path in pose_folder.glob("*.txt")}
    photos = [path for path in photos if path.stem in listed]
    if not photos:
        raise InputError(f"'{color}' holds no photo that has a pose in '{pose_folder}'")
    source = "given"
    if camera is None:
        camera, source = _camera(folder, photos[0])
    scene = PosedScene(
        name=folder.resolve().name,
        folder=folder,
        names=tuple(path.relative_to(folder).as_posix() for path in photos),
        cameras=(camera,) * len(photos),
        cam_from_world=stack_poses([read_camera_pose(listed[path.stem]) for path in photos]),
        depth_format=depth_format or DepthFormat(),
        intrinsics_source=source,
    )
    beside = next((folder / name for name in DEPTH_FOLDERS if (folder / name).is_dir()), None)
    return scene if beside is None else with_depth_folder(scene, beside)


def with_depth_folder(
    scene: PosedScene, folder: str | os.PathLike[str], *, depth_format: DepthFormat | None = None
) -> PosedScene:
    """The same scene with the depth maps of a folder.

    - scene: ``a/b.jpg`` has ``folder/a/b.png`` or ``folder/b.png`` (also .npy, .tiff, .pgm), or none.
    - folder: with the depth maps.
    - depth_format: how their numbers are metres.

    Raises InputError when the folder does not exist or fits no photo.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder of depth maps")
    depths = tuple(_depth_of(folder, name) for name in scene.names)
    if len(scene) and not any(depths):
        raise InputError(f"'{folder}' holds no depth map of the {len(scene)} photos, such as {scene.names[0]!r}")
    return dataclasses.replace(scene, depths=depths, depth_format=depth_format or scene.depth_format)


def _depth_of(folder: Path, name: str) -> Path | None:
    relative = Path(name)
    for stem in (relative.with_suffix(""), Path(relative.stem)):
        for ending in DEPTH_ENDINGS:
            candidate = folder / f"{stem}{ending}"
            if candidate.is_file():
                return candidate
    return None


def find_folder(folder: Path, names: tuple[str, ...], what: str) -> Path:
    """The first folder of these names; InputError when there is none."""
    for name in names:
        if (folder / name).is_dir():
            return folder / name
    raise InputError(f"'{folder}' has no folder of {what} ({', '.join(names)})")


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Sorts ``2`` before ``10`` and keeps letters in order."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d{1,18})", text)]


def _camera(folder: Path, photo: Path) -> tuple[Camera, str]:
    for name in INTRINSICS_FILES:
        if (folder / name).is_file():
            return parse_camera(read_text(folder / name), read_image(photo).size, str(folder / name)), name
    raise InputError(f"'{folder}' has no intrinsics ({', '.join(INTRINSICS_FILES)}): add one or give the camera")


def parse_camera(text: str, size: tuple[int, int], file: str = "camera.txt") -> Camera:
    """A pinhole camera, float64.

    A 3x3 K, ScanNet's 4x4 of it, one row ``fx fy cx cy`` or ``fx fy cx cy width height`` (then
    scaled to ``size`` when that differs). Raises InputError naming the file for anything else.
    """
    matrix = parse_matrix(text, file)
    if not torch.isfinite(matrix).all():
        raise InputError(f"'{file}' has numbers that are not finite")
    stored = size
    if matrix.shape in ((3, 3), (4, 4), (3, 4)):
        fx, fy, cx, cy = (float(matrix[i, j]) for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
        if abs(float(matrix[0, 1])) > 1e-3 * abs(fx) or float(matrix[2, 2]) != 1 or matrix[2, :2].any():
            raise InputError(f"'{file}': {matrix.tolist()} is not a calibration matrix without skew")
    elif matrix.shape[0] == 1 and matrix.shape[1] in (4, 6):
        fx, fy, cx, cy = matrix[0, :4].tolist()
        if matrix.shape[1] == 6:
            stored = (int(matrix[0, 4]), int(matrix[0, 5]))
    else:
        raise InputError(f"'{file}' holds {matrix.shape[0]}x{matrix.shape[1]} numbers, not a camera")
    if not (fx > 0 and fy > 0 and min(stored) > 0):
        raise InputError(f"'{file}': focal lengths {fx:g} {fy:g} and sizes {stored} must be positive")
    camera = pinhole(stored, (fx, fy, cx, cy))
    if stored == size:
        return camera
    factor = torch.tensor(size, dtype=torch.float64) / camera.size
    return dataclasses.replace(camera.scale(factor), size=torch.tensor(size, dtype=torch.float64))
