"""``metriloc eval score``: a Map-free submission, scored as published or cleanly."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import tyro

from metriloc.cli.terminal import print_lines, text_table
from metriloc.datasets.mapfree import BLOCK_STEP
from metriloc.evaluation.mapfree import Mode, score_mapfree
from metriloc.evaluation.report import number
from metriloc.evaluation.scoring import vcre_note
from metriloc.io import InputError


def evaluate_score(
    submission: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="SUBMISSION.zip")],
    data: Path,
    mode: Literal["official", "clean", "both"] = "both",
    step: int | None = None,
    multi_frame: bool = False,
    vcre_threshold: float = 90.0,
) -> int:
    """Score a Map-free submission here, exactly as published (official) or with the known defects fixed (clean).

    Args:
        submission: The zip one would upload.
        data: Folder of the split, with poses.txt and intrinsics.txt of each scene.
        mode: Which scorer; official alone also says each warning as often as the published one.
        step: Every step-th query counts, 5 by default.
        multi_frame: Score the multi-frame track: queries 9, 19, 29 ...
        vcre_threshold: Pixels; 10 % of the diagonal of 540 x 720 by default.
    """
    if multi_frame and step is not None:
        raise InputError(f"--step {step} and --multi-frame contradict: that track has a step of its own")
    first, step = (BLOCK_STEP - 1, BLOCK_STEP) if multi_frame else (0, 5 if step is None else step)
    modes: tuple[Mode, ...] = ("official", "clean") if mode == "both" else (mode,)
    scores = [
        score_mapfree(data, submission, mode=m, step=step, first=first, vcre_threshold=vcre_threshold) for m in modes
    ]
    rows = [["metric", *modes]]
    rows += [[name, *(number(score.metrics[name]) for score in scores)] for name in scores[0].metrics]
    rows.append(["failures", *(f"{score.failures} of {score.total}" for score in scores)])
    print_lines([*text_table(rows), *vcre_note(scores[0].metrics)])
    distinct = dict.fromkeys(warning for score in scores for warning in score.about_submission)
    for warning in scores[0].warnings if mode == "official" else distinct:
        print(warning, file=sys.stderr)
    return 0
