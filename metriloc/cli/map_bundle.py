"""``metriloc map bundle MAP --out FILE.metriloc``: a map with all that localizing asks of its photos."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.terminal import hearing_sigterm, print_lines, progress_bar
from metriloc.runs.map_bundle import METHODS, bundle_map


@hearing_sigterm()
def map_bundle(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    out: Path,
    images: Path | None = None,
    methods: tuple[str, ...] = METHODS,
    photos: bool = True,
    device: str = "cpu",
) -> int:
    """Put a map into one file or folder, with what networks see in its photos, which `metriloc localize` opens.

    Args:
        scene: Folder of a map.
        out: A file called *.metriloc, or a folder.
        images: Folder of the map's photos, where they are not found.
        methods: Localizers that it is for.
        photos: Put the photos in; without them (--no-photos) only these localizers can use it.
        device: cpu, cuda, cuda:1, ...
    """
    made = bundle_map(scene, out, images=images, methods=methods, photos=photos, device=device, bar=progress_bar)
    done = "written" if made.fresh else "up to date already"
    print_lines([f"{made.path}: {done}, {made.size / 1e6:.1f} MB, for {', '.join(made.methods)}"])
    return 0
