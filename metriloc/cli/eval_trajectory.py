"""``metriloc eval trajectory ESTIMATE``: how far a trajectory is from the true one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import tyro

from metriloc.cli.terminal import EXIT_NO_POSE, complain, print_lines, text_table
from metriloc.evaluation.trajectory import Alignment, DeltaUnit, TrajectoryScore, score_trajectory, scored_rows
from metriloc.evaluation.trajectory_files import lengths_of, read_frame_times, read_trajectory
from metriloc.io import prepare_output_folder, write_atomically
from metriloc.streams.notes import Notes


def evaluate_trajectory(
    estimate: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="ESTIMATE")],
    truth: Path,
    align: Alignment = "none",
    max_difference: float = 0.01,
    delta: float = 1.0,
    delta_unit: DeltaUnit = "frames",
    offset: float = 0.0,
    out: Path | None = None,
    json_: Annotated[bool, tyro.conf.arg(name="json")] = False,
) -> int:
    """Compare a trajectory with the true one: ATE, RPE, per cent of frames found, seconds to find back when lost.

    Args:
        estimate: Folder of metriloc track or its frames.jsonl, a TUM file, a KITTI file (with times.txt beside it, else by
            number), or EuRoC's data.csv.
        truth: The true trajectory, one of the same kinds.
        align: How the estimate is moved onto the truth first: none, se3 (rigid), sim3 (with scale).
        max_difference: Seconds between two poses that belong together, at most.
        delta: Over how much motions are compared.
        delta_unit: frames or metres of it.
        offset: Seconds that are added to the times of the estimate.
        out: Folder for trajectory.json.
        json_: Print trajectory.json instead of the table.
    """
    notes = Notes()
    ours, theirs = read_trajectory(estimate, notes, offset), read_trajectory(truth, notes)
    for sentence in notes.sentences():
        complain("eval trajectory", sentence)
    options: dict[str, Any] = {"max_difference": max_difference, "delta": delta, "delta_unit": delta_unit}
    frames = read_frame_times(estimate, offset)
    unit = _unit(estimate, truth, align)
    score = score_trajectory(ours, theirs, align=align, frames=frames, **options)
    content = {"estimate": str(estimate), "truth": str(truth), "align": align, "unit": unit, **options}
    content |= score.as_dict()
    if out is not None:
        text = json.dumps(content, indent=2, allow_nan=False) + "\n"
        write_atomically(prepare_output_folder(out) / "trajectory.json", text)
    if json_:
        print(json.dumps(content, indent=2, allow_nan=False))
        return 0
    print_lines(_in_words(score, unit, align, of_frames=bool(frames)))
    return 0 if len(score.times) else EXIT_NO_POSE


def _unit(estimate: Path, truth: Path, align: Alignment) -> str:
    """Of the lengths that are compared; says where the two have different ones."""
    units = {lengths_of(truth)} if align == "sim3" else {lengths_of(estimate), lengths_of(truth)}
    if len(units) > 1:
        complain("eval trajectory", "one of the two is in metres and the other in units of a map: see --align sim3")
    return "metre" if units == {"metre"} else "unit of the map"


def _in_words(score: TrajectoryScore, unit: str, align: Alignment, of_frames: bool) -> list[str]:
    """What a person reads. of_frames: whether all frames of the estimate are known."""
    lines = text_table(scored_rows(score, "m" if unit == "metre" else "map units"))
    asked = "frames have a pose" if of_frames else "true poses have one beside them"
    lines.append(f"{score.found} of {score.total} {asked} ({score.found_percent:.1f} %)")
    lines.append(f"{len(score.times)} poses compared; alignment: {align}")
    if align == "sim3":
        lines.append(f"scale of the alignment: {score.scale:.5f}")
    if score.lost:
        worst = max(score.lost)
        lines.append(f"lost {len(score.lost)} times; found back after at most {worst[0]:.3f} s ({worst[1]} frames)")
    return lines
