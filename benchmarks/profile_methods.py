"""Where the time of whole commands goes: what share of it is reading, network, matching, solving, drawing.

    OMP_NUM_THREADS=1 python benchmarks/profile_methods.py [MAP QUERY...] [--methods xfeat nre-xfeat ...] [--max-side 640]

Two photos: ``metriloc relpose`` on the bundled pair, the query three times. With a map and photos of it, ``metriloc
localize``. Each command runs in this process, once to warm up and once under cProfile, and writes its reports. Seconds
are the processor's (torch has one thread), so other load on the machine hardly changes them.
"""

from __future__ import annotations

import argparse
import cProfile
import datetime
import os
import platform
import pstats
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

import torch

import metriloc
from metriloc.choose import LOCALIZERS
from metriloc.cli.main import main as metriloc_command

PAIRS = ("mickey", "xfeat", "xfeat+lightglue", "aliked+lightglue", "auto")
MAPS = ("nre-xfeat", "pixloc", "xfeat-pnp")
PARTS: dict[str, tuple[tuple[str, str], ...]] = {
    "loading": (("choose/pairs.py", "choose_method"), ("choose/maps.py", "choose_localizer")),
    "reading": (("io/view.py", "load_view"), ("metriloc/opened_map.py", "open_map"), ("runs/queries.py", "load")),
    "network": (
        ("backbones/aliked.py", "__call__"), ("backbones/aliked.py", "dense"),
        ("backbones/xfeat.py", "__call__"), ("backbones/xfeat.py", "dense"),
        ("mickey/network.py", "detect"), ("matching/depth_network.py", "predict"),
        ("pixloc/extractor.py", "__call__"), ("nre/features.py", "dense"),
    ),
    "matching": (
        ("matching/matchers.py", "match"), ("mickey/matching.py", "scored_match_probabilities"),
        ("nre/maps.py", "gain_maps"), ("matching/cells.py", "nearest_cells"),
    ),
    "solving": (
        ("matching/solver.py", "fit_pair"), ("mickey/solver.py", "solve"), ("mickey/model.py", "_polished"),
        ("mickey/model.py", "_rematched"), ("nre/initialize.py", "initialize"), ("nre/refine.py", "refine"),
        ("nre/windows.py", "refine_in_windows"), ("pixloc/align.py", "align"), ("solvers/absolute.py", "absolute_pose"),
    ),
    "drawing": (("runs/relpose_files.py", "write_query"), ("runs/localize_files.py", "write_query")),
}  # fmt: skip
"""The functions whose time is counted; file and folder, and none calls one of another part."""


def profiled(command: Sequence[str]) -> tuple[float, dict[str, float]]:
    """Processor seconds of a warm command, and of its parts; what is in none of them is ``rest``."""
    profile = cProfile.Profile(time.process_time)
    for enabled in (False, True):
        with _out_folder() as out, open(os.devnull, "w") as quiet, redirect_stdout(quiet), redirect_stderr(quiet):
            if enabled:
                profile.enable()
            try:
                metriloc_command([*command, "--out", str(out)])
            except SystemExit as ended:
                if ended.code not in (0, 1):
                    raise RuntimeError(f"metriloc {' '.join(command)} ended with code {ended.code}") from ended
            finally:
                profile.disable()
    stats = pstats.Stats(profile)
    total: float = stats.total_tt  # type: ignore[attr-defined]
    found = dict.fromkeys(PARTS, 0.0)
    for called, (_, _, _, _, callers) in stats.stats.items():  # type: ignore[attr-defined]
        part = part_of(called)
        if part is not None:  # what calls itself a function of the same part has counted it already
            found[part] += sum(times[3] for caller, times in callers.items() if part_of(caller) != part)
    return total, {**found, "rest": total - sum(found.values())}


def part_of(function: tuple[str, int, str]) -> str | None:
    """The part that a function of the profile belongs to, if any."""
    path, _, name = function
    file = "/".join(Path(path).parts[-2:])
    return next((part for part, functions in PARTS.items() if (file, name) in functions), None)


@contextmanager
def _out_folder() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp())
    try:
        yield folder / "run"
    finally:
        shutil.rmtree(folder)


def commands(arguments: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Each method with its command."""
    side = ["--max-side", str(arguments.max_side)]
    example = Path(metriloc.__file__).parent / "data" / "example"
    reference, query = example / "reference.jpg", example / "query.jpg"
    for name in arguments.methods or (*PAIRS, *(MAPS if arguments.photos else ())):
        if name not in LOCALIZERS:
            with tempfile.TemporaryDirectory() as folder:
                copies = [Path(folder) / f"query{number}.jpg" for number in range(3)]
                for copy in copies:
                    shutil.copy(query, copy)
                yield name, ["relpose", str(reference), *map(str, copies), *side, "--method", name]
        elif arguments.photos:
            yield name, ["localize", *arguments.photos, *side, "--method", name]


def main() -> None:
    """Print one row of a table for each method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="*", help="a map, and photos of it")
    parser.add_argument("--methods", nargs="+")
    parser.add_argument("--max-side", type=int, default=640)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(
        f"{datetime.date.today()}, {platform.processor() or platform.machine()}, torch {torch.__version__}, one thread"
    )
    print("| command with | seconds | " + " | ".join((*PARTS, "rest")) + " |")
    print("|---|--:|" + "--:|" * (len(PARTS) + 1))
    for name, command in commands(arguments):
        total, parts = profiled(command)
        shares = " | ".join(f"{100 * seconds / total:.0f} %" for seconds in parts.values())
        print(f"| `{name}` | {total:.1f} | {shares} |", flush=True)


if __name__ == "__main__":
    main()
