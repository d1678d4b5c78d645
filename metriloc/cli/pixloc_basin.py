"""``metriloc pixloc basin MAP QUERY...``: from how far PixLoc finds the true pose, as a table and as curves."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import torch
import tyro

from metriloc.choose import require_device
from metriloc.choose.for_maps import suited
from metriloc.cli.terminal import print_lines, progress_bar, text_table
from metriloc.evaluation.basin import HOME_PX, BasinTry, basin
from metriloc.geometry import Pose
from metriloc.io import InputError, write_atomically
from metriloc.methods.pixloc import PixLoc
from metriloc.page.charts import line_chart
from metriloc.page.document import document, escaped
from metriloc.runs.queries import QueryOptions, QueryPhoto, QuerySource
from metriloc.types import SfmMap


def pixloc_basin(
    scene: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MAP")],
    query: Annotated[tyro.conf.Positional[tuple[Path, ...]], tyro.conf.arg(metavar="QUERY...")],
    photos: Annotated[QueryOptions, tyro.conf.arg(name="photo")] = QueryOptions(),  # noqa: B008 - frozen
    pixels: tuple[float, ...] = (5.0, 10.0, 20.0, 40.0, 80.0),
    tries: int = 10,
    num_references: int = 3,
    weights: str = "pixloc-small",
    device: str = "cpu",
    seed: int = 0,
    out: Path | None = None,
) -> int:
    """Start PixLoc from random poses around the true one, and count how often it finds back.

    Args:
        scene: Folder of a COLMAP model (with --images).
        query: Photos whose true poses are known: --held-out of the map, or --truth FILE.
        photos: What is known about the photos.
        pixels: Median errors in the photo that the starts have.
        tries: Starts at each error, of each photo.
        num_references: Photos of the map to align with, those nearest to the truth.
        weights: Folder, file, bundled or hub name of PixLoc weights.
        device: cpu, cuda, cuda:1, ...
        seed: Same seed, same starts.
        out: HTML page with the curves.
    """
    if not pixels or min(pixels) <= 0 or tries < 1 or num_references < 1:
        raise InputError("--pixels must be positive, and --tries and --num-references at least 1")
    source = QuerySource.open(scene, query, photos)
    truths = [_truth_of(photo) for photo in source.queries]
    require_device(device)
    method = PixLoc.from_pretrained(weights, device=device)
    found: list[BasinTry] = []
    for photo, truth in zip(source.queries, truths, strict=True):
        view, whole = source.load(photo), source.scene_for(photo)
        names = _nearest(whole, truth, num_references)
        with progress_bar(photo.name) as bar:
            found += basin(suited(method, whole), view, whole, names, truth, pixels, tries, seed=seed, progress=bar)
    rows = [_row(error, [one for one in found if one.wanted == error]) for error in pixels]
    print("\n".join(text_table([("start, pixels", "starts", "came home", "median end, pixels"), *rows])))
    if out is not None:
        write_atomically(out, _page(found, pixels, f"{weights}: {scene}"))
        print_lines([f"written to {out}"])
    return 0


def _truth_of(photo: QueryPhoto) -> Pose:
    if photo.truth is None:
        raise InputError(f"{photo.name}: its true pose is not known: give --held-out or --truth FILE")
    return photo.truth


def _nearest(scene: SfmMap, truth: Pose, count: int) -> tuple[str, ...]:
    apart = (scene.cam_from_world.center() - truth.to(torch.float64).center()).norm(dim=-1)
    return tuple(scene.names[n] for n in apart.argsort()[:count].tolist())


def _share(tries: Sequence[BasinTry]) -> float:
    return sum(one.home() for one in tries) / max(1, len(tries))


def _row(error: float, tries: Sequence[BasinTry]) -> tuple[str, ...]:
    end = statistics.median(one.end for one in tries)
    return f"{error:g}", str(len(tries)), f"{100 * _share(tries):.0f} %", f"{end:.2f}"


def _page(found: Sequence[BasinTry], pixels: Sequence[float], title: str) -> str:
    shares = [_share([one for one in found if one.wanted == error]) for error in pixels]
    starts = sorted(one.start for one in found)
    counted = [(n + 1) / len(starts) for n in range(len(starts))]
    return document(
        "Convergence basin",
        f"<p>{escaped(title)}</p>"
        + line_chart(f"Within {HOME_PX:g} px of the truth", "start, px", "share", {"": (list(pixels), shares)})
        + line_chart("Errors of the starts", "start, px", "share of starts below", {"": (starts, counted)}),
    )
