"""How good sources of metric depth are on photos with true depth: MicKey's Table 7, a row a source."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeAlias

from metriloc.datasets.depth_frames import DepthFrame
from metriloc.evaluation.depth import (
    DepthPrediction,
    DepthScore,
    mean_depth_score,
    pooled_depth_score,
    prediction_scores,
)
from metriloc.evaluation.report import Table, number
from metriloc.io import InputError, resize_view
from metriloc.types import View

DepthPredictor: TypeAlias = Callable[[DepthFrame, View], DepthPrediction | None]
"""(photo on disk, the photo without its depth) -> what a source says of it; None where it knows nothing."""


@dataclass(frozen=True, eq=False)
class DepthRow:
    """A row of the table. name: of the source, with ``-Sc`` for its better half by score; pooled: over all pixels (or
    keypoints) together; mean: over photos; photos: with a prediction; milliseconds: a photo, median."""

    name: str
    pooled: DepthScore
    mean: DepthScore
    photos: int
    milliseconds: float


def depth_rows(
    name: str,
    predict: DepthPredictor,
    frames: Sequence[DepthFrame],
    *,
    size: tuple[int, int] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[DepthRow]:
    """One source over the photos: a row, or two where it has scores. size: (width, height) photos are resized to.

    Raises InputError for files that cannot be used, and when the source knows nothing of any photo.
    """
    scores: dict[str, list[DepthScore]] = {}
    seconds: list[float] = []
    for number_, frame in enumerate(frames, 1):
        view = frame.load() if size is None else resize_view(frame.load(), size)
        if view.depth is None:
            raise InputError(f"'{frame.path}' has no true depth map")
        start = time.perf_counter()
        found = predict(frame, View(view.image, view.camera, name=view.name))
        if found is not None:
            seconds.append(time.perf_counter() - start)
            for variant, score in prediction_scores(found, view.depth, view.size).items():
                scores.setdefault(variant, []).append(score)
        if progress is not None:
            progress(number_, len(frames))
    if not scores:
        raise InputError(f"{name} knows the depth of none of the {len(frames)} photos")
    milliseconds = 1000 * sorted(seconds)[len(seconds) // 2]
    return [
        DepthRow(name + variant, pooled_depth_score(all_), mean_depth_score(all_), len(all_), milliseconds)
        for variant, all_ in scores.items()
    ]


def depth_table(rows: Sequence[DepthRow], per_photo: bool = False) -> Table:
    """The columns of Table 7, and photos, pixels and time. per_photo: the mean over photos instead of over pixels."""
    head = ["depth", "δ1", "δ2", "δ3", "REL", "RMSE (m)", "log10", "photos", "pixels", "ms"]
    lines = []
    for row in rows:
        score = row.mean if per_photo else row.pooled
        values = (score.delta1, score.delta2, score.delta3, score.rel, score.rmse, score.log10)
        lines.append(
            [row.name, *(_digits(v) for v in values), str(row.photos), str(score.count), number(row.milliseconds)]
        )
    return [head, *lines]


def depth_results(rows: Sequence[DepthRow]) -> list[Mapping[str, Any]]:
    """The rows as data; what is not finite is None."""
    return [
        {
            "depth": row.name,
            "photos": row.photos,
            "milliseconds": row.milliseconds,
            "over_pixels": _plain(row.pooled),
            "over_photos": _plain(row.mean),
        }
        for row in rows
    ]


def of_files(suffix: str) -> DepthPredictor:
    """The data set's own estimates, ``frame.SUFFIX.png``."""

    def predict(frame: DepthFrame, view: View) -> DepthPrediction | None:
        depth = frame.estimate(suffix, view.size)
        return None if depth is None else DepthPrediction(depth)

    return predict


def name_of(source: str) -> str:
    """A short name for a row: that of a folder, of a model, of files."""
    kind, colon, value = source.partition(":")
    return Path(value).name if colon and kind in ("file", "mickey", "metric_depth") else Path(source).name or source


def _digits(value: float) -> str:
    return f"{value:.3f}" if math.isfinite(value) else number(value)


def _plain(score: DepthScore) -> dict[str, float | None]:
    return {key: value if math.isfinite(value) else None for key, value in asdict(score).items()}
