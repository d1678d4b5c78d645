"""``metriloc overlaps DIR``: how much any two photos of a posed set share, for choosing training pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.terminal import progress_bar
from metriloc.datasets.overlap_table import OVERLAPS_FILE, read_overlaps
from metriloc.datasets.posed import scene_folders
from metriloc.datasets.training_pairs import OverlapSource, make_overlaps
from metriloc.io import prepare_output_folder


def overlaps(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")],
    out: Path | None = None,
    source: OverlapSource = "auto",
    again: bool = False,
) -> int:
    """Write overlaps.npz of a folder of posed photos, or of every such folder in it; resumes after an interruption.

    Args:
        folder: A scene with poses (Map-free, COLMAP, nerfstudio, TUM, 7-Scenes, ScanNet or RGB-D layout), or a folder of them.
        out: Write to OUT/<scene>/overlaps.npz instead of into the scenes.
        source: depth for depth maps, sfm for the points of a COLMAP model, auto for the model where there is one.
        again: Also where the file is there already.
    """
    for scene in scene_folders(folder):
        path = (scene if out is None else prepare_output_folder(out / scene.resolve().name)) / OVERLAPS_FILE
        if path.is_file() and not again:
            print(f"{path}: there already (--again makes it anew)")
            continue
        with progress_bar(scene.resolve().name) as progress:
            make_overlaps(scene, path, source=source, progress=progress)
        shares = read_overlaps(path)[1]
        useful = int(((shares > 0.3) & (shares < 0.9)).sum())
        print(f"{path}: {len(shares)} pairs share something, {useful} of them 30 to 90 %")
    return 0
