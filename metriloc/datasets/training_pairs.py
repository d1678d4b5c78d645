"""From a folder of any form to pairs to train on: ``overlaps.npz`` where there is one, uniform draws where there is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from metriloc.datasets.mapfree import uniform_pairs
from metriloc.datasets.overlap import depth_overlap, sfm_overlap, write_overlaps
from metriloc.datasets.overlap_table import OVERLAPS_FILE, overlapping_pairs
from metriloc.datasets.posed import find_model, read_posed, scene_folders, scene_from_map
from metriloc.datasets.sampler import derived_seed
from metriloc.datasets.sources import PairList
from metriloc.io import InputError
from metriloc.io.maps import read_map

OverlapSource = Literal["auto", "depth", "sfm"]


def make_overlaps(
    folder: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    source: OverlapSource = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write ``overlaps.npz`` of one folder of posed photos; see ``write_overlaps`` for resuming.

    - path: of the file, by default in the folder.
    - source: "sfm" for the points of the folder's COLMAP model, "depth" for depth maps, "auto" for
      the model where there is one and depth otherwise.

    Raises InputError when neither is there.
    """
    folder = Path(folder)
    if source not in ("auto", "depth", "sfm"):
        raise ValueError(f"source must be 'auto', 'depth' or 'sfm', got {source!r}")
    path = folder / OVERLAPS_FILE if path is None else Path(path)
    model = find_model(folder) if source != "depth" else None
    if model is not None:
        sfm = read_map(model)
        scene = scene_from_map(sfm, folder)
        return write_overlaps(scene, sfm_overlap(scene, sfm), path, progress=progress)
    if source == "sfm":
        raise InputError(f"'{folder}' holds no COLMAP model to take overlaps from")
    scene = read_posed(folder)
    return write_overlaps(scene, depth_overlap(scene), path, progress=progress)


def read_training_pairs(
    root: str | os.PathLike[str],
    low: float = 0.0,
    high: float = 1.0,
    *,
    overlaps: str | os.PathLike[str] | None = None,
    uniform: int | None = None,
    listed: bool = True,
    seed: int = 0,
) -> list[PairList]:
    """The pairs of every scene below ``root``, one list a scene.

    ``overlaps.npz`` is looked for in ``overlaps/<scene>/`` when that folder is given, else in the
    scene; its pairs between ``low`` and ``high`` (strict) are taken.

    - uniform: how many pairs to draw from the poses alone in a scene that has none; with None such
      a scene is an InputError.
    - listed: look at the tables at all; without, every scene's pairs are drawn. The draws depend on
      ``seed`` and the place of the scene only.
    """
    found = []
    for number, folder in enumerate(scene_folders(root)):
        scene = read_posed(folder)
        file = (folder if overlaps is None else Path(overlaps) / folder.resolve().name) / OVERLAPS_FILE
        if listed and file.is_file():
            found.append(overlapping_pairs(scene, file, low, high))
        elif uniform is not None:
            generator = torch.Generator().manual_seed(derived_seed(seed, number))
            found.append(uniform_pairs(scene, uniform, generator))
        else:
            raise InputError(f"'{file}' does not exist: make it from depth or a reconstruction, or draw uniform pairs")
    return found
