"""The report of ``metriloc relpose`` as one HTML string that needs no other file and no network.

Photos travel inside as JPEG data URIs, the style and the 3D viewer as text. Everything that comes from outside (file
names, sentences about intrinsics, method names) is escaped; numbers for the viewer go through JSON without NaN and with
``<``, ``>``, ``&`` and U+2028 escaped; a content security policy forbids every request and every other script.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import unicodedata
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

from metriloc.geometry import Pose
from metriloc.types import PairDetails, PoseEstimate, View
from metriloc.viz.pictures import Rgb, encode_jpeg, shrink
from metriloc.viz.scene import Scene, build_scene
from metriloc.viz.words import details_of, has_pose, metres, offsets, verdict, view_direction

PICTURE_SIDE = 1000
"""Longest side of a picture in the report, pixels."""


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture of the report: a title, the pixels, and perhaps a sentence that explains them."""

    title: str
    rgb: Rgb
    note: str = ""


@dataclass(frozen=True, eq=False)
class QueryReport:
    """One query: its photo, the estimate ``query_from_reference`` (batch shape ()), pictures, the truth if known."""

    query: View
    estimate: PoseEstimate
    pictures: tuple[Picture, ...] = ()
    true_query_from_reference: Pose | None = None


@dataclass(frozen=True)
class SoftwareFacts:
    """What would be needed to get the same answer again; date as text, e.g. ISO 8601."""

    version: str
    method: str
    weights: str = ""
    seed: int = 0
    date: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class RelposeReport:
    """Everything the report of one reference and its queries shows."""

    title: str
    reference: View
    queries: tuple[QueryReport, ...]
    software: SoftwareFacts


def relpose_report(report: RelposeReport) -> str:
    """The whole HTML document. Raises ValueError for an estimate that is not a single one (batch shape ())."""
    for entry in report.queries:
        if entry.estimate.pose.shape != ():
            shape = tuple(entry.estimate.pose.shape)
            raise ValueError(f"a report takes single estimates, got batch shape {shape} for {entry.query.name!r}")
    folder = resources.files("metriloc.viz")
    script = folder.joinpath("viewer.js").read_text(encoding="utf-8")
    sections = [_query_section(i, entry, report.reference) for i, entry in enumerate(report.queries, 1)]
    return Template(folder.joinpath("template.html").read_text(encoding="utf-8")).substitute(
        title=_text(report.title),
        reference=_text(report.reference.name),
        overview=_overview(report.queries) if len(report.queries) > 1 else "",
        queries="\n".join(sections),
        software=_software(report.software),
        warnings="".join(f'<p class="warning">Warning: {_text(w)}</p>' for w in report.software.warnings),
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
    )


def _text(value: object) -> str:
    """Escaped for HTML text and quoted attributes; what cannot be shown or written as UTF-8 becomes visible."""
    shown = "".join(
        c if c.isprintable() or unicodedata.category(c) == "Zs" else c.encode("unicode_escape").decode()
        for c in str(value)
    )
    return html.escape(shown, quote=True)


