"""What a run amounts to, as data: numbers with intervals, scenes, curves, worst failures; written as JSON and Markdown.

The page for a browser is :mod:`metriloc.evaluation.page`.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from metriloc.calibration import Target
from metriloc.evaluation.absolute import AbsoluteScore
from metriloc.evaluation.calibration import Reliability, reliability
from metriloc.evaluation.curves import PrecisionCurve, abstention_curve, precision_curve
from metriloc.evaluation.mapfree import MapfreeScore
from metriloc.evaluation.records import Record
from metriloc.evaluation.scoring import VCRE_FRACTION, VCRE_MEANING, PairScores, per_scene, scannet_summary, within
from metriloc.evaluation.statistics import Comparison, Interval, intervals
from metriloc.io import write_atomically

Table = Sequence[Sequence[str]]
"""Rows of cells, the head first."""


@dataclass(frozen=True, eq=False)
class Curve:
    """A line of a plot. x and y: its points; label: of the legend."""

    title: str
    x_label: str
    y_label: str
    x: Float[ndarray, " n"]
    y: Float[ndarray, " n"]


@dataclass(frozen=True, eq=False)
class Report:
    """Everything a report shows. metrics: with 95 % intervals (NaN where none was made); scenes: metrics of each scene;
    notes: sentences about how it was scored and what went wrong."""

    title: str
    description: Mapping[str, Any]
    metrics: Mapping[str, Interval]
    scenes: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    curves: Sequence[Curve] = ()
    reliability: Reliability | None = None
    target: Target | None = None
    worst: Sequence[int] = ()
    notes: Sequence[str] = ()


def pair_report(
    title: str,
    description: Mapping[str, Any],
    scores: PairScores,
    records: Sequence[Record],
    *,
    draws: int = 1000,
    official: Sequence[MapfreeScore] = (),
    scannet: bool = False,
) -> Report:
    """The report of pairs. official: results of the Map-free scorer to print beside ours; scannet: add its protocol."""
    metrics = dict(intervals(scores, count=draws))
    for score in official:
        for name, value in score.metrics.items():
            metrics[f"Map-free ({score.mode}): {name}"] = Interval(value, math.nan, math.nan)
    if scannet:
        for name, value in scannet_summary(scores).items():
            metrics[f"ScanNet: {name}"] = Interval(value, math.nan, math.nan)
    target = _target(scores)
    right = within(target, scores)
    found = scores.estimated
    notes = _notes(target, scores, records)
    notes += [warning for score in official for warning in score.about_submission[:20]]
    return Report(
        title,
        description,
        metrics,
        per_scene(scores),
        _curves(scores, right),
        reliability(scores.confidence[found], right[found]) if found.any() else None,
        target,
        worst_failures(scores, right),
        notes,
    )


def _notes(target: Target, scores: PairScores, records: Sequence[Record]) -> list[str]:
    """What has to be known to read the numbers."""
    notes = [VCRE_MEANING, f"A pose counts as right in the curves when: {target}."]
    lost = [record for record in records if record.reason is not None]
    if lost:
        reasons = sorted({str(record.reason) for record in lost})
        notes.append(f"{len(lost)} of {len(records)} pairs have no pose: {'; '.join(reasons[:5])}.")
    unscaled = int((scores.estimated & ~scores.metric).sum())
    if unscaled:
        notes.append(
            f"{unscaled} estimates have no metres; they count as failures in every metric number, not in angular ones."
        )
    return notes


def _target(scores: PairScores) -> Target:
    """Right by VCRE where there are metres, by angles where there are none."""
    if scores.metric.any():
        return Target(rotation_deg=None, vcre_fraction=VCRE_FRACTION)
    return Target(rotation_deg=5, direction_deg=10)


def _curves(scores: PairScores, right: ndarray) -> list[Curve]:
    found = scores.estimated
    curve: PrecisionCurve = precision_curve(scores.confidence[found], right[found], int((~found).sum()))
    coverage, rotation = abstention_curve(scores.confidence[found], scores.rotation_deg[found])
    errors = np.sort(np.where(np.isnan(scores.rotation_deg), np.inf, scores.rotation_deg))
    share = (np.arange(len(errors)) + 1) / max(len(errors), 1)
    near = errors <= 30
    return [
        Curve("Precision over coverage", "share of pairs kept", "share of them right", curve.recall, curve.precision),
        Curve(
            "Abstention: rotation error of what is kept",
            "share of estimates kept, surest first",
            "median rotation error (deg)",
            coverage,
            rotation,
        ),
        Curve("Rotation error", "degrees", "share of pairs below", errors[near], share[near]),
    ]


def worst_failures(scores: PairScores, right: ndarray, count: int = 8) -> list[int]:
    """Indices of the wrong estimates, the surest first: what a user would be misled by."""
    wrong = np.flatnonzero(scores.estimated & ~right)
    order = np.argsort(-scores.confidence[wrong], kind="stable")
    return [int(i) for i in wrong[order][:count]]


def absolute_report(title: str, description: Mapping[str, Any], score: AbsoluteScore, scenes: Sequence[str]) -> Report:
    """The report of queries in maps. scenes: of each query."""
    parts: dict[str, dict[str, float]] = {}
    for scene in dict.fromkeys(scenes):
        index = [i for i, s in enumerate(scenes) if s == scene]
        part = dataclasses.replace(
            score,
            names=tuple(score.names[i] for i in index),
            center_m=score.center_m[index],
            rotation_deg=score.rotation_deg[index],
        )
        parts[scene] = {"queries": float(len(index)), **absolute_numbers(part)}
    metrics = {name: Interval(value, math.nan, math.nan) for name, value in absolute_numbers(score).items()}
    lost = int(np.isinf(score.center_m).sum())
    notes = [f"{lost} of {len(score.names)} queries have no pose; they count as infinitely far and 180 degrees off."]
    order = np.argsort(-score.center_m, kind="stable")
    return Report(title, description, metrics, parts, worst=[int(i) for i in order[:8]], notes=notes)


def absolute_numbers(score: AbsoluteScore) -> dict[str, float]:
    """Medians, and percent within each threshold pair."""
    numbers = {
        "median center error (m)": score.median_center_m,
        "median rotation error (deg)": score.median_rotation_deg,
    }
    for (metres, degrees), recall in zip(score.thresholds, score.recalls, strict=True):
        numbers[f"within {metres * 100:g} cm, {degrees:g} deg (%)"] = recall
    return numbers


# -- tables -----------------------------------------------------------------------------------------------------------
def metrics_table(metrics: Mapping[str, Interval]) -> Table:
    """Name, value, interval."""
    rows = [["metric", "value", "95 % interval"]]
    for name, interval in metrics.items():
        known = math.isfinite(interval.low)
        rows.append(
            [name, number(interval.value), f"{number(interval.low)} to {number(interval.high)}" if known else ""]
        )
    return rows


def scenes_table(scenes: Mapping[str, Mapping[str, float]]) -> Table:
    """A row a scene."""
    if not scenes:
        return []
    names = list(next(iter(scenes.values())))
    rows = [["scene", *names]]
    return rows + [[scene, *(number(values[name]) for name in names)] for scene, values in scenes.items()]


def comparison_table(comparison: Mapping[str, Comparison], a: str, b: str) -> Table:
    """Both values, their difference with its interval, and whether it is clear."""
    rows = [["metric", a, b, "difference", "95 % interval", "clear"]]
    for name, entry in comparison.items():
        d = entry.difference
        interval = f"{number(d.low)} to {number(d.high)}" if math.isfinite(d.low) else ""
        rows.append([name, number(entry.a), number(entry.b), number(d.value), interval, "yes" if entry.clear else "no"])
    return rows


def markdown_table(table: Table) -> str:
    """GitHub's kind; a ``|`` in a cell is escaped."""
    if not table:
        return ""

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

    return "\n".join([line(table[0]), line(["---"] * len(table[0])), *(line(row) for row in table[1:])]) + "\n"


