"""The sample pair of the NRE release and files of its kind: one npz with points, poses and cameras of two photos.

Keys: source_image, target_image (paths relative to the file, or files beside it), p3D [N, 3], source_P,
target_P [4, 4] world to camera, source_K, target_K [3, 3], source_dist, target_dist [4] (k1 k2 p1 p2). Nothing in it is
unpickled.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from metriloc.datasets.overlap_table import read_arrays
from metriloc.datasets.sources import PosedFrame
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, read_image
from metriloc.io.files import require_file
from metriloc.types import SfmMap

_SHAPES: dict[str, tuple[int | None, ...]] = {
    "p3D": (None, 3),
    "source_P": (4, 4),
    "target_P": (4, 4),
    "source_K": (3, 3),
    "target_K": (3, 3),
}
_SHAPES |= {"source_dist": (4,), "target_dist": (4,)}
MAX_POINTS = 1_000_000


@dataclass(frozen=True, eq=False)
class NreSample:
    """source: the map of one photo and the points it sees.

    target: the photo to localise, with its true pose.
    """

    source: SfmMap
    target: PosedFrame

    def reversed(self) -> NreSample:
        """The other direction. The target is the map, the source is to be localised."""
        frame = self.target
        if frame.cam_from_world is None or self.source.folder is None:
            raise ValueError("the target has no pose: it cannot be a map")
        image = self.source.names[0]
        pose = self.source.cam_from_world[0]
        back = PosedFrame("nre_sample", image, self.source.folder / image, self.source.cameras[0], pose)
        scene = _one_photo_map(frame.name, frame.camera, frame.cam_from_world, self.source.xyz, self.source.folder)
        return NreSample(scene, back)


def read_nre_sample(path: str | os.PathLike[str]) -> NreSample:
    """The map and the query of a file. Points behind the source camera or outside its photo are not observed.

    Raises InputError for a file that is not of this kind, values that are not finite, and photos that are missing.
    """
    path = require_file(path)
    values = _read(path)
    folder = path.parent
    names = {role: _name(values[f"{role}_image"], path) for role in ("source", "target")}
    cameras, poses = {}, {}
    for role, name in names.items():
        size = read_image(folder / name).size
        cameras[role] = _camera(values[f"{role}_K"], values[f"{role}_dist"], size)
        poses[role] = Pose.from_matrix(torch.from_numpy(values[f"{role}_P"].astype(np.float64)))
    xyz = torch.from_numpy(values["p3D"].astype(np.float64))
    source = _one_photo_map(names["source"], cameras["source"], poses["source"], xyz, folder)
    target = PosedFrame("nre_sample", names["target"], folder / names["target"], cameras["target"], poses["target"])
    return NreSample(source, target)


def _one_photo_map(name: str, camera: Camera, pose: Pose, xyz: Tensor, folder: Path) -> SfmMap:
    uv, valid = camera.project(pose.transform(xyz))
    seen = (valid & camera.in_image(uv)).nonzero().squeeze(-1)
    single = Pose(pose.R[None], pose.t[None])
    return SfmMap((name,), (camera,), single, xyz, torch.zeros_like(seen), seen, uv[seen], folder)


def _read(path: Path) -> dict[str, np.ndarray]:
    wanted = (*_SHAPES, "source_image", "target_image")
    values = read_arrays(path, wanted)
    missing = [name for name in wanted if name not in values]
    if missing:
        raise InputError(f"'{path}' is not a sample of NRE's kind: it has no array {missing[0]!r}")
    for name, shape in _SHAPES.items():
        value = values[name]
        fits = value.ndim == len(shape) and all(
            want in (None, have) for want, have in zip(shape, value.shape, strict=True)
        )
        if not fits or not np.issubdtype(value.dtype, np.floating) or not np.isfinite(value).all():
            raise InputError(f"'{path}': {name} must be finite numbers of shape {list(shape)}, got {list(value.shape)}")
    if len(values["p3D"]) > MAX_POINTS:
        raise InputError(f"'{path}' has {len(values['p3D'])} points; at most {MAX_POINTS} are read")
    return values


def _name(value: np.ndarray, path: Path) -> str:
    name = str(value)
    if value.ndim != 0 or name.startswith("/") or ".." in name.split("/") or "\\" in name or "\0" in name:
        raise InputError(f"'{path}' names the photo {name[:80]!r}, which is not inside its folder")
    # the released file names its photos from the top of its repository
    return name if (path.parent / name).exists() else name.split("/")[-1]


def _camera(K: np.ndarray, dist: np.ndarray, size: tuple[int, int]) -> Camera:
    matrix = torch.from_numpy(K.astype(np.float64))
    whole = torch.tensor(size, dtype=torch.float64)
    f, c = matrix[[0, 1], [0, 1]], matrix[:2, 2]
    if not dist.any():
        return Camera(whole, f, c)
    k1, k2, p1, p2 = (float(x) for x in dist)
    return Camera(whole, f, c, torch.tensor([k1, k2, p1, p2, 0.0], dtype=torch.float64), "radtan")
