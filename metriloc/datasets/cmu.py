"""Extended CMU Seasons as PixLoc was trained on: queries of a slice against the reference images of its map.

A query takes the overlaps of the reference that is nearest to it, if that is within a metre and 30 degrees; pairs are
limited by overlap and distance. Poses are metric. (Sattler et al., CVPR 2018; Toft et al., 2020.)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from metriloc.datasets.pixloc_pairs import covisible_pairs
from metriloc.datasets.sfm_pairs import QueryPhotos, RefinerScene
from metriloc.datasets.visloc import cmu_cameras
from metriloc.geometry import Camera, Pose
from metriloc.io import InputError, read_text
from metriloc.io.files import parse_numbers
from metriloc.io.lists import parse_queries
from metriloc.io.map_folders import is_photo_in
from metriloc.io.maps import read_map
from metriloc.types import SfmMap

TRAIN_SLICES = (8, 9, 10, 11, 12, 22, 23, 24, 25)
VALIDATION_SLICES = (6, 13, 21)
MAX_DISTANCE = 1.0
"""Metres from the nearest reference beyond which a query makes no pairs."""
MAX_ANGLE_DEG = 30.0
CAMERAS: dict[str, Camera] = {
    name: Camera.from_colmap("OPENCV", 1024, 768, params)
    for name, params in (
        ("c0", [868.993378, 866.063001, 525.942323, 420.042529, -0.399431, 0.188924, 0.000153, 0.000571]),
        ("c1", [873.382641, 876.489513, 529.324138, 397.272397, -0.397066, 0.181925, 0.000176, -0.000579]),
    )
}
"""The two cameras of the car, as its ``intrinsics.txt`` has them."""


def parse_cmu_poses(text: str, file: str = "poses") -> dict[str, Pose]:
    """Lines ``name qw qx qy qz cx cy cz``.

    World to camera rotation and the camera's **centre** -> ``cam_from_world``. Raises InputError
    ``file:line`` for another number of fields, no number, no rotation, and a name that comes twice.
    """
    found: dict[str, Pose] = {}
    for number, line in enumerate(text.split("\n"), 1):
        fields = line.split()
        if not fields or fields[0].startswith("#"):
            continue
        place = f"{file}:{number}"
        if len(fields) != 8 or fields[0] in found:
            raise InputError(f"{place}: {line.strip()[:80]!r} is not 'name qw qx qy qz cx cy cz', or comes twice")
        values = torch.tensor(parse_numbers(fields[1:], place), dtype=torch.float64)
        if not float(values[:4].norm()) > 0:
            raise InputError(f"{place}: the quaternion is zero")
        turn = Pose.from_quaternion(values[:4], torch.zeros(3, dtype=torch.float64))
        found[fields[0]] = Pose(turn.R, -(turn.R @ values[4:]))
    return found


def nearest_references(
    references: Pose, queries: Pose, max_angle_deg: float = MAX_ANGLE_DEG
) -> tuple[Int[Tensor, " Q"], Float[Tensor, "Q I"]]:
    """Of each query, the nearest reference among those turned by less than ``max_angle_deg``, -1 for none; and its
    distances from all references, metres."""
    distance = torch.cdist(queries.center(), references.center())
    index = torch.full((len(distance),), -1)
    for query in range(len(distance)):
        angle = torch.rad2deg(references.angle_to(queries[query]))
        near = torch.where(angle < max_angle_deg, distance[query], torch.inf)
        if len(near) and bool(torch.isfinite(near).any()):
            index[query] = int(near.argmin())
    return index, distance


def query_pairs(
    scene: SfmMap, queries: Pose, low: float, high: float, baseline: tuple[float, float] = (0.0, 7.0)
) -> tuple[Int[Tensor, "n 2"], Float[Tensor, " n"]]:
    """(reference, query) pairs and their overlaps, ``low < overlap <= high``.

    baseline: limits of their distance, metres. The overlap of a query with a reference is that of
    its nearest reference with it; the nearest itself makes no pair.
    """
    index, overlap = covisible_pairs(scene, 0.0, 1.0)
    table = torch.full((len(scene), len(scene)), -1.0)
    table[index[:, 0], index[:, 1]] = overlap
    nearest, distance = nearest_references(scene.cam_from_world, queries)
    near = distance.gather(1, nearest.clamp(min=0)[:, None]).squeeze(1) <= MAX_DISTANCE
    rows = table[nearest.clamp(min=0)]
    rows[~(near & (nearest >= 0))] = -1
    kept = (rows > low) & (rows <= high) & (distance >= baseline[0]) & (distance <= baseline[1])
    query, reference = kept.nonzero().unbind(-1)
    return torch.stack([reference, query], -1), rows[query, reference]


def cmu_slice(
    number: int,
    dataset: str | os.PathLike[str],
    model: str | os.PathLike[str],
    poses: str | os.PathLike[str],
    low: float = 0.3,
    high: float = 1.0,
    *,
    baseline: tuple[float, float] = (0.0, 7.0),
) -> RefinerScene:
    """One slice for training. dataset: holds ``slice<n>/{database,query}`` and perhaps ``intrinsics.txt``; model: the COLMAP
    model of the database images; poses: file of the queries' true poses (``parse_cmu_poses``).

    Queries that have no photo are left out. Raises InputError for files that are missing or malformed, and when no photo
    of a query is there.
    """
    dataset = Path(dataset)
    name = f"slice{number}"
    folder = dataset / name / "query"
    known = parse_cmu_poses(read_text(poses), str(poses))
    names = [query for query in known if is_photo_in(folder, query)]
    if not names:
        raise InputError(f"'{folder}' holds none of the {len(known)} photos of '{poses}'")
    cameras = cmu_cameras(names, _cameras(dataset / "intrinsics.txt"), str(dataset / "intrinsics.txt"))
    queries = QueryPhotos(
        tuple(names), tuple(cameras[query] for query in names), Pose.stack([known[query] for query in names]), folder
    )
    scene = read_map(model, dataset / name / "database")
    index, overlap = query_pairs(scene, queries.cam_from_world, low, high, baseline)
    return RefinerScene(name, scene, index, overlap, queries)


def _cameras(file: Path) -> Mapping[str, Camera]:
    return parse_queries(read_text(file), str(file)) if file.is_file() else CAMERAS
