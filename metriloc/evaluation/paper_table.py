"""Matchers x depths as MicKey's Tables 3 and 6 print them: VCRE AUC and precision, median errors, time of matching."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metriloc.evaluation.report import Table, number
from metriloc.evaluation.scoring import STATISTICS, PairScores, vcre_auc, vcre_precision

OWN_DEPTH = "its own"
"""The depth of a method that measures metres itself."""


@dataclass(frozen=True)
class PaperRow:
    """One method with one depth. precision, estimates: shares of all pairs; metres, degrees: medians over estimates;
    milliseconds: median time until the matches of a query and their depths are known."""

    method: str
    depth: str
    auc: float
    precision: float
    metres: float
    degrees: float
    estimates: float
    milliseconds: float


def paper_row(method: str, depth: str, scores: PairScores) -> PaperRow:
    """The numbers of one run."""
    return PaperRow(
        method,
        depth,
        vcre_auc(scores),
        vcre_precision(scores),
        STATISTICS["median center error (m)"](scores),
        STATISTICS["median rotation error (deg)"](scores),
        STATISTICS["estimates"](scores),
        STATISTICS["median time of matching (ms)"](scores),
    )


def paper_table(rows: Sequence[PaperRow]) -> Table:
    """A row a depth, the methods one after the other."""
    head = ["method", "depth", "AUC", "Prec. (%)", "Trans (m)", "Rot (°)", "est. (%)", "ms"]
    return [
        head,
        *(
            [
                row.method,
                row.depth,
                f"{row.auc:.2f}",
                f"{100 * row.precision:.1f}",
                _digits(row.metres, 2),
                _digits(row.degrees, 2),
                f"{100 * row.estimates:.1f}",
                number(round(row.milliseconds, 1)) if row.milliseconds == row.milliseconds else number(float("nan")),
            ]
            for row in rows
        ),
    ]


def paper_results(rows: Sequence[PaperRow]) -> list[Mapping[str, Any]]:
    """The rows as data; what is not defined is None."""
    return [{k: None if v != v else v for k, v in asdict(row).items()} for row in rows]


def _digits(value: float, count: int) -> str:
    return f"{value:.{count}f}" if value == value else number(value)
