"""Photos of a map as queries, each left out of it in turn."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from metriloc.datasets.sources import PosedFrame
from metriloc.evaluation.tasks import QueryTask
from metriloc.types import SfmMap


def held_out_queries(whole: SfmMap, step: int, count: int, name: str) -> list[QueryTask]:
    """Every ``step``-th photo as a query in the map without it, with the ``count`` nearest photos as references.

    Nearest: by the distance of the camera centres, plus that of points a typical depth in front of them, so that a
    photo looking elsewhere is far. Raises ValueError for a map of one photo.
    """
    if len(whole) < 2:
        raise ValueError(f"the map has {len(whole)} photo: none is left when it is left out")
    order = nearest_images(whole)
    tasks = []
    for i in range(0, len(whole), step):
        folder = whole.folder or Path()
        path = folder / whole.names[i]
        frame = PosedFrame(name, whole.names[i], path, whole.cameras[i], whole.cam_from_world[i], upright=False)
        references = [whole.names[j] for j in order[i][:count]]
        tasks.append(QueryTask(frame, whole.without([i]), tuple(references)))
    return tasks


def nearest_images(scene: SfmMap) -> Sequence[Sequence[int]]:
    """For each image the others, the nearest first, as ``held_out_queries`` measures it."""
    centers = scene.cam_from_world.center()
    depth = _typical_depth(scene)
    ahead = centers + depth * scene.cam_from_world.R[:, 2]
    distance = torch.cdist(centers, centers) + torch.cdist(ahead, ahead)
    distance.fill_diagonal_(torch.inf)
    return [row[:-1] for row in distance.argsort(dim=1, stable=True).tolist()]


def _typical_depth(scene: SfmMap) -> float:
    if len(scene.image_index) == 0:
        return 1.0
    R, t = scene.cam_from_world.R[scene.image_index, 2], scene.cam_from_world.t[scene.image_index, 2]
    depths = (R * scene.xyz[scene.point_index]).sum(-1) + t
    return float(depths[depths > 0].median()) if bool((depths > 0).any()) else 1.0
