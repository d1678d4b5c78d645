"""The tables of metriloc-small's model card: errors beside the rivals, and where it fails."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from jaxtyping import Float
from metriloc_small_depth import PlaceMap

from metriloc.evaluation.calibration import Target, expected_calibration_error
from metriloc.evaluation.errors import translation_error
from metriloc.evaluation.report import Table, worst_failures
from metriloc.evaluation.scoring import VCRE_FRACTION, PairScores, summarize, vcre_auc, vcre_precision
from metriloc.evaluation.statistics import Comparison, compare, wins
from metriloc.evaluation.tasks import PairTask

RIGHT = Target(rotation_deg=None, vcre_fraction=VCRE_FRACTION)
OVERLAP = 0.4


# -- what is known of the pairs besides their poses -------------------------------------------------------------------
@dataclass(frozen=True, eq=False)
class PairFacts:
    """place: of each pair. overlap: share of the surface that both photos see; see ``facts_of``."""

    place: tuple[str, ...]
    overlap: Float[np.ndarray, " n"]

    def of(self, place: str) -> np.ndarray:
        """Mask of the pairs of a place; all for ``all``."""
        return np.array([place in ("all", p) for p in self.place])


def facts_of(tasks: Sequence[PairTask], root: Path) -> tuple[PairFacts, dict[str, PlaceMap]]:
    """What ``root/pairs.csv`` (root is ``data/eval``) and the maps of the places say about the pairs.

    The list holds an overlap for the RGB-D places and a number of matches for the others (a value above 1); for those
    the share of map points within both frames takes its place, which knows nothing of what hides them.
    """
    with (root / "pairs.csv").open() as file:
        rows = {(row["scene"], row["query_path"]): row for row in csv.DictReader(file)}
    listed = [rows[task.pair.scene, task.pair.frame1.name] for task in tasks]
    maps = {place: PlaceMap(root / "places" / place) for place in dict.fromkeys(row["place"] for row in listed)}
    overlap = []
    for task, row in zip(tasks, listed, strict=True):
        value = float(row["overlap_or_inliers"])
        if value > 1:
            value = maps[row["place"]].shared(task.pair.frame0.path, task.pair.frame1.path)
        overlap.append(value)
    return PairFacts(tuple(row["place"] for row in listed), np.array(overlap)), maps


# -- errors -----------------------------------------------------------------------------------------------------------
HEAD = (
    "method",
    "with a pose",
    "VCRE precision",
    "VCRE AUC",
    "median VCRE",
    "rotation",
    "rotation, overlap > 40 %",
    "position",
    "vector t",
    "vector t / baseline",
    "ECE",
)


def errors_row(title: str, scores: PairScores, overlap: Float[np.ndarray, " n"]) -> list[str]:
    """One method on some pairs; medians over its estimates, precision and AUC over all pairs."""
    values = summarize(scores)
    vector = translation_error(scores.estimate, scores.truth).numpy()
    found = scores.metric
    large = scores.rotation_deg[(overlap > OVERLAP) & scores.estimated]
    ece = expected_calibration_error(scores.confidence[found], RIGHT.right(scores)[found]) if found.any() else math.nan
    return [
        title,
        f"{values['estimates']:.0%}",
        f"{values['VCRE precision (10 % of diagonal)']:.1%}",
        f"{values['VCRE AUC (10 % of diagonal)']:.3f}",
        _cell(values["median VCRE (% of diagonal)"], 1, " %"),
        _cell(values["median rotation error (deg)"], 2, "°"),
        _cell(_median(large), 2, "°"),
        _cell(values["median center error (m)"], 3, " m"),
        _cell(_median(vector[found]), 3, " m"),
        _cell(_median((vector / scores.baseline_m)[found]), 2, ""),
        _cell(ece, 2, ""),
    ]


def errors_table(methods: Mapping[str, PairScores], facts: PairFacts, place: str) -> Table:
    """A row a method, over the pairs of a place."""
    mask = facts.of(place)
    return [HEAD, *(errors_row(title, scores.subset(mask), facts.overlap[mask]) for title, scores in methods.items())]


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


def _cell(value: float, digits: int, unit: str) -> str:
    return "—" if math.isnan(value) else f"{value:.{digits}f}{unit}"


def rivals_table(methods: Mapping[str, PairScores], ours: str, draws: int) -> Table:
    """Our method against each other one on the same pairs: differences with their paired bootstrap intervals."""
    # a pose that is missing is infinitely far: no rival gains by keeping silent where it is hard
    numbers: dict[str, Callable[[PairScores], float]] = {
        "AUC": vcre_auc,
        "precision": vcre_precision,
        "position": lambda s: _median(s.center_m),
        "lost": lambda s: float(np.median(np.where(np.isnan(s.center_m), np.inf, s.center_m))),
    }
    rows = [
        ["rival", "VCRE AUC", "ours - rival", "median position", "ours - rival", "lost poses infinite", "nearer on"]
    ]
    model = methods[ours]
    for title, scores in methods.items():
        if title == ours:
            continue
        found = compare(scores, model, numbers, count=draws)
        better, worse, _ = wins(model.center_m, scores.center_m)
        rows.append(
            [
                title,
                f"{found['AUC'].a:.3f}",
                _difference(found["AUC"]),
                f"{found['precision'].a:.3f}",
                _difference(found["precision"]),
                f"{found['position'].a:.3f} m",
                _difference(found["position"]),
                f"{found['lost'].a:.3f} m",
                f"{better} : {worse}",
            ]
        )
    return rows


def _difference(entry: Comparison) -> str:
    d = entry.difference
    return f"{d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})"


# -- where it fails ---------------------------------------------------------------------------------------------------
def strata_table(scores: PairScores, facts: PairFacts) -> Table:
    """Our method by overlap and by how far the camera turned."""
    turned = np.rad2deg(scores.truth.angle().numpy())
    rows = [["pairs of", "pairs", *HEAD[1:]]]
    for title, values, unit, edges in (
        ("overlap", 100 * facts.overlap, " %", (0, 40, 60, 80, 101)),
        ("turn", turned, "°", (0, 15, 30, 45, 180)),
    ):
        for low, high in pairwise(edges):
            mask = (values >= low) & (values < high)
            if mask.any():
                cells = errors_row(f"{title} {low} to {high}{unit}", scores.subset(mask), facts.overlap[mask])
                rows.append([cells[0], str(int(mask.sum())), *cells[1:]])
    return rows


def worst_table(scores: PairScores, facts: PairFacts, count: int) -> Table:
    """The wrong poses that it was surest of."""
    rows = [["pair", "place", "overlap", "confidence", "rotation", "position", "baseline", "VCRE"]]
    for i in worst_failures(scores, RIGHT.right(scores), count):
        rows.append(
            [
                scores.keys[i],
                facts.place[i],
                f"{facts.overlap[i]:.0%}",
                f"{scores.confidence[i]:.2f}",
                f"{scores.rotation_deg[i]:.1f}°",
                f"{scores.center_m[i]:.2f} m",
                f"{scores.baseline_m[i]:.2f} m",
                f"{scores.vcre_fraction[i]:.0%}",
            ]
        )
    return rows
