"""``metriloc map export MAP --out DIR``: a map for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from metriloc.cli.terminal import print_lines
from metriloc.io import InputError
from metriloc.io.map_folders import find_model
from metriloc.io.maps import read_map, read_reconstruction
from metriloc.mapping.export import export_colmap, export_nerfstudio, export_ply


def map_export(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    out: Path,
    form: Annotated[Literal["colmap", "nerfstudio", "ply"], tyro.conf.arg(name="format")] = "colmap",
) -> int:
    """Write a map as other programs read it, in its own units and axes.

    Args:
        scene: Folder of a map.
        out: Folder to write to; for ply, the file.
        form: colmap for its text files, nerfstudio for transforms.json with points.ply, ply for the points.
    """
    model = read_reconstruction(find_model(scene))
    if form == "colmap":
        files = export_colmap(model, out)
    elif form == "ply":
        files = [export_ply(model, out if out.suffix.lower() == ".ply" else out / "points.ply")]
    else:
        folder = read_map(scene).folder
        if folder is None:
            raise InputError(f"the photos of '{scene}' are not at hand, and nerfstudio needs them")
        files = export_nerfstudio(model, folder, out)
    print_lines(str(file) for file in files)
    return 0
