"""A map for other programs: COLMAP's text files, nerfstudio's ``transforms.json``, points as PLY, glTF."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from metriloc.io.download import file_sha256
from metriloc.io.files import InputError, prepare_output_folder, read_json, write_atomically
from metriloc.io.map_folders import model_within
from metriloc.io.posed_photos import nerfstudio_camera
from metriloc.mapping.facts import GPS_FRAME, MapFacts
from metriloc.mapping.gltf import glb_of
from metriloc.mapping.model_files import write_model

EXPORT_FILE = "metriloc-export.json"
"""Beside an exported model: the hashes of its files."""

_POINT = np.dtype([("xyz", "<f4", 3), ("rgb", "u1", 3)])


def export_colmap(model: Any, out: Path) -> list[Path]:
    """``cameras.txt``, ``images.txt`` and ``points3D.txt`` in a folder, as COLMAP reads them.

    An earlier export there is replaced. Raises InputError, and changes nothing, where the folder holds any other model.
    """
    there = model_within(out)
    if there is not None and (there != out or any(out.glob("*.bin"))):
        raise InputError(f"'{out}' holds another COLMAP model ('{there}'): give another --out, or delete it")
    return _installed(lambda folder: write_model(model, folder, text=True), out)


def _installed(fill: Callable[[Path], object], out: Path) -> list[Path]:
    """The files that ``fill`` writes, in a folder, in place of those of an earlier export, which are told by their hashes.
    Raises InputError, and changes nothing, where one of another origin is in the way."""
    prepare_output_folder(out)
    with TemporaryDirectory(prefix=".export.", dir=out) as place:
        try:
            fill(Path(place))
        except OSError as error:
            raise InputError(f"'{out}' cannot be written: {error.strerror or error}") from error
        fresh, known = sorted(Path(place).iterdir()), _exported(out)
        for target in (out / file.name for file in fresh):
            if target.exists() and known.get(target.name) != file_sha256(target):
                raise InputError(
                    f"'{out}' holds another '{target.name}', which is no export of metriloc as it was written: give another "
                    "--out, or delete it"
                )
        hashes = {**known, **{file.name: file_sha256(file) for file in fresh}}
        write_atomically(out / EXPORT_FILE, json.dumps({"format": 1, "files": hashes}, indent=1))
        return [Path(shutil.move(file, out / file.name)) for file in fresh]


def _exported(out: Path) -> Mapping[str, str]:
    """Names and hashes of the files of earlier exports in a folder."""
    if not (out / EXPORT_FILE).is_file():
        return {}
    content = read_json(out / EXPORT_FILE)
    files = content.get("files") if isinstance(content, dict) else None
    return files if isinstance(files, dict) else {}


def export_ply(model: Any, file: Path) -> Path:
    """The points with their colors, binary PLY, units of the map. Raises InputError, and changes nothing, where the file is
    there and is no earlier export."""
    return _installed(lambda folder: _write_ply(model, folder / file.name), file.parent)[0]


def export_gltf(model: Any, file: Path, facts: MapFacts | None) -> Path:
    """Points and cameras as one ``.glb``, y up.

    Up is that of GPS where the map has it, else of the photos. Raises InputError as ``export_ply``.
    """
    up = None
    if facts is not None and facts.scale is not None and facts.scale.frame == GPS_FRAME:
        up = np.array([0.0, 0.0, 1.0])
    data = glb_of(model, "of the map" if facts is None else facts.unit, up)
    return _installed(lambda folder: write_atomically(folder / file.name, data), file.parent)[0]


def _write_ply(model: Any, file: Path) -> None:
    points = list(model.points3D.values())
    rows = np.zeros(len(points), _POINT)
    if points:
        rows["xyz"] = np.array([point.xyz for point in points])
        rows["rgb"] = np.array([point.color for point in points])
    names = [f"property float {axis}" for axis in "xyz"] + [f"property uchar {c}" for c in ("red", "green", "blue")]
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(points)}", *names, "end_header"]
    write_atomically(file, "\n".join(head).encode() + b"\n" + rows.tobytes())


def export_nerfstudio(model: Any, photos: Path, out: Path) -> list[Path]:
    """``transforms.json`` (camera to world, OpenGL axes, principal points from the corner) and ``points.ply`` in a folder.

    photos: the folder of photos, which the frames name from ``out``. Raises ValueError for a camera that nerfstudio does
    not have, and InputError where the folder holds such files of another origin.
    """
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

    def fill(folder: Path) -> None:
        content = {"ply_file_path": "points.ply", "frames": frames}
        write_atomically(folder / "transforms.json", json.dumps(content, indent=1))
        _write_ply(model, folder / "points.ply")

    return _installed(fill, out)
