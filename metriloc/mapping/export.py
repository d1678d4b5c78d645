"""A map for other programs: COLMAP's text files, nerfstudio's ``transforms.json``, points as PLY."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from metriloc.io.files import prepare_output_folder, write_atomically
from metriloc.io.posed_photos import nerfstudio_camera

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
                **nerfstudio_camera(model.cameras[image.camera_id]),
                "transform_matrix": world_from_camera.tolist(),
            }
        )
    file = out / "transforms.json"
    write_atomically(file, json.dumps({"ply_file_path": "points.ply", "frames": frames}, indent=1))
    return [file, export_ply(model, out / "points.ply")]
