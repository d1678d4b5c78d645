"""A map for other programs: COLMAP's text files, nerfstudio's ``transforms.json``, points as PLY."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from metriloc.io.files import prepare_output_folder, write_atomically

_DISTORTION = {
    "SIMPLE_PINHOLE": (),
    "PINHOLE": (),
    "SIMPLE_RADIAL": ("k1",),
    "RADIAL": ("k1", "k2"),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "OPENCV_FISHEYE": ("k1", "k2", "k3", "k4"),
}
_ONE_FOCAL = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_POINT = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


def export_colmap(model: Any, out: Path) -> list[Path]:
    """``cameras.txt``, ``images.txt`` and ``points3D.txt`` in a folder, as COLMAP reads them."""
    prepare_output_folder(out)
    model.write_text(str(out))
    return sorted(out.glob("*.txt"))


def export_ply(model: Any, file: Path) -> Path:
    """The points with their colors, binary PLY, units of the map."""
    prepare_output_folder(file.parent)
    points = list(model.points3D.values())
    rows = np.zeros(len(points), _POINT)
    if points:
        rows["xyz"] = np.array([point.xyz for point in points])
        rows["rgb"] = np.array([point.color for point in points])
    names = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *names, "end_header"]
    write_atomically(file, "\n".join(head).encode() + b"\n" + rows.tobytes())
    return file


def export_nerfstudio(model: Any, photos: Path, out: Path) -> list[Path]:
    """``transforms.json`` (camera to world, OpenGL axes, principal points from the corner) and ``points.ply`` in a folder.

    photos: the folder of photos, which the frames name from ``out``. Raises ValueError for a camera that nerfstudio does
    not have.
    """
    prepare_output_folder(out)
    frames = []
    for number in sorted(model.reg_image_ids()):
        image = model.images[number]
        camera_from_world = np.vstack([image.cam_from_world().matrix(), [0, 0, 0, 1]])
        world_from_camera = np.linalg.inv(camera_from_world) * [1.0, -1.0, -1.0, 1.0]
        frames.append(
            {
                "file_path": Path(os.path.relpath(photos.resolve() / image.name, out.resolve())).as_posix(),
                **_nerfstudio_camera(model.cameras[image.camera_id]),
                "transform_matrix": world_from_camera.tolist(),
            }
        )
    file = out / "transforms.json"
    write_atomically(file, json.dumps({"ply_file_path": "points.ply", "frames": frames}, indent=1))
    return [file, export_ply(model, out / "points.ply")]


def _nerfstudio_camera(camera: Any) -> Mapping[str, Any]:
    name = camera.model.name
    if name not in _DISTORTION:
        raise ValueError(f"nerfstudio has no camera as COLMAP's {name}; undistort the photos first")
    params = [float(value) for value in camera.params]
    focal = 1 if name in _ONE_FOCAL else 2
    return {
        "camera_model": "OPENCV_FISHEYE" if name == "OPENCV_FISHEYE" else "OPENCV",
        "fl_x": params[0],
        "fl_y": params[focal - 1],
        "cx": params[focal],
        "cy": params[focal + 1],
        "w": camera.width,
        "h": camera.height,
        **dict(zip(_DISTORTION[name], params[focal + 2 :], strict=True)),
    }
