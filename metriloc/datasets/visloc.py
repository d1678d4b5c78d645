"""Localisation benchmarks: queries with intrinsics, a COLMAP map, retrieved references, the truth where it is public.

7-Scenes and Cambridge have a COLMAP model as truth; Aachen, Extended CMU and RobotCar are scored by a server, with
names of their own kind in the submission. ``visloc_files`` knows where hloc and
PixLoc put the files.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metriloc.datasets.sources import PosedFrame
from metriloc.geometry import Camera
from metriloc.io import InputError, read_text
from metriloc.io.files import parse_numbers
from metriloc.io.lists import parse_pairs
from metriloc.io.maps import read_map
from metriloc.io.poses import Naming, visloc_name
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
    result_names: Naming = "folder/file"

    def __post_init__(self) -> None:
        names: dict[str, str] = {}
        for query in self.queries:
            result = visloc_name(query.name, self.result_names)
            if result in names:
                raise InputError(
                    f"{self.name}: {query.name!r} and {names[result]!r} are both {result!r} in a result file"
                )
            names[result] = query.name

    def references(self, query: str, count: int | None = None) -> tuple[str, ...]:
        """Names of the ``count`` best references of a query.

        InputError when the retrieval does not know it.
        """
        if query not in self.retrieval:
            raise InputError(f"{self.name}: the retrieved pairs do not list the query {query!r}")
        return self.retrieval[query][:count]

    def read_map(self) -> SfmMap:
        """The map with its photos at hand. InputError when it cannot be read."""
        return read_map(self.map_folder, self.images)


def queries_of_map(
    truth: SfmMap, names: list[str], folder: Path, scene: str, cameras: Mapping[str, Camera] | None = None
) -> tuple[PosedFrame, ...]:
    """The named images of a map as queries with their true poses.

    ``cameras`` replaces those of the map. Raises InputError for a name that the map, or
    ``cameras``, does not have.
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


# -- cameras of queries ----------------------------------------------------------------------------------------------
def cmu_cameras(names: list[str], cameras: Mapping[str, Camera], file: str = "intrinsics.txt") -> dict[str, Camera]:
    """The camera of each CMU photo.

    The third part of its file name between underscores, ``img_00119_c1_1290...jpg``. Raises
    InputError for a name that says no camera or one that ``intrinsics.txt`` does not have.
    """
    found = {}
    for name in names:
        parts = name.rsplit("/", 1)[-1].split("_")
        if len(parts) < 3 or parts[2] not in cameras:
            raise InputError(f"{name[:80]!r} names no camera of '{file}' ({', '.join(cameras)}) as its third part")
        found[name] = cameras[parts[2]]
    return found


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
