"""``metriloc eval depth SOURCE ...``: predicted metric depth against true depth, MicKey's Table 7."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import tyro

from metriloc.choose import choose_depth
from metriloc.cli.terminal import print_lines, progress_bar, text_table
from metriloc.datasets.depth_frames import DepthFrame, read_depth_frames
from metriloc.evaluation.depth import DepthPrediction
from metriloc.evaluation.depth_table import (
    DepthPredictor,
    DepthRow,
    depth_results,
    depth_rows,
    depth_table,
    name_of,
    of_files,
)
from metriloc.evaluation.report import markdown_table
from metriloc.io import InputError, prepare_output_folder, write_atomically
from metriloc.types import View


def evaluate_depth(
    sources: Annotated[tyro.conf.Positional[tuple[str, ...]], tyro.conf.arg(metavar="SOURCE")],
    data: Path,
    scans: Path | None = None,
    depth: str | None = None,
    step: int = 1,
    resize: tuple[int, int] | None = None,
    per_photo: bool = False,
    device: str = "cpu",
    out: Path | None = None,
) -> int:
    """Compare predicted depth with true depth; of MicKey also its better half by score (-Sc).

    Args:
        sources: metriloc-depth, metriloc-small, mickey:FOLDER, hub:OWNER/NAME, constant:METRES, or file:NAME for the data
            set's maps frame.NAME.png (file:dptkitti).
        data: Scenes with depth maps (Map-free form, ScanNet scans, 7-Scenes, TUM, RGB-D), a folder with rgb/ and depth/
            (NYUv2-like), or with --scans ScanNet's list of pairs.
        scans: Folder that the names of ScanNet's list are relative to.
        depth: NAME of the true maps frame.NAME.png, where it is not the form's own.
        step: Every step-th photo counts.
        resize: WIDTH HEIGHT that photos are resized to.
        per_photo: Means over photos instead of over all pixels.
        device: cpu, cuda, cuda:1, ...
        out: Folder for depth.json and depth.md.
    """
    if not sources:
        raise InputError("name at least one source of depth, such as metriloc-depth")
    if step < 1 or (resize is not None and min(resize) < 1):
        raise InputError(f"--step {step} and --resize {resize}: all must be positive")
    frames = read_depth_frames(data, scans=scans, depth=depth)[::step]
    rows: list[DepthRow] = []
    for source in sources:
        predict = _predictor(source, device)
        with progress_bar(name_of(source)) as progress:
            rows += depth_rows(name_of(source), predict, frames, size=resize, progress=progress)
    table = depth_table(rows, per_photo)
    how = "mean over photos" if per_photo else "over all pixels with a true depth (of MicKey: over keypoints)"
    print_lines([*text_table(table), f"{len(frames)} photos; {how}; no scale is aligned"])
    if out is not None:
        out = prepare_output_folder(out)
        content = {"data": str(data), "resize": resize, "step": step, "rows": depth_results(rows)}
        write_atomically(out / "depth.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
        write_atomically(out / "depth.md", markdown_table(table))
        print_lines([f"written to {out}: depth.json, depth.md"])
    return 0


def _predictor(source: str, device: str) -> DepthPredictor:
    if source in ("file", "none"):
        raise InputError(f"{source!r} predicts no depth; the data set's own estimates are file:NAME")
    if source.startswith("file:"):
        return of_files(source.removeprefix("file:"))
    chosen = choose_depth(source, device)

    def predict(_frame: DepthFrame, view: View) -> DepthPrediction | None:
        return chosen(view)

    return predict
