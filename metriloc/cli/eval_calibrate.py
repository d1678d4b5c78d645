"""``metriloc eval calibrate RUN``: the confidence of a method made a probability."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from metriloc.calibration import Kind, Target, save_calibration
from metriloc.evaluation import calibration as calibrating
from metriloc.evaluation.benchmarks import (
    BenchmarkName,
    BenchmarkOptions,
    load_pairs,
)
from metriloc.evaluation.records import Record, read_run
from metriloc.evaluation.runner import collect
from metriloc.evaluation.scoring import score_pairs, within
from metriloc.io import InputError


@dataclass(frozen=True)
class TargetOptions:
    """When a pose counts as right; by default rotation below 5 degrees and direction below 10."""

    rotation_deg: float | None = 5.0
    """Degrees."""
    direction_deg: float | None = 10.0
    """Degrees between true and estimated translation; for poses without metres."""
    center_m: float | None = None
    """Metres between true and estimated camera."""
    vcre_fraction: float | None = None
    """VCRE as a fraction of the diagonal, 0.1 in the MicKey paper."""
    near_m: float | None = None
    """Metres within which a position counts as in the right direction."""


def evaluate_calibrate(
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")],
    benchmark: BenchmarkName,
    part: Annotated[BenchmarkOptions, tyro.conf.arg(name="part")],
    out: Path,
    target: Annotated[TargetOptions, tyro.conf.arg(name="target")] = TargetOptions(),
    kind: Kind = "logistic",
    statistics: tuple[str, ...] | None = None,
) -> int:
    """Fit the confidence of a method on a run, so that it becomes a probability.

    Args:
        folder: Folder of the run; its photos must be none that the result is judged on.
        benchmark: What it ran on.
        part: Where it is and which part of it.
        out: File to write; name it calibration.json beside MicKey's weights to have it used.
        target: When a pose counts as right.
        kind: Logistic regression on statistics of the solver, or isotonic regression on one.
        statistics: Which; all that the run has by default.
    """
    chosen = load_pairs(benchmark, part)
    records = collect(chosen.tasks, folder)
    scores = score_pairs(chosen.tasks, records)
    bounds = Target(**dataclasses.asdict(target))
    right = within(bounds, scores)
    described = read_run(folder)
    name = "matching" if described["method"] not in ("mickey", "identity") else described["method"]
    trained_on = f"{benchmark} {part.data.resolve().name}"
    source = calibrating.FitSource(name, described["weights_id"], trained_on, _setup_of(records, folder))
    fitted = calibrating.fit_calibration(records, right, source, target=bounds, kind=kind, statistics=statistics)
    save_calibration(out, fitted)
    found = [i for i, record in enumerate(records) if record.success]
    before = [records[i].confidence for i in found]
    after = [fitted.probability(records[i].confidence, records[i].statistics) for i in found]
    print(f"{len(found)} estimates, {int(right.sum())} right ({bounds})")
    for label, values in (("before", before), ("after, on the same pairs", after)):
        error = calibrating.expected_calibration_error(np.array(values), right[found])
        print(f"expected calibration error {label}: {error:.3f}")
    print(f"written: {out}")
    return 0


def _setup_of(records: Sequence[Record], folder: Path) -> str:
    """What made the poses of a run besides the weights; one calibration fits one setup."""
    setups = sorted({record.setup for record in records if record.success})
    if len(setups) > 1:
        raise InputError(f"'{folder}' holds poses of {len(setups)} setups ({'; '.join(setups)}): run each by itself")
    return setups[0] if setups else ""
