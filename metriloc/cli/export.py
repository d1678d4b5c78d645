"""``metriloc export MODEL``, ``metriloc export check FILE``: networks as ONNX files, and how they differ from torch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.cli.terminal import printable
from metriloc.export import check_file, export_network, load_network
from metriloc.export.conformance import Conformance
from metriloc.export.graph_file import GraphFile, file_name
from metriloc.export.packages import require_onnx
from metriloc.export.write import require_size
from metriloc.io import InputError
from metriloc.io.download import cache_folder

_SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")


def export(
    model: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="MODEL")],
    size: Annotated[str, tyro.conf.arg(metavar="WxH")],
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None,
) -> int:
    """A network as an ONNX file for photos of one size, compared with torch before it is kept (extra onnx).

    Args:
        model: xfeat, aliked, bundled or published weights (metriloc-small, metriloc-depth, pixloc-small, mickey), or a
            folder or checkpoint of MicKey, PixLoc, a depth network or NRE.
        size: Of the photos, such as 640x480; bringing them to the size that the network takes is not in the file.
        out: FILE.onnx, or a folder; by default the cache, where --runtime onnx looks. A model that looks at a photo in
            several sizes has a file for each.
    """
    require_onnx()
    width, height = _parsed_size(size)
    network = load_network(model)
    fixed = network.fixed
    sizes = network.sizes_for(width, height)
    for one in sizes:
        require_size(fixed, one)
    for path, one in zip(_paths(out, [file_name(fixed.kind, fixed.identity, s) for s in sizes]), sizes, strict=True):
        found, measured = export_network(fixed, one, path, source=model)
        print(_told(found, measured))
    return 0


def export_check(
    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")], model: str | None = None
) -> int:
    """Compare an ONNX file with torch on this machine. The largest differences go into the file.

    Args:
        file: Of metriloc export.
        model: What was exported, if it lies elsewhere now.
    """
    found, measured = check_file(file, model)
    print(_told(found, measured))
    return 0 if measured.close else 1


def _parsed_size(text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    if found is None:
        raise InputError(
            f"--size {text}: WIDTHxHEIGHT in whole pixels, such as 640x480; a size that is left open would freeze what "
            "depends on it, such as a table of positions, without a word"
        )
    return int(found[1]), int(found[2])


def _paths(out: Path | None, names: list[str]) -> list[Path]:
    """Where the files of several sizes go: a file's name is of the first, others have their size behind it."""
    folder = cache_folder() / "onnx" if out is None else out
    if out is None or out.is_dir() or out.suffix != ".onnx":
        return [folder / name for name in names]
    return [out, *(out.with_name(f"{out.stem}-{Path(name).stem.rpartition('-')[2]}.onnx") for name in names[1:])]


def _told(found: GraphFile, measured: Conformance) -> str:
    width, height = found.size
    within = "" if measured.close else "NOT CLOSE: "
    return (
        f"{printable(found.path)}: {found.kind}, image [1, 3, {height}, {width}] -> {', '.join(found.outputs)}\n"
        f"  {within}{measured.in_words()}"
    )
