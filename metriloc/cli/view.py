"""``metriloc view RESULT|MAP|RUN``: what was found, in 3D in a browser, or as a file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.live import check_place, served
from metriloc.cli.terminal import print_lines
from metriloc.io import InputError
from metriloc.runs.viewed import open_viewed
from metriloc.runs.viewed_training import is_training_run, watched
from metriloc.viz.live import require_saved, save_scene


def view(
    what: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RESULT|MAP|RUN")],
    images: Path | None = None,
    host: str = "127.0.0.1",
    port: int | None = None,
    save: Annotated[tuple[Path, ...] | None, tyro.conf.arg(metavar="FILE ...")] = None,
) -> int:
    """What was found, in 3D in a browser. Cameras with their photos, points, ways; Ctrl+C ends it.

    Args:
        what: Folder that relpose, localize, track or train wrote to (--out), a COLMAP model, or a bundle.
        images: Folder of a map's photos, where that is not beside it.
        host: Address it is served at. By default this machine alone sees it; over SSH, forward the port.
        port: By default 8080, or the next that is free.
        save: Write files and serve nothing: a recording of viser (.viser), or one page for any browser (.html).
    """
    if save == ():
        raise InputError("--save has no file behind it: give one that ends in .html or .viser")
    save = save or ()
    for file in save:
        require_saved(file)
    if save and (host != "127.0.0.1" or port is not None):
        raise InputError("--save serves nothing: leave out --host and --port")
    check_place(host, port)
    if is_training_run(what):
        return _watch(what, save, host, port)
    found = open_viewed(what, images)
    if save:
        for file in save:
            save_scene(found.scene, file)
            print_lines([f"written to {file}"])
        return 0
    print_lines([found.title])
    with suppress(KeyboardInterrupt), served(host, port, found.title) as live:
        live.show(found.scene)
        live.wait()
    return 0


def _watch(run: Path, save: tuple[Path, ...], host: str, port: int | None) -> int:
    """A training run, also one that goes on."""
    if save:
        raise InputError(
            f"'{run}' is a training run, which has curves and no scene to save: its pages are in validation/"
        )
    with suppress(KeyboardInterrupt), served(host, port, run.resolve().name) as live, watched(live, run):
        live.wait()
    return 0
