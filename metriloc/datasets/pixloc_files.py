"""The preprocessed training files that were published for PixLoc: one pickle a slice of CMU or scene of MegaDepth.

They hold points, poses, which image observes which point, and overlaps, as plain arrays;
nothing in them is run (``metriloc.io.plain_pickle``). The photos lie in the data set. Where a number can be read in
two ways, the file's own other numbers decide. Such files themselves were not at hand when this was written.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from metriloc.datasets.cmu import CAMERAS
from metriloc.datasets.sfm_pairs import QueryPhotos, RefinerScene
from metriloc.datasets.visloc import cmu_cameras
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError
from metriloc.io.plain_pickle import read_plain_pickle
from metriloc.types import SfmMap

_IN_VIEW = 0.9
"""Of the observed points, such a share must lie in front of their cameras, in the photo."""


def training_file(folder: Path, name: str) -> Path | None:
    """The file ``NAME.pkl`` of a slice (``slice8``) or scene (``0000``), anywhere below a folder; None for none."""
    return next(iter(sorted(folder.rglob(f"{name}.pkl"))), None)


def cmu_of_file(
    file: str | os.PathLike[str],
    dataset: str | os.PathLike[str],
    low: float = 0.3,
    high: float = 1.0,
    *,
    baseline: tuple[float, float] = (0.0, 7.0),
) -> RefinerScene:
    """One slice of Extended CMU Seasons, ``slice<n>.pkl``, with the photos of ``dataset/slice<n>/{database,query}``.

    - low, high: limits of the overlap of a pair, low < overlap <= high.
    - baseline: limits of its distance, metres.

    Raises InputError for a file that is none, or whose numbers contradict each other.
    """
    info = _Info(file)
    photos = Path(dataset) / info.path.stem
    references, names = info.names("ref_image_names"), info.names("query_image_names")
    cameras = tuple(cmu_cameras(references, CAMERAS, str(file))[name] for name in references)
    scene = info.scene(references, cameras, info.poses("ref_poses", len(references)), photos / "database")
    distance = info.table("query_to_ref_distance_matrix", len(names), len(references))
    overlap = info.table("query_overlap_matrix", len(names), len(references))
    poses = _query_poses(info.poses("query_poses", len(names)), scene, distance, info)
    kept = (overlap > low) & (overlap <= high) & (distance >= baseline[0]) & (distance <= baseline[1])
    query, reference = kept.nonzero().unbind(-1)
    by_name = cmu_cameras(names, CAMERAS, str(file))
    queries = QueryPhotos(tuple(names), tuple(by_name[name] for name in names), poses, photos / "query")
    index = torch.stack([reference, query], -1)
    return RefinerScene(info.path.stem, scene, index, overlap[query, reference].float(), queries)


def megadepth_of_file(
    file: str | os.PathLike[str], root: str | os.PathLike[str], low: float = 0.4, high: float = 1.0
) -> RefinerScene:
    """One scene of MegaDepth, ``<scene>.pkl``, with the photos below ``root`` or ``root/<scene>``.

    Cameras and poses of the file are of the photos turned upright; so are those of the result, whose ``turns`` say by how
    many quarters. Raises InputError as ``cmu_of_file``, and where no photo is found.
    """
    info = _Info(file)
    names = info.names("image_names")
    cameras = tuple(_camera(matrix, info) for matrix in info.array("intrinsics", (len(names), 3, 3)))
    scene = info.scene(
        names, cameras, info.poses("poses", len(names)), _photo_folder(Path(root), info.path.stem, names)
    )
    overlap = info.table("overlap_matrix", len(names), len(names))
    kept = ((overlap > low) & (overlap <= high)).fill_diagonal_(False)
    index = kept.nonzero()
    turns = torch.from_numpy(info.array("rotations", (len(names),))).long() % 4
    return RefinerScene(info.path.stem, scene, index, overlap[index[:, 0], index[:, 1]].float(), turns=turns)


class _Info:
    """The table of a file; every look into it names the file where something is wrong."""

    def __init__(self, file: str | os.PathLike[str]) -> None:
        self.path = Path(file)
        content = read_plain_pickle(file)
        if not isinstance(content, Mapping):
            raise InputError(f"'{file}' is no training file of PixLoc: it holds no table")
        self._content = content

    def wrong(self, why: str) -> InputError:
        return InputError(f"'{self.path}' is no training file of PixLoc, or another kind of one: {why}")

    def get(self, key: str) -> Any:
        if key not in self._content:
            raise self.wrong(f"it has no {key!r}")
        return self._content[key]

    def array(self, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """Numbers of a shape, -1 for any length."""
        try:
            found = np.asarray(self.get(key), dtype=np.float64)
        except (TypeError, ValueError):
            raise self.wrong(f"{key!r} holds no numbers of one shape") from None
        fits = found.ndim == len(shape) and all(w in (-1, n) for n, w in zip(found.shape, shape, strict=True))
        if not fits or not np.isfinite(found).all():
            raise self.wrong(f"{key!r} has the shape {list(found.shape)}, not {list(shape)}, or is not finite")
        return found

    def table(self, key: str, rows: int, columns: int) -> Float[Tensor, "rows columns"]:
        return torch.from_numpy(self.array(key, (rows, columns)))

    def names(self, key: str) -> list[str]:
        found = self.get(key)
        if not isinstance(found, Sequence | np.ndarray) or not all(isinstance(name, str) for name in found):
            raise self.wrong(f"{key!r} is no list of names")
        return [str(name) for name in found]

    def poses(self, key: str, count: int) -> Pose:
        """Pairs (R, t)."""
        found = self.get(key)
        try:
            R = np.stack([np.asarray(pair[0], dtype=np.float64).reshape(3, 3) for pair in found])
            t = np.stack([np.asarray(pair[1], dtype=np.float64).reshape(3) for pair in found])
        except (TypeError, ValueError, IndexError, KeyError):
            raise self.wrong(f"{key!r} is no list of rotations with translations") from None
        straight = np.abs(R @ R.transpose(0, 2, 1) - np.eye(3)).max() < 1e-3 and np.isfinite(t).all()
        if len(R) != count or not straight:
            raise self.wrong(f"{key!r} are no {count} poses")
        return Pose(torch.from_numpy(R), torch.from_numpy(t))

    def scene(self, names: Sequence[str], cameras: tuple[Camera, ...], poses: Pose, folder: Path) -> SfmMap:
        """The map; where points were observed, which the file does not say, is where they are projected."""
        xyz = torch.from_numpy(self.array("points3D", (-1, 3)))
        observed = self.get("p3D_observed")
        if not isinstance(observed, Sequence) or len(observed) != len(names):
            raise self.wrong(f"'p3D_observed' is no list of {len(names)} lists of points")
        points = [torch.from_numpy(np.asarray(rows, dtype=np.int64).reshape(-1)) for rows in observed]
        uv, seen = [], []
        for number, index in enumerate(points):
            if len(index) and not 0 <= int(index.min()) <= int(index.max()) < len(xyz):
                raise self.wrong(f"'p3D_observed' names points that are none of the {len(xyz)}")
            at, inside = cameras[number].to(torch.float64).project(poses[number].transform(xyz[index]))
            uv.append(torch.nan_to_num(at))
            seen.append(inside)
        if seen and float(torch.cat(seen).double().mean()) < _IN_VIEW:
            raise self.wrong("most points are not in the photos that observe them, so cameras and poses do not fit")
        image = torch.cat([torch.full((len(index),), n) for n, index in enumerate(points)])
        return SfmMap(tuple(names), cameras, poses, xyz, image, torch.cat(points), torch.cat(uv), folder)


def _query_poses(stored: Pose, scene: SfmMap, distance: Tensor, info: _Info) -> Pose:
    """World to camera; the file's distances tell whether its translations are those, or the cameras' centers."""
    references = scene.cam_from_world.center()
    as_centers = Pose(stored.R, -(stored.R @ stored.t[..., None]).squeeze(-1))
    for poses in (stored, as_centers):
        apart = (torch.cdist(poses.center(), references) - distance).abs()
        if float(apart.median()) < 1e-2:
            return poses
    raise info.wrong("the distances of queries and references are not those of their poses")


def _camera(matrix: np.ndarray, info: _Info) -> Camera:
    """Whose center is the photo's: the size follows from it."""
    K = torch.from_numpy(matrix)
    size = (round(2 * float(K[0, 2]) + 1), round(2 * float(K[1, 2]) + 1))
    if min(size) < 1 or not bool((K.diagonal() > 0).all()):
        raise info.wrong("'intrinsics' holds a matrix that is no camera's")
    return Camera.from_K(K, size)


def _photo_folder(root: Path, scene: str, names: Sequence[str]) -> Path:
    """What the names are relative to."""
    for folder in (root, root / scene, root / scene / "images", root / "Undistorted_SfM" / scene / "images"):
        if names and (folder / names[0]).is_file():
            return folder
    raise InputError(f"the photo {(names or [scene])[0]!r} is not below '{root}' or '{root / scene}'")
