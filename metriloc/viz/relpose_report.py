"""The report of ``metriloc relpose`` as one HTML string that needs no other file and no network.

Photos travel inside as JPEG data URIs, the style and the 3D viewer as text. Everything that comes from outside (file
names, sentences about intrinsics, method names) is escaped; numbers for the viewer go through JSON without NaN and with
``<``, ``>``, ``&`` and U+2028 escaped; a content security policy forbids every request and every other script.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from metriloc.geometry import Pose
from metriloc.page import escaped, meter, rows_table, scrolled
from metriloc.types import PairDetails, PoseEstimate, View
from metriloc.viz.markup import SoftwareFacts, intrinsics_note, picture_figure, report_page, viewer
from metriloc.viz.pictures import Picture
from metriloc.viz.scene import Scene, build_scene
from metriloc.viz.words import details_of, has_pose, offsets, verdict, view_direction
from metriloc.wording import interval, metres


@dataclass(frozen=True, eq=False)
class QueryReport:
    """One query of a report.

    Its photo, the estimate ``query_from_reference`` (batch shape ()), pictures, the truth if known.

    >>> entry = QueryReport(metriloc.load_view("query.jpg"), PoseEstimate.failure("too_few_matches"))
    >>> entry.estimate.reason
    'too_few_matches'
    """

    query: View
    estimate: PoseEstimate
    pictures: tuple[Picture, ...] = ()
    true_query_from_reference: Pose | None = None


@dataclass(frozen=True, eq=False)
class RelposeReport:
    """Everything the report of one reference and its queries shows.

    >>> report = RelposeReport("Room", metriloc.load_view("reference.jpg"), (), SoftwareFacts("1.0", "xfeat"))
    >>> len(report.queries)
    0
    """

    title: str
    reference: View
    queries: tuple[QueryReport, ...]
    software: SoftwareFacts


def relpose_report(report: RelposeReport) -> str:
    """The whole HTML document. Raises ValueError for an estimate that is not a single one (batch shape ()).

    >>> entry = QueryReport(metriloc.load_view("query.jpg"), PoseEstimate.failure("too_few_matches"))
    >>> facts = SoftwareFacts("1.0", "xfeat")
    >>> page = relpose_report(RelposeReport("Room", metriloc.load_view("reference.jpg"), (entry,), facts))
    >>> "<title>Room</title>" in page
    True
    """
    for entry in report.queries:
        if entry.estimate.pose.shape != ():
            shape = tuple(entry.estimate.pose.shape)
            raise ValueError(f"a report takes single estimates, got batch shape {shape} for {entry.query.name!r}")
    sections = [_query_section(i, entry, report.reference) for i, entry in enumerate(report.queries, 1)]
    overview = _overview(report.queries) if len(report.queries) > 1 else ""
    warnings = [f"Warning: {warning}" for warning in report.software.warnings]
    return report_page(report.title, report.reference.name, [overview, *sections], report.software, warnings)


def _state(entry: QueryReport) -> str:
    """The class of the style sheet: what must not be trusted is red, what lacks metres or certainty amber."""
    if not has_pose(entry.estimate) or entry.estimate.verdict == "failed":
        return "failed"
    return "found" if details_of(entry.estimate).metric and entry.estimate.verdict != "doubtful" else "direction"


def _overview(queries: tuple[QueryReport, ...]) -> str:
    rows = []
    for i, entry in enumerate(queries, 1):
        pose, details = entry.estimate.pose, details_of(entry.estimate)
        cells = ["no pose", "", ""]
        if has_pose(entry.estimate):
            away = metres(float(pose.distance())) if details.metric else "direction only"
            confidence = f"{float(entry.estimate.confidence):.2f} {entry.estimate.verdict}"
            cells = [away, f"{math.degrees(float(pose.angle())):.0f}°", confidence]
        name = f'<a href="#query-{i}"><bdi>{escaped(entry.query.name)}</bdi></a>'
        numbers = "".join(f"<td>{cell}</td>" for cell in cells)
        rows.append(f'<tr class="{_state(entry)}"><td class="name">{name}</td>{numbers}</tr>')
    head = "<tr><th>query</th><th>distance</th><th>turned</th><th>confidence</th></tr>"
    return scrolled(f'<table class="overview">{head}{"".join(rows)}</table>')


def _query_section(index: int, entry: QueryReport, reference: View) -> str:
    estimate = entry.estimate
    parts = [
        f'<section class="query" id="query-{index}"><h2><bdi>{escaped(entry.query.name)}</bdi></h2>',
        f'<p class="verdict {_state(entry)}">{escaped(verdict(estimate))}</p>',
    ]
    if has_pose(estimate):
        parts.append(_key_numbers(entry))
        scene = build_scene(estimate, reference, entry.query, entry.true_query_from_reference)
        parts.append(_view_of(scene) if scene is not None else "")
    parts += [picture_figure(picture) for picture in entry.pictures]
    if has_pose(estimate):
        parts.append(_pose_numbers(estimate))
    parts.append(intrinsics_note(reference=reference, query=entry.query))
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
        rows.insert(0, ("distance", f"{float(pose.distance()):.3f} m{interval(estimate.distance_interval)}"))
    if details.metric and details.scale_source:
        rows.append(("scale", escaped(details.scale_source)))
        rows += [("note", escaped(message)) for message in details.messages]
    rows.append(("inliers", f"{len(details.inliers)} (score {details.score:.1f})"))
    meaning = (
        f"the probability of {estimate.probability_of}"
        if estimate.probability_of
        else "no calibration says what it means"
    )
    bar = meter(float(estimate.confidence))
    rows.append(("confidence", f"{bar} {estimate.verdict}<br>{escaped(meaning)}"))
    if entry.true_query_from_reference is not None:
        rows += _errors(pose, entry.true_query_from_reference, details.metric)
    return rows_table(rows)


def _errors(estimated: Pose, true: Pose, metric: bool) -> list[tuple[str, str]]:
    """The differences to the true pose: rotation, camera position (metres) and direction of the baseline."""
    true = true.to(estimated.t)
    rows = [("error: rotation", f"{math.degrees(float(estimated.angle_to(true))):.2f}°")]
    if metric:
        apart = float(estimated.center_distance(true))
        rows.append(("error: position", f"{metres(apart)} (true distance {float(true.distance()):.3f} m)"))
    a, b = estimated.center().double(), true.center().double()
    if float(a.norm()) > 0 and float(b.norm()) > 0:
        angle = math.atan2(float(a.cross(b, dim=0).norm()), float(a @ b))
        rows.append(("error: direction", f"{math.degrees(angle):.2f}° between the two baselines"))
    return rows


def _view_of(scene: Scene) -> str:
    length = metres(scene.baseline) if scene.metric else "1 (no metres)"
    return viewer(scene, f"3D view of both cameras, baseline {length}", "Both cameras and the inlier points.")


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


def _timings(details: PairDetails) -> str:
    if not details.timings:
        return ""
    rows = [(stage, f"{1000 * seconds:.0f} ms") for stage, seconds in details.timings.items()]
    if len(rows) > 1 and "total" not in details.timings:
        rows.append(("total", f"{1000 * sum(details.timings.values()):.0f} ms"))
    return "<h3>Time</h3>" + rows_table(rows)
