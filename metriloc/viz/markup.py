"""Pieces of HTML that the reports of poses share: pictures, the 3D view, intrinsics and small print."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

from metriloc.page import data_uri, document, embedded_json, escaped, figure, rows_table
from metriloc.types import View
from metriloc.viz.eye import first_eye
from metriloc.viz.pictures import Picture, Rgb, encode_jpeg, shrink
from metriloc.viz.scene import THUMBNAIL_SIDE, Scene

PICTURE_SIDE = 1000


@dataclass(frozen=True)
class SoftwareFacts:
    """What would be needed to get the same answer again. The date is a text, e.g. ISO 8601.

    >>> SoftwareFacts(version="1.0", method="xfeat", seed=3).seed
    3
    """

    version: str
    method: str
    weights: str = ""
    seed: int | None = 0
    date: str = ""
    warnings: tuple[str, ...] = ()


def picture_uri(rgb: Rgb, quality: int = 82) -> str:
    """A picture as the address of itself, a JPEG."""
    return data_uri(encode_jpeg(rgb, quality), "jpeg")


def picture_figure(picture: Picture) -> str:
    """A picture with its caption, made smaller than ``PICTURE_SIDE``.

    Of a tall column that is its width.
    """
    height, width = picture.rgb.shape[:2]
    rgb = shrink(picture.rgb, PICTURE_SIDE if height <= 2 * width else round(PICTURE_SIDE * height / width))
    size = (rgb.shape[1], rgb.shape[0])
    return figure(picture_uri(rgb), picture.title, picture.note, size=size, plot=picture.plot)


def viewer(scene: Scene, label: str, caption: str, side: int = THUMBNAIL_SIDE) -> str:
    """The 3D view. label: what it shows, for who cannot see it; caption: HTML that tells how it is used; side: pixels of
    the longer side of photos."""
    small = [None if f.thumbnail is None else shrink(f.thumbnail, side) for f in scene.frusta]
    images = [None if rgb is None else picture_uri(rgb, 75) for rgb in small]
    content = {**scene.to_json(images), "eye": first_eye(scene).to_json()}
    return (
        '<figure class="viewer"><div class="stage">'
        f'<canvas tabindex="0" role="img" aria-label="{escaped(label)}"></canvas>'
        '<button type="button">Reset view</button></div>'
        f'<script type="application/json">{embedded_json(content)}</script>'
        f"<figcaption>{caption} Drag to turn; pinch, or click and use the wheel, to zoom."
        "<noscript> The 3D view needs JavaScript.</noscript></figcaption></figure>"
    )


def report_page(
    title: str,
    reference: str,
    sections: Sequence[str],
    facts: SoftwareFacts,
    warnings: Sequence[str],
    lead: str = "Reference: ",
) -> str:
    """The page of a report. title, reference, warnings: text, escaped here; sections: HTML already; lead: before the
    reference."""
    shown = "".join(f'<p class="warning">{escaped(warning)}</p>' for warning in warnings)
    header = f'<h1>{escaped(title)}</h1>\n<p class="soft">{escaped(lead)}<bdi>{escaped(reference)}</bdi></p>\n{shown}'
    footer = f"<footer>\n<h3>How this was made</h3>\n{software_note(facts)}\n</footer>"
    body = "\n".join([f"<header>\n{header}\n</header>", *sections, footer])
    return document(title, body, script=report_script())


def report_script() -> str:
    """The script of reports: the 3D view, and the choice of points."""
    return script_of("viewer.js", "points.js")


@cache
def script_of(*files: str) -> str:
    """Scripts of this folder, for the policy of one page."""
    here = resources.files("metriloc.viz")
    return "\n".join(here.joinpath(name).read_text(encoding="utf-8") for name in files)


def intrinsics_note(**views: View) -> str:
    """The cameras of photos, and where their intrinsics came from. The photos are told by their role."""
    rows = []
    for role, view in views.items():
        camera = view.camera
        f, c, size = ([float(v) for v in values] for values in (camera.f, camera.c, camera.size))
        field = f", {math.degrees(2 * math.atan(size[0] / 2 / f[0])):.0f}° wide" if camera.model != "fisheye" else ""
        lens = "" if not camera.distortion.numel() else " " + " ".join(f"{float(v):.4g}" for v in camera.distortion)
        numbers = f"{size[0]:.0f}×{size[1]:.0f} px, f {f[0]:.1f} {f[1]:.1f}, c {c[0]:.1f} {c[1]:.1f}{field}; "
        rows.append((role, f"{numbers}{camera.model}{lens}<br>source: {escaped(view.intrinsics_source)}"))
    return "<h3>Intrinsics</h3>" + rows_table(rows)


def software_note(facts: SoftwareFacts) -> str:
    """What made the report."""
    rows = [("metriloc", facts.version), ("method", facts.method), ("weights", facts.weights), ("seed", facts.seed)]
    rows.append(("date", facts.date))
    return rows_table([(name, escaped(value)) for name, value in rows if value not in ("", None)])
