"""The report of ``metriloc localize`` as one HTML string, and its pictures: points stage by stage, loss maps, costs, 3D.

Same page, style and safety as the report of ``metriloc relpose``: nothing is loaded from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from metriloc.geometry import Pose
from metriloc.page import data_uri, escaped, figure, meter, rows_table, scrolled
from metriloc.types import PoseEstimate, Stage
from metriloc.viz.curves import course_picture
from metriloc.viz.features import confidence_picture, feature_picture
from metriloc.viz.localized import LocalizedQuery, pose_errors, shown_points
from metriloc.viz.loss_maps import coarse_and_fine, evidence_picture, point_pictures
from metriloc.viz.map_scene import map_scene
from metriloc.viz.marks import marked_photo, marks_of
from metriloc.viz.markup import SoftwareFacts, intrinsics_note, picture_figure, report_page, viewer
from metriloc.viz.pictures import Picture
from metriloc.viz.point_chooser import point_chooser
from metriloc.viz.stage_errors import stage_errors
from metriloc.viz.words import FAILURES, has_pose

PICTURES = ("points", "evidence", "maps", "features", "confidences", "cost")
"""Names that ``localization_pictures`` may give."""
_VIEW = "3D view of the cameras and the points of the map"
_VIEW_NOTE = (
    "The query, the photos of the map it was compared with, and the points they see, in the frame of the first "
    "reference camera; metres if the map is in metres. Green dots: the way of an alignment."
)
_FAILURES = {
    **FAILURES,
    "too_few_points": "too few points of the map are in view, of the references or from where the search began.",
    "no_photo": "the photo could not be read.",
    "no_reference": "no photo of the map could be compared with the query.",
    "degenerate": "what is recognised in the photo does not fix a pose. It lies on one line, or is too little.",
    "flat_maps": "nothing in the photo tells one place from another. It may be black, blurred or of a bare wall.",
    "unsupported": "too little speaks for any pose. The photo may show another place than the references.",
    "diverged": "the search ended where the photo does not support the pose. The references may show another place.",
}


def localization_pictures(entry: LocalizedQuery) -> dict[str, Picture]:
    """The pictures of a localization by file name. There are those for which the method tells what they need. Raises
    ImportError without matplotlib."""
    pictures = {}
    marks = marks_of(entry.details.stages, entry.truth)
    xyz = shown_points(entry)
    if marks and len(xyz):
        shown = marked_photo(entry.query, marks, xyz)
        note = f"{len(xyz)} points of the map where each stage puts them; thin lines join the stages."
        pictures["points"] = Picture("Points of the map in the photo", shown, note)
    coarse, fine = coarse_and_fine(entry.trace)
    if coarse is not None:
        note = "All points' maps added up: bright is where the photo shows what the references show."
        pictures["evidence"] = Picture("Loss maps over the photo", evidence_picture(entry.query, coarse), note)
        note = (
            "From the best explained point (top left) to the worst: its coarse map over the photo"
            + (", and its fine window beside it" if fine is not None else "")
            + ". Bright is a low loss. Support: share of what a certain, right map would give."
        )
        pictures["maps"] = Picture("Maps of single points", point_pictures(entry.query, coarse, fine, marks), note)
    features = entry.trace.features
    if features:
        note = "Query and first reference, from the finest level to the coarsest: alike is what has one colour."
        pictures["features"] = Picture("Features", feature_picture(features), note)
        if features[0].confidences:
            note = "Green is trusted, red is not; all levels together (geometric mean)."
            pictures["confidences"] = Picture(
                "Confidence", confidence_picture(entry.query, features[0].confidences), note
            )
    if entry.trace.courses:
        note = "Steps of one colour compare; from one colour to the next the objective changes."
        pictures["cost"] = Picture("Convergence", course_picture(entry.trace.courses), note, plot=True)
    return pictures


# -- the page ---------------------------------------------------------------------------------------------------------
def localization_report(
    entry: LocalizedQuery,
    map_name: str,
    software: SoftwareFacts,
    pictures: Sequence[Picture] = (),
    animation: bytes | None = None,
) -> str:
    """The whole HTML document of one query. animation: a GIF. Raises ValueError for an estimate that is not a single one."""
    if entry.estimate.pose.shape != ():
        raise ValueError(f"a report takes single estimates, got batch shape {tuple(entry.estimate.pose.shape)}")
    scene = entry.scene
    title = f"{Path(entry.query.name).name} in {map_name}"
    reference = f"the map {map_name}, {_count(len(scene), 'photo')}, {_count(len(scene.xyz), 'point')}"
    section = _section(entry, pictures, animation)
    return report_page(title, reference, [section], software, (*entry.messages, *software.warnings))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def length_unit(unit: str) -> str:
    """What stands after a length in a map."""
    return "m" if unit == "metre" else "(units of the map)"


def localization_verdict(estimate: PoseEstimate) -> str:
    """The answer in a sentence: where, how sure, and what is doubtful. Or why there is no pose."""
    if not has_pose(estimate):
        return f"No pose found: {_FAILURES.get(estimate.reasons[0] or '', 'the method gave no reason.')}"
    x, y, z = estimate.pose.center().tolist()
    doubts = "".join(f" Doubtful: {reason}." for reason in estimate.reasons_for_doubt)
    m = " m" if any(details.unit == "metre" for details in estimate.localization) else ""
    return (
        f"The camera stood at x {x:.3f}{m}, y {y:.3f}{m}, z {z:.3f}{m} of the map, confidence {float(estimate.confidence):.2f} "
        f"({estimate.verdict}).{doubts}"
    )


def _section(entry: LocalizedQuery, pictures: Sequence[Picture], animation: bytes | None) -> str:
    estimate, details = entry.estimate, entry.details
    sure = "direction" if estimate.verdict == "doubtful" else "found"
    state = sure if has_pose(estimate) else "failed"
    parts = [
        f'<section class="query"><h2><bdi>{escaped(entry.query.name)}</bdi></h2>',
        f'<p class="verdict {state}">{escaped(localization_verdict(estimate))}</p>',
        rows_table(_key_numbers(entry)),
        _stage_table(entry),
        stage_errors(entry),
    ]
    space = map_scene(entry)
    parts.append(viewer(space, _VIEW, _VIEW_NOTE) if space is not None else "")
    parts.append(point_chooser(entry, maps=bool(pictures)))
    parts += [picture_figure(picture) for picture in pictures]
    if animation is not None:
        words = "The points of the map on their way, step by step."
        parts.append(figure(data_uri(animation, "gif"), "Alignment", words))
    if has_pose(estimate):
        parts.append(_pose_numbers(estimate.pose))
    parts.append(intrinsics_note(query=entry.query))
    if details.timings:
        rows = [(stage, f"{1000 * seconds:.0f} ms") for stage, seconds in details.timings.items()]
        rows.append(("total", f"{1000 * sum(details.timings.values()):.0f} ms"))
        parts.append("<h3>Time</h3>" + rows_table(rows))
    return "\n".join(parts) + "\n</section>"


def _key_numbers(entry: LocalizedQuery) -> list[tuple[str, str]]:
    details = entry.details
    about = entry.estimate.probability_of
    meaning = f"the probability of {about}" if about else "no calibration says what it means"
    bar = meter(float(entry.estimate.confidence))
    rows = [("confidence", f"{bar} {entry.estimate.verdict}<br>{escaped(meaning)}")]
    if has_pose(entry.estimate) and entry.truth is not None:
        turned, apart = pose_errors(entry.estimate.pose, entry.truth)
        rows += [("error: rotation", f"{turned:.3f}°"), ("error: position", f"{apart:.4f} {length_unit(details.unit)}")]
    rows.append(("points", str(details.num_points)))
    rows.append(("references", escaped(", ".join(details.references) or "none")))
    for name, value in details.statistics.items():
        if name != "points":
            rows.append((name.replace("_", " "), f"{value:.4g}"))
    return rows


def _stage_table(entry: LocalizedQuery) -> str:
    """Where every stage was, from the result and from the truth."""
    if not entry.details.stages:
        return ""
    final = entry.estimate.pose if has_pose(entry.estimate) else None
    head = "<tr><th>stage</th><th>support</th><th>cost</th><th>to the result</th>"
    head += "<th>to the truth</th></tr>" if entry.truth is not None else "</tr>"
    rows = []
    for stage in entry.details.stages:
        cells = ["" if math.isnan(stage.cost) else f"{stage.support:.3f}", _number(stage.cost), _apart(stage, final)]
        cells += [_apart(stage, entry.truth)] if entry.truth is not None else []
        rows.append(f'<tr><td class="name">{escaped(stage.name)}</td>{"".join(f"<td>{c}</td>" for c in cells)}</tr>')
    return "<h3>Stages</h3>" + scrolled(f'<table class="overview">{head}{"".join(rows)}</table>')


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.5g}"


def _apart(stage: Stage, other: Pose | None) -> str:
    if other is None or not bool(stage.cam_from_world.is_finite()):
        return ""
    turned, apart = pose_errors(stage.cam_from_world, other)
    return f"{turned:.3f}°, {apart:.4f}"


def _pose_numbers(pose: Pose) -> str:
    matrix = "\n".join(" ".join(f"{float(v):10.6f}" for v in row) for row in pose.matrix())
    quaternion = " ".join(f"{float(v):10.6f}" for v in pose.quaternion())
    translation = " ".join(f"{float(v):10.6f}" for v in pose.t)
    return (
        "<h3>Pose</h3><p><code>cam_from_world</code> takes points of the map to the frame of the query camera "
        f"(x right, y down, z forward).</p><pre>{matrix}</pre>"
        f"<p>Quaternion w x y z, and translation:</p><pre>{quaternion}\n{translation}</pre>"
    )
