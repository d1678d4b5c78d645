"""The report as one HTML file that needs nothing else: tables, curves as SVG, failures as small pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from metriloc.datasets.sources import PosedFrame
from metriloc.evaluation.calibration import Reliability
from metriloc.evaluation.report import Report, Table, metrics_table, number, scenes_table
from metriloc.evaluation.scoring import PairScores
from metriloc.evaluation.tasks import PairTask
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.page import data_uri, document, escaped, figure, figures, line_chart, rows_table, table
from metriloc.solvers.vcre import virtual_points
from metriloc.types import View

_HEIGHT, _WIDTH = 200, 800
_TRUE, _ESTIMATED = (60, 200, 90), (230, 60, 60)


def render_page(report: Report, failures: Sequence[str] = ()) -> str:
    """The whole page. failures: HTML of ``failure_figure`` or ``query_figure``."""
    charts = [line_chart(c.title, c.x_label, c.y_label, {"": (c.x, c.y)}) for c in report.curves]
    if report.reliability is not None:
        charts.append(_reliability_chart(report.reliability))
        error = number(report.reliability.expected_error)
        charts.append(figure("", "Calibration", f"Expected calibration error {error} (right: {report.target})."))
    what = "Wrong, the surest first. Green: where virtual points of the query camera are; red: where the estimate puts them."
    parts = [
        f"<h1>{escaped(report.title)}</h1>",
        *(f"<p>{escaped(note)}</p>" for note in report.notes),
        table(metrics_table(report.metrics)),
        f"<h2>Curves</h2>{figures(charts)}" if charts else "",
        f"<h2>Scenes</h2>{table(scenes_table(report.scenes))}" if report.scenes else "",
        f"<h2>Worst failures</h2><p>{what}</p>{figures(failures)}" if failures else "",
        f"<h2>Run</h2>{rows_table((name, escaped(value)) for name, value in report.description.items())}",
    ]
    return document(report.title, "\n".join(part for part in parts if part))


def comparison_page(title: str, sentences: Sequence[str], rows: Table, pictures: Sequence[str] = ()) -> str:
    """The page of ``eval compare``; title, sentences and rows are text, escaped here. pictures: HTML of ``figure``."""
    paragraphs = "".join(f"<p>{escaped(sentence)}</p>" for sentence in sentences)
    return document(title, "\n".join([f"<h1>{escaped(title)}</h1>", paragraphs, table(rows), *pictures]))


def _reliability_chart(found: Reliability) -> str:
    ideal = np.array([0.0, 1.0])
    lines = {"measured": (found.confidence, found.accuracy), "ideal": (ideal, ideal)}
    return line_chart("Calibration", "reported confidence", "share of poses right", lines, markers=("measured",))


# -- failures ---------------------------------------------------------------------------------------------------------
def failure_figure(task: PairTask, scores: PairScores, index: int) -> str:
    """Reference and query side by side, virtual points in the query; a sentence where a photo cannot be read."""
    caption = (
        f"{task.key}: rotation {number(scores.rotation_deg[index])}°, direction {number(scores.direction_deg[index])}°, "
        f"position {number(scores.center_m[index])} m, confidence {number(scores.confidence[index])}"
    )
    try:
        pictures = [_thumbnail(task.pair.frame0), _thumbnail(task.pair.frame1)]
    except InputError as error:
        return figure("", note=f"{caption}: {error}")
    query, scale = pictures[1]
    camera = task.pair.frame1.camera.to(torch.float64)
    points = virtual_points()
    estimate = scores.estimate[index]
    if not scores.metric[index]:
        # without metres the length of t means nothing: drawn as if it were known
        estimate = Pose(estimate.R, estimate.t / estimate.t.norm() * scores.truth[index].distance())
        caption += " (no metres: drawn at the true distance)"
    moved = (estimate @ scores.truth[index].inverse()).transform(points)
    draw = ImageDraw.Draw(query)
    for xyz, color in ((points, _TRUE), (moved, _ESTIMATED)):
        uv, valid = camera.project(xyz)
        for x, y in (uv[valid] * scale).tolist():
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=color)
    joined = Image.new("RGB", (sum(p.width for p, _ in pictures) + 4, _HEIGHT), "white")
    joined.paste(pictures[0][0], (0, 0))
    joined.paste(query, (pictures[0][0].width + 4, 0))
    return figure(_data_url(joined), note=caption, size=joined.size)


def query_figure(frame: PosedFrame, caption: str) -> str:
    """One photo with a sentence."""
    try:
        picture = _thumbnail(frame)[0]
    except InputError as error:
        return figure("", note=f"{caption}: {error}")
    return figure(_data_url(picture), note=caption, size=picture.size)


def _thumbnail(frame: PosedFrame) -> tuple[Image.Image, float]:
    view: View = frame.load(depth=False)
    array = (view.image * 255).round().byte().permute(1, 2, 0).numpy()
    scale = min(_HEIGHT / array.shape[0], _WIDTH / array.shape[1])
    size = max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale))
    return Image.fromarray(array).resize(size, Image.Resampling.LANCZOS), scale


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return data_uri(buffer.getvalue(), "jpeg")
