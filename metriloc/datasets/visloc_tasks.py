"""The localisation benchmarks as tasks, their files in the usual places: one function a benchmark.

dataset: photos and truth; hloc: models, lists and retrieved pairs. All raise InputError for a part that does not exist
and for files that are missing or malformed. Other places: ``VislocFiles.replaced``.
"""

from __future__ import annotations

import os
from pathlib import Path

from metriloc.datasets.visloc import LocalizationTask
from metriloc.datasets.visloc_files import VISLOC_FILES, VislocName

Folder = str | os.PathLike[str]


def sevenscenes_task(scene: str, dataset: Folder, hloc: Folder) -> LocalizationTask:
    """One 7-Scenes scene.

    - scene: its name, such as ``chess``.
    - dataset, hloc: folders of the photos, and of hloc's models and lists.
    """
    return _task("7scenes", scene, dataset, hloc)


def cambridge_task(scene: str, dataset: Folder, hloc: Folder) -> LocalizationTask:
    """One scene of Cambridge Landmarks.

    Its models were built at 1024 px, and loading a photo scales the camera.

    - scene: its name, such as ``KingsCollege``.
    - dataset: folder of the photos.
    - hloc: folder of hloc's models and lists.
    """
    return _task("cambridge", scene, dataset, hloc)


def aachen_task(dataset: Folder, hloc: Folder) -> LocalizationTask:
    """Aachen Day-Night: all queries of the ``*_time_queries_with_intrinsics.txt``; references are ``db/...``."""
    return _task("aachen", "aachen", dataset, hloc)


def cmu_task(slice_number: int, dataset: Folder, hloc: Folder) -> LocalizationTask:
    """One slice of Extended CMU Seasons; results of all slices are concatenated.

    - slice_number: 2 to 25.
    - dataset, hloc: folders of the photos, and of hloc's models and lists.
    """
    return _task("cmu", str(slice_number), dataset, hloc)


def robotcar_task(condition: str, dataset: Folder, hloc: Folder) -> LocalizationTask:
    """One condition of RobotCar Seasons; results are concatenated.

    - condition: such as ``night``, of ``images/<condition>/{left,right,rear}/*.jpg``.
    - dataset, hloc: folders of the photos, and of hloc's models and lists.
    """
    return _task("robotcar", condition, dataset, hloc)


def _task(name: VislocName, part: str, dataset: Folder, hloc: Folder) -> LocalizationTask:
    return VISLOC_FILES[name].part(part, Path(dataset), Path(hloc)).task()
