"""``metriloc map add MAP``: new photos into a map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.terminal import EXIT_NO_POSE, print_lines, progress_bar
from metriloc.runs.map_add import add_photos
from metriloc.runs.map_build import summary


def map_add(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    photos: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="PHOTOS")] = None,
    device: str = "cpu",
) -> int:
    """Take new photos into a map, which keeps its axes and its metres; goes on after an interruption.

    Args:
        scene: Folder of a map that `metriloc map build` made.
        photos: Folder with the new photos: the map's folder of photos (the default) or one below it.
        device: cpu, cuda, cuda:1, ... for features other than sift.
    """
    added = add_photos(scene, photos, device=device, bar=progress_bar)
    print_lines(
        [f"{len(added.registered)} of {len(added.new)} new photos are in the map", *summary(added.facts, scene)]
    )
    return 0 if len(added.registered) == len(added.new) else EXIT_NO_POSE
