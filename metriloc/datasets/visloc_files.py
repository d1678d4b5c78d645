"""Where PixLoc and hloc keep the files of the localisation benchmarks, every path replaceable.

Photos and truth lie in the data set; models, lists, retrieved pairs, descriptors and logs in hloc's outputs or, where
they are not there, in the data set. ``{scene}``, ``{slice}`` and ``{condition}`` stand for the part of the benchmark.
Lists of queries that are missing (CMU, RobotCar) are made from the data set.
"""

from __future__ import annotations

import dataclasses
import glob
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from metriloc.datasets.sevenscenes import SCENES
from metriloc.datasets.sources import PosedFrame
from metriloc.datasets.visloc import (
    CAMBRIDGE,
    CMU_TEST_SLICES,
    CMU_TRAINING_SLICES,
    MODEL,
    ROBOTCAR_CONDITIONS,
    ROBOTCAR_SIDES,
    LocalizationTask,
    cmu_cameras,
    parse_robotcar_intrinsics,
    queries_of_list,
    queries_of_map,
    read_pairs,
)
from metriloc.geometry import Camera
from metriloc.io import InputError, read_text, write_atomically
from metriloc.io.lists import parse_names, parse_queries, read_queries
from metriloc.io.maps import read_map
from metriloc.io.poses import Naming

VislocName = Literal["7scenes", "cambridge", "aachen", "cmu", "robotcar"]
_IN_DATA = ("query_images", "reference_images", "ground_truth", "test_list", "intrinsics")
"""Fields whose paths are relative to the data set; the others' are relative to hloc's outputs first."""


@dataclass(frozen=True)
class VislocFiles:
    """Paths of one benchmark. parts: that a run takes; known: all that there are; what: a part is called.

    query_list may be a pattern with ``*``. ground_truth: a COLMAP model; test_list: names of the queries in it.
    test_list of CMU and intrinsics: what a list of queries is made from. result_names: how results name a query.
    """

    name: VislocName
    what: Literal["scene", "slice", "condition", ""]
    parts: tuple[str, ...]
    query_images: str
    reference_images: str
    reference_sfm: str
    retrieval: str
    query_list: str
    global_descriptors: str | None = None
    hloc_logs: str | None = None
    ground_truth: str | None = None
    test_list: str | None = None
    intrinsics: str | None = None
    result_names: Naming = "folder/file"
    known: tuple[str, ...] = ()

    @property
    def withheld(self) -> bool:
        """Whether the truth is not public, so that a server scores the result."""
        return self.ground_truth is None

    def part(self, part: str, data: Path, hloc: Path) -> VislocPart:
        """One part on disk. Raises InputError for one that the benchmark does not have."""
        known = self.known or self.parts
        if part not in known:
            raise InputError(f"{self.name} has no {self.what} {part!r}: one of {', '.join(known)}")
        return VislocPart(self, part, data, hloc)

    def replaced(self, paths: Mapping[str, str | None]) -> VislocFiles:
        """With other paths; None keeps one."""
        return dataclasses.replace(self, **{name: path for name, path in paths.items() if path is not None})  # type: ignore[arg-type]