def _json(value: Any) -> str:
    """JSON that is safe inside <script>: ASCII only, no <, > or &; ValueError for NaN and infinity."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _data_uri(rgb: Rgb, quality: int = 82) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(rgb, quality)).decode("ascii")


def _rows(rows: list[tuple[str, str]]) -> str:
    """A two-column table; the second column is HTML already."""
    return "<table>" + "".join(f'<tr><th scope="row">{_text(k)}</th><td>{v}</td></tr>' for k, v in rows) + "</table>"


def _state(estimate: PoseEstimate) -> str:
    if not has_pose(estimate):
        return "failed"
    return "found" if details_of(estimate).metric else "direction"


def _overview(queries: tuple[QueryReport, ...]) -> str:
    rows = []
    for i, entry in enumerate(queries, 1):
        pose, details = entry.estimate.pose, details_of(entry.estimate)
        cells = ["no pose", "", ""]
        if has_pose(entry.estimate):
            away = metres(float(pose.distance())) if details.metric else "direction only"
            cells = [away, f"{math.degrees(float(pose.angle())):.0f}°", f"{float(entry.estimate.confidence):.2f}"]
        name = f'<a href="#query-{i}"><bdi>{_text(entry.query.name)}</bdi></a>'
        numbers = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr class="{_state(entry.estimate)}"><td class="name">{name}</td>{numbers}</tr>')
    head = "<tr><th>query</th><th>distance</th><th>turned</th><th>confidence</th></tr>"
    return f'<table class="overview">{head}{"".join(rows)}</table>'


def _query_section(index: int, entry: QueryReport, reference: View) -> str:
    estimate = entry.estimate
    parts = [
        f'<section class="query" id="query-{index}"><h2><bdi>{_text(entry.query.name)}</bdi></h2>',
        f'<p class="verdict {_state(estimate)}">{_text(verdict(estimate))}</p>',
    ]
    if has_pose(estimate):
        parts.append(_key_numbers(entry))
        scene = build_scene(estimate, reference, entry.query, entry.true_query_from_reference)
        parts.append(_viewer(scene) if scene is not None else "")
    parts += [_picture(picture) for picture in entry.pictures]
    if has_pose(estimate):
        parts.append(_pose_numbers(estimate))
    parts.append(_intrinsics(reference, entry.query))
    parts.append(_timings(details_of(estimate)))
    return "\n".join(parts) + "\n</section>"


def _key_numbers(entry: QueryReport) -> str:
    estimate, details = entry.estimate, details_of(entry.estimate)
    pose, unit = estimate.pose, " m" if details.metric else ""
    rows = [
        ("stood", offsets(pose, unit) + (" of the reference camera" if unit else " (length 1: a direction)")),
        ("looks", f"{view_direction(pose)} of where the reference camera looks"),
        ("turned", f"{math.degrees(float(pose.angle())):.2f}° in all"),
    ]
    if details.metric:
        rows.insert(0, ("distance", f"{float(pose.distance()):.3f} m"))
    if details.metric and details.scale_source:
        rows.append(("scale", _text(details.scale_source)))
    rows.append(("inliers", f"{len(details.inliers)} (score {details.score:.1f})"))
    rows.append(("confidence", _confidence(float(estimate.confidence))))
    if entry.true_query_from_reference is not None:
        rows += _errors(pose, entry.true_query_from_reference, details.metric)
    return _rows(rows)


def _confidence(value: float) -> str:
    return f'<meter min="0" max="1" value="{value:.3f}"></meter> {value:.2f}'


def _errors(estimated: Pose, true: Pose, metric: bool) -> list[tuple[str, str]]:
    """The differences to the true pose: rotation, camera position (metres) and direction of the baseline."""
    true = true.to(estimated.t)
    rows = [("error: rotation", f"{math.degrees(float((estimated @ true.inverse()).angle())):.2f}°")]
    if metric:
        apart = float((estimated.center() - true.center()).norm())
        rows.append(("error: position", f"{metres(apart)} (true distance {float(true.distance()):.3f} m)"))
    a, b = estimated.center().double(), true.center().double()
    if float(a.norm()) > 0 and float(b.norm()) > 0:
        angle = math.atan2(float(a.cross(b, dim=0).norm()), float(a @ b))
        rows.append(("error: direction", f"{math.degrees(angle):.2f}° between the two baselines"))
    return rows


def _viewer(scene: Scene) -> str:
    images = [_data_uri(f.thumbnail, 75) if f.thumbnail is not None else None for f in scene.frusta]
    length = metres(scene.baseline) if scene.metric else "1 (no metres)"
    return (
        '<figure class="viewer"><div class="stage">'
        f'<canvas tabindex="0" role="img" aria-label="3D view of both cameras, baseline {length}"></canvas>'
        '<button type="button">Reset view</button></div>'
        f'<script type="application/json">{_json(scene.to_json(images))}</script>'
        "<figcaption>Both cameras and the inlier points. Drag to turn; pinch, or click and use the wheel, to zoom."
        "<noscript> The 3D view needs JavaScript.</noscript></figcaption></figure>"
    )


def _picture(picture: Picture) -> str:
    rgb = shrink(picture.rgb, PICTURE_SIDE)
    note = f" {_text(picture.note)}" if picture.note else ""
    return (
        f'<figure><img src="{_data_uri(rgb)}" width="{rgb.shape[1]}" height="{rgb.shape[0]}" '
        f'alt="{_text(picture.title)}"><figcaption><b>{_text(picture.title)}.</b>{note}</figcaption></figure>'
    )


def _pose_numbers(estimate: PoseEstimate) -> str:
    pose, metric = estimate.pose, details_of(estimate).metric
    unit = "metres" if metric else "no metres: the translation has only a direction"
    matrix = "\n".join(" ".join(f"{float(v):9.6f}" for v in row) for row in pose.matrix())
    quaternion = " ".join(f"{float(v):9.6f}" for v in pose.quaternion())
    translation = " ".join(f"{float(v):9.6f}" for v in pose.t)
    center = " ".join(f"{float(v):9.6f}" for v in pose.center())
    return (
        "<h3>Pose</h3><p><code>query_from_reference</code> takes points from the frame of the reference camera to the "
        f"frame of the query camera (x right, y down, z forward; {unit}).</p>"
        f"<pre>{matrix}</pre>"
        f"<p>Quaternion w x y z, and translation:</p><pre>{quaternion}\n{translation}</pre>"
        f"<p>Centre of the query camera in the frame of the reference camera:</p><pre>{center}</pre>"
    )


def _intrinsics(reference: View, query: View) -> str:
    rows = []
    for role, view in (("reference", reference), ("query", query)):
        camera = view.camera
        f, c, size = ([float(v) for v in values] for values in (camera.f, camera.c, camera.size))
        field = f", {math.degrees(2 * math.atan(size[0] / 2 / f[0])):.0f}° wide" if camera.model != "fisheye" else ""
        lens = "" if not camera.distortion.numel() else " " + " ".join(f"{float(v):.4g}" for v in camera.distortion)
        numbers = f"{size[0]:.0f}×{size[1]:.0f} px, f {f[0]:.1f} {f[1]:.1f}, c {c[0]:.1f} {c[1]:.1f}{field}; "
        rows.append((role, f"{numbers}{camera.model}{lens}<br>source: {_text(view.intrinsics_source)}"))
    return "<h3>Intrinsics</h3>" + _rows(rows)


def _timings(details: PairDetails) -> str:
    if not details.timings:
        return ""
    rows = [(stage, f"{1000 * seconds:.0f} ms") for stage, seconds in details.timings.items()]
    if len(rows) > 1 and "total" not in details.timings:
        rows.append(("total", f"{1000 * sum(details.timings.values()):.0f} ms"))
    return "<h3>Time</h3>" + _rows(rows)


def _software(facts: SoftwareFacts) -> str:
    rows = [("metriloc", facts.version), ("method", facts.method), ("weights", facts.weights), ("seed", facts.seed)]
    rows.append(("date", facts.date))
    return _rows([(name, _text(value)) for name, value in rows if value != ""])
