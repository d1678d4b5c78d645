"""Localisation benchmarks: queries with intrinsics, a COLMAP map, retrieved references, the truth where it is public.

7-Scenes and Cambridge have a COLMAP model as truth; Aachen, Extended CMU and RobotCar are scored by a server, with
names of their own kind in the submission (spec benchmarks d.1-d.3, pixloc 12). Every file can be named; the functions
for one benchmark know where hloc and PixLoc put them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from metriloc.datasets.sevenscenes import SCENES
from metriloc.datasets.sources import PosedFrame
from metriloc.geometry import Camera
from metriloc.io import InputError, read_text
from metriloc.io.files import parse_numbers
from metriloc.io.maps import read_map
from metriloc.io.retrieval import parse_names, parse_pairs, parse_queries, read_queries
from metriloc.types import SfmMap

CAMBRIDGE = ("ShopFacade", "KingsCollege", "GreatCourt", "OldHospital", "StMarysChurch")
CMU_TEST_SLICES = (*range(2, 7), *range(13, 22))
CMU_TRAINING_SLICES = (*range(7, 13), *range(22, 26))
ROBOTCAR_CONDITIONS = (
    "dawn",
    "dusk",
    "night",
    "night-rain",
    "overcast-summer",
    "overcast-winter",
    "rain",
    "snow",
    "sun",
)
ROBOTCAR_SIDES = ("left", "right", "rear")
ROBOTCAR_SIZE = (1024, 1024)
MODEL = "sfm_superpoint+superglue"
ResultNames = Literal["file", "folder/file"]


@dataclass(frozen=True, eq=False)
class LocalizationTask:
    """Photos to localise in one map.

    queries: with cameras, and with ``cam_from_world`` where the truth is public. map_folder: the COLMAP model; images:
    the folder its names are relative to. retrieval: query name -> reference names, the best first. result_names: how
    the benchmark names a query in a submission.
    """

    name: str
    queries: tuple[PosedFrame, ...]
    map_folder: Path
    images: Path
    retrieval: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    result_names: ResultNames = "folder/file"

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for query in self.queries:
            result = self.result_name(query.name)
            if result in names:
                raise InputError(
                    f"{self.name}: {query.name!r} and {names[result]!r} are both {result!r} in a result file"
                )
            names[result] = query.name

    def result_name(self, query: str) -> str:
        """The name of a query in a submission: its file name, for some benchmarks with the last folder before it."""
        parts = query.split("/")
        return "/".join(parts[-2:]) if self.result_names == "folder/file" else parts[-1]

    def references(self, query: str, count: int | None = None) -> tuple[str, ...]:
        """Names of the ``count`` best references of a query; InputError when the retrieval does not know it."""
        if query not in self.retrieval:
            raise InputError(f"{self.name}: the retrieved pairs do not list the query {query!r}")
        return self.retrieval[query][:count]

    def read_map(self) -> SfmMap:
        """The map with its photos at hand; InputError when it cannot be read."""
        return read_map(self.map_folder, self.images)


def queries_of_map(
    truth: SfmMap, names: list[str], folder: Path, scene: str, cameras: Mapping[str, Camera] | None = None
) -> tuple[PosedFrame, ...]:
    """The named images of a map as queries with their true poses; ``cameras`` replaces those of the map.

    Raises InputError for a name that the map, or ``cameras``, does not have.
    """
    place = {name: at for at, name in enumerate(truth.names)}
    frames = []
    for name in names:
        if name not in place:
            raise InputError(f"{scene}: the query {name!r} is not in the model with the true poses")
        if cameras is not None and name not in cameras:
            raise InputError(f"{scene}: the list of intrinsics has no {name!r}")
        camera = truth.cameras[place[name]] if cameras is None else cameras[name]
        source = "the model with the true poses" if cameras is None else "the list of queries"
        pose = truth.cam_from_world[place[name]]
        frames.append(PosedFrame(scene, name, folder / name, camera, pose, intrinsics_source=source))
    return tuple(frames)


def queries_of_list(cameras: Mapping[str, Camera], folder: Path, scene: str) -> tuple[PosedFrame, ...]:
    """Queries with intrinsics whose poses are not public."""
    return tuple(
        PosedFrame(scene, name, folder / name, camera, intrinsics_source="the list of queries")
        for name, camera in cameras.items()
    )


# -- benchmarks with public truth -------------------------------------------------------------------------------------
def sevenscenes_task(scene: str, dataset: str | os.PathLike[str], hloc: str | os.PathLike[str]) -> LocalizationTask:
    """One 7-Scenes scene. dataset: images and ``7scenes_sfm_triangulated``; hloc: models and retrieval.

    Raises InputError for an unknown scene and for files that are missing or malformed.
    """
    dataset, hloc = Path(dataset), Path(hloc)
    _known(scene, SCENES, "7-Scenes")
    truth = dataset / "7scenes_sfm_triangulated" / scene / "triangulated"
    names = _names(truth / "list_test.txt")
    return LocalizationTask(
        name=scene,
        queries=queries_of_map(read_map(truth), names, dataset / scene, scene),
        map_folder=hloc / scene / f"{MODEL}+depth",
        images=dataset / scene,
        retrieval=read_pairs(hloc / "7scenes_densevlad_retrieval" / f"{scene}_top10.txt"),
    )


def cambridge_task(scene: str, dataset: str | os.PathLike[str], hloc: str | os.PathLike[str]) -> LocalizationTask:
    """One scene of Cambridge Landmarks; its models were built at 1024 px, and loading a photo scales the camera.

    dataset: images and ``CambridgeLandmarks_Colmap_Retriangulated_1024px``; hloc: models and retrieval. Raises
    InputError for an unknown scene and for files that are missing or malformed.
    """
    dataset, hloc = Path(dataset), Path(hloc)
    _known(scene, CAMBRIDGE, "Cambridge Landmarks")
    truth = dataset / "CambridgeLandmarks_Colmap_Retriangulated_1024px" / scene
    names = _names(truth / "list_query.txt")
    return LocalizationTask(
        name=scene,
        queries=queries_of_map(read_map(truth / "empty_all"), names, dataset / scene, scene),
        map_folder=hloc / scene / MODEL,
        images=dataset / scene,
        retrieval=read_pairs(hloc / scene / "pairs-query-netvlad10.txt"),
    )


# -- benchmarks scored by the server ----------------------------------------------------------------------------------
def aachen_task(dataset: str | os.PathLike[str], hloc: str | os.PathLike[str]) -> LocalizationTask:
    """Aachen Day-Night: all queries of the ``*_time_queries_with_intrinsics.txt``; references are ``db/...``.

    Raises InputError for files that are missing or malformed.
    """
    dataset, hloc = Path(dataset), Path(hloc)
    lists = dataset / "queries"
    pattern = (lists if lists.is_dir() else dataset) / "*_time_queries_with_intrinsics.txt"
    images = dataset / "images" / "images_upright"
    return LocalizationTask(
        name="aachen",
        queries=queries_of_list(read_queries(pattern), images, "aachen"),
        map_folder=hloc / MODEL,
        images=images,
        retrieval=read_pairs(hloc / "pairs-query-netvlad50.txt"),
        result_names="file",
    )


def cmu_task(slice_number: int, dataset: str | os.PathLike[str], hloc: str | os.PathLike[str]) -> LocalizationTask:
    """One slice of Extended CMU Seasons; results of all slices are concatenated.

    dataset: ``intrinsics.txt`` and ``slice<n>/{query,database,test-images-slice<n>.txt}``. Raises InputError for an
    unknown slice and for files that are missing or malformed.
    """
    dataset, hloc = Path(dataset), Path(hloc)
    if slice_number not in (*CMU_TEST_SLICES, *CMU_TRAINING_SLICES):
        raise InputError(f"Extended CMU Seasons has no slice {slice_number} (2 to 25)")
    name = f"slice{slice_number}"
    folder = dataset / name
    intrinsics = dataset / "intrinsics.txt"
    cameras = parse_queries(read_text(intrinsics), str(intrinsics))
    names = _names(folder / f"test-images-{name}.txt")
    return LocalizationTask(
        name=name,
        queries=queries_of_list(cmu_cameras(names, cameras, str(intrinsics)), folder / "query", name),
        map_folder=hloc / name / MODEL / "model",
        images=folder / "database",
        retrieval=read_pairs(hloc / name / "pairs-query-netvlad10.txt"),
        result_names="file",
    )


def cmu_cameras(names: list[str], cameras: Mapping[str, Camera], file: str = "intrinsics.txt") -> dict[str, Camera]:
    """The camera of each CMU photo: the third part of its file name between underscores, ``img_00119_c1_1290...jpg``.

    Raises InputError for a name that says no camera or one that ``intrinsics.txt`` does not have.
    """
    found = {}
    for name in names:
        parts = name.rsplit("/", 1)[-1].split("_")
        if len(parts) < 3 or parts[2] not in cameras:
            raise InputError(f"{name[:80]!r} names no camera of '{file}' ({', '.join(cameras)}) as its third part")
        found[name] = cameras[parts[2]]
    return found


def robotcar_task(condition: str, dataset: str | os.PathLike[str], hloc: str | os.PathLike[str]) -> LocalizationTask:
    """One condition of RobotCar Seasons: ``images/<condition>/{left,right,rear}/*.jpg``; results are concatenated.

    Raises InputError for an unknown condition, no photos, and files that are missing or malformed.
    """
    dataset, hloc = Path(dataset), Path(hloc)
    _known(condition, ROBOTCAR_CONDITIONS, "RobotCar Seasons")
    cameras = {}
    for side in ROBOTCAR_SIDES:
        file = dataset / "intrinsics" / f"{side}_intrinsics.txt"
        camera = parse_robotcar_intrinsics(read_text(file), str(file))
        photos = sorted((dataset / "images" / condition / side).glob("*.jpg"))
        cameras.update({f"{condition}/{side}/{photo.name}": camera for photo in photos})
    if not cameras:
        raise InputError(f"'{dataset / 'images' / condition}' holds no photos ({', '.join(ROBOTCAR_SIDES)})")
    return LocalizationTask(
        name=condition,
        queries=queries_of_list(cameras, dataset / "images", condition),
        map_folder=hloc / MODEL,
        images=dataset / "images",
        retrieval=read_pairs(hloc / "pairs-query-netvlad10-percam-perloc.txt"),
    )


def parse_robotcar_intrinsics(text: str, file: str = "intrinsics.txt") -> Camera:
    """Lines ``fx 400.0``, ``fy``, ``cx``, ``cy`` (also with ``:`` or ``=``) of a 1024x1024 photo, as SIMPLE_RADIAL with k = 0.

    Raises InputError for a value that is missing, malformed or given twice, and for fx other than fy.
    """
    values: dict[str, float] = {}
    for number, line in enumerate(text.split("\n"), 1):
        fields = re.sub(r"[:=,]", " ", line).split()
        if not fields or fields[0] not in ("fx", "fy", "cx", "cy"):
            continue
        place = f"{file}:{number}"
        if len(fields) != 2 or fields[0] in values:
            raise InputError(f"{place}: {line.strip()[:60]!r} is not one value of {fields[0]}, or a second one")
        (values[fields[0]],) = parse_numbers(fields[1:], place)
    missing = [name for name in ("fx", "fy", "cx", "cy") if name not in values]
    if missing:
        raise InputError(f"'{file}' has no {missing[0]}")
    if values["fx"] != values["fy"] or not values["fx"] > 0:
        raise InputError(f"'{file}': fx {values['fx']:g} and fy {values['fy']:g} must be equal and positive")
    return Camera.from_colmap("SIMPLE_RADIAL", *ROBOTCAR_SIZE, [values["fx"], values["cx"], values["cy"], 0.0])


def read_pairs(path: str | os.PathLike[str]) -> dict[str, tuple[str, ...]]:
    """``parse_pairs`` of a file; InputError when it cannot be read."""
    return parse_pairs(read_text(path), str(path))


def _names(path: Path) -> list[str]:
    return parse_names(read_text(path), str(path))


def _known(name: str, names: tuple[str, ...], what: str) -> None:
    if name not in names:
        raise InputError(f"{what} has no {name!r}: one of {', '.join(names)}")
