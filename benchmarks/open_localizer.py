"""What a photo costs on an open Localizer beside its own passes through the networks, and whether a bundle answers alike.

    python benchmarks/open_localizer.py PLACE --methods nre nre-xfeat pixloc xfeat-pnp [--bundle FILE.metriloc]

PLACE is a folder with sparse/ and photos. Each photo is looked for in the map that it is of, whose features are at hand
(from --bundle, or looked at before). Beside the time of the whole query stands that of the bare networks: each pass that
the query took, once more, on the same pixels. The numbers are in docs/localization.md.
"""

from __future__ import annotations

import argparse
import datetime
import os
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import metriloc
from metriloc.backbones.aliked import Aliked
from metriloc.backbones.xfeat import XFeat
from metriloc.io.maps import load_map_view
from metriloc.methods.pixloc.extractor import NetworkExtractor
from metriloc.types import View

PASSES = ((XFeat, "__call__"), (XFeat, "dense"), (Aliked, "dense"), (NetworkExtractor, "__call__"))


@contextmanager
def recorded(passes: list[Callable[[], Any]]) -> Iterator[None]:
    """Every pass through a network, to be done again."""
    originals = {(kind, name): getattr(kind, name) for kind, name in PASSES}

    def watched(original: Callable[..., Any]) -> Callable[..., Any]:
        def run(self: Any, *arguments: Any) -> Any:
            passes.append(lambda: original(self, *arguments))
            return original(self, *arguments)

        return run

    try:
        for (kind, name), original in originals.items():
            setattr(kind, name, watched(original))
        yield
    finally:
        for (kind, name), original in originals.items():
            setattr(kind, name, original)


def seconds(run: Callable[[], Any], times: int = 3) -> float:
    """Processor time, the least of some."""
    found = []
    for _ in range(times):
        start = time.process_time()
        run()
        found.append(time.process_time() - start)
    return min(found)


def cost(localizer: metriloc.Localizer, view: View) -> tuple[float, float, int]:
    """Seconds of a query and of its bare passes, and how many these are; the features of the map are there already."""
    localizer.localize(view)
    passes: list[Callable[[], Any]] = []
    with recorded(passes):
        localizer.localize(view)
    return seconds(lambda: localizer.localize(view)), seconds(lambda: [run() for run in passes]), len(passes)


def main() -> None:
    """One row a method."""
    parser = argparse.ArgumentParser()
    parser.add_argument("place", type=Path)
    parser.add_argument("--methods", nargs="+", default=["nre", "nre-xfeat", "pixloc", "xfeat-pnp"])
    parser.add_argument("--bundle", type=Path)
    parser.add_argument("--step", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    scene = metriloc.read_map(arguments.place / "sparse", arguments.place)
    print(f"{datetime.date.today()}, {torch.get_num_threads()} thread, load {os.getloadavg()[0]:.1f}")
    print("| method | queries | a query | its bare passes | ratio (median) | from the map and the bundle differ by |")
    for name in arguments.methods:
        rows, apart = [], []
        opened = metriloc.Localizer(scene, method=name)
        bundled = None if arguments.bundle is None else metriloc.Localizer(arguments.bundle, method=name)
        for image in range(0, len(scene), arguments.step):
            view = load_map_view(scene, image)
            rows.append(cost(opened, view))
            if bundled is not None:
                pair = opened.localize(view), bundled.localize(view)
                assert bool(pair[0].success) == bool(pair[1].success)
                apart.append(float(pair[0].pose.center_distance(pair[1].pose)) if bool(pair[0].success) else 0.0)
        whole, bare = (statistics.median(row[k] for row in rows) for k in (0, 1))
        ratio = statistics.median(row[0] / row[1] for row in rows)
        shown = f"{max(apart):.1e}" if apart else "-"
        print(f"| {name} | {len(rows)} | {whole:.2f} s | {bare:.2f} s | {ratio:.2f} | {shown} |", flush=True)


if __name__ == "__main__":
    main()
