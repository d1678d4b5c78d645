"""``metriloc map add MAP``: new photos into a map."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.terminal import EXIT_NO_POSE, hearing_sigterm, print_lines, progress_bar
from metriloc.io import InputError
from metriloc.mapping.sharing import RaySharing
from metriloc.runs.map_add import add_photos
from metriloc.runs.map_build import summary
from metriloc.training.processes import worker_from_environment


@hearing_sigterm()
def map_add(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    photos: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="PHOTOS")] = None,
    device: str = "cpu",
    ray_workers: int = 0,
) -> int:
    """Take new photos into a map, which keeps its axes and its metres; goes on after an interruption.

    Args:
        scene: Folder of a map that `metriloc map build` made.
        photos: Folder with the new photos: the map's folder of photos (the default) or one below it.
        device: cpu, cuda, cuda:1, ... for features other than sift.
        ray_workers: Share keypoints and matches with so many Ray workers, on the machines Ray knows.
    """
    if worker_from_environment().count > 1:
        raise InputError("map add is not run by torchrun: share its work with --ray-workers")
    if ray_workers < 0:
        raise InputError(f"--ray-workers must be 0 or more, got {ray_workers}")
    share = partial(RaySharing, workers=ray_workers) if ray_workers > 0 else None
    added = add_photos(scene, photos, device=device, bar=progress_bar, share=share)
    print_lines(
        [f"{len(added.registered)} of {len(added.new)} new photos are in the map", *summary(added.facts, scene)]
    )
    return 0 if len(added.registered) == len(added.new) else EXIT_NO_POSE