def number(value: float) -> str:
    """Four digits; an em dash for what is not defined, and ``inf`` for what has no bound."""
    if not math.isfinite(value):
        return "—" if math.isnan(value) else f"{value:g}"
    if value == round(value) and abs(value) < 1e6:
        return f"{value:g}"
    return f"{value:.4g}"


# -- files ------------------------------------------------------------------------------------------------------------
def as_markdown(report: Report) -> str:
    """The report as text."""
    parts = [
        f"# {report.title}\n",
        *(f"{note}\n" for note in report.notes),
        markdown_table(metrics_table(report.metrics)),
    ]
    if report.scenes:
        parts += ["## Scenes\n", markdown_table(scenes_table(report.scenes))]
    settings = [["setting", "value"], *([name, str(value)] for name, value in report.description.items())]
    parts += ["## Run\n", markdown_table(settings)]
    return "\n".join(parts)


def as_json(report: Report) -> str:
    """The report as data; what is not defined is null."""
    content: dict[str, Any] = {
        "title": report.title,
        "run": dict(report.description),
        "notes": list(report.notes),
        "metrics": {name: dataclasses.asdict(interval) for name, interval in report.metrics.items()},
        "scenes": {scene: dict(values) for scene, values in report.scenes.items()},
        "curves": {curve.title: {"x": curve.x.tolist(), "y": curve.y.tolist()} for curve in report.curves},
    }
    if report.reliability is not None:
        content["calibration"] = {
            "target": str(report.target),
            "expected calibration error": report.reliability.expected_error,
            "confidence": report.reliability.confidence.tolist(),
            "accuracy": report.reliability.accuracy.tolist(),
            "count": report.reliability.count.tolist(),
        }
    return json.dumps(_plain(content), indent=2, allow_nan=False) + "\n"


def write_report(folder: Path, report: Report, page: str | None) -> list[Path]:
    """``report.json``, ``report.md`` and, if given, ``report.html``; returns their paths."""
    files = {"report.json": as_json(report), "report.md": as_markdown(report)}
    if page is not None:
        files["report.html"] = page
    for name, text in files.items():
        write_atomically(folder / name, text)
    return [folder / name for name in files]


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
