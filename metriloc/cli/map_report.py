"""``metriloc map report MAP --out FILE.html``: a map as a page."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.terminal import hearing_sigterm, print_lines
from metriloc.io import InputError, prepare_output_folder, write_atomically
from metriloc.opened_map import open_map
from metriloc.version import __version__
from metriloc.viz import SoftwareFacts
from metriloc.viz.map_report import REPORT_PHOTOS, REPORT_POINTS
from metriloc.viz.map_report import map_report as report_of
from metriloc.viz.whole_map import shown_map


@hearing_sigterm()
def map_report(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    out: Annotated[Path, tyro.conf.arg(metavar="FILE.html")],
    images: Path | None = None,
) -> int:
    """A map as one HTML page.

    What it holds, where its metres are from, what is weak, and all of it in 3D.

    Args:
        scene: Folder of a map, also of a COLMAP model that was made elsewhere, or a bundle.
        out: File to write.
        images: Folder of the map's photos, where that is not beside it.
    """
    if out.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"'{out}' is no name for a page: give one that ends in .html")
    if out.is_dir():
        raise InputError(f"'{out}' is a folder: give a file that ends in .html")
    opened = open_map(scene, images, photos_needed=False)
    prepare_output_folder(out.parent)
    limits = {"max_points": REPORT_POINTS, "max_photos": REPORT_PHOTOS}
    shown = shown_map(opened.scene, opened.unit, **limits, z_is_up=opened.z_is_up, alike=True)
    settings = {} if opened.facts is None else opened.facts.settings
    method = ", ".join(f"{key} {settings[key]}" for key in ("features", "pairs", "mapper") if key in settings)
    software = SoftwareFacts(__version__, method, seed=None, date=datetime.date.today().isoformat())
    write_atomically(out, report_of(shown, opened.facts, scene.resolve().name, software))
    print_lines([f"written to {out}"])
    return 0