_TRUTH_7SCENES = "7scenes_sfm_triangulated/{scene}/triangulated"
_TRUTH_CAMBRIDGE = "CambridgeLandmarks_Colmap_Retriangulated_1024px/{scene}"
VISLOC_FILES: Mapping[VislocName, VislocFiles] = MappingProxyType(
    {
        "7scenes": VislocFiles(
            name="7scenes",
            what="scene",
            parts=SCENES,
            query_images="{scene}",
            reference_images="{scene}",
            reference_sfm=f"{{scene}}/{MODEL}+depth",
            retrieval="7scenes_densevlad_retrieval/{scene}_top10.txt",
            query_list="{scene}/query_list_with_intrinsics.txt",
            ground_truth=_TRUTH_7SCENES,
            test_list=f"{_TRUTH_7SCENES}/list_test.txt",
        ),
        "cambridge": VislocFiles(
            name="cambridge",
            what="scene",
            parts=CAMBRIDGE,
            query_images="{scene}",
            reference_images="{scene}",
            reference_sfm=f"{{scene}}/{MODEL}",
            retrieval="{scene}/pairs-query-netvlad10.txt",
            query_list="{scene}/query_list_with_intrinsics.txt",
            ground_truth=f"{_TRUTH_CAMBRIDGE}/empty_all",
            test_list=f"{_TRUTH_CAMBRIDGE}/list_query.txt",
        ),
        "aachen": VislocFiles(
            name="aachen",
            what="",
            parts=("aachen",),
            query_images="images/images_upright",
            reference_images="images/images_upright",
            reference_sfm=MODEL,
            retrieval="pairs-query-netvlad50.txt",
            query_list="*_time_queries_with_intrinsics.txt",
            global_descriptors="aachen_tf-netvlad.h5",
            result_names="file",
        ),
        "cmu": VislocFiles(
            name="cmu",
            what="slice",
            parts=tuple(map(str, CMU_TEST_SLICES)),
            known=tuple(map(str, sorted(CMU_TEST_SLICES + CMU_TRAINING_SLICES))),
            query_images="slice{slice}/query",
            reference_images="slice{slice}/database",
            reference_sfm=f"slice{{slice}}/{MODEL}/model",
            retrieval="slice{slice}/pairs-query-netvlad10.txt",
            query_list="slice{slice}/queries_with_intrinsics.txt",
            global_descriptors="slice{slice}/cmu-slice{slice}_tf-netvlad.h5",
            hloc_logs="slice{slice}/CMU_hloc_superpoint+superglue_netvlad10.txt_logs.pkl",
            test_list="slice{slice}/test-images-slice{slice}.txt",
            intrinsics="intrinsics.txt",
            result_names="file",
        ),
        "robotcar": VislocFiles(
            name="robotcar",
            what="condition",
            parts=ROBOTCAR_CONDITIONS,
            query_images="images",
            reference_images="images",
            reference_sfm=MODEL,
            retrieval="pairs-query-netvlad10-percam-perloc.txt",
            query_list="{condition}_queries_with_intrinsics.txt",
            global_descriptors="robotcar_ov-ref_tf-netvlad.h5",
            intrinsics="intrinsics",
        ),
    }
)
"""As published."""


