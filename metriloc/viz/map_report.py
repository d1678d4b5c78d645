"""The report of a map as one HTML string: what it holds, where its metres are from, what is weak, and all of it in 3D.

Same page, style and safety as the reports of poses: nothing is loaded from anywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from metriloc.mapping.check import MapCheck, PhotoTies, cameras_in_words, extent, median_depth
from metriloc.mapping.facts import MapFacts, scale_line
from metriloc.page import escaped, figure, figures, rows_table, scrolled
from metriloc.types import MapUnit
from metriloc.viz.markup import SoftwareFacts, picture_uri, report_page, viewer
from metriloc.viz.whole_map import ShownMap

REPORT_POINTS, REPORT_PHOTOS = 5000, 150
"""What of a map stands in its report, which is one file."""
_SIDE = 160
_ROWS, _WEAK, _NAMED, _ALIKE = 1000, 48, 20, 10
_VIEW = "3D view of the photos of the map where they were taken, and its points"
_NOTE = (
    "All photos where they were taken, the points in their colors (by height where no photo is at hand); the map is turned "
    "upright. Gray lines: the "
    "strongest ties between photos, by which the map holds together. Red: photos and ties that hang on little."
)


def map_report(shown: ShownMap, facts: MapFacts | None, name: str, software: SoftwareFacts) -> str:
    """The whole HTML document. name: of the map; facts: of ``map.json``, None for a map that was made elsewhere."""
    content, check = shown.content, shown.check
    unit: MapUnit = "unit of the map" if facts is None else facts.unit
    short = "m" if unit == "metre" else "units"
    sections = [
        '<section class="query">',
        f'<p class="verdict {"direction" if _doubtful(check, facts) else "found"}">{escaped(_verdict(shown, facts))}</p>',
        _numbers(shown, facts, short),
        viewer(shown.scene, _VIEW, _NOTE, side=_SIDE),
        _scale(facts),
        _weak(shown),
        _left_out(facts),
        _all_photos(check),
        "</section>",
    ]
    subtitle = f"{len(content)} photos, {len(content.xyz)} points"
    return report_page(f"Map {name}", subtitle, sections, software, software.warnings, lead="")


def _doubtful(check: MapCheck, facts: MapFacts | None) -> bool:
    disputed = facts is not None and facts.scale is not None and bool(facts.scale.contradictions)
    return bool(check.weak) or len(check.parts) > 1 or disputed


def _verdict(shown: ShownMap, facts: MapFacts | None) -> str:
    count, weak, parts = len(shown.content), len(shown.check.weak), shown.check.parts
    given = "" if facts is None else f" of {facts.given}"
    held = "no photo hangs on little" if not weak else f"{weak} {'hangs' if weak == 1 else 'hang'} on little"
    apart = "" if len(parts) <= 1 else f", and it falls into {len(parts)} parts that share hardly anything"
    unit = "made elsewhere: lengths are as whoever made it says" if facts is None else scale_line(facts)
    return f"{count}{given} photos in one map; {held}{apart}. {unit[0].upper()}{unit[1:]}."


def _numbers(shown: ShownMap, facts: MapFacts | None, unit: str) -> str:
    content = shown.content
    seen = content.track_lengths().double()
    tracks = f", each seen by {float(seen.mean()):.1f} photos on the mean" if len(seen) else ""
    rows = [
        ("photos", f"{len(content)}{'' if facts is None else f' of {facts.given}'}"),
        ("points", f"{len(content.xyz)}{tracks}"),
        ("extent", f"cameras within {extent(content):.3g} {unit}, things at {median_depth(content):.3g} {unit}"),
        ("cameras", "<br>".join(escaped(camera) for camera in cameras_in_words(content)[:_NAMED])),
    ]
    if facts is not None:
        rows.append(("error", f"{facts.error_px:.2f} px (mean, of reprojection)"))
        if facts.scale is not None and facts.scale.frame != "arbitrary":
            rows.append(("axes", escaped(facts.scale.frame)))
    return rows_table(rows)


def _scale(facts: MapFacts | None) -> str:
    if facts is None or facts.scale is None:
        return ""
    head = "<tr><th>source</th><th>what it says</th><th>sigma</th><th>share</th></tr>"
    rows = ""
    for source in facts.scale.sources:
        words = (str(source.get(key, "")) for key in ("name", "said"))
        numbers = (_percent(float(source.get(key, math.nan))) for key in ("sigma", "share"))
        rows += "<tr>" + "".join(f'<td class="name">{escaped(word)}</td>' for word in words)
        rows += "".join(f"<td>{number}</td>" for number in numbers) + "</tr>"
    disputes = "".join(f'<p class="warning">{escaped(sentence)}</p>' for sentence in facts.scale.disputes)
    sources = scrolled(f'<table class="overview">{head}{rows}</table>') if rows else ""
    return f"<h3>Where the metres are from</h3>{disputes}{sources}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g} %" if math.isfinite(value) else ""


def _weak(shown: ShownMap) -> str:
    check, parts = shown.check, []
    photos = {frustum.label: frustum.thumbnail for frustum in shown.scene.frusta}
    for photo in check.weak[:_WEAK]:
        picture = photos[photo.name]
        parts.append(figure("" if picture is None else picture_uri(picture), photo.name, photo.weak or ""))
    more = len(check.weak) - len(parts)
    told = [f"and {more} more photos that hang on little"] if more > 0 else []
    told += [f"{_names(part)}: hardly anything shared with the rest" for part in check.parts[1:]]
    told += [f"{a} and {b} were taken from one place: one of them adds nothing" for a, b in check.duplicates[:_NAMED]]
    told += [
        f"{pair.first} and {pair.second} should share {pair.expected} points and share {pair.shared}: two places that look "
        "alike, or photos that were never compared"
        for pair in check.alike[:_ALIKE]
    ]
    told += [f"and {len(check.alike) - _ALIKE} more pairs that should share more"] if len(check.alike) > _ALIKE else []
    head = "<h3>Weak ties</h3>" if parts or told else ""
    return head + figures(parts) + _list(told)


def _left_out(facts: MapFacts | None) -> str:
    if facts is None:
        return ""
    told = [*facts.left_out, *facts.notes]
    told += [f"{name}: in no map" for name in facts.alone]
    told += [f"{_names(names)}: a map of their own, which shares nothing with this one" for names in facts.others]
    return f"<h3>Not in the map</h3>{_list(told)}" if told else ""


def _names(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _list(sentences: Sequence[str]) -> str:
    items = "".join(f"<li>{escaped(sentence)}</li>" for sentence in sentences[:_ROWS])
    return f"<ul>{items}</ul>" if items else ""


def _all_photos(check: MapCheck) -> str:
    head = "<tr><th>photo</th><th>points</th><th>tied to</th><th>error</th></tr>"
    body = "".join(_row(photo) for photo in check.photos[:_ROWS])
    more = len(check.photos) - _ROWS
    note = f'<p class="soft">and {more} more</p>' if more > 0 else ""
    return f'<h3>Photos</h3>{scrolled(f"""<table class="overview">{head}{body}</table>""")}{note}'


def _row(photo: PhotoTies) -> str:
    error = "" if math.isnan(photo.error_px) else f"{photo.error_px:.2f} px"
    state = ' class="failed"' if photo.weak is not None else ""
    cells = f"<td>{photo.points}</td><td>{photo.ties}</td><td>{error}</td>"
    return f'<tr{state}><td class="name"><bdi>{escaped(photo.name)}</bdi></td>{cells}</tr>'
