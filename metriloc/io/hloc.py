"""Files of hloc: global descriptors and local features in HDF5, and the pickled log of a localisation.

Logs exist in two layouts: pose as ``qvec``/``tvec`` with ``inliers`` (old), or as a pycolmap ``Rigid3d`` with an inlier
mask and ``None`` for failures (new); both also clustered by covisibility. They are read as plain data: no class of the
pickle is imported (``plain_pickle``). Image and point ids are COLMAP's; ``read_map_ids`` leads to those of an ``SfmMap``.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from metriloc.backbones.local import LocalFeatures
from metriloc.geometry import Pose
from metriloc.io.files import InputError, require_file
from metriloc.io.map_folders import find_model
from metriloc.io.maps import image_ids, read_reconstruction
from metriloc.io.pickle_objects import Opaque
from metriloc.io.plain_pickle import read_plain_pickle

MISSING_H5PY = 'reading HDF5 files needs h5py: pip install "metriloc[hloc]"'
MAX_NUMBERS = 16_000_000
"""Of one array in HDF5; 100,000 features of 128 numbers are 12,800,000."""
MAX_DESCRIPTOR_NUMBERS = 128_000_000
"""Of all global descriptors that one call reads: 30,000 of 4,096."""
MAX_IMAGES = 1_000_000
_HALF = 0.5
"""Keypoints of a log are COLMAP's, whose first pixel centre is (0.5, 0.5); those of feature files start at (0, 0)."""

_DAMAGE = (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError, MemoryError)
"""What h5py raises on damaged files."""


# -- HDF5 -------------------------------------------------------------------------------------------------------------
def read_global_descriptors(
    path: str | os.PathLike[str], names: Iterable[str] | None = None
) -> dict[str, Float[Tensor, " D"]]:
    """Image name -> global descriptor, float32. Of all images of the file, or of ``names``.

    A group holds one image: its dataset ``global_descriptor``, else the last one. Raises InputError for a file that is
    no HDF5, an image that is not in it, and a descriptor that is not a vector of finite numbers.
    """
    found, total = {}, 0
    with _opened(path) as file:
        for name in _image_names(file) if names is None else names:
            group = _group(file, name, path)
            keys = [key for key in group if hasattr(group[key], "shape")]
            if not keys:
                raise InputError(f"'{path}' has no descriptor of {name!r}")
            key = "global_descriptor" if "global_descriptor" in keys else keys[-1]
            found[name] = _numbers(group, key, f"'{path}', {name!r}", 1)
            total += found[name].numel()
            if total > MAX_DESCRIPTOR_NUMBERS:
                raise InputError(f"'{path}' has descriptors of more than {MAX_DESCRIPTOR_NUMBERS} numbers")
    return found


def read_features(path: str | os.PathLike[str], name: str) -> LocalFeatures:
    """Local features of one image.

    Keypoints in pixels (first pixel centre (0, 0), as hloc stores them), descriptors as rows,
    scores (ones where the file has none).

    Raises InputError for a file that is no HDF5, an image that is not in it, and arrays that do not fit together.
    """
    with _opened(path) as file:
        group = _group(file, name, path)
        place = f"'{path}', {name!r}"
        uv = _numbers(group, "keypoints", place, 2)
        descriptors = _numbers(group, "descriptors", place, 2).mT
        scores = _numbers(group, "scores", place, 1) if "scores" in group else torch.ones(len(uv))
    if uv.shape[1] != 2 or not len(uv) == len(descriptors) == len(scores):
        raise InputError(
            f"{place}: keypoints {list(uv.shape)}, descriptors of {len(descriptors)}, scores of {len(scores)}"
        )
    return LocalFeatures(uv, descriptors.contiguous(), scores)


def image_names(path: str | os.PathLike[str]) -> list[str]:
    """Images of an HDF5 file of features or descriptors, sorted. Raises InputError for a file that is none."""
    with _opened(path) as file:
        return _image_names(file)


