"""``metriloc map export MAP --out DIR``: a map for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import tyro

from metriloc.cli.terminal import hearing_sigterm, print_lines
from metriloc.io import InputError
from metriloc.io.map_folders import find_model
from metriloc.io.maps import read_reconstruction
from metriloc.mapping.export import export_colmap, export_gltf, export_nerfstudio, export_ply
from metriloc.opened_map import look_into


@hearing_sigterm()
def map_export(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    out: Path,
    form: Annotated[Literal["colmap", "nerfstudio", "ply", "gltf"], tyro.conf.arg(name="format")] = "colmap",
) -> int:
    """Write a map as other programs read it, in its own units and axes.

    Args:
        scene: Folder of a map, or a bundle.
        out: Folder to write to; for ply and gltf, the file (*.ply, *.glb).
        form: colmap for its text files, nerfstudio for transforms.json with points.ply, ply for the points, gltf for points
            and cameras in one file.
    """
    opened = look_into(scene)
    model = read_reconstruction(opened.model or find_model(scene))
    if form == "colmap":
        files = export_colmap(model, out)
    elif form == "ply":
        files = [export_ply(model, _file(out, "points.ply"))]
    elif form == "gltf":
        files = [export_gltf(model, _file(out, "map.glb"), opened.facts)]
    else:
        folder = opened.scene.folder
        if opened.bundle is not None and (folder is None or scene.is_file()):
            raise InputError(f"nerfstudio needs the photos in a folder: export the map that '{scene}' was made of")
        if folder is None:
            raise InputError(f"the photos of '{scene}' are not at hand, and nerfstudio needs them")
        files = export_nerfstudio(model, folder, out)
    print_lines(str(file) for file in files)
    return 0


def _file(out: Path, name: str) -> Path:
    """The file that is meant: ``out`` where it ends as the name does, else one of the name in it."""
    return out if out.suffix.lower() == Path(name).suffix else out / name
