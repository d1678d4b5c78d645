"""``metriloc data get NAME --out DATA``: data sets of the published systems, listed first, resumable, checked."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.terminal import EXIT_NO_POSE, print_lines, progress_bar
from metriloc.cli.transfers import transfer_bar
from metriloc.datasets.downloads import PIXLOC_SERVER, Asset, DataName, assets_of
from metriloc.evaluation.benchmarks import part_names
from metriloc.io import InputError, prepare_output_folder
from metriloc.io.download import is_offline
from metriloc.io.unpack import unpack
from metriloc.runs.data_get import Planned, get, missing_files, plan, require_space

_SHOWN = 12
"""So many files or missing files are named."""


def data_get(
    name: Annotated[tyro.conf.Positional[DataName], tyro.conf.arg(metavar="NAME")],
    out: Path,
    training: bool = False,
    slices: tuple[str, ...] = (),
    unpack_here: Annotated[tuple[Path, ...], tyro.conf.arg(name="unpack")] = (),
    only_list: Annotated[bool, tyro.conf.arg(name="list")] = False,
    server: str = PIXLOC_SERVER,
) -> int:
    """Get a data set of the published systems into the layout that ``metriloc eval`` reads; goes on where it was.

    What will be fetched is listed with its size first. Parts whose address no paper's page names are said so: fetch
    their archives by hand and give them to --unpack.

    Args:
        name: 7scenes, cambridge, aachen, cmu, robotcar, megadepth or mapfree.
        out: Folder of the data set, for --data of metriloc eval.
        training: With the files that PixLoc was trained on (cmu, megadepth).
        slices: Of cmu, such as 2 or 2-6,13; by default those of the benchmark.
        unpack_here: Archives that were fetched by hand (.zip, .tar, .tar.gz), to be unpacked into --out.
        only_list: Say what there is and how large, fetch nothing.
        server: Another address of the server's folder, such as a mirror.
    """
    parts = part_names(name, slices)
    assets = assets_of(name, parts, training=training)
    for archive in unpack_here:
        if not archive.is_file():
            raise InputError(f"--unpack {archive}: there is no such file")
    _print_by_hand(assets)
    planned: list[Planned] = []
    fetched = any(asset.address is not None for asset in assets)
    if fetched and not (unpack_here and is_offline()):  # what is at hand needs no server
        with progress_bar("listing") as bar:
            planned = plan(assets, out, server, lambda count: None if bar is None else bar(count, count))
        _print_plan(planned)
    if only_list:
        return 0
    require_space(planned, out)
    prepare_output_folder(out)
    for one in planned:
        with transfer_bar(one.file.name) as progress:
            get(one, progress)
    for archive in unpack_here:
        found = unpack(archive, out)
        notes = f", {found.passed_over} links passed over" if found.passed_over else ""
        print_lines([f"{archive}: {found.written} files unpacked, {found.kept} were here{notes}"])
    return _told(missing_files(name, parts, out), out)


def _print_by_hand(assets: Sequence[Asset]) -> None:
    for asset in assets:
        if asset.address is None:
            print_lines([f"by hand   {asset.title}: {asset.by_hand}"])


def _print_plan(planned: Sequence[Planned]) -> None:
    ranked = sorted(planned, key=lambda one: -(one.file.size or 0))
    lines = [f"{_size(one.file.size):>10}  {one.file.name}{'  (here)' if one.done else ''}" for one in ranked[:_SHOWN]]
    if len(ranked) > _SHOWN:
        lines.append(
            f"{_size(sum(one.file.size or 0 for one in ranked[_SHOWN:])):>10}  in {len(ranked) - _SHOWN} more files"
        )
    total = sum(one.file.size or 0 for one in planned)
    left = sum(one.file.size or 0 for one in planned if not one.done)
    print_lines([*lines, f"{_size(total):>10}  in all, {_size(left).strip()} not here yet"])


def _size(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e6:.1f} MB"


def _told(missing: Sequence[str], out: Path) -> int:
    if not missing:
        print_lines([f"complete: {out}"])
        return 0
    rest = [f"  and {len(missing) - _SHOWN} more"] if len(missing) > _SHOWN else []
    print("metriloc data get: not everything that metriloc eval reads is here:", file=sys.stderr)
    print("\n".join([*(f"  {line}" for line in missing[:_SHOWN]), *rest]), file=sys.stderr)
    return EXIT_NO_POSE