def _image_names(file: Any) -> list[str]:
    names: set[str] = set()

    def visit(name: str, entry: Any) -> None:
        if len(names) > MAX_IMAGES:
            raise InputError(f"'{file.filename}' has more than {MAX_IMAGES} images")
        if hasattr(entry, "shape") and "/" in name:
            names.add(name.rsplit("/", 1)[0])

    file.visititems(visit)
    return sorted(names)


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    try:
        import h5py
    except ImportError as error:
        raise ImportError(MISSING_H5PY) from error
    path = require_file(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        raise InputError(f"'{path}' is not an HDF5 file, or is damaged: {str(error)[:150]}") from error
    with file:
        try:
            yield file
        except _DAMAGE as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"'{path}' is damaged: {' '.join(str(error).split())[:150]}") from error


def _group(file: Any, name: str, path: str | os.PathLike[str]) -> Any:
    # keys of one level are also found by names with '/'
    if name not in file or hasattr(file[name], "shape"):
        raise InputError(f"'{path}' has no image {name!r}")
    group = file[name]
    if group.file.filename != file.filename:
        raise InputError(f"'{path}': {name!r} is in another file, {group.file.filename!r}, which is not read")
    return group


def _numbers(group: Any, key: str, place: str, ndim: int) -> Tensor:
    try:
        stored = group[key]
        if stored.file.filename != group.file.filename or stored.external or stored.is_virtual:
            raise InputError(f"{place}: {key} is in another file, which is not read")
        if stored.dtype.kind not in "fiu" or stored.shape is None or stored.size > MAX_NUMBERS:
            raise InputError(f"{place}: {key} must be at most {MAX_NUMBERS} numbers, got {stored.dtype} {stored.shape}")
        with np.errstate(over="ignore"):  # found below
            values = np.asarray(stored[()], dtype=np.float32)
    except _DAMAGE as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{place}: {key} cannot be read: {' '.join(str(error).split())[:100]}") from error
    if values.ndim != ndim or not np.isfinite(values).all():
        raise InputError(f"{place}: {key} must be {ndim}-dimensional and finite, got shape {list(values.shape)}")
    return torch.from_numpy(values)


# -- logs -------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class LoggedQuery:
    """What hloc knows of one query.

    references: COLMAP ids of the images that were retrieved, the best first. pose: ``cam_from_world`` (float64), None when
    hloc found none. The matches, M of them: uv, pixels of the query; point_ids, COLMAP ids of the points; inlier;
    sources, of each the ids of the images it came from.
    """

    references: tuple[int, ...]
    pose: Pose | None
    num_inliers: int
    uv: Float[Tensor, "M 2"]
    point_ids: Int[Tensor, " M"]
    inlier: Bool[Tensor, " M"]
    sources: tuple[tuple[int, ...], ...] = field(default=())

    def __len__(self) -> int:
        return len(self.point_ids)


def read_log(path: str | os.PathLike[str]) -> dict[str, LoggedQuery]:
    """Read a log of hloc. Query name -> what the log (``*_logs.pkl``, old and new layout) says of it.

    Raises InputError for a file that is no such log or is inconsistent, naming the query, and for a pickle that wants to
    use anything but plain data and pycolmap's poses and cameras.
    """
    content = read_plain_pickle(path, opaque=("pycolmap",))
    queries = content.get("loc", content) if isinstance(content, Mapping) else None
    if not isinstance(queries, Mapping):
        raise InputError(f"'{path}' is not a localisation log: it has no table 'loc'")
    found = {}
    for name, entry in queries.items():
        try:
            found[str(name)] = parse_logged_query(entry)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError) as error:
            raise InputError(f"'{path}', query {name!r}: not as hloc writes it: {str(error)[:150]}") from error
    return found


def parse_logged_query(entry: Mapping[str, Any]) -> LoggedQuery:
    """One entry of a log, as plain data. Raises KeyError, TypeError, ValueError, IndexError or AttributeError for what
    hloc does not write."""
    references = tuple(int(image) for image in entry["db"])
    if "log_clusters" in entry:
        best = entry.get("best_cluster")
        if best is None:
            return _nothing(references)
        if not 0 <= int(best) < len(entry["log_clusters"]):
            raise ValueError(f"best_cluster {best} of {len(entry['log_clusters'])}")
        chosen = parse_logged_query(entry["log_clusters"][int(best)])
        return LoggedQuery(references, **{k: v for k, v in vars(chosen).items() if k != "references"})
    if "keypoint_index_to_db" in entry:
        observed = [(int(point), tuple(int(i) for i in places)) for point, places in entry["keypoint_index_to_db"][1]]
    else:
        observed = [(int(point), ()) for point in entry.get("points3D_ids", ())]
    sources = tuple(tuple(references[_place(i, references)] for i in places) for _, places in observed)
    keypoints = entry.get("keypoints_query")
    uv = np.full((len(observed), 2), np.nan) if keypoints is None else np.asarray(keypoints, dtype=np.float64) - _HALF
    pose, count, inlier = _pose_of(entry.get("PnP_ret"), len(observed))
    return LoggedQuery(
        references,
        pose,
        count,
        torch.from_numpy(uv.reshape(len(observed), 2).copy()),
        torch.tensor([point for point, _ in observed], dtype=torch.long),
        inlier,
        sources,
    )