@dataclass(frozen=True)
class VislocPart:
    """One scene, slice or condition of a benchmark on disk. data: the data set; hloc: its outputs."""

    files: VislocFiles
    part: str
    data: Path
    hloc: Path

    @property
    def name(self) -> str:
        """Of folders and reports: ``chess``, ``slice13``, ``night-rain``."""
        return f"slice{self.part}" if self.files.what == "slice" else self.part

    def path(self, what: str) -> Path | None:
        """Where a file of the part is, or should be. None when the benchmark has none."""
        template: str | None = getattr(self.files, what)
        if template is None:
            return None
        for word in ("scene", "slice", "condition"):
            template = template.replace(f"{{{word}}}", self.part)
        if what in _IN_DATA:
            return self.data / template
        places = [folder / template for folder in (self.hloc, self.data, self.data / "queries")]
        return next((place for place in places if _exists(place)), places[0])

    def require(self, what: str) -> Path:
        """``path`` of something that must be there. Raises InputError with the option that names it."""
        option = "--" + what.replace("_", "-")
        found = self.path(what)
        if found is None:
            raise InputError(f"{self.files.name} has no usual place for this: give {option}")
        if not _exists(found):
            raise InputError(f"{self.name}: '{found}' does not exist ({option} names another place)")
        return found

    def _place(self, what: str) -> Path:
        return self.path(what) or self.require(what)

    def queries(self, lists: Path | None = None) -> tuple[PosedFrame, ...]:
        """The photos to localise, with their true poses where they are public.

        lists: folder where a list of queries that had to be made is written. Raises InputError for files that are
        missing or malformed.
        """
        images, listed = self._place("query_images"), self._listed(lists)
        if self.files.withheld:
            queries = queries_of_list(listed or {}, images, self.name)
        else:
            truth = read_map(self.require("ground_truth"))
            queries = queries_of_map(truth, self._test_names(listed), images, self.name, listed)
        if not queries:
            raise InputError(f"{self.name}: there are no queries in '{images}'")
        return queries

    def task(self, lists: Path | None = None, *, pairs: bool = True) -> LocalizationTask:
        """``queries``, their map and retrieved references.

        Without the last where ``pairs`` is False.
        """
        return LocalizationTask(
            name=self.name,
            queries=self.queries(lists),
            map_folder=self._place("reference_sfm"),
            images=self._place("reference_images"),
            retrieval=read_pairs(self._place("retrieval")) if pairs else {},
            result_names=self.files.result_names,
        )

    def _test_names(self, listed: Mapping[str, Camera] | None) -> list[str]:
        """Those of the test list or, where there is none, of the list with cameras."""
        names = self.path("test_list")
        if listed is None or (names is not None and names.is_file()):
            return _names(self.require("test_list"))
        return list(listed)

    def _listed(self, lists: Path | None) -> dict[str, Camera] | None:
        """The list of queries, made where it is missing; None where cameras come from the truth."""
        path = self.path("query_list")
        if path is not None and _exists(path):
            return read_queries(path)
        if not self.files.withheld:
            return None
        if self.files.intrinsics is None:
            return read_queries(self.require("query_list"))
        made = self._made()
        if lists is not None:
            write_atomically(lists / "queries_with_intrinsics.txt", format_queries(made))
        return made

    def _made(self) -> dict[str, Camera]:
        known = self.require("intrinsics")
        if self.files.name == "cmu":
            names = _names(self.require("test_list"))
            return cmu_cameras(names, parse_queries(read_text(known), str(known)), str(known))
        images, cameras = self._place("query_images"), {}
        for side in ROBOTCAR_SIDES:
            file = known / f"{side}_intrinsics.txt"
            camera = parse_robotcar_intrinsics(read_text(file), str(file))
            photos = sorted((images / self.part / side).glob("*.jpg"))
            cameras.update({f"{self.part}/{side}/{photo.name}": camera for photo in photos})
        if not cameras:
            raise InputError(f"'{images / self.part}' holds no photos ({', '.join(ROBOTCAR_SIDES)})")
        return cameras


def format_queries(cameras: Mapping[str, Camera]) -> str:
    """The text of ``parse_queries``: ``name MODEL width height params...``, in COLMAP's pixels."""
    return "".join(f"{name} {_colmap(camera)}\n" for name, camera in cameras.items())


def _colmap(camera: Camera) -> str:
    (fx, fy), (cx, cy) = camera.f.tolist(), (camera.c + 0.5).tolist()
    terms = camera.distortion.tolist()
    if camera.model == "pinhole":
        model, params = "PINHOLE", [fx, fy, cx, cy]
    elif camera.model == "fisheye":
        model, params = "OPENCV_FISHEYE", [fx, fy, cx, cy, *terms]
    elif fx == fy and not any(terms[1:]):
        model, params = "SIMPLE_RADIAL", [fx, cx, cy, terms[0]]
    elif not terms[4]:
        model, params = "OPENCV", [fx, fy, cx, cy, *terms[:4]]
    else:
        model, params = "FULL_OPENCV", [fx, fy, cx, cy, *terms, 0.0, 0.0, 0.0]
    width, height = (int(side) for side in camera.size.tolist())
    return " ".join([model, str(width), str(height), *(repr(value) for value in params)])


def _names(path: Path) -> list[str]:
    return parse_names(read_text(path), str(path))


def _exists(path: Path) -> bool:
    return path.exists() or bool(glob.glob(str(path)))
