"""The report as one HTML file that needs nothing else: tables, curves as SVG (matplotlib), failures as small pictures."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw

from metriloc.datasets.sources import PosedFrame
from metriloc.evaluation.calibration import Reliability
from metriloc.evaluation.report import Curve, Report, Table, metrics_table, number, scenes_table
from metriloc.evaluation.scoring import PairScores
from metriloc.evaluation.tasks import PairTask
from metriloc.geometry import Pose
from metriloc.io import InputError
from metriloc.io.pages import policy_tag
from metriloc.solvers.vcre import virtual_points
from metriloc.types import View

MISSING_MATPLOTLIB = 'the HTML report needs matplotlib: pip install "metriloc[viz]"'
_HEIGHT, _WIDTH = 200, 800
_TRUE, _ESTIMATED = (60, 200, 90), (230, 60, 60)
_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:2rem auto;max-width:72rem;padding:0 1rem;color:#1b1f24;background:#fff}
table{border-collapse:collapse;margin:1rem 0;font-size:13px;display:block;overflow-x:auto}
td,th{border:1px solid #d0d7de;padding:.25rem .6rem;text-align:right}td:first-child,th:first-child{text-align:left}
th{background:#f6f8fa}figure{display:inline-block;margin:.5rem 1rem .5rem 0;vertical-align:top;max-width:100%}
figcaption{font-size:12px;color:#57606a;max-width:34rem}img,svg{max-width:100%;height:auto}
@media (prefers-color-scheme:dark){body{background:#0d1117;color:#e6edf3}th{background:#161b22}td,th{border-color:#30363d}
figcaption{color:#8b949e}svg{background:#fff;border-radius:4px}}
"""


def render_page(report: Report, figures: Sequence[str] = ()) -> str:
    """The whole page. figures: HTML of ``failure_figure``. Raises ImportError, with the pip command, without matplotlib."""
    curves = "".join(f"<figure>{_svg(curve)}</figure>" for curve in report.curves)
    if report.reliability is not None:
        error = number(report.reliability.expected_error)
        note = html.escape(f"Expected calibration error {error} (right: {report.target}).")
        curves += f"<figure>{_reliability_svg(report.reliability)}<figcaption>{note}</figcaption></figure>"
    settings = [["setting", "value"], *([name, str(value)] for name, value in report.description.items())]
    parts = [
        f"<h1>{html.escape(report.title)}</h1>",
        *(f"<p>{html.escape(note)}</p>" for note in report.notes),
        html_table(metrics_table(report.metrics)),
        f"<h2>Curves</h2>{curves}" if curves else "",
        f"<h2>Scenes</h2>{html_table(scenes_table(report.scenes))}" if report.scenes else "",
        f"<h2>Worst failures</h2><p>Wrong, the surest first. Green: where virtual points of the query camera are; red: "
        f"where the estimate puts them.</p>{''.join(figures)}"
        if figures
        else "",
        f"<h2>Run</h2>{html_table(settings)}",
    ]
    return document(report.title, "".join(parts))


def document(title: str, body: str) -> str:
    """A page with the style of all reports. title: text; body: HTML already."""
    head = (
        f'<meta charset="utf-8">{policy_tag()}<meta name="viewport" content="width=device-width">'
        f"<title>{html.escape(title)}</title>"
    )
    return f'<!doctype html><html lang="en"><head>{head}<style>{_STYLE}</style></head><body>{body}</body></html>\n'


def comparison_page(title: str, sentences: Sequence[str], table: Table) -> str:
    """The page of ``eval compare``; everything is text, escaped here."""
    paragraphs = "".join(f"<p>{html.escape(sentence)}</p>" for sentence in sentences)
    return document(title, f"<h1>{html.escape(title)}</h1>{paragraphs}{html_table(table)}")


def html_table(table: Table) -> str:
    """Escaped."""
    if not table:
        return ""
    head = "".join(f"<th>{html.escape(cell)}</th>" for cell in table[0])
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in table[1:])
    return f"<table><tr>{head}</tr>{rows}</table>"


# -- curves -----------------------------------------------------------------------------------------------------------
def _svg(curve: Curve) -> str:
    return draw_lines(curve.title, curve.x_label, curve.y_label, {"": (curve.x, curve.y)})


def _reliability_svg(found: Reliability) -> str:
    ideal = np.array([0.0, 1.0])
    lines = {"ideal": (ideal, ideal), "measured": (found.confidence, found.accuracy)}
    return draw_lines("Calibration", "reported confidence", "share of poses right", lines, markers=True)


def draw_lines(
    title: str,
    x_label: str,
    y_label: str,
    lines: dict[str, tuple[np.ndarray, np.ndarray]],
    *,
    markers: bool = False,
) -> str:
    """An SVG element; lines by legend (none for an empty name)."""
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(MISSING_MATPLOTLIB) from error
    figure = Figure(figsize=(4.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for label, (x, y) in lines.items():
        axes.plot(x, y, label=label or None, marker="o" if markers and label != "ideal" else None, markersize=3)
    axes.set(title=title, xlabel=x_label, ylabel=y_label)
    axes.grid(alpha=0.3)
    if any(lines):
        axes.legend()
    buffer = io.StringIO()
    # no date and no random ids: the same report gives the same bytes
    with matplotlib.rc_context({"svg.hashsalt": title}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


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
        return f"<figure><figcaption>{html.escape(f'{caption}: {error}')}</figcaption></figure>"
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
    for xyz, colour in ((points, _TRUE), (moved, _ESTIMATED)):
        uv, valid = camera.project(xyz)
        for x, y in (uv[valid] * scale).tolist():
            draw.ellipse((x - 1.5, y - 1.5, x + 1.5, y + 1.5), fill=colour)
    joined = Image.new("RGB", (sum(p.width for p, _ in pictures) + 4, _HEIGHT), "white")
    joined.paste(pictures[0][0], (0, 0))
    joined.paste(query, (pictures[0][0].width + 4, 0))
    return f'<figure><img alt="" src="{_data_url(joined)}"><figcaption>{html.escape(caption)}</figcaption></figure>'


def query_figure(frame: PosedFrame, caption: str) -> str:
    """One photo with a sentence."""
    try:
        picture = f'<img alt="" src="{_data_url(_thumbnail(frame)[0])}">'
    except InputError as error:
        picture, caption = "", f"{caption}: {error}"
    return f"<figure>{picture}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _thumbnail(frame: PosedFrame) -> tuple[Image.Image, float]:
    view: View = frame.load(depth=False)
    array = (view.image * 255).round().byte().permute(1, 2, 0).numpy()
    scale = min(_HEIGHT / array.shape[0], _WIDTH / array.shape[1])
    size = max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale))
    return Image.fromarray(array).resize(size, Image.Resampling.LANCZOS), scale


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