def _nothing(references: tuple[int, ...]) -> LoggedQuery:
    none = torch.zeros(0, dtype=torch.long)
    return LoggedQuery(references, None, 0, torch.zeros(0, 2, dtype=torch.float64), none, none.bool())


def _place(index: int, references: Sequence[int]) -> int:
    if not 0 <= index < len(references):
        raise ValueError(f"a match names reference {index} of {len(references)}")
    return index


def _pose_of(found: Any, count: int) -> tuple[Pose | None, int, Bool[Tensor, " M"]]:
    """(pose, inliers, which matches are) of ``PnP_ret`` in either layout."""
    none = torch.zeros(count, dtype=torch.bool)
    if found is None or not found.get("success", True):
        return None, 0, none
    mask = next((found[key] for key in ("inliers", "inlier_mask") if found.get(key) is not None), None)
    inlier = none if mask is None else torch.tensor(np.asarray(mask).astype(bool).reshape(-1))
    if mask is not None and len(inlier) != count:
        raise ValueError(f"{len(inlier)} inlier flags for {count} matches")
    if "cam_from_world" in found:
        q, t = _rigid(found["cam_from_world"])
    else:
        q, t = np.asarray(found["qvec"], dtype=np.float64), np.asarray(found["tvec"], dtype=np.float64)
    if q.shape != (4,) or t.shape != (3,) or not (np.isfinite(q).all() and np.isfinite(t).all() and q.any()):
        raise ValueError(f"a pose of quaternion {q.tolist()} and translation {t.tolist()}")
    return Pose.from_quaternion(torch.tensor(q), torch.tensor(t)), int(found["num_inliers"]), inlier


def _rigid(value: Any) -> tuple[np.ndarray, np.ndarray]:
    """(w x y z, translation) of a pickled ``pycolmap.Rigid3d``, which keeps quaternions as x y z w; or of a 3x4 matrix."""
    if isinstance(value, Opaque):
        rotation, params = value.get("rotation"), value.get("params")
        quaternion = rotation.get("quat") if isinstance(rotation, Opaque) else None
        if quaternion is None and params is not None:
            quaternion = np.asarray(params)[:4]
        translation = value.get("translation", None if params is None else np.asarray(params)[4:])
        if quaternion is None or translation is None:
            raise ValueError(f"{value!r} holds no rotation and translation")
        x, y, z, w = np.asarray(quaternion, dtype=np.float64)
        return np.array([w, x, y, z]), np.asarray(translation, dtype=np.float64)
    matrix = torch.tensor(np.asarray(value, dtype=np.float64))
    if matrix.shape not in ((3, 4), (4, 4)):
        raise ValueError(f"cam_from_world is a {type(value).__name__} of shape {list(matrix.shape)}")
    pose = Pose(matrix[:3, :3], matrix[:3, 3])
    return pose.quaternion().numpy(), pose.t.numpy()


@dataclass(frozen=True, eq=False)
class MapIds:
    """The ids of a COLMAP model as indices of its map. The map is the ``SfmMap`` that ``read_map`` makes of it; images
    with a pose only."""

    image_of: Mapping[int, int]
    point_of: Mapping[int, int]


def read_map_ids(folder: str | os.PathLike[str]) -> MapIds:
    """The ids of a COLMAP model. Raises InputError when it cannot be read, ImportError without pycolmap."""
    model = read_reconstruction(find_model(folder))
    return MapIds(
        {int(image): n for n, image in enumerate(image_ids(model))},
        {int(point): n for n, point in enumerate(sorted(model.points3D))},
    )
